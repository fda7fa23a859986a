"""A reader of a generation: a cursor into its answer, with a pace, and news, of its own.

Any number of readers may read one answer, from any position, also when it is over; none of them
takes anything from another. What is not part of the answer (the place in the line, the seat, a
silence) is told to each by itself. This module knows no engine, and no bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

import trio
from attrs import define, field

from chatstream_trio.events import Event, Queued, Silence, Started
from chatstream_trio.generation.phases import Phase, Phases
from chatstream_trio.text.answer import Answer


class Read(Protocol):
    """What a reader must know of a generation."""

    answer: Answer

    phases: Phases

    def queued(self) -> Queued | None:
        """Place and expected wait at this moment; None when it does not wait."""


@define(eq=False)
class Bell:
    """Wakes one task, which may wait for several readers."""

    _rung: trio.Event = field(factory=trio.Event, init=False)

    def ring(self) -> None:
        """Something has happened."""
        self._rung.set()

    async def wait(self) -> None:
        """Until it rings. Look first at what has happened already: this does not remember it."""
        self._rung = trio.Event()
        await self._rung.wait()


class Reader:
    """The async iterator of a generation's events.

    Iterating raises the error that ended the request, after the text that came before it. It is
    safe to cancel: an event is taken only when it is returned. Whoever is slow gets what has piled
    up as one :class:`~chatstream_trio.events.Text`, unless it wants each piece by itself.
    """

    def __init__(
        self, generation: Read, position: int, spacing: Callable[[], float], bell: Bell
    ) -> None:
        """``spacing``: seconds that should lie between two pieces of text, as of now."""
        self._generation = generation
        self.position = position
        """Events of the answer that were taken, or that it began behind."""
        self._spacing = spacing
        self._text_due = -inf
        self._place_told: int | None = None
        self._seat_told = position > 0
        self._heard_at = trio.current_time()
        self._silent = False
        self._bell = bell
        self.tells_moves = True
        """Whether a change of place in the line is an event. A reader who wants none for now turns
        it off, and is not woken: in a full room everybody moves whenever a seat gets free."""
        self.joins = True
        """Whether pieces that have piled up are one event, where they can be."""
        self.tells_silence = False
        """Whether it is an event (:class:`Silence`) that nothing has happened for five seconds."""

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint_if_cancelled()
        while (event := self.take()) is None:
            await self._bell.wait()
        return event

    def take(self) -> Event | None:
        """The next event, if there is one already.

        Raises:
            StopAsyncIteration: There will be none.
            ChatStreamError: That is how the request ended.
        """
        event = self._next()
        if event is not None:
            self._heard_at = trio.current_time()
            self._silent = False
        return event

    def _next(self) -> Event | None:
        if not self._seat_told:
            told = self._place_told
            if self.tells_moves and (queued := self.take_place()) and queued.position != told:
                return queued
            if self._generation.phases.at(Phase.SEATED) is not None:
                self._seat_told = True
                return Started()
        answer = self._generation.answer
        event, self.position = answer.read(self.position, joined=self.joins)
        if event is not None:
            return event
        if answer.error is not None:
            raise answer.error
        if answer.ended:
            raise StopAsyncIteration
        return Silence() if self._silent else None

    def queued(self) -> Queued | None:
        """Place and expected wait at this moment; None when it does not wait."""
        return self._generation.queued()

    def take_place(self) -> Queued | None:
        """:meth:`queued`, which then counts as told: the next event of this kind is of a change."""
        queued = self.queued()
        self._place_told = None if queued is None else queued.position
        return queued

    # ---- What the generation tells it

    def hear(self) -> None:
        """Something has happened that must not wait."""
        self._bell.ring()

    def hear_move(self) -> None:
        """The place in the line has changed."""
        if self.tells_moves:
            self._bell.ring()

    def hear_text(self) -> None:
        """There is text. It is told now if it is due; if not, a later turn does it.

        No clock wakes anybody for that: a stream that says nothing more ends, fails or pauses.
        """
        now, spacing = trio.current_time(), self._spacing()
        if now >= self._text_due:
            self._text_due = max(self._text_due, now - spacing) + spacing
            self._bell.ring()

    def hear_silence(self, since: float) -> None:
        """A while has passed: one who wants to know of it, and had no event ``since`` then, is
        told."""
        if self.tells_silence and self._heard_at <= since:
            self._silent = True
            self._bell.ring()


@define(eq=False)
class Readers:
    """Those who may still have to be told something."""

    _all: list[Reader] = field(factory=list, init=False)

    def add(self, reader: Reader) -> None:
        """Tell this one too from now on."""
        self._all.append(reader)

    def clear(self) -> None:
        """Nothing will happen any more."""
        self._all.clear()

    def hear(self) -> None:
        """See :meth:`Reader.hear`, and so on."""
        for reader in self._all:
            reader.hear()

    def hear_move(self) -> None:
        """To those who want to know."""
        for reader in self._all:
            reader.hear_move()

    def hear_text(self) -> None:
        """To those for whom it is due."""
        for reader in self._all:
            reader.hear_text()

    def hear_silence(self, since: float) -> None:
        """To those who want to know."""
        for reader in self._all:
            reader.hear_silence(since)
