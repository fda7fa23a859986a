"""What the engine gives a stream, made into an answer. Pure; it knows no seat and no reader."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, evolve, field

from chatstream_trio.engine.runner import Likelihood
from chatstream_trio.engine.streams import Ending, StreamOutcome
from chatstream_trio.errors import EngineFailed, StreamFault
from chatstream_trio.events import (
    Finished,
    FinishReason,
    Piece,
    RankedToken,
    Text,
    TokenLikelihood,
    ToolCallStart,
    Usage,
)
from chatstream_trio.request import Request
from chatstream_trio.text.answer import Answer, Transcript
from chatstream_trio.text.codec import Prompt

logger = logging.getLogger(__name__)


@define(eq=False)
class Output:
    """Tokens in, events of the answer out, until it ends; and how many tokens there were."""

    answer: Answer
    _transcript: Transcript
    _prompt: tuple[int, ...]
    _request: Request
    completion_tokens: int = field(default=0, init=False)
    _reasoning_tokens: int = field(default=0, init=False)
    _untold: list[TokenLikelihood] = field(factory=list, init=False)  # of tokens whose text is held
    _cached_tokens: int = field(default=0, init=False)  # of the prompt, the most that was ever said

    @classmethod
    def of(cls, answer: Answer, request: Request, prompt: Prompt) -> Output:
        """For an answer to what was asked so."""
        transcript = Transcript.of(
            prompt,
            request.stop,
            includes=request.include_stop,
            least=request.sampling.min_tokens or 0,
        )
        return cls(answer, transcript, prompt.tokens, request)

    @property
    def prompt_tokens(self) -> int:
        """Tokens that were asked."""
        return len(self._prompt)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            self.prompt_tokens, self.completion_tokens, self._cached_tokens, self._reasoning_tokens
        )

    def take(self, outcome: StreamOutcome) -> bool:
        """Take what a turn gave. Never raises: what cannot be decoded ends the answer.

        Returns:
            Whether the answer has ended.
        """
        try:
            self._take(outcome)
        except Exception:
            logger.exception("reading a stream's tokens failed")
            self.answer.fail(StreamFault("the answer could not be decoded"))
        return self.answer.ended

    def _take(self, outcome: StreamOutcome) -> None:
        self._cached_tokens = max(self._cached_tokens, outcome.cached_tokens)
        self._take_prompt(outcome)
        for at, token in enumerate(outcome.tokens):
            self.completion_tokens += 1
            reasoned = self._transcript.reasons
            pieces = self._transcript.push(token)
            self._reasoning_tokens += reasoned or self._transcript.reasons
            if outcome.logprobs:
                self._untold.append(self._named(token, outcome.logprobs[at]))
            if pieces:
                self._say(pieces)
            if self._transcript.stopped:
                self.answer.say(*self._transcript.flush())  # a stop string has no tokens
                # Those behind it are dropped.
                return self._finish(FinishReason.STOP, self._transcript.stop)
        match outcome.finished:
            case None:
                return None
            case Ending.STOP | Ending.LENGTH as ending:
                stop = outcome.stop_token
                if stop not in self._request.stop_token_ids:
                    stop = None
                if stop is not None and self._request.include_stop:
                    self._say(self._transcript.push(stop))
                self._say(self._transcript.flush())
                stopped = self._transcript.stopped or ending is Ending.STOP
                reason = FinishReason.STOP if stopped else FinishReason.LENGTH
                return self._finish(reason, self._transcript.stop or stop)
            case Ending.LOST:
                return self.answer.fail(EngineFailed(outcome.fault or "the engine has ended"))
            case _:
                return self.answer.fail(StreamFault(f"this stream failed: {outcome.fault}"))

    def _take_prompt(self, outcome: StreamOutcome) -> None:
        """What there is to tell of the prompt: once, with the first token, or instead of it."""
        if outcome.pooled is not None:
            self.answer.pooled = outcome.pooled
        is_there = bool(outcome.tokens) or outcome.finished in (Ending.STOP, Ending.LENGTH)
        asked = self._request.prompt_logprobs is not None
        if asked and is_there and self.answer.of_prompt is None:
            bytes_of, found = self._transcript.bytes_of, outcome.prompt_logprobs
            self.answer.of_prompt = partial(_of_prompt, self._prompt, found, bytes_of)

    def _say(self, pieces: Sequence[Piece]) -> None:
        """Say them, with how likely the tokens were that nothing was said of yet."""
        if self._untold:
            told, self._untold = tuple(self._untold), []
            pieces = _with_logprobs(pieces, told)
        self.answer.say(*pieces)

    def _named(self, token: int, found: Likelihood) -> TokenLikelihood:
        bytes_of = self._transcript.bytes_of
        best = tuple((bytes_of(id), logprob) for id, logprob in found.best)
        return TokenLikelihood(bytes_of(token), found.logprob, best)

    def _finish(self, reason: FinishReason, stop: str | int | None) -> None:
        if reason is FinishReason.STOP and self.answer.calls_tools:
            reason = FinishReason.TOOL_CALLS
        self.answer.finish(Finished(reason, self.usage, stop))


def _of_prompt(
    tokens: Sequence[int], found: Sequence[Likelihood], bytes_of: Callable[[int], bytes]
) -> list[list[RankedToken]]:
    first, *others = tokens
    told = [[RankedToken(first, bytes_of(first), 0.0, 0)]]
    for token, likely in zip(others, found, strict=True):
        best = enumerate(likely.best, 1)
        told.append(
            [
                RankedToken(token, bytes_of(token), likely.logprob, likely.rank or 0),
                *(RankedToken(id, bytes_of(id), logprob, rank) for rank, (id, logprob) in best),
            ]
        )
    return told


def _with_logprobs(pieces: Sequence[Piece], told: tuple[TokenLikelihood, ...]) -> Sequence[Piece]:
    """The first piece that can tells them; where none can, one more."""
    for at, piece in enumerate(pieces):
        if not isinstance(piece, ToolCallStart):
            return (*pieces[:at], evolve(piece, logprobs=told), *pieces[at + 1 :])
    return (*pieces, Text("", told))
