"""OpenAI's responses as structs: the body of a request, and what it asks for.

Types are checked in :mod:`chatstream_trio.web.bodies.reading`, ranges by
:mod:`chatstream_trio.request`. The field names are those of
https://platform.openai.com/docs/api-reference/responses/create, and of vLLM for ``top_k``,
``min_p``, ``seed``, ``stop`` and the penalties.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from attrs import field, fields, frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import Message, TextPart
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.grammars.grammar import Grammar
from chatstream_trio.request import ChatRequest, SamplingOptions, Timeouts, check_text
from chatstream_trio.web.bodies.reading import Foreign, Unknown, Wire
from chatstream_trio.web.openai.body import MOST_LOGPROBS
from chatstream_trio.web.responses.foreign import CHANGES_NOTHING, HABITS, REASONING_LABELS
from chatstream_trio.web.responses.formats import TextBody
from chatstream_trio.web.responses.items import InputItem, Turns
from chatstream_trio.web.responses.tools import ChoiceBody, ToolBody, Toolbox, open_toolbox
from chatstream_trio.web.timeouts import TimeoutsBody

LOGPROBS = "message.output_text.logprobs"
SEALED = "reasoning.encrypted_content"
_INCLUDES = (
    LOGPROBS,
    SEALED,
    # Of what is never in an answer from here
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)


class ReasoningBody(Wire, frozen=True):
    """``reasoning``."""

    foreign = Foreign(labels=REASONING_LABELS)
    effort: str | None = None
    summary: str | None = None
    """There is none: what a model reasons is told as it is."""


class StreamOptions(Wire, frozen=True):
    """What a stream brings besides."""

    include_obfuscation: bool | None = None
    """Padding against those who watch the length of packets; there is none here."""


class InputBody(Wire, frozen=True):
    """What of a body the prompt is made of; the body of ``POST /v1/responses/input_tokens``."""

    foreign = Foreign(CHANGES_NOTHING, HABITS)
    input: str | list[InputItem]
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[ToolBody] | None = None
    tool_choice: str | ChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    text: TextBody | None = None
    reasoning: ReasoningBody | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def read(self, walk: Walk, unknown: Unknown) -> Asked:
        """The prompt of it.

        Args:
            walk: Goes through what a client may have made long.
            unknown: Told of what is passed over although it was meant.

        Raises:
            InvalidRequest: Something is wrong with it.
        """
        if self.previous_response_id is not None:
            raise UnsupportedField(
                "no answers are kept here; send the conversation as input",
                param="previous_response_id",
            )
        if self.truncation == "auto":
            unknown("truncation")  # what is too long is refused
        if self.text is not None and self.text.verbosity not in (None, "medium"):
            unknown("text.verbosity")
        toolbox, kept = open_toolbox(self.tools or [], unknown)
        tools, choice = toolbox.choose(self.tool_choice)
        request = ChatRequest(
            messages=self._messages(toolbox, walk),
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls is not False,
            template_options=self._options(),
            grammar=self._held_to(),
        )
        return Asked(request, toolbox, kept)

    def _messages(self, toolbox: Toolbox, walk: Walk) -> list[Message]:
        turns = Turns(toolbox, walk)
        if self.instructions is not None:
            check_text(self.instructions, "instructions")
            turns.hear("system", (TextPart(self.instructions),))
        if isinstance(self.input, str):
            check_text(self.input, "input")
            return [*turns.messages, Message("user", self.input)]
        if not self.input:
            raise InvalidRequest("input must hold at least one item", param="input")
        for index, item in walk(enumerate(self.input)):
            turns.add(item, f"input[{index}]")
        if not turns.messages:
            raise InvalidRequest("input holds nothing that can be read", param="input")
        return turns.messages

    def _options(self) -> dict[str, Any]:
        effort = self.reasoning.effort if self.reasoning else None
        if effort is None:
            return {}
        check_text(effort, "reasoning.effort")
        return {"reasoning_effort": effort}

    def _held_to(self) -> Grammar | None:
        asked = self.text.format if self.text else None
        return None if asked is None else asked.grammar()


class ResponseBody(InputBody, frozen=True):
    """The body of ``POST /v1/responses``."""

    foreign = Foreign(CHANGES_NOTHING, HABITS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    """Of tools that OpenAI runs, of which there are none."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    store: bool | None = None
    """Nothing is kept here, and the reply says so."""
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    timeouts: TimeoutsBody | None = None
    """Ours: seconds that each phase may take."""

    def to_request(self, prompt: ChatRequest, timeouts: Timeouts, unknown: Unknown) -> ChatRequest:
        """What the service is asked, besides the prompt.

        Args:
            prompt: What it is to read.
            timeouts: What the headers say; the shorter of theirs and the body's counts.
            unknown: Told of what is passed over.

        Raises:
            InvalidRequest: A value is out of range.
        """
        if self.background:
            raise UnsupportedField(
                "no answers are kept here that could be fetched later", param="background"
            )
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options needs stream: true", param="stream_options")
        most = self.max_output_tokens
        if most is not None and most < 1:
            raise InvalidRequest("max_output_tokens must be at least 1", param="max_output_tokens")
        for index, name in enumerate(self.include or ()):
            if name not in _INCLUDES:
                unknown(f"include[{index}]")
        sampling: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(SamplingOptions)
            if hasattr(self, field.name)
        }
        for name in ("seed", "top_k"):
            sampling[name] = None if sampling[name] == -1 else sampling[name]
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        asked = self.timeouts
        own = asked.to_timeouts() if asked else Timeouts()
        return ChatRequest(
            prompt.messages,
            tools=prompt.tools,
            tool_choice=prompt.tool_choice,
            parallel_tool_calls=prompt.parallel_tool_calls,
            template_options=prompt.template_options,
            grammar=prompt.grammar,
            max_tokens=most,
            sampling=SamplingOptions(**{**sampling, "logprobs": self._logprobs()}),
            stop=tuple(text for text in stop if text),
            timeouts=own.under(timeouts),
        )

    def includes(self, name: str) -> bool:
        """Whether it is to be in the answer."""
        return name in (self.include or ())

    def _logprobs(self) -> int | None:
        most = self.top_logprobs or 0
        if not 0 <= most <= MOST_LOGPROBS:
            raise InvalidRequest(
                f"top_logprobs must be between 0 and {MOST_LOGPROBS}", param="top_logprobs"
            )
        return most if self.includes(LOGPROBS) else None

    def echo(self, kept: list[ToolBody]) -> dict[str, msgspec.Raw]:
        """What the reply repeats, as JSON.

        Args:
            kept: The tools that were not passed over.

        Raises:
            InvalidRequest: Something in it cannot be said in JSON.
        """
        format = self.text.format if self.text else None
        reasoning = self.reasoning or ReasoningBody()
        repeated = {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
            "safety_identifier": self.safety_identifier,
            "temperature": self.temperature,
            "text": {"format": format or {"type": "text"}, "verbosity": "medium"},
            "tool_choice": self.tool_choice or "auto",
            "tools": [tool.echo() for tool in kept],
            "top_logprobs": self.top_logprobs or 0,
            "top_p": self.top_p,
            "user": self.user,
        }
        return {name: _as_json(name, value) for name, value in repeated.items()}


def _as_json(name: str, value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except (UnicodeError, OverflowError, RecursionError, ValueError):
        raise InvalidRequest(f"{name} holds what JSON cannot say", param=name) from None


@frozen
class Asked:
    """A prompt that was read, and what its answer has to know of it."""

    request: ChatRequest
    toolbox: Toolbox
    kept: list[ToolBody] = field(factory=list)
    """The tools that were not passed over."""
