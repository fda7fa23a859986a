"""What the scenarios share: the options, the workload, and a trial around one server."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import trio
from attrs import Factory, define, field, frozen
from benchmarks.overload_suite import results, server
from benchmarks.overload_suite.client import PATIENCE, ask
from benchmarks.overload_suite.http import address_of
from benchmarks.overload_suite.load import offer
from benchmarks.overload_suite.records import Ask, Ending, Record
from benchmarks.overload_suite.results import Result
from benchmarks.overload_suite.server import Server
from benchmarks.overload_suite.texts import CollectedTexts, ScriptedTexts, Texts, collect

from chatstream_trio.bench.http import Address

SCRIPTED = "scripted"
MOST_LINES = 60


@frozen(kw_only=True)
class Options:
    """What is measured, and how long."""

    seconds: float = 20.0
    """Of load in each case."""
    seed: int = 0
    model: str | None = "scripted:25"
    """Of the server that is started (None: the demo), or the name to ask for at ``url``."""
    url: str | None = None
    """Base URL of somebody else's server."""
    pid: int | None = None
    """Its process, where it is on this machine."""
    fields: Mapping[str, Any] = Factory(dict)
    """More fields of every request; not for the scripted model."""
    patience: float = PATIENCE
    """Seconds after which a request of the load is called hung."""
    max_active: int = 8
    max_waiting: int = 64
    tokens: int = 20
    """``max_tokens`` of a request."""
    factors: tuple[float, ...] = (0.5, 1, 2, 5, 10)
    """Of the capacity, in the scenario ``load``."""
    samples: int = 30
    """Hang-ups in each phase and mode."""
    soak_requests: int = 20_000

    @property
    def scripted(self) -> bool:
        """Whether answers, turn and capacity can be computed."""
        return (self.model or "").partition(":")[0] == SCRIPTED

    @property
    def turn(self) -> float | None:
        """Seconds a turn takes, where that is known."""
        if not self.scripted or self.url is not None:
            return None
        return float((self.model or "").partition(":")[2] or 10) / 1000


SHORT = Options(
    seconds=3.0,
    model="scripted:20",
    max_active=4,
    max_waiting=16,
    tokens=10,
    factors=(0.5, 5),
    samples=4,
    soak_requests=600,
)
"""Quick: a capacity of 20 requests/s, and a waiting room that is served in 0.8 s."""


@define
class Trial:
    """A server under test, and what was seen so far."""

    server: Server
    options: Options
    texts: Texts
    capacity: float
    """Requests per second."""
    result: Result
    rng: random.Random
    records: list[Record] = field(factory=list)
    began: float = 0.0
    seconds: float = 0.0

    def ask(self, number: int, **more: Any) -> Ask:
        """Request ``number`` of the workload."""
        return self.texts.ask(number, more.pop("max_tokens", self.options.tokens), **more)

    def begin(self, seconds: float | None = None) -> float:
        """The load begins; how long it lasts."""
        self.began = time.monotonic()
        self.seconds = self.options.seconds if seconds is None else seconds
        return self.seconds

    async def offer(self, times: list[float], **more: Any) -> None:
        """Offer the workload at these times."""
        make = more.pop("make", self.ask)
        patience = self.options.patience
        await offer(self.server.address, times, make, self.records, patience=patience, **more)

    @property
    def hold(self) -> float:
        """Seconds for which a request holds its seat."""
        return self.options.max_active / self.capacity


@define
class Bench:
    """The options, what has been measured, and what needs to be found out only once."""

    options: Options
    results: list[Result] = Factory(list)
    _texts: Texts | None = field(default=None, init=False)
    _capacity: float | None = field(default=None, init=False)

    def skip(self, scenario: str, why: str, case: str = "") -> None:
        """Note that a scenario cannot be run."""
        self.results.append(Result(scenario, case, not_available=why))

    @asynccontextmanager
    async def trial(
        self,
        scenario: str,
        case: str,
        *flags: str,
        ends: bool = False,
        one_line: bool = True,
        model: str | None = None,
        words: str | None = None,
    ) -> AsyncIterator[Trial]:
        """A fresh server, warm; afterwards the figures, what leaked, and what it said.

        Args:
            flags: More flags of the server.
            ends: The scenario ends the server itself.
            one_line: Whether all requests stand in one line, so that no place moves back.
            model: Another one than the options say.
            words: What the server must say; by default it says nothing.
        """
        result = Result(scenario, case)
        rng = random.Random(f"{self.options.seed} {scenario} {case}")
        async with self._serve(model, flags) as target:
            texts, capacity = await self._workload(target)
            trial = Trial(target, self.options, texts, capacity, result, rng)
            result.before = await target.quiet()
            trial.begin(0)
            began, used, own = time.monotonic(), target.cpu_seconds(), time.process_time()
            yield trial
            seconds = time.monotonic() - began
            result.generator_cores = round((time.process_time() - own) / seconds, 3)
            if used is not None and (now := target.cpu_seconds()) is not None:
                result.server_cores = round((now - used) / seconds, 3)
            if not ends:
                result.health = await target.health()
                result.after = await target.settle(result.before)
                if more := result.after.more_than(result.before):
                    result.problems.append(f"left behind: {more}")
        if trial.records:
            result.figures = results.figures(trial.records, trial.began, trial.seconds)
            result.problems += results.broken_laws(result.figures, one_line=one_line)
        result.problems += _bad_end(target, words)
        self.results.append(result)

    def _serve(
        self, model: str | None, flags: tuple[str, ...]
    ) -> AbstractAsyncContextManager[Server]:
        options = self.options
        if options.url is not None:
            return nullcontext(Server(address_of(options.url), pid=options.pid))
        model = model or options.model
        chosen = () if model is None else ("--model", model)
        room = ("active", options.max_active), ("waiting", options.max_waiting)
        limits = [f"--max-{name}={count}" for name, count in room]
        # Most scenarios come from one client, and fill the whole room.
        limits.append(f"--max-waiting-per-key={options.max_waiting}")
        return server.running(*chosen, *_last_of_each([*limits, *flags]))

    async def _workload(self, target: Server) -> tuple[Texts, float]:
        """What to ask, and how much of it the server can do; this warms the server up, too."""
        options = self.options
        name = options.model if options.url is not None else None
        if self._texts is None and options.scripted:
            self._texts = ScriptedTexts(SCRIPTED if name else None)
        elif self._texts is None:
            empty = CollectedTexts(name, {}, options.fields)
            self._texts = await collect(target.address, empty, options.tokens)
        await _all_seats(target.address, self._texts, options, rounds=1)
        if self._capacity is None and options.turn:
            self._capacity = options.max_active / (options.tokens * options.turn)
        elif self._capacity is None:
            self._capacity = await _all_seats(target.address, self._texts, options, rounds=5)
        return self._texts, self._capacity


async def _all_seats(address: Address, texts: Texts, options: Options, *, rounds: int) -> float:
    """Fill all seats some times over; requests per second."""
    records: list[Record] = []
    numbers = itertools.count()
    began = time.monotonic()

    async def one() -> None:
        for number in itertools.islice(numbers, rounds):
            what = texts.ask(number, options.tokens)
            records.append(await ask(address, what, patience=options.patience))

    async with trio.open_nursery() as nursery:
        for _ in range(options.max_active):
            nursery.start_soon(one)
    served = [r for r in records if r.ending is Ending.SERVED]
    if not served:
        raise RuntimeError(f"an idle server serves nobody: {records[0].ending} {records[0].error}")
    return len(served) / (time.monotonic() - began)


def _last_of_each(flags: list[str]) -> list[str]:
    return list({flag.partition("=")[0]: flag for flag in flags}.values())


def _bad_end(target: Server, words: str | None) -> list[str]:
    if target.process is None:
        return []
    bad = []
    said = target.unexpected
    if words is not None and not any(words in line for line in said):
        bad.append(f"the server did not say {words!r}")
    elif words is None and said:
        bad.append("the server said:\n" + "\n".join(said[:MOST_LINES]))
    if target.process.returncode != 0:
        bad.append(f"the server's exit code was {target.process.returncode}")
    return bad
