"""A generation as the chunks of an OpenAI stream."""

from __future__ import annotations

from typing import Any

import trio
from attrs import define, field

from chatstream_trio.errors import ChatStreamError
from chatstream_trio.events import Event, Finished, Queued, Silence, Started, Text, Usage
from chatstream_trio.generation.generation import Generation
from chatstream_trio.web import sse
from chatstream_trio.web.errors import reply_to

QUEUE_SECONDS = 0.5
"""A waiting client hears of its position at most this often."""


@define
class ChatChunks:
    """The bytes of one stream, as an async iterator that may be cancelled at any point.

    What has piled up while the client did not read comes as one chunk. An error that ends the
    generation is the last event, after the text that came before it, and there is no ``[DONE]``.
    In silence there is a comment now and again, so that no proxy gives up.
    """

    generation: Generation
    model: str
    created: int
    """Unix time in seconds."""
    include_usage: bool = False
    include_queue: bool = False
    _ended: bool = field(default=False, init=False)
    _queue_told_at: float = field(default=-QUEUE_SECONDS, init=False)
    _queue_news: bool = field(default=False, init=False)
    _head: dict[str, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.generation.tells_silence = True
        self._head = {
            "id": self.generation.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }

    def __aiter__(self) -> ChatChunks:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                event = await self._event()
            except ChatStreamError as error:
                self._ended = True
                return sse.data(reply_to(error).body)
            if isinstance(event, Queued):
                self._queue_news = True
                self.generation.tells_moves = False  # until this one may be said
            elif not isinstance(event, Silence):
                return self._say(event)
            if chunk := self._say_queue(silent=isinstance(event, Silence)):
                return chunk
        raise StopAsyncIteration

    async def _event(self) -> Event:
        """The next event; silence, as soon as news of the queue may be said that were kept back."""
        if not self._queue_news:
            return await anext(self.generation)
        with trio.move_on_at(self._queue_told_at + QUEUE_SECONDS):
            return await anext(self.generation)
        return Silence()

    # ---- The waiting room

    def _say_queue(self, *, silent: bool) -> bytes:
        """The newest position, unless the client heard of one a moment ago."""
        queued = self.generation.queued()
        if queued is None:
            self._queue_news = False
            return sse.comment("working") if silent else b""
        if not silent and trio.current_time() < self._queue_told_at + QUEUE_SECONDS:
            return b""
        self._queue_news = False
        self.generation.tells_moves = True
        self.generation.take_position()
        self._queue_told_at = trio.current_time()
        eta = "" if queued.eta_seconds is None else f" eta={queued.eta_seconds:.1f}"
        chunk = sse.comment(f"queued position={queued.position}{eta}")
        if self.include_queue:
            chunk += sse.data({"queue": _queue_json(queued)})
        return chunk

    # ---- The answer

    def _say(self, event: Event) -> bytes:
        match event:
            case Started():
                start = self._chunk({"role": "assistant", "content": ""})
                if self.include_queue:
                    return sse.data({"queue": {"status": "started"}}) + start
                return start
            case Text(text):
                return self._chunk({"content": text})
            case Finished(reason, usage):
                self._ended = True
                return self._chunk({}, reason.value) + self._usage(usage) + sse.DONE
            case _:
                raise AssertionError(event)

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._head, "choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None
        return sse.data(chunk)

    def _usage(self, usage: Usage) -> bytes:
        if not self.include_usage:
            return b""
        return sse.data({**self._head, "choices": [], "usage": usage_json(usage)})


def usage_json(usage: Usage) -> dict[str, Any]:
    """OpenAI's shape of it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _queue_json(queued: Queued) -> dict[str, Any]:
    eta = None if queued.eta_seconds is None else round(queued.eta_seconds, 1)
    return {"status": "queued", "position": queued.position, "eta_seconds": eta}
