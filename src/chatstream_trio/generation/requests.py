"""The requests that are live, by id, and those that ended lately. No seats and no engine here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import trio
from attrs import define, field

from chatstream_trio.errors import ChatStreamError, IdInUse, StreamCancelled, StreamNotFound
from chatstream_trio.generation.ended import Ended, EndedRequests
from chatstream_trio.generation.generation import Generation

SILENCE_SECONDS = 5.0
"""After so long at most without an event, a reader who wants to know of it is told."""
SILENCE_TICK = 0.5
"""Seconds between two looks at who has had no event."""


@define(eq=False)
class Requests:
    """Who is there; iterating gives the live generations, in the order of their arrival."""

    _live: dict[str, Sequence[Generation]] = field(factory=dict, init=False)
    """By id, which is one request's alone: a generation for each of its choices."""
    _earlier: dict[str, Callable[[], int]] = field(factory=dict, init=False)
    """By id: tokens of prompts that it was done with before."""
    _ended: EndedRequests = field(factory=EndedRequests, init=False)
    _nobody_left: trio.Event = field(factory=trio.Event, init=False)  # made anew by who waits

    def __iter__(self) -> Iterator[Generation]:
        return chain.from_iterable(list(self._live.values()))

    def check_id(self, id: str) -> None:
        """Pass if nobody has the id.

        Raises:
            IdInUse: Another live request has it.
        """
        if id in self._live:
            raise IdInUse(f"another live request has the id {id!r}", param="id")

    def add(
        self, id: str, generations: Sequence[Generation], earlier: Callable[[], int] = lambda: 0
    ) -> None:
        """A request is live from now on.

        Args:
            id: Its own alone.
            generations: At least one; there may be others later.
            earlier: Tokens of the prompts of those that were there before.
        """
        self._live[id], self._earlier[id] = generations, earlier

    def remove(self, id: str) -> None:
        """The scope of a request is over: remember how it ended, and let go."""
        generations, earlier = self._live.pop(id), self._earlier.pop(id)
        self._ended.remember(Ended.of(generations, earlier()))
        for generation in reversed(generations):  # so that none begins when the first has ended
            generation.close()
        if not self._live:
            self._nobody_left.set()

    def cancel(self, id: str, key: str | None) -> Ended:
        """End a live request by its id; of one that is over, say how it ended.

        Args:
            id: Which.
            key: Who asks; only a request of this key is found. None: whoosever it is.

        Raises:
            StreamNotFound: No live or lately ended request of this key has this id.
        """
        generations = self._live.get(id, ())
        if generations and key in (None, generations[0].key):
            for generation in reversed(generations):
                generation.fail(StreamCancelled("the request was cancelled by its id"))
            return Ended.of(generations, self._earlier[id]())
        ended = None if generations else self._ended.find(id)
        if ended is None or key not in (None, ended.key):
            raise StreamNotFound(f"no request has the id {id!r}", param="id")
        return ended

    def fail(self, make_error: Callable[[], ChatStreamError]) -> None:
        """End them all, each with an error of its own."""
        for generation in reversed(list(self)):
            generation.fail(make_error())

    async def until_empty(self) -> None:
        """Wait until no request is live."""
        while self._live:
            self._nobody_left = trio.Event()
            await self._nobody_left.wait()

    async def tell_silence(self) -> None:
        """Tell readers of silence, for ever. One clock for all of them: a deadline of its own for
        each wait would cost a third of what a piece of text costs."""
        while True:
            await trio.sleep(SILENCE_TICK)
            since = trio.current_time() - (SILENCE_SECONDS - SILENCE_TICK)
            for generation in self:
                generation.readers.hear_silence(since)
