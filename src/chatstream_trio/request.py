"""What a caller asks for, validated: the same rules for the Python API and for every endpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from attrs import Attribute, Factory, evolve, field, fields, frozen

from chatstream_trio.conversation import ROLES, Conversation, Message, Tool, ToolChoice
from chatstream_trio.engine.runner import Pooling, Sampling
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.grammar import Grammar

MAX_STOP_STRINGS = 16
MAX_ALLOWED = 4096
"""Ids in ``allowed_token_ids``: each costs something in every turn."""
MAX_BAD_WORDS, MAX_BAD_WORD = 128, 256
"""Bad words, and characters of each; likewise."""
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


def _check_allowed(_: object, __: object, ids: tuple[int, ...] | None) -> None:
    if ids is not None and not 0 < len(ids) <= MAX_ALLOWED:
        raise InvalidRequest(
            f"allowed_token_ids must hold 1 to {MAX_ALLOWED} ids", param="allowed_token_ids"
        )


def _check_words(_: object, __: object, words: tuple[str, ...]) -> None:
    if len(words) > MAX_BAD_WORDS:
        raise InvalidRequest(f"at most {MAX_BAD_WORDS} bad words", param="bad_words")
    for index, word in enumerate(words):
        param = f"bad_words[{index}]"
        if not word.strip() or len(word) > MAX_BAD_WORD:
            raise InvalidRequest(
                f"a bad word has 1 to {MAX_BAD_WORD} characters, not all of them blanks",
                param=param,
            )
        check_text(word, param)


@frozen
class SamplingOptions:
    """The sampling fields that a request did set; None leaves the model's own default.

    They are those of :class:`~chatstream_trio.engine.runner.Sampling`, which checks the ranges; but
    words are strings here, and tokens there.
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
    min_tokens: int | None = None
    """Tokens of the answer before the first that may end it, and before a stop string counts."""
    allowed_token_ids: tuple[int, ...] | None = field(default=None, validator=_check_allowed)
    """Only these may come."""
    bad_words: tuple[str, ...] = field(default=(), validator=_check_words)
    """Strings that may not come, with a blank before them or without: such tokens as the model's
    tokenizer makes of them do not follow one another."""


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


@frozen(kw_only=True)
class Request:
    """Ask for an answer, to whatever: what all requests have in common.

    Raises:
        InvalidRequest: A field is out of range; ``param`` names it.
    """

    param: ClassVar[str]
    """The field that holds what is to be read, for errors."""

    max_tokens: int | None = field(default=None, validator=_at_least(1))
    """Tokens of the answer at most; None, or more than that: as many as the context leaves."""
    sampling: SamplingOptions = SamplingOptions()
    stop: Sequence[str] = field(default=(), validator=_check_stop)
    """Strings before the first of which the answer ends; they are never part of it."""
    include_stop: bool = False
    """Whether they are part of it after all, and the tokens of ``stop_token_ids`` too."""
    stop_token_ids: frozenset[int] = Factory(frozenset)
    ignore_eos: bool = False
    timeouts: Timeouts = Timeouts()
    prompt_logprobs: int | None = field(default=None, validator=_at_least(0))
    """How many of the likeliest tokens are named at each place of the prompt; 0 tells of its own
    tokens alone. None: not asked for."""
    pool: Pooling | None = None
    """A vector is asked for, made of the prompt in this way, and no answer."""
    grammar: Grammar | None = None
    """What the answer has to be. The codec's own, for a call that is forced, goes before it."""

    @property
    def said(self) -> Conversation | str | tuple[int, ...]:
        """What the model's codec is given to read."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How much there is to read, about, in characters."""
        raise NotImplementedError

    @property
    def _grammar_size(self) -> int:
        return len(self.grammar.source) if self.grammar else 0

    def choice(self, index: int) -> Self:
        """The request for one of several answers to the same: with ``seed + index``. The first is
        told of the prompt."""
        if not index:
            return self
        sampling, seed = self.sampling, self.sampling.seed
        if seed is not None:
            wrapped = (seed + index + 2**63) % 2**64 - 2**63  # a seed has 64 bits
            sampling = evolve(sampling, seed=wrapped)
        return evolve(self, sampling=sampling, prompt_logprobs=None)

    def __attrs_post_init__(self) -> None:
        resolve(self.sampling, Sampling(), seed=0)  # ranges are known before any work is done
        if self.pool is not None and self.prompt_logprobs is not None:
            raise InvalidRequest("a vector has no log-probabilities", param="prompt_logprobs")
        least = self.sampling.min_tokens or 0
        if self.max_tokens is not None and least > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens is {least}, and max_tokens {self.max_tokens}", param="min_tokens"
            )


@frozen
class ChatRequest(Request):
    """Ask for an answer to a conversation."""

    param: ClassVar[str] = "messages"

    messages: Sequence[Message] = field(validator=_check_messages)
    tools: tuple[Tool, ...] = field(default=(), kw_only=True)
    """The functions that a model may call."""
    tool_choice: ToolChoice = field(default=ToolChoice(), kw_only=True)
    parallel_tool_calls: bool = field(default=True, kw_only=True)
    template_options: Mapping[str, Any] = field(factory=dict, kw_only=True)
    """Variables of the model's own template."""
    continue_final: bool = field(default=False, kw_only=True)
    """Whether the answer goes on where the last message, an assistant's, ends."""
    add_generation_prompt: bool = field(default=True, kw_only=True)

    @property
    def said(self) -> Conversation:
        """The conversation."""
        return Conversation(
            self.messages,
            self.tools,
            self.tool_choice,
            self.parallel_tool_calls,
            self.template_options,
            self.continue_final,
            self.add_generation_prompt,
        )

    @property
    def size(self) -> int:
        """How much there is to read, about, in characters."""
        parts = (len(part.text) for message in self.messages for part in message.content)
        return sum(parts) + 16 * len(self.messages) + self._grammar_size


def _check_prompt(_: object, __: object, prompt: str | tuple[int, ...]) -> None:
    if isinstance(prompt, str):
        check_text(prompt, "prompt")
    elif not prompt:
        raise InvalidRequest("the prompt must hold at least one token", param="prompt")


@frozen
class CompletionRequest(Request):
    """Ask for what comes after a text, or after tokens, as they are."""

    param: ClassVar[str] = "prompt"

    prompt: str | tuple[int, ...] = field(validator=_check_prompt)
    """What looks like a control token in a text is one: whoever sends this writes the template."""

    @property
    def said(self) -> str | tuple[int, ...]:
        """The prompt."""
        return self.prompt

    @property
    def size(self) -> int:
        """How much there is to read, about, in characters."""
        return len(self.prompt) + self._grammar_size


def resolve(
    options: SamplingOptions,
    defaults: Sampling,
    *,
    seed: int,
    bad_words: tuple[tuple[int, ...], ...] = (),
) -> Sampling:
    """The sampling of one stream: what was asked for, over the model's defaults; and the tokens of
    the bad words.

    Raises:
        InvalidRequest: A value is out of range; ``param`` names it.
    """
    values: dict[str, Any] = {"bad_words": bad_words}
    for name in (attribute.name for attribute in fields(SamplingOptions)):
        if name == "bad_words":
            continue
        asked = getattr(options, name)
        values[name] = getattr(defaults, name) if asked is None else asked
        if isinstance(asked, float) and not math.isfinite(asked):
            raise InvalidRequest(f"{name} must be a finite number", param=name)
    if options.seed is None:
        values["seed"] = seed
    return Sampling(**values)
