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
from chatstream_trio.events import Event, Finished, Queued, Silence
from chatstream_trio.generation.reader import Reader
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

    reader: Reader
    _ended: bool = field(default=False, init=False)
    _queue_told_at: float = field(default=-QUEUE_SECONDS, init=False)
    _queue_news: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.reader.tells_silence = True

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                event = await self._event()
            except ChatStreamError as error:
                return self.error(error)
            if isinstance(event, Queued):
                self._queue_news = True
                self.reader.tells_moves = False  # until this one may be said
            elif not isinstance(event, Silence):
                self._ended = isinstance(event, Finished)
                return self._say(event)
            if chunk := self._say_queue(silent=isinstance(event, Silence)):
                return chunk
        raise StopAsyncIteration

    def error(self, error: Exception) -> bytes:
        """The last bytes of a stream that fails; what is not ours stays in the log."""
        self._ended = True
        return self._say_error(reply_to(error))

    async def _event(self) -> Event:
        """The next event; silence, as soon as news of the queue may be said that were kept back."""
        if not self._queue_news:
            return await anext(self.reader)
        with trio.move_on_at(self._queue_told_at + QUEUE_SECONDS):
            return await anext(self.reader)
        return Silence()

    def _say_queue(self, *, silent: bool) -> bytes:
        """The newest position, unless the client heard of one a moment ago."""
        queued = self.reader.queued()
        if queued is None:
            self._queue_news = False
            return self._say_silence() if silent else b""
        if not silent and trio.current_time() < self._queue_told_at + QUEUE_SECONDS:
            return b""
        self._queue_news = False
        self.reader.tells_moves = True
        self.reader.take_place()
        self._queue_told_at = trio.current_time()
        return self._say_place(queued)

    # ---- What a dialect says

    @abstractmethod
    def _say(self, event: Event) -> bytes:
        """A seat (``Started``), a ``Text``, or the end of the answer (``Finished``)."""

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
