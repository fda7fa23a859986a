"""A model, its engine, its seats and its waiting room, put together; and what can be seen of them.

It starts nothing and takes no request: the service does. It does not know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from typing import TypeVar

import trio
from attrs import frozen

from chatstream_trio.admission.admission import Admission
from chatstream_trio.admission.statistics import AdmissionStatistics
from chatstream_trio.aside.threads import SideThreads
from chatstream_trio.engine.drivers import TaskDriver, ThreadDriver
from chatstream_trio.engine.engine import LocalEngine
from chatstream_trio.engine.face import Engine, EngineState, EngineStatistics
from chatstream_trio.engine.messages import WorkerSpec
from chatstream_trio.engine.runner import RunnerInfo
from chatstream_trio.errors import Draining, EngineFailed, InvalidRequest, Loading, ModelNotServed
from chatstream_trio.generation.requests import Requests
from chatstream_trio.generation.state import GenerationStatus
from chatstream_trio.keeper import Keeper
from chatstream_trio.models import Model, Progress
from chatstream_trio.settings import Settings
from chatstream_trio.text.codec import Codec

T = TypeVar("T")

ANY_NAME = "*"
LONGEST_SPACING = 0.1
"""Seconds between two pieces of a stream's text, however many streams there are: readers see no
halting."""


class Health(Enum):
    """Whether a request sent now could be served; the values are those of ``/health``."""

    OK = "ok"
    LOADING = "loading"
    DRAINING = "draining"
    FAILED = "failed"


_WORST_FIRST = (Health.FAILED, Health.DRAINING, Health.LOADING, Health.OK)


@frozen
class Status:
    """Everything at one moment."""

    health: Health
    draining: bool
    admission: AdmissionStatistics
    engine: EngineStatistics
    streams: tuple[GenerationStatus, ...]


@frozen
class Names:
    """By which names clients may ask for the one model that is served."""

    said: tuple[str, ...]
    """At least one. The first is what replies say."""
    any: bool = False
    """Whether every other name will do as well."""

    @classmethod
    def of(cls, own: str, given: Sequence[str]) -> Names:
        """Those that are given, where ``*`` is any; else the model's own."""
        said = tuple(name for name in given if name != ANY_NAME)
        return cls(said or (own,), ANY_NAME in given)

    @property
    def first(self) -> str:
        """The model's id."""
        return self.said[0]

    def check(self, name: str | None) -> None:
        """Pass if this is a name of the model, or none at all.

        Raises:
            ModelNotServed: It is another's.
        """
        if name is not None and not self.any and name not in self.said:
            raise ModelNotServed(
                f"the model {name[:200]!r} is not served here; {self.first!r} is", param="model"
            )


class House:
    """All parts of a service, and who tells whom."""

    def __init__(
        self,
        settings: Settings,
        model: Model,
        progress: Progress,
        nursery: trio.Nursery,
        *,
        threaded: bool,
        weights: Mapping[str, float] | None,
        host: House | None = None,
    ) -> None:
        """``host``: whose second model this is; it shares ids, side threads and the end."""
        self._host = host
        self.settings = settings
        self.names = Names.of(model.id, settings.served_model_name)
        self._model = model
        self._admission = Admission(
            settings.max_active,
            settings.max_waiting,
            max_active_per_key=settings.max_active_per_key,
            max_waiting_per_key=settings.max_waiting_per_key,
            weights={**_weights_of(settings), **(weights or {})},
            on_change=self._changed,
        )
        self._engine: Engine = LocalEngine(
            WorkerSpec(model.load_runner, settings.prefill_chunk, settings.speculate),
            driver=ThreadDriver if threaded else TaskDriver,
            on_progress=progress,
            on_lost=self._admission.pause,
        )
        self._keeper = Keeper(
            self._engine, model.id, on_ready=self._admission.resume, on_lost=self._changed
        )
        self._nursery = nursery
        self._codec: Codec | None = None
        self._side: SideThreads = SideThreads(threaded) if host is None else host._side
        self._requests: Requests = Requests() if host is None else host._requests
        self._draining = False
        self.started_at = trio.current_time()
        self.version = 0
        """Counts the changes of who sits, waits, generates or is gone."""
        self._change = trio.Event()

    @property
    def seconds(self) -> Sequence[House]:
        """Its second models: one or none."""
        return ()

    @property
    def is_second(self) -> bool:
        """Whether this is another's second model, which gives vectors."""
        return self._host is not None

    @property
    def draining(self) -> bool:
        """Whether nothing new is taken."""
        return self._draining if self._host is None else self._host.draining

    @property
    def model_id(self) -> str:
        """What the model is called in replies."""
        return self.names.first

    @cached_property
    def fingerprint(self) -> str:
        """What is the same as long as model, version and all settings that shape answers are."""
        names = ("model", "device", "dtype", "quantize", "compile", "batch_invariant", "speculate")
        shaped = [str(getattr(self.settings, name)) for name in names]
        said = "\0".join([self.model_id, version("chatstream-trio"), *shaped])
        return f"fp_{sha256(said.encode()).hexdigest()[:10]}"

    @property
    def failure(self) -> Exception | None:
        """What ended the engine, or kept it from starting; None while all is well."""
        return self._keeper.failure

    @property
    def abandoned(self) -> bool:
        """Whether a thread was left behind in a load or a turn that would not end."""
        return self._engine.abandoned or any(it.abandoned for it in self.seconds)

    def check(self) -> None:
        """Pass if a request can be taken.

        Raises:
            Loading, Draining, EngineFailed: It cannot.
        """
        if self.draining:
            raise Draining("the server is shutting down")
        if self.failure is not None:
            raise EngineFailed(str(self.failure))
        self._engine.check()

    def check_number(self, number: int, param: str) -> None:
        """Pass if so many answers of one client may sit at once; ``param`` asks for them.

        Raises:
            InvalidRequest: They may not, and so would wait for one another for ever.
        """
        most = min(self.settings.max_active, self.settings.max_active_per_key or number)
        if number > most:
            raise InvalidRequest(
                f"{number} answers are asked for at once; at most {most} can be", param=param
            )

    @property
    def health(self) -> Health:
        """Whether a request sent now could be served: by all models, where there are two."""
        states = {self._own_health, *(it.health for it in self.seconds)}
        return next(it for it in _WORST_FIRST if it in states)

    @property
    def _own_health(self) -> Health:
        engine = self._engine.statistics()
        hangs = engine.turn_seconds > self.settings.turn_timeout
        if self.failure is not None or engine.state is EngineState.ENDED or hangs:
            return Health.FAILED
        if self.draining:
            return Health.DRAINING
        return Health.OK if engine.state is EngineState.READY else Health.LOADING

    @property
    def info(self) -> RunnerInfo:
        """The loaded model's description.

        Raises:
            Loading: It is not loaded yet.
        """
        return self._engine.info

    @property
    def codec(self) -> Codec:
        """The loaded model's words; safe in several threads.

        Raises:
            Loading: It is not loaded yet.
        """
        if self._codec is None:
            raise Loading("the model is still loading")
        return self._codec

    async def _load_codec(self) -> None:
        self._codec = await self._side.run(self._model.load_codec, size=0)

    async def aside(self, work: Callable[[], T], *, size: int) -> T:
        """Do what takes a while and changes nothing in a thread of the side.

        Args:
            work: What is to be done.
            size: How much that is, about, in bytes: what is large has a thread of its own.
        """
        return await self._side.run(work, size=size)

    def _spacing(self) -> float:
        """Seconds between two pieces of a stream's text, so that all together keep the rate; none
        for who is alone."""
        others = max(0, self._admission.active - 1)
        return min(LONGEST_SPACING, others / self.settings.chunks_per_second)

    def _changed(self) -> None:
        self.version += 1
        self._change.set()
        if self._host is not None:
            self._host._changed()

    async def changed_since(self, version: int) -> None:
        """Wait until there is a newer :attr:`version` than this."""
        while self.version <= version:
            if self._change.is_set():
                self._change = trio.Event()
            await self._change.wait()

    def status(self) -> Status:
        """Everything at this moment."""
        return Status(
            health=self.health,
            draining=self.draining,
            admission=self._admission.statistics(),
            engine=self._engine.statistics(),
            streams=tuple(GenerationStatus.of(generation) for generation in self._requests),
        )


def _weights_of(settings: Settings) -> dict[str, float]:
    """Client key -> its share of the seats, where that is not 1."""
    return {key.client: key.weight for key in settings.keys if key.weight != 1}
