"""Anthropic's messages as structs: the body of a request, and what it asks for.

Types are checked in :mod:`chatstream_trio.web.bodies.reading`, ranges by
:mod:`chatstream_trio.request`. A field that changes the answer and that we do not have is refused
by name, unless its value changes nothing (:mod:`.foreign`); of one that we do not know, whoever
reads the body is told.

The field names are those of https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import Tool, ToolChoice
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.request import ChatRequest, SamplingOptions, Timeouts
from chatstream_trio.web.anthropic.blocks import (
    AssistantMessage,
    SystemMessage,
    TextBlock,
    UserMessage,
)
from chatstream_trio.web.anthropic.foreign import CHANGES_NOTHING, HABITS, OF_TOOLS
from chatstream_trio.web.anthropic.history import goes_on, to_messages
from chatstream_trio.web.bodies.reading import Foreign, Wire
from chatstream_trio.web.timeouts import TimeoutsBody

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_EFFORTS: Mapping[str, str] = {"xhigh": "high", "max": "high"}
"""What templates call more than they have a word for."""


class ToolBody(Wire, frozen=True):
    """A tool of the client's own; those that a server of theirs would run are refused by name."""

    foreign = Foreign(labels=OF_TOOLS, empty=True)
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None

    def to_tool(self, at: str) -> Tool:
        """The same, for any codec.

        Raises:
            InvalidRequest: It has no name or no schema.
            UnsupportedField: It is none of the client's own.
        """
        if self.type not in (None, "custom"):
            raise UnsupportedField(
                f"this server has no tools of its own, and no {self.type[:100]!r}",
                param=f"{at}.type",
            )
        for field, value in {"name": self.name, "input_schema": self.input_schema}.items():
            if value is None:
                raise InvalidRequest(f"missing required field `{field}`", param=f"{at}.{field}")
        if self.name is None or not _NAME.fullmatch(self.name):
            raise InvalidRequest(
                "the name of a tool has 1 to 128 of a-z, A-Z, 0-9, _ and -", param=f"{at}.name"
            )
        return Tool(self.name, self.description, self.input_schema, bool(self.strict))


class ToolChoiceBody(Wire, frozen=True):
    """Whether a tool is to be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    def to_choice(self, tools: Mapping[str, Tool]) -> ToolChoice:
        """The same, for any codec.

        Raises:
            InvalidRequest: It names none of the tools, or wants one where there is none.
        """
        if self.type == "tool":
            if self.name not in tools:
                raise InvalidRequest("it names none of the tools", param="tool_choice.name")
            return ToolChoice("required", self.name)
        if self.type == "any":
            if not tools:
                raise InvalidRequest("there are no tools to choose from", param="tool_choice")
            return ToolChoice("required")
        return ToolChoice(self.type)


class ThinkingBody(Wire, frozen=True):
    """Whether the model is to reason; how much, is up to it."""

    type: Literal["enabled", "adaptive", "between_tools", "disabled"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None
    """Whether what it reasons is shown."""


class OutputFormat(Wire, frozen=True):
    """The form of the answer."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Wire, frozen=True):
    """How the answer is made."""

    foreign = Foreign(empty=True)
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class PromptBody(Wire, frozen=True, kw_only=True):
    """What is asked: the whole body of ``POST /v1/messages/count_tokens``."""

    foreign = Foreign(CHANGES_NOTHING, HABITS)
    messages: list[UserMessage | AssistantMessage | SystemMessage]
    model: str | None = None
    system: str | list[TextBlock] | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """As it was called before."""

    def to_request(self, walk: Walk = iter, **more: Any) -> ChatRequest:
        """What the service is asked.

        Args:
            walk: Goes through what a client may have made long.
            more: What else it is asked.

        Raises:
            InvalidRequest: A value is out of range, or contradicts another.
            UnsupportedField: It asks for what this server cannot do.
        """
        self._refuse_forms()
        messages = to_messages(self.system, self.messages, walk)
        tools = self._tools(walk)
        choice = self.tool_choice
        return ChatRequest(
            messages=messages,
            tools=tuple(tools.values()),
            tool_choice=choice.to_choice(tools) if choice else ToolChoice(),
            parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
            template_options=self._options(),
            continue_final=goes_on(messages),
            **more,
        )

    def _tools(self, walk: Walk) -> dict[str, Tool]:
        tools: dict[str, Tool] = {}
        for index, body in walk(enumerate(self.tools or ())):
            tool = body.to_tool(f"tools[{index}]")
            if tool.name in tools:
                raise InvalidRequest("two tools have this name", param=f"tools[{index}].name")
            tools[tool.name] = tool
        return tools

    def _options(self) -> dict[str, Any]:
        """The template's variables, as most of them are called."""
        options: dict[str, Any] = {}
        if self.thinking is not None:
            if self.thinking.budget_tokens is not None and self.thinking.budget_tokens < 1:
                raise InvalidRequest("it must be at least 1", param="thinking.budget_tokens")
            options["enable_thinking"] = self.thinking.type != "disabled"
        if self.output_config is not None and self.output_config.effort is not None:
            effort = self.output_config.effort
            options["reasoning_effort"] = _EFFORTS.get(effort, effort)
        return options

    def _refuse_forms(self) -> None:
        config = self.output_config
        forms = {"output_config.format": config and config.format}
        forms["output_format"] = self.output_format
        for name, form in forms.items():
            if form is not None:
                raise UnsupportedField(f"{name} is not supported here", param=name)


class MessagesBody(PromptBody, frozen=True, kw_only=True):
    """The body of ``POST /v1/messages``."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    timeouts: TimeoutsBody | None = None
    """Ours."""

    def to_whole_request(self, timeouts: Timeouts, walk: Walk = iter) -> ChatRequest:
        """What the service is asked, with all that an answer needs.

        Args:
            timeouts: What the headers say; the shorter of theirs and the body's counts.
            walk: Goes through what a client may have made long.

        Raises:
            InvalidRequest: See :meth:`to_request`.
        """
        asked = self.timeouts.to_timeouts() if self.timeouts else Timeouts()
        return self.to_request(
            walk,
            max_tokens=self.max_tokens,
            sampling=SamplingOptions(
                temperature=self.temperature, top_p=self.top_p, top_k=self.top_k
            ),
            stop=tuple(self.stop_sequences or ()),
            timeouts=asked.under(timeouts),
        )
