"""The measurement itself: users or arrivals, for some time or a number of requests."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import Enum
from itertools import count

import trio
from attrs import define, field

from chatstream_trio.bench.client import ask, chat_request, first_model
from chatstream_trio.bench.connections import Connections
from chatstream_trio.bench.http import Address
from chatstream_trio.bench.options import BenchOptions
from chatstream_trio.bench.report import BenchReport, make_report
from chatstream_trio.bench.sample import Sample, SampleEnding
from chatstream_trio.bench.workload import arrivals, body_of, prompt_maker

MOST_PAUSE = 1.0
"""Seconds that a user rests who was refused, if the server asks for as much; without a word from
it, too."""


class Phase(Enum):
    """Where a measurement stands."""

    CONNECTING = "connecting"
    WARMING_UP = "warming up"
    MEASURING = "measuring"


@define
class Measurement:
    """Run it once, and ask it for its report; also when it was cancelled in the middle."""

    options: BenchOptions
    phase: Phase = field(default=Phase.CONNECTING, init=False)
    model: str | None = field(default=None, init=False)
    samples: list[Sample] = field(factory=list, init=False)
    """The requests that were sent, in order; the last of them may still run."""
    began: float = field(default=0.0, init=False)
    _over: float | None = field(default=None, init=False)
    _cpu: float = field(default=0.0, init=False)
    _prompt: Callable[[int], str] = field(init=False)
    _connections: Connections = field(init=False)
    _numbers: count[int] = field(factory=count, init=False)
    """A number for each request, those that warm up too: each has a prompt of its own."""

    def __attrs_post_init__(self) -> None:
        self._prompt = prompt_maker(self.options)
        self._connections = Connections(Address.of(self.options.url))

    async def run(self) -> None:
        """Measure.

        Raises:
            NoServer: Nobody answers, or the server names no model and the options name none.
        """
        options = self.options
        try:
            named = await first_model(
                self._connections, options.api_key, wanted=options.model is None
            )
            self.model = options.model or named
            self.phase = Phase.WARMING_UP
            await self._warm_up()
            self.phase = Phase.MEASURING
            self.began, self._cpu = time.monotonic(), time.process_time()
            await (self._closed_loop() if options.rate is None else self._open_loop(options.rate))
            self._over = time.monotonic()
        finally:
            await self._connections.close()

    def report(self) -> BenchReport:
        """The figures of everything so far."""
        over = time.monotonic() if self._over is None else self._over
        return make_report(
            self.options,
            self.model,
            self.samples,
            seconds=over - self.began if self.began else 0.0,
            cpu_seconds=time.process_time() - self._cpu,
        )

    async def _warm_up(self) -> None:
        async def one(user: int) -> None:
            for _ in range(self.options.warmup):
                await self._ask(Sample(user, 0.0, 0.0))

        async with trio.open_nursery() as nursery:
            for user in range(self.options.clients):
                nursery.start_soon(one, user)

    async def _closed_loop(self) -> None:
        async with trio.open_nursery() as nursery:
            for user in range(self.options.clients):
                nursery.start_soon(self._use, user)

    async def _use(self, user: int) -> None:
        while not self._enough(time.monotonic()):
            sample = self._sample(user, time.monotonic())
            await self._ask(sample)
            if sample.outcome is not SampleEnding.DONE:
                wanted = MOST_PAUSE if sample.retry_after is None else sample.retry_after
                await trio.sleep(min(MOST_PAUSE, wanted))

    async def _open_loop(self, rate: float) -> None:
        async with trio.open_nursery() as nursery:
            for at in arrivals(rate, random.Random(self.options.seed)):
                due = self.began + at
                if self._enough(due):
                    return
                if (wait := due - time.monotonic()) > 0:
                    await trio.sleep(wait)
                nursery.start_soon(self._ask, self._sample(0, due))

    def _enough(self, now: float) -> bool:
        """Whether a request that would be sent now is one too many."""
        seconds = self.options.sending_seconds
        if seconds is not None:
            return now >= self.began + seconds
        return len(self.samples) >= (self.options.requests or 0)

    def _sample(self, user: int, scheduled: float) -> Sample:
        sample = Sample(user, scheduled, scheduled)
        self.samples.append(sample)
        return sample

    async def _ask(self, sample: Sample) -> None:
        body = body_of(self.options, self.model, self._prompt(next(self._numbers)))
        wire = chat_request(self._connections.address, self.options.api_key, body)
        await ask(self._connections, wire, sample, self.options.timeout)


async def run_bench(options: BenchOptions) -> BenchReport:
    """Put a load on a server and say how it was carried. Runs under Trio.

    Errors of the server are counted in the report, not raised.

    Raises:
        NoServer: Nobody answers at the URL, or the server names no model and the options name none.
    """
    measurement = Measurement(options)
    await measurement.run()
    return measurement.report()
