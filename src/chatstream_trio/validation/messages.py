"""What a conversation may be: who says what, and what came of which call."""

from __future__ import annotations

from collections.abc import Sequence

from chatstream_trio.conversation import ROLES, Message
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.validation.values import Budget, check_text, read_object

MOST_CALLED = 2**16
"""Values in the arguments of all calls of a conversation."""


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse a conversation that nobody can have had.

    Raises:
        InvalidRequest: ``param`` names the place.
    """
    if not messages:
        raise InvalidRequest("messages must hold at least one message", param="messages")
    budget = Budget(MOST_CALLED, "the calls of tools in messages")
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if message.role not in ROLES:
            raise InvalidRequest(f"the role must be one of {', '.join(ROLES)}", param=f"{at}.role")
        check_text(message.text, f"{at}.content")
        for name in ("name", "tool_call_id"):
            if (said := getattr(message, name)) is not None:
                check_text(said, f"{at}.{name}")
        if message.reasoning is not None:
            check_text(message.reasoning, f"{at}.reasoning_content")
        if message.role == "tool" and not message.tool_call_id:
            raise InvalidRequest(
                "a tool's message must say to which call it is the result",
                param=f"{at}.tool_call_id",
            )
        if message.tool_calls:
            _check_calls(message, at, budget)


def _check_calls(message: Message, at: str, budget: Budget) -> None:
    if message.role != "assistant":
        raise InvalidRequest("only an assistant calls tools", param=f"{at}.tool_calls")
    for index, call in enumerate(message.tool_calls):
        where = f"{at}.tool_calls[{index}]"
        check_text(call.id, f"{where}.id")
        check_text(call.name, f"{where}.function.name")
        if not call.name:
            raise InvalidRequest("a call must name its tool", param=f"{where}.function.name")
        arguments = f"{where}.function.arguments"
        check_text(call.arguments, arguments)
        budget.check(read_object(call.arguments, arguments), arguments)


def check_continued(messages: Sequence[Message]) -> None:
    """Refuse to go on with a last message with which nobody can.

    Raises:
        InvalidRequest: It is no assistant's, or calls tools.
    """
    last = messages[-1]
    if last.role != "assistant" or last.tool_calls:
        raise InvalidRequest(
            "only a last message that is an assistant's, and calls no tool, can be continued",
            param="continue_final_message",
        )
