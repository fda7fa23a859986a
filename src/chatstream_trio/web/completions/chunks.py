"""What is said of a completion: in a stream, and how likely its tokens were, in the older shape."""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, field, frozen

from chatstream_trio.events import (
    Finished,
    Piece,
    Queued,
    RankedToken,
    Started,
    TokenLikelihood,
    ToolCallStart,
    total,
)
from chatstream_trio.web import sse
from chatstream_trio.web.chunks import Chunks
from chatstream_trio.web.dialect import Head
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.openai.chunks import FINISH_REASONS, LEAST_LOGPROB, queue_json, usage_json

HALF = "\N{REPLACEMENT CHARACTER}"
"""What a part of a character looks like by itself."""


@frozen
class Echo:
    """The prompts, where they are said before the answers."""

    texts: Sequence[str]
    choices: int

    def before(self, index: int) -> str | None:
        """What is said before an answer; None: nothing was asked for."""
        return self.texts[index // self.choices] if self.texts else None


@define
class OldLogprobs:
    """OpenAI's older shape: a list for each thing, one entry a token.

    It has to be told of all tokens of a choice, in order: one may be a part of a character, whose
    place is that of the whole.
    """

    offset: int = 0
    """Characters before the next token."""
    _decoder: IncrementalDecoder = field(factory=lambda: getincrementaldecoder("utf-8")("replace"))
    _tokens: list[str] = field(factory=list, init=False)
    _logprobs: list[float | None] = field(factory=list, init=False)
    _best: list[dict[str, float] | None] = field(factory=list, init=False)
    _offsets: list[int] = field(factory=list, init=False)

    def take(self, likely: Sequence[TokenLikelihood]) -> None:
        """Tokens of the answer."""
        for it in likely:
            self._add(it.token, it.logprob, _named(it.best))

    def take_prompt(self, text: str, places: Sequence[Sequence[RankedToken]]) -> None:
        """Tokens of the prompt, of the first of which nothing is known; it may be one that the
        tokenizer put there, and no part of the text."""
        for own, *best in places:
            if own.rank:
                named = _named((it.token, it.logprob) for it in best)
                self._add(own.token, own.logprob, named)
            else:
                self._add(own.token, None, None)
                if not text.startswith(_text(own.token).rstrip(HALF)):
                    self.offset = 0
        self.offset = len(text)
        self._decoder.reset()

    def _add(self, token: bytes, logprob: float | None, best: dict[str, float] | None) -> None:
        text = _text(token)
        if logprob is not None and best is not None:
            best.setdefault(text, _least(logprob))
        self._tokens.append(text)
        self._logprobs.append(None if logprob is None else _least(logprob))
        self._best.append(best)
        begun = bool(self._decoder.getstate()[0])
        said = self._decoder.decode(token)
        lost = begun and said.startswith(HALF)  # what became of half a character before it
        self._offsets.append(self.offset + lost)
        self.offset += len(said)

    def json(self) -> dict[str, Any]:
        """All that was taken since the last time."""
        told = {
            "tokens": self._tokens,
            "token_logprobs": self._logprobs,
            "top_logprobs": self._best,
            "text_offset": self._offsets,
        }
        self._tokens, self._logprobs, self._best, self._offsets = [], [], [], []
        return told


@define
class CompletionChunks(Chunks):
    """The chunks, and ``[DONE]`` behind the last; after an error there is none."""

    head: Head
    choices: int = 1
    """Answers to one prompt."""
    include_usage: bool = False
    continuous_usage: bool = False
    include_queue: bool = False
    logprobs: bool = False
    echo: Echo = field(factory=lambda: Echo((), 1))
    says_nothing: bool = False
    _likely: dict[int, OldLogprobs] = field(factory=dict, init=False)  # by choice

    def _say(self, event: Started | Piece | Finished, choice: int) -> bytes:
        match event:
            case Started():
                news = sse.data({"queue": {"status": "started"}}) if self.include_queue else b""
                before = self.echo.before(choice)
                return news + (self._chunk(choice, before) if before else b"")
            case Finished(reason, _, stop):
                if self.says_nothing:
                    return self._chunk(choice, "", finish_reason="length", stop_reason=None)
                reason_said = FINISH_REASONS[reason]
                return self._chunk(choice, "", finish_reason=reason_said, stop_reason=stop)
            case ToolCallStart():
                raise AssertionError("who continues a text calls no tool")
            case piece:
                if self.says_nothing:
                    return b""
                return self._chunk(choice, piece.text, likely=piece.logprobs)

    def _say_end(self) -> bytes:
        if not self.include_usage:
            return sse.DONE
        usage = usage_json(total(self.usages, self.choices))
        if self.says_nothing:
            usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        return sse.data({**self._head(), "choices": [], "usage": usage}) + sse.DONE

    def _say_error(self, reply: ErrorReply) -> bytes:
        return sse.data(reply.body)

    def _say_place(self, queued: Queued) -> bytes:
        chunk = super()._say_place(queued)
        return chunk + (sse.data({"queue": queue_json(queued)}) if self.include_queue else b"")

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.head.id,
            "object": "text_completion",
            "created": self.head.created,
            "model": self.head.model,
            "system_fingerprint": self.head.fingerprint,
        }

    def _chunk(
        self,
        choice: int,
        text: str,
        *,
        likely: Sequence[TokenLikelihood] = (),
        finish_reason: str | None = None,
        **more: Any,
    ) -> bytes:
        told = None
        if self.logprobs and likely:
            logprobs = self._likely.setdefault(choice, OldLogprobs())
            logprobs.take(likely)
            told = logprobs.json()
        said = {
            "index": choice,
            "text": text,
            "logprobs": told,
            "finish_reason": finish_reason,
            **more,
        }
        chunk = {**self._head(), "choices": [said]}
        if self.include_usage:
            so_far = self.answers.usage(choice) if self.continuous_usage else None
            chunk["usage"] = None if so_far is None else usage_json(so_far)
        return sse.data(chunk)


def _named(best: Iterable[tuple[bytes, float]]) -> dict[str, float]:
    """The likeliest first: of parts of characters, which look the same, the likeliest counts."""
    named: dict[str, float] = {}
    for token, logprob in best:
        named.setdefault(_text(token), _least(logprob))
    return named


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")


def _least(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
