"""What bodies of OpenAI's API have in common that ask for an answer, to whatever.

Types are checked in :mod:`chatstream_trio.web.bodies.reading`, ranges by
:mod:`chatstream_trio.request`. The field names are OpenAI's, and vLLM's for ``top_k``, ``min_p``,
``repetition_penalty``, ``stop_token_ids``, ``ignore_eos``, ``min_tokens``, ``allowed_token_ids``,
``bad_words`` and ``include_stop_str_in_output``.
"""

from __future__ import annotations

from typing import Any, TypeVar

from attrs import fields

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.request import SamplingOptions, Timeouts
from chatstream_trio.web.bodies.reading import Unknown, Wire, read
from chatstream_trio.web.openai.formats import Formatted
from chatstream_trio.web.timeouts import TimeoutsBody

MOST_LOGPROBS = 20
"""Of the likeliest tokens at each place, as many as OpenAI names."""
MOST_CHOICES = 128
"""Answers to one request, as many as OpenAI gives."""
MOST_IDS = 4096
"""Token ids in ``logit_bias`` or ``stop_token_ids``: each costs something in every turn."""


class StreamOptions(Wire, frozen=True):
    """What a stream brings besides text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """As vLLM has it: with ``include_usage``, the usage so far in every chunk."""
    include_queue: bool | None = None
    """Ours: queue positions as data events too."""
    include_obfuscation: bool | None = None
    """Padding against those who watch the length of packets; there is none here."""


class GenerationBody(Formatted, frozen=True, kw_only=True):
    """What all bodies have in common that ask for an answer."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    timeouts: TimeoutsBody | None = None
    n: int | None = None
    prompt_logprobs: int | None = None
    min_tokens: int | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    include_stop_str_in_output: bool | None = None

    def common(self, vocab_size: int, timeouts: Timeouts) -> dict[str, Any]:
        """What the service is asked, but for what the model is to read: fields of a request.

        What other servers read as "not set" is so here: -1 for ``seed``, ``top_k`` and
        ``max_tokens``, and an empty stop string.

        Args:
            vocab_size: Of the model.
            timeouts: What the headers say; the shorter of theirs and the body's counts.

        Raises:
            InvalidRequest: A value is out of range.
        """
        sampling = {
            field.name: getattr(self, field.name)
            for field in fields(SamplingOptions)
            if field.name not in ("logit_bias", "logprobs", "allowed_token_ids", "bad_words")
        }
        for name in ("seed", "top_k"):
            sampling[name] = unless_minus_one(sampling[name])
        allowed = self.allowed_token_ids
        asked = self.timeouts.to_timeouts() if self.timeouts else Timeouts()
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return {
            "max_tokens": self._max_tokens(),
            "sampling": SamplingOptions(
                **sampling,
                logit_bias=self._bias(vocab_size),
                logprobs=self._logprobs(),
                allowed_token_ids=None if allowed is None else tuple(allowed),
                bad_words=tuple(self.bad_words or ()),
            ),
            "prompt_logprobs": self._prompt_logprobs(),
            "include_stop": bool(self.include_stop_str_in_output),
            "stop": tuple(text for text in stop if text),
            "stop_token_ids": self._stop_token_ids(),
            "ignore_eos": bool(self.ignore_eos),
            "timeouts": asked.under(timeouts),
            "grammar": self.held_to(),
        }

    def number(self) -> int:
        """How many answers are asked for.

        Raises:
            InvalidRequest: None, or more than any server has seats.
        """
        number = 1 if self.n is None else self.n
        if not 1 <= number <= MOST_CHOICES:
            raise InvalidRequest(f"n must be between 1 and {MOST_CHOICES}", param="n")
        return number

    def _logprobs(self) -> int | None:
        """How many of the likeliest tokens are named at each place; None: not even its own."""
        raise NotImplementedError

    def _max_tokens(self) -> int | None:
        return unless_minus_one(self.max_tokens)

    def _prompt_logprobs(self) -> int | None:
        most = self.prompt_logprobs
        if most is not None and not 0 <= most <= MOST_LOGPROBS:
            raise InvalidRequest(
                f"prompt_logprobs must be between 0 and {MOST_LOGPROBS}", param="prompt_logprobs"
            )
        if most is not None and self.stream:
            raise InvalidRequest(
                "prompt_logprobs are told whole: not with stream: true", param="prompt_logprobs"
            )
        return most

    def _stop_token_ids(self) -> frozenset[int]:
        ids = self.stop_token_ids or ()
        if len(ids) > MOST_IDS:
            message = f"stop_token_ids holds more than {MOST_IDS} ids"
            raise InvalidRequest(message, param="stop_token_ids")
        return frozenset(ids)

    def _bias(self, vocab_size: int) -> dict[int, float] | None:
        if self.logit_bias is None:
            return None
        if len(self.logit_bias) > MOST_IDS:
            raise InvalidRequest(f"logit_bias holds more than {MOST_IDS} ids", param="logit_bias")
        bias = {}
        for key, value in self.logit_bias.items():
            id = int(key) if len(key) <= 20 and key.isascii() and key.isdigit() else vocab_size
            if id >= vocab_size:
                raise InvalidRequest(
                    f"{key[:40]!r} is no token id below {vocab_size}", param="logit_bias"
                )
            bias[id] = value
        return bias


def unless_minus_one(value: int | None) -> int | None:
    """What other servers read as "not set"."""
    return None if value == -1 else value


B = TypeVar("B", bound=GenerationBody)


def parse(cls: type[B], body: bytes, walk: Walk, unknown: Unknown) -> B:
    """Read the body of a request.

    Raises:
        InvalidRequest: Broken JSON, or a field that is missing, ill-typed or unsupported; or
            what ``unknown`` raises.
    """
    parsed = read(cls, body, walk, unknown)
    if parsed.stream_options is not None and not parsed.stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")
    return parsed
