"""The service: what owns the engine and the house, and gives out requests as scopes.

This is the public Python API. It does not know HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from enum import Enum
from functools import partial
from typing import TypeVar

import trio
from attrs import frozen

from chatstream_trio.admission.admission import Admission, AdmissionStatistics
from chatstream_trio.aside.threads import SideThreads
from chatstream_trio.engine.drivers import TaskDriver, ThreadDriver
from chatstream_trio.engine.engine import LocalEngine
from chatstream_trio.engine.face import Engine, EngineState, EngineStatistics
from chatstream_trio.engine.messages import WorkerSpec
from chatstream_trio.engine.runner import RunnerInfo
from chatstream_trio.errors import (
    Draining,
    EngineFailed,
    IdInUse,
    InvalidRequest,
    StreamCancelled,
    StreamNotFound,
)
from chatstream_trio.generation.ended import Ended, EndedRequests
from chatstream_trio.generation.generation import Generation
from chatstream_trio.generation.state import GenerationStatus
from chatstream_trio.keeper import Keeper
from chatstream_trio.models import Model, Progress, find_model
from chatstream_trio.progress import loading_bar
from chatstream_trio.request import ChatRequest
from chatstream_trio.settings import Settings
from chatstream_trio.text.codec import Codec, Prompt

T = TypeVar("T")

LONGEST_SPACING = 0.1
"""Seconds between two pieces of a stream's text, however many streams there are: readers see no
halting."""
SILENCE_SECONDS = 5.0
"""After so long at most without an event, a reader who wants to know of it is told."""
SILENCE_TICK = 0.5
"""Seconds between two looks at who has had no event."""


class Health(Enum):
    """Whether a request sent now could be served; the values are those of ``/health``."""

    OK = "ok"
    LOADING = "loading"
    DRAINING = "draining"
    FAILED = "failed"


@frozen
class Status:
    """What :meth:`ChatStream.status` returns."""

    health: Health
    draining: bool
    admission: AdmissionStatistics
    engine: EngineStatistics
    streams: tuple[GenerationStatus, ...]


class ChatStream:
    """A model, its engine, its seats and its waiting room. Make one with :meth:`open`."""

    def __init__(
        self,
        settings: Settings,
        model: Model,
        progress: Progress,
        nursery: trio.Nursery,
        *,
        threaded: bool,
        weights: Mapping[str, float] | None,
    ) -> None:
        self.settings = settings
        self.model_id = model.id
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
        self._side = SideThreads(threaded)
        self._live: dict[str, Generation] = {}
        self._ended = EndedRequests()
        self._draining = False
        self._nobody_left = trio.Event()
        self.started_at = trio.current_time()
        self.version = 0
        """Counts the changes of who sits, waits, generates or is gone."""
        self._change = trio.Event()

    # ---- Life

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings = Settings(),
        *,
        model: Model | None = None,
        wait: bool = True,
        progress: Progress | None = None,
        weights: Mapping[str, float] | None = None,
        threaded: bool = True,
    ) -> AsyncIterator[ChatStream]:
        """Load a model and serve it until the block ends; then end everything that was started.

        Args:
            settings: Of these, the ones about the model, the house and the engine count.
            model: Serve this one instead of what ``settings.model`` names.
            wait: False gives the service at once, while it loads: requests raise ``Loading``.
            progress: Told how much is loaded. Without it, a progress bar is
                shown if stderr is a terminal.
            weights: For keys that are your own (see :meth:`generate`): key -> its share of the
                seats, relative to the other keys that wait; 1 where it is not named. Those of the
                settings' keys are known.
            threaded: False runs the turns in a task, in the event loop's (maybe virtual) time:
                for tests with a scripted runner.

        Raises:
            ModelNotFound, ModelNotLoaded, ModelNotSupported: with ``wait``, or at once.
        """
        model = model or find_model(settings)
        bar = nullcontext(progress) if progress else loading_bar(model.id)
        failure: Exception | None = None
        with bar as tell:
            async with trio.open_nursery() as nursery:
                chat = cls(settings, model, tell, nursery, threaded=threaded, weights=weights)
                nursery.start_soon(chat._admission.deal)
                nursery.start_soon(chat._keeper.run, chat._load_codec)
                nursery.start_soon(chat._tell_silence)
                try:
                    if wait:
                        await chat.ready()
                    yield chat
                except Exception as error:
                    failure = error  # the block's own: raised bare, outside of the nursery
                finally:
                    chat.cut()
                    nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def ready(self) -> RunnerInfo:
        """Wait until the model is loaded.

        Raises:
            ModelNotFound, ModelNotLoaded, ModelNotSupported: It cannot be.
        """
        await self._keeper.ready()
        return self._engine.info

    async def _load_codec(self) -> None:
        self._codec = await self._side.run(self._model.load_codec, size=0)

    async def aside(self, work: Callable[[], T], *, size: int) -> T:
        """Do what takes a while and changes nothing in a thread of the side.

        Args:
            work: What is to be done.
            size: How much that is, about, in bytes: what is large has a thread of its own.
        """
        return await self._side.run(work, size=size)

    @property
    def failure(self) -> Exception | None:
        """What ended the engine, or kept it from starting; None while all is well."""
        return self._keeper.failure

    @property
    def abandoned(self) -> bool:
        """Whether a thread was left behind in a load or a turn that would not end."""
        return self._engine.abandoned

    # ---- Requests

    @asynccontextmanager
    async def generate(
        self, request: ChatRequest, *, id: str | None = None, key: str = ""
    ) -> AsyncIterator[Generation]:
        """One request as a scope: enter it and its place is taken, leave it and all is given back.

        Entering takes the ticket first, then measures the prompt while the ticket keeps its place.
        The value is the async iterator of its events.

        Args:
            request: What is asked.
            id: Under which it can be cancelled; by default a fresh one, of 24 hex digits.
            key: Whose request it is: seats are dealt fairly among keys.

        Raises:
            Loading, Draining, EngineFailed: This service takes no requests at this moment.
            IdInUse: Another live request has the id.
            QueueFull, TooManyForKey: All seats and places are taken, or all that a key may have.
            InvalidRequest, ContextTooLong: The model cannot read this conversation.
        """
        self.check()
        codec = self._codec
        assert codec is not None
        id = id or secrets.token_hex(12)
        if id in self._live:
            raise IdInUse(f"another live request has the id {id!r}", param="id")
        generation = Generation(
            request,
            id=id,
            key=key,
            engine=self._engine,
            on_change=self._changed,
            spacing=self._spacing,
        )
        generation.take_ticket(self._admission.enter)
        self._live[id] = generation
        try:
            if timeouts := request.timeouts.under(self.settings.timeouts):
                self._nursery.start_soon(generation.phases.keep, timeouts, generation.fail)
            read = partial(_read, codec, request, self._engine.info)
            prompt = await self._side.run(read, size=request.size)
            generation.prepare(prompt, codec.stop_tokens(request.stop))
            yield generation
        finally:
            self._forget(generation)

    def check(self) -> None:
        """Pass if a request can be taken.

        Raises:
            Loading, Draining, EngineFailed: It cannot.
        """
        if self._draining:
            raise Draining("the server is shutting down")
        if self.failure is not None:
            raise EngineFailed(str(self.failure))
        self._engine.check()

    def _forget(self, generation: Generation) -> None:
        """The scope is over: remember how it ended, and let go."""
        del self._live[generation.id]
        self._ended.remember(Ended.of(generation))
        generation.close()
        self._changed()
        if not self._live:
            self._nobody_left.set()

    def cancel(self, id: str, *, key: str | None = None) -> Ended:
        """End a live request by its id; its reader gets :class:`StreamCancelled`.

        Args:
            id: Which.
            key: Who asks; only a request of this key is found. None: whoosever it is.

        Returns:
            How it ended; the same again for a minute, also if it ended in another way.

        Raises:
            StreamNotFound: No live or lately ended request of this key has this id.
        """
        generation = self._live.get(id)
        if generation is not None and key in (None, generation.key):
            generation.fail(StreamCancelled("the request was cancelled by its id"))
            return Ended.of(generation)
        ended = None if generation is not None else self._ended.find(id)
        if ended is None or key not in (None, ended.key):
            raise StreamNotFound(f"no request has the id {id!r}", param="id")
        return ended

    async def _tell_silence(self) -> None:
        """One clock for all readers: a deadline of its own for each wait would cost a third of
        what a piece of text costs."""
        while True:
            await trio.sleep(SILENCE_TICK)
            since = trio.current_time() - (SILENCE_SECONDS - SILENCE_TICK)
            for generation in self._live.values():
                generation.readers.hear_silence(since)

    # ---- The end

    async def drain(self, seconds: float) -> None:
        """Take nothing new; let what is here finish; after ``seconds``, cut what is left.

        Returns when the last request is over. Cancel it to stop waiting and call :meth:`cut`.
        """
        self._draining = True
        self._changed()
        with trio.move_on_after(seconds):
            await self.until_empty()
            return
        self.cut()

    async def until_empty(self) -> None:
        """Wait until no request is live."""
        while self._live:
            self._nobody_left = trio.Event()
            await self._nobody_left.wait()

    def cut(self) -> None:
        """End all requests now; their readers get :class:`Draining`."""
        self._draining = True
        for generation in list(self._live.values()):
            generation.fail(Draining("the server is shutting down"))

    # ---- What can be seen

    @property
    def health(self) -> Health:
        """Whether a request sent now could be served."""
        engine = self._engine.statistics()
        hangs = engine.turn_seconds > self.settings.turn_timeout
        if self.failure is not None or engine.state is EngineState.ENDED or hangs:
            return Health.FAILED
        if self._draining:
            return Health.DRAINING
        return Health.OK if engine.state is EngineState.READY else Health.LOADING

    @property
    def info(self) -> RunnerInfo:
        """The loaded model's description.

        Raises:
            Loading: It is not loaded yet.
        """
        return self._engine.info

    def _spacing(self) -> float:
        """Seconds between two pieces of a stream's text, so that all together keep the rate; none
        for who is alone."""
        others = max(0, self._admission.active - 1)
        return min(LONGEST_SPACING, others / self.settings.chunks_per_second)

    def _changed(self) -> None:
        self.version += 1
        self._change.set()

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
            draining=self._draining,
            admission=self._admission.statistics(),
            engine=self._engine.statistics(),
            streams=tuple(generation.status() for generation in self._live.values()),
        )


def _weights_of(settings: Settings) -> dict[str, float]:
    """Client key -> its share of the seats, where that is not 1."""
    return {key.client: key.weight for key in settings.keys if key.weight != 1}


def _read(codec: Codec, request: ChatRequest, info: RunnerInfo) -> Prompt:
    prompt = codec.read(request.conversation, info.max_model_len)
    if max(prompt.tokens) >= info.vocab_size:
        raise InvalidRequest("the prompt has a token that the model lacks", param="messages")
    return prompt
