"""OpenAI's chat completions as attrs classes: parsing and checking a body.

Types are checked by msgspec; ranges by :mod:`chatstream_trio.request`. Nothing is silently
ignored: a field that we do not know is refused by name, and one that we know and cannot do is
refused unless its value changes nothing.

The field names are those of https://platform.openai.com/docs/api-reference/chat/create, and of
vLLM for ``top_k``, ``min_p``, ``repetition_penalty``, ``stop_token_ids`` and ``ignore_eos``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from attrs import fields, frozen
from werkzeug.datastructures import Headers

from chatstream_trio.errors import InvalidRequest, ModelNotServed, UnsupportedField
from chatstream_trio.request import ChatRequest, Message, SamplingOptions, Timeouts


@frozen
class TextPart:
    """A part of a message; other kinds of part are refused."""

    type: Literal["text"]
    text: str


@frozen
class ChatMessage:
    """A message as it comes over the wire."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: None = None

    def text(self) -> str:
        """Its content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


@frozen
class StreamOptions:
    """What a stream brings besides text."""

    include_usage: bool | None = None
    include_queue: bool | None = None
    """Ours: queue positions as data events too."""


@frozen
class TimeoutsBody:
    """Ours: seconds that each phase may take."""

    queue: float | None = None
    first_token: float | None = None
    total: float | None = None


@frozen
class ChatCompletionBody:
    """The body of ``POST /v1/chat/completions``."""

    messages: list[ChatMessage]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
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

    def to_request(self, vocab_size: int, timeouts: Timeouts) -> ChatRequest:
        """What the service is asked.

        Args:
            vocab_size: Of the model.
            timeouts: What the headers say; the shorter of theirs and the body's counts.

        Raises:
            InvalidRequest: A value is out of range.
        """
        sampling = {
            field.name: getattr(self, field.name)
            for field in fields(SamplingOptions)
            if field.name != "logit_bias"
        }
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return ChatRequest(
            messages=[Message(message.role, message.text()) for message in self.messages],
            max_tokens=self._max_tokens(),
            sampling=SamplingOptions(**sampling, logit_bias=self._bias(vocab_size)),
            stop=tuple(stop),
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            timeouts=self._timeouts().under(timeouts),
        )

    def _timeouts(self) -> Timeouts:
        asked = self.timeouts
        return Timeouts(asked.queue, asked.first_token, asked.total) if asked else Timeouts()

    def _max_tokens(self) -> int | None:
        if self.max_completion_tokens is None:
            return self.max_tokens
        if self.max_completion_tokens < 1:
            raise InvalidRequest(
                "max_completion_tokens must be at least 1", param="max_completion_tokens"
            )
        if self.max_tokens not in (None, self.max_completion_tokens):
            raise InvalidRequest(
                "max_tokens and max_completion_tokens differ", param="max_completion_tokens"
            )
        return self.max_completion_tokens

    def _bias(self, vocab_size: int) -> dict[int, float] | None:
        if self.logit_bias is None:
            return None
        bias = {}
        for key, value in self.logit_bias.items():
            if not (key.isascii() and key.isdigit() and int(key[:20]) < vocab_size):
                raise InvalidRequest(
                    f"{key[:40]!r} is no token id below {vocab_size}", param="logit_bias"
                )
            bias[int(key)] = value
        return bias


_is_string: Callable[[Any], bool] = lambda value: isinstance(value, str)  # noqa: E731

CHANGES_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "n": lambda value: value == 1 and value is not True,
    "logprobs": lambda value: value is False,
    "top_logprobs": lambda value: value == 0 and value is not False,
    "tools": lambda value: value == [],
    "functions": lambda value: value == [],
    "tool_choice": lambda value: value in ("none", "auto"),
    "function_call": lambda value: value in ("none", "auto"),
    "parallel_tool_calls": lambda value: isinstance(value, bool),
    "response_format": lambda value: value == {"type": "text"},
    "modalities": lambda value: value == ["text"],
    "audio": lambda value: False,
    "prediction": lambda value: False,
    "reasoning_effort": lambda value: value == "none",
    "verbosity": lambda value: value == "medium",
    "web_search_options": lambda value: False,
    "service_tier": lambda value: value in ("auto", "default"),
    "store": lambda value: value is False,
    "user": _is_string,
    "safety_identifier": _is_string,
    "prompt_cache_key": _is_string,
    "prompt_cache_retention": _is_string,
    "metadata": lambda value: isinstance(value, dict),
}
"""Fields of OpenAI's schema that we do not have, and which of their values change nothing."""


def parse_chat(body: bytes, model: str) -> ChatCompletionBody:
    """Read the body of a request for ``model``, the one model that is served.

    Raises:
        InvalidRequest: Broken JSON, or a field that is missing, unknown, ill-typed or unsupported.
        ModelNotServed: It asks for another model.
    """
    raw = _read_object(body)
    known = {field.name for field in fields(ChatCompletionBody)}
    for name in raw.keys() - known:
        _check_foreign(name, raw[name])
    _check_nested(raw)
    parsed = _convert({name: value for name, value in raw.items() if name in known})
    if parsed.stream_options is not None and not parsed.stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")
    if parsed.model not in (None, model):
        raise ModelNotServed(
            f"the model {parsed.model[:200]!r} is not served here; {model!r} is", param="model"
        )
    return parsed


TIMEOUT_HEADERS = {
    "queue": "X-Timeout-Queue",
    "first_token": "X-Timeout-First-Token",
    "total": "X-Timeout-Total",
}


def timeouts_in(headers: Headers) -> Timeouts:
    """The timeouts that the headers ask for.

    Raises:
        InvalidRequest: One is no number of seconds; ``param`` is the header.
    """
    values: dict[str, float] = {}
    for phase, header in TIMEOUT_HEADERS.items():
        text = headers.get(header)
        if text is None:
            continue
        try:
            values[phase] = float(text)
            Timeouts(values[phase])
        except (ValueError, InvalidRequest):
            raise InvalidRequest(f"{header} must be a number of seconds", param=header) from None
    return Timeouts(**values)


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidRequest("the body must be a JSON object")
    return raw


def _check_foreign(name: str, value: Any) -> None:
    harmless = CHANGES_NOTHING.get(name)
    if harmless is None:
        raise InvalidRequest(f"unknown field {name[:100]!r}", param=name[:100])
    if value is not None and not harmless(value):
        raise UnsupportedField(f"this value of {name} is not supported here", param=name)


def _check_nested(raw: dict[str, Any]) -> None:
    """msgspec lets unknown keys of attrs classes pass; we do not."""
    _check_keys(raw.get("stream_options"), StreamOptions, "stream_options")
    _check_keys(raw.get("timeouts"), TimeoutsBody, "timeouts")
    messages = raw.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        where = f"messages[{index}]"
        _check_keys(message, ChatMessage, where)
        content = message.get("content") if isinstance(message, dict) else None
        for part_index, part in enumerate(content if isinstance(content, list) else ()):
            _check_keys(part, TextPart, f"{where}.content[{part_index}]")


def _check_keys(value: Any, cls: type[Any], where: str) -> None:
    if not isinstance(value, dict):
        return
    if cls is TextPart and value.get("type") != "text":
        return  # msgspec says what is wrong with it
    for name in value.keys() - {field.name for field in fields(cls)}:
        if value[name] is not None:
            param = f"{where}.{name[:100]}"
            raise InvalidRequest(f"unknown or unsupported field {param!r}", param=param)


def _convert(raw: dict[str, Any]) -> ChatCompletionBody:
    try:
        return msgspec.convert(raw, ChatCompletionBody)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        missing = re.search(r"missing required field `(\w+)`", message)
        param = path.rstrip("`").removeprefix(".")
        if missing:
            param = f"{param}.{missing[1]}" if param else missing[1]
        raise InvalidRequest(f"{param or 'body'}: {message}", param=param or None) from None
