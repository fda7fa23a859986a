"""A generation as the bytes of a stream: when to say what of it, in whatever dialect.

News of the queue comes at once and then at most twice a second; in silence there is a comment now
and again, so that no proxy gives up; an error is the last that is said. What the words are is the
dialect's: this module knows no API.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import trio
from attrs import define, field

from chatstream_trio.errors import ChatStreamError
from chatstream_trio.events import Event, Finished, Piece, Queued, Silence, Started, Usage
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.web import sse
from chatstream_trio.web.errors import ErrorReply, reply_to

QUEUE_SECONDS = 0.5
"""A waiting client hears of its position at most this often."""


@define
class Chunks(ABC):
    """The bytes of one stream, as an async iterator that may be cancelled at any point.

    What has piled up while the client did not read comes as one chunk. An error that ends the
    generation is the last event, after the text that came before it.
    """

    content_type: ClassVar[str] = sse.CONTENT_TYPE
    headers: ClassVar[Mapping[str, str]] = sse.HEADERS

    answers: Chorus
    _finished: dict[int, Finished] = field(factory=dict, init=False)  # by choice
    _ended: bool = field(default=False, init=False)
    _queue_told_at: float = field(default=-QUEUE_SECONDS, init=False)
    _queue_news: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.answers.tell_silence()

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                choice, event = await self._event()
            except ChatStreamError as error:
                return self.error(error)
            if isinstance(event, Queued):
                self._queue_news = True
                self.answers.tell_moves(False)  # until this one may be said
            elif not isinstance(event, Silence):
                if said := self._said(event, choice):
                    return said
                continue
            if chunk := self._say_queue(silent=isinstance(event, Silence)):
                return chunk
        raise StopAsyncIteration

    def error(self, error: Exception) -> bytes:
        """The last bytes of a stream that fails; what is not ours stays in the log."""
        self._ended = True
        return self._say_error(reply_to(error))

    async def _event(self) -> tuple[int, Event]:
        """The next event; silence, as soon as news of the queue may be said that were kept back."""
        if not self._queue_news:
            return await anext(self.answers)
        with trio.move_on_at(self._queue_told_at + QUEUE_SECONDS):
            return await anext(self.answers)
        return 0, Silence()

    def _said(self, event: Started | Piece | Finished, choice: int) -> bytes:
        """In the dialect's words; behind the last choice's end, the end of the stream."""
        said = self._say(event, choice)
        if isinstance(event, Finished):
            self._finished[choice] = event
            if len(self._finished) == len(self.answers):
                self._ended = True
                said += self._say_end()
        return said

    def _say_queue(self, *, silent: bool) -> bytes:
        """The newest position, unless the client heard of one a moment ago."""
        queued = self.answers.queued()
        if queued is None:
            self._queue_news = False
            return self._say_silence() if silent else b""
        if not silent and trio.current_time() < self._queue_told_at + QUEUE_SECONDS:
            return b""
        self._queue_news = False
        self.answers.tell_moves(True)
        self.answers.take_place()
        self._queue_told_at = trio.current_time()
        return self._say_place(queued)

    # ---- What a dialect says

    @abstractmethod
    def _say(self, event: Started | Piece | Finished, choice: int) -> bytes:
        """A seat (``Started``), a piece, or the end (``Finished``) of one of the answers; maybe
        nothing."""

    def _say_end(self) -> bytes:
        """That all answers are complete."""
        return b""

    @property
    def usages(self) -> list[Usage]:
        """Of the answers that are complete, in order."""
        return [self._finished[choice].usage for choice in sorted(self._finished)]

    @abstractmethod
    def _say_error(self, reply: ErrorReply) -> bytes:
        """That there will be no more of it."""

    def _say_place(self, queued: Queued) -> bytes:
        """Where it stands in the line: a comment, which is the same in all streams of events."""
        eta = "" if queued.eta_seconds is None else f" eta={queued.eta_seconds:.1f}"
        return sse.comment(f"queued position={queued.position}{eta}")

    def _say_silence(self) -> bytes:
        """That there is still somebody."""
        return sse.comment("working")
