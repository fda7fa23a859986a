"""Tools of OpenAI's chat completions as structs; and all that a template is given, as a request
has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import Tool, ToolChoice
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.web.bodies.reading import Foreign, Wire
from chatstream_trio.web.openai.foreign import LABELS
from chatstream_trio.web.openai.messages import ChatMessage

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model is to reason."""


class FunctionBody(Wire, frozen=True):
    """A function that a model may call."""

    foreign = Foreign(labels=LABELS, empty=True)
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """The JSON schema of its arguments."""
    strict: bool | None = None


class ToolBody(Wire, frozen=True, tag_field="type", tag="function"):
    """A tool; those that are no function are refused."""

    foreign = Foreign(labels=LABELS, empty=True)
    function: FunctionBody

    def to_tool(self) -> Tool:
        """The same, for any codec."""
        it = self.function
        return Tool(it.name, it.description, it.parameters, bool(it.strict))


class NamedFunction(Wire, frozen=True):
    """A function by its name."""

    name: str


class NamedTool(Wire, frozen=True, tag_field="type", tag="function"):
    """The tool that has to be called; or one of those that may be."""

    function: NamedFunction


class AllowedNames(Wire, frozen=True):
    """Some of the tools, and whether one of them has to be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedTools(Wire, frozen=True, tag_field="type", tag="allowed_tools"):
    """The tools that may be called: the others might as well not be there."""

    allowed_tools: AllowedNames


Choice: TypeAlias = Literal["none", "auto", "required"] | NamedTool | AllowedTools


class Conversing(Protocol):
    """A body that has a conversation in it, and what else a template is given."""

    @property
    def tools(self) -> list[ToolBody] | None: ...
    @property
    def chat_template_kwargs(self) -> dict[str, Any] | None: ...
    @property
    def add_generation_prompt(self) -> bool | None: ...
    @property
    def continue_final_message(self) -> bool | None: ...


def converse(
    body: Conversing,
    messages: Sequence[ChatMessage],
    walk: Walk,
    choice: Choice | None = None,
    effort: Effort | None = None,
) -> dict[str, Any]:
    """What of a :class:`~chatstream_trio.request.ChatRequest` goes to the template.

    Raises:
        InvalidRequest: The choice names a tool that there is not; or the last message is to be
            continued and another opened.
    """
    goes_on = bool(body.continue_final_message)
    if goes_on and body.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="add_generation_prompt",
        )
    tools = tuple(tool.to_tool() for tool in walk(body.tools or ()))
    tools, chosen = _chosen(choice, tools)
    return {
        "messages": [message.to_message(walk) for message in walk(messages)],
        "tools": tools,
        "tool_choice": chosen,
        "template_options": _effort(effort) | (body.chat_template_kwargs or {}),
        "continue_final": goes_on,
        "add_generation_prompt": not goes_on and body.add_generation_prompt is not False,
    }


def _effort(effort: Effort | None) -> dict[str, Any]:
    """How templates are told of it: those of models that reason or do not have a switch."""
    if effort is None:
        return {}
    if effort == "none":
        return {"enable_thinking": False, "thinking": False}
    return {"reasoning_effort": effort}


def _chosen(choice: Choice | None, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    match choice:
        case NamedTool(NamedFunction(name)):
            return tools, ToolChoice("required", name)
        case AllowedTools(AllowedNames(mode, allowed)):
            names = {tool.function.name for tool in allowed}
            if unknown := names - {tool.name for tool in tools}:
                raise InvalidRequest(
                    f"there is no tool {min(unknown)[:128]!r}", param="tool_choice"
                )
            return tuple(tool for tool in tools if tool.name in names), ToolChoice(mode)
        case None:
            return tools, ToolChoice()
        case _:
            return tools, ToolChoice(choice)
