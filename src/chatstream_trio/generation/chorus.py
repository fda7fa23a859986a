"""One reader of several generations: the choices of one request, each with its number.

It waits for all of them at once, and takes from each in turn what is there. Where there is only
one, it is that one's reader. This module knows no engine, and no bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from chatstream_trio.events import Event, Queued, Usage
from chatstream_trio.generation.generation import Generation
from chatstream_trio.generation.phases import Phases
from chatstream_trio.generation.reader import Bell, Reader


class Chorus:
    """The async iterator of ``(choice, event)``: all events of each choice, in its order.

    Iterating raises the error of the first choice that fails, after the events of all that came
    before it. It is safe to cancel: an event is taken only when it is returned.
    """

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._generations = generations
        self._bell = Bell()
        self._readers = [generation.read(bell=self._bell) for generation in generations]
        self._left: list[tuple[int, Reader]] = list(
            enumerate(self._readers)
        )  # who was heard last is last

    def __len__(self) -> int:
        """How many choices there are."""
        return len(self._readers)

    def __aiter__(self) -> Chorus:
        return self

    async def __anext__(self) -> tuple[int, Event]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if (said := self.take()) is not None:
                return said
            if not self._left:
                raise StopAsyncIteration
            await self._bell.wait()

    def take(self) -> tuple[int, Event] | None:
        """The next event, if there is one already.

        Raises:
            ChatStreamError: That is how a choice ended.
        """
        for choice, reader in list(self._left):
            try:
                event = reader.take()
            except StopAsyncIteration:
                self._left.remove((choice, reader))
                continue
            if event is not None:
                if len(self._left) > 1:
                    self._left.remove((choice, reader))
                    self._left.append((choice, reader))
                return choice, event
        return None

    def usage(self, choice: int) -> Usage:
        """Tokens of a choice so far; maybe more than was read of it yet."""
        return self._generations[choice].usage

    def phases(self, choice: int) -> Phases:
        """When a choice came to what."""
        return self._generations[choice].phases

    def queued(self) -> Queued | None:
        """Place and expected wait of the first that waits; None when none does."""
        places = (reader.queued() for reader in self._readers)
        return next((place for place in places if place is not None), None)

    def take_place(self) -> Queued | None:
        """:meth:`queued`, which then counts as told."""
        for reader in self._readers:
            reader.take_place()
        return self.queued()

    def tell_moves(self, told: bool) -> None:
        """See :attr:`~chatstream_trio.generation.reader.Reader.tells_moves`."""
        for reader in self._readers:
            reader.tells_moves = told

    def tell_apart(self) -> None:
        """Join no pieces: see :attr:`~chatstream_trio.generation.reader.Reader.joins`."""
        for reader in self._readers:
            reader.joins = False

    def tell_silence(self) -> None:
        """See :attr:`~chatstream_trio.generation.reader.Reader.tells_silence`."""
        for reader in self._readers:
            reader.tells_silence = True
