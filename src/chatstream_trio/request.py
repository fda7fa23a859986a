"""What a caller asks for, validated: the same rules for the Python API and for every endpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import Attribute, Factory, field, fields, frozen

from chatstream_trio.conversation import ROLES, Conversation, Message
from chatstream_trio.engine.runner import Sampling
from chatstream_trio.errors import InvalidRequest

MAX_STOP_STRINGS = 16
MAX_SECONDS = 86_400.0


def _check_messages(_: object, __: object, messages: Sequence[Message]) -> None:
    if not messages:
        raise InvalidRequest("messages must hold at least one message", param="messages")
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            raise InvalidRequest(
                f"the role must be one of {', '.join(ROLES)}", param=f"messages[{index}].role"
            )
        check_text(message.text, f"messages[{index}].content")
        if message.name is not None:
            check_text(message.name, f"messages[{index}].name")


def check_text(text: str, param: str) -> None:
    """Refuse text that no UTF-8 can hold (lone surrogates, which JSON can smuggle in).

    Raises:
        InvalidRequest: naming ``param``.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the text is not valid Unicode", param=param) from None


def _at_least(low: int) -> Callable[[Any, Attribute[Any], int | None], None]:
    def check(_: object, attribute: Attribute[Any], value: int | None) -> None:
        if value is not None and value < low:
            raise InvalidRequest(f"{attribute.name} must be at least {low}", param=attribute.name)

    return check


def _check_stop(_: object, __: object, stop: Sequence[str]) -> None:
    if len(stop) > MAX_STOP_STRINGS:
        raise InvalidRequest(f"at most {MAX_STOP_STRINGS} stop strings", param="stop")
    for text in stop:
        if not text:
            raise InvalidRequest("a stop string must not be empty", param="stop")
        check_text(text, "stop")


@frozen
class SamplingOptions:
    """The sampling fields that a request did set; None leaves the model's own default.

    They are those of :class:`~chatstream_trio.engine.runner.Sampling`, which checks the ranges.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    logprobs: int | None = None


def _check_seconds(_: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is not None and not 0 < value <= MAX_SECONDS:  # also refuses NaN
        raise InvalidRequest(
            f"a timeout must be more than 0 and at most {MAX_SECONDS:.0f} seconds",
            param=f"timeouts.{attribute.name}",
        )


@frozen
class Timeouts:
    """How long each phase of a request may take, in seconds; None: as long as it takes.

    Raises:
        InvalidRequest: A value is out of range.
    """

    queue: float | None = field(default=None, validator=_check_seconds)
    """Seconds from the request's arrival to its seat."""
    first_token: float | None = field(default=None, validator=_check_seconds)
    """Seconds from the request's seat to its first token."""
    total: float | None = field(default=None, validator=_check_seconds)
    """Seconds from the request's arrival to the end of its answer."""

    def under(self, ceiling: Timeouts) -> Timeouts:
        """The shorter of the two, phase by phase."""
        shorter = {}
        for name in ("queue", "first_token", "total"):
            both = [t for t in (getattr(self, name), getattr(ceiling, name)) if t is not None]
            shorter[name] = min(both, default=None)
        return Timeouts(**shorter)

    def __bool__(self) -> bool:
        return self != Timeouts()


@frozen
class ChatRequest:
    """Ask for an answer to a conversation.

    Raises:
        InvalidRequest: A field is out of range; ``param`` names it.
    """

    messages: Sequence[Message] = field(validator=_check_messages)
    max_tokens: int | None = field(default=None, validator=_at_least(1))
    """Tokens of the answer at most; None, or more than that: as many as the context leaves."""
    sampling: SamplingOptions = SamplingOptions()
    stop: Sequence[str] = field(default=(), validator=_check_stop)
    """Strings before the first of which the answer ends; they are never part of it."""
    stop_token_ids: frozenset[int] = Factory(frozenset)
    ignore_eos: bool = False
    timeouts: Timeouts = Timeouts()
    tools: tuple[Mapping[str, Any], ...] = ()
    """The functions that a model may call. No codec can render them yet; it says so."""
    template_options: Mapping[str, Any] = Factory(dict)
    """Variables of the model's own template. The same holds for them."""

    @property
    def conversation(self) -> Conversation:
        """What the model's codec is given."""
        return Conversation(self.messages, self.tools, self.template_options)

    @property
    def size(self) -> int:
        """How much there is to read, about, in characters."""
        parts = (len(part.text) for message in self.messages for part in message.content)
        return sum(parts) + 16 * len(self.messages)

    def __attrs_post_init__(self) -> None:
        resolve(self.sampling, Sampling(), seed=0)  # ranges are known before any work is done


def resolve(options: SamplingOptions, defaults: Sampling, *, seed: int) -> Sampling:
    """The sampling of one stream: what was asked for, over the model's defaults.

    Raises:
        InvalidRequest: A value is out of range; ``param`` names it.
    """
    values: dict[str, Any] = {}
    for name in (attribute.name for attribute in fields(SamplingOptions)):
        asked = getattr(options, name)
        values[name] = getattr(defaults, name) if asked is None else asked
        if isinstance(asked, float) and not math.isfinite(asked):
            raise InvalidRequest(f"{name} must be a finite number", param=name)
    if options.seed is None:
        values["seed"] = seed
    return Sampling(**values)
