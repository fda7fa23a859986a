"""The requests that are live, by id, and those that ended lately. No seats and no engine here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

    _live: dict[str, Generation] = field(factory=dict, init=False)  # by id, which is one's alone
    _ended: EndedRequests = field(factory=EndedRequests, init=False)
    _nobody_left: trio.Event = field(factory=trio.Event, init=False)  # made anew by who waits

    def __iter__(self) -> Iterator[Generation]:
        return iter(list(self._live.values()))

    def check_id(self, id: str) -> None:
        """Pass if nobody has the id.

        Raises:
            IdInUse: Another live request has it.
        """
        if id in self._live:
            raise IdInUse(f"another live request has the id {id!r}", param="id")

    def add(self, generation: Generation) -> None:
        """It is live from now on."""
        self._live[generation.id] = generation

    def remove(self, generation: Generation) -> None:
        """Its scope is over: remember how it ended, and let go."""
        del self._live[generation.id]
        self._ended.remember(Ended.of(generation))
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
        generation = self._live.get(id)
        if generation is not None and key in (None, generation.key):
            generation.fail(StreamCancelled("the request was cancelled by its id"))
            return Ended.of(generation)
        ended = None if generation is not None else self._ended.find(id)
        if ended is None or key not in (None, ended.key):
            raise StreamNotFound(f"no request has the id {id!r}", param="id")
        return ended

    def fail(self, make_error: Callable[[], ChatStreamError]) -> None:
        """End them all, each with an error of its own."""
        for generation in self:
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
