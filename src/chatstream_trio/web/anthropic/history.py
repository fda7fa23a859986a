"""Messages and blocks of Anthropic's API as the messages that a chat template is given.

There a result of a tool is part of what the user says next; a template has a message for it. There
turns of one role in a row are one turn; many templates want that roles alternate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, field

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import Message, Part, Role, TextPart, ToolCall
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.web.anthropic.blocks import (
    AnyMessage,
    AssistantMessage,
    RedactedThinkingBlock,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from chatstream_trio.web.sse import to_json

_ACCOUNT = "x-anthropic-billing-header:"
"""How the first block of Claude Code's system prompt begins. It is for their accounts, differs from
request to request, and would keep the whole prompt from being found in the cache."""


@define
class _Turn:
    """A message that may still grow."""

    role: Role
    parts: list[Part] = field(factory=list)
    calls: list[ToolCall] = field(factory=list)
    thoughts: list[str] = field(factory=list)
    call: ToolCall | None = None
    """To which it is the result."""

    def to_message(self) -> Message:
        return Message(
            self.role,
            self.parts,
            name=self.call.name if self.call else None,
            tool_calls=tuple(self.calls),
            tool_call_id=self.call.id if self.call else None,
            reasoning="\n".join(self.thoughts) or None,
        )


def to_messages(
    system: str | Sequence[TextBlock] | None, messages: Sequence[AnyMessage], walk: Walk
) -> list[Message]:
    """The conversation, for any codec.

    What the operator says in the middle of it is said by the user, marked as a reminder: few
    templates have a place for it there, and many refuse it.

    Raises:
        InvalidRequest: There is no message; or a result of a call that nobody made.
    """
    if not messages:
        raise InvalidRequest("messages must hold at least one message", param="messages")
    history = _History(walk)
    history.hear_system(_texts(system or ()))
    for index, message in walk(enumerate(messages)):
        match message:
            case SystemMessage(content):
                history.hear_system(_texts(content))
            case UserMessage(content):
                history.hear_user(content, f"messages[{index}]")
            case AssistantMessage(content):
                history.hear_assistant(content)
    if not history.turns:
        raise InvalidRequest("nobody says anything", param="messages")
    return [turn.to_message() for turn in walk(history.turns)]


def goes_on(messages: Sequence[Message]) -> bool:
    """Whether the answer goes on where the last message ends.

    Raises:
        InvalidRequest: It would, and that calls tools.
    """
    last = messages[-1]
    if last.role == "assistant" and last.tool_calls:
        raise InvalidRequest("the last message calls tools, and has no results", param="messages")
    return last.role == "assistant"


@define
class _History:
    walk: Walk
    turns: list[_Turn] = field(factory=list, init=False)
    _calls: dict[str, ToolCall] = field(factory=dict, init=False)

    def hear_system(self, texts: Iterable[str]) -> None:
        said = [text for text in self.walk(texts) if text and not text.startswith(_ACCOUNT)]
        if not said:
            return
        if self.turns and self.turns[-1].role != "system":
            text = "\n".join(said)
            self._turn("user").parts.append(
                TextPart(f"<system-reminder>\n{text}\n</system-reminder>\n")
            )
        else:
            self._turn("system").parts.extend(map(TextPart, said))

    def hear_user(self, content: str | Sequence[TextBlock | ToolResultBlock], at: str) -> None:
        if isinstance(content, str):
            self._turn("user").parts.append(TextPart(content))
            return
        for index, block in self.walk(enumerate(content)):
            match block:
                case TextBlock(text):
                    self._turn("user").parts.append(TextPart(text))
                case ToolResultBlock():
                    self._hear_result(block, f"{at}.content[{index}]")

    def _hear_result(self, block: ToolResultBlock, at: str) -> None:
        call = self._calls.get(block.tool_use_id)
        if call is None:
            where = f"{at}.tool_use_id"
            raise InvalidRequest("no tool_use before it has this id", param=where)
        texts = list(self.walk(_texts(block.content or ())))
        if block.is_error:
            texts.insert(0, "Error: ")  # templates have no other way to say so
        self.turns.append(_Turn("tool", [TextPart(text) for text in texts], call=call))

    def hear_assistant(
        self,
        content: str | Sequence[TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock],
    ) -> None:
        turn = self._turn("assistant")
        if isinstance(content, str):
            turn.parts.append(TextPart(content))
            return
        for block in self.walk(content):
            match block:
                case TextBlock(text):
                    turn.parts.append(TextPart(text))
                case ThinkingBlock(thinking):
                    turn.thoughts.append(thinking)
                case ToolUseBlock(id, name, input):
                    call = ToolCall(id, name, to_json(input).decode())
                    self._calls[id] = call
                    turn.calls.append(call)

    def _turn(self, role: Role) -> _Turn:
        """The turn of this role that goes on, or a new one."""
        if not self.turns or self.turns[-1].role != role:
            self.turns.append(_Turn(role))
        return self.turns[-1]


def _texts(content: str | Sequence[TextBlock]) -> Iterable[str]:
    return (content,) if isinstance(content, str) else (block.text for block in content)
