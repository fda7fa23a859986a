"""The forms in which a conversation with tools can be given to a chat template.

Natively, first of all. Then, for a template that has one call to a message, or either words or
calls: in more messages. And for one that knows nothing of tools: told in words, in the way that
most models have seen (that of Hermes), so that every model can be offered tools, and read on in a
conversation that another one began. This module knows no template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from attrs import Factory, evolve, frozen

from chatstream_trio.aside.pauses import PausingList, with_pauses
from chatstream_trio.conversation import Conversation

Said = Mapping[str, Any]
"""A message as OpenAI writes it."""

CALL, CALL_END = "<tool_call>", "</tool_call>"
RESULT, RESULT_END = "<tool_response>", "</tool_response>"
TOOLS, TOOLS_END = "<tools>", "</tools>"
TOLD_MARKS = (CALL, CALL_END, RESULT, RESULT_END, TOOLS, TOOLS_END)
"""What is written around tools, calls and results where they are told in words."""

_PREAMBLE = f"""\
You can call functions. These are there, each described by a line of JSON:
{TOOLS}
%s
{TOOLS_END}
To call one, write its name and an object with its arguments, in this form and nothing behind it:
{CALL}
{{"name": "the function's name", "arguments": {{}}}}
{CALL_END}
What came of a call is told between {RESULT} and {RESULT_END}."""


class Form(Enum):
    """How tools, calls and results are said."""

    NATIVE = auto()
    """As the template has them."""
    SPLIT = auto()
    """The same, but what is said beside calls, and each call, is a message of its own."""
    TOLD = auto()
    """In words: tools in a system message, results in a user's."""
    TOLD_BY_USER = auto()
    """In words, tools also in a user's message."""


@frozen
class Spoken:
    """What a template is to be given."""

    messages: Sequence[Said]
    tools: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = Factory(dict)
    """Variables of the template's own."""
    opens: bool = True
    """Whether it opens an assistant's message at the end."""
    continued: bool = False
    """Whether it ends where the last message does, and that stays open."""

    @classmethod
    def of(cls, conversation: Conversation) -> Spoken:
        """A conversation. Tools of which none may be called are not there."""
        spoken = with_pauses(conversation.messages)
        messages = PausingList(message.to_dict() for message in spoken)
        offered = () if conversation.tool_choice.mode == "none" else conversation.tools
        return cls(
            _with_names(messages),
            PausingList(tool.to_dict() for tool in offered),
            conversation.options,
            conversation.add_generation_prompt and not conversation.continue_final,
            conversation.continue_final,
        )


def _with_names(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results with the names of the tools that gave them: some templates look there."""
    names: dict[str, str] = {}
    for message in with_pauses(messages):
        for call in message.get("tool_calls", ()):
            names[call["id"]] = call["function"]["name"]
        if message["role"] == "tool" and message.get("tool_call_id") in names:
            message.setdefault("name", names[message["tool_call_id"]])
    return messages


def forms_of(spoken: Spoken) -> Sequence[Form]:
    """Those in which it can be given, the best first."""
    messages = with_pauses(spoken.messages)
    if not spoken.tools and not any(
        message["role"] == "tool" or "tool_calls" in message for message in messages
    ):
        return (Form.NATIVE,)
    return tuple(Form)


def formed(spoken: Spoken, form: Form) -> Spoken:
    """The same conversation in a form."""
    match form:
        case Form.NATIVE:
            return spoken
        case Form.SPLIT:
            return evolve(spoken, messages=PausingList(_split(spoken.messages)))
        case Form.TOLD:
            return _told(spoken, _tell_in_system)
        case Form.TOLD_BY_USER:
            return _told(spoken, _tell_by_user)


def _split(messages: Sequence[Said]) -> Iterator[Said]:
    """Each call in a message of its own, and what came of it next."""
    turns: list[Said] = []
    for message in with_pauses(messages):
        if message["role"] != "tool":
            yield from _in_order(turns)
            turns = []
        turns.append(message)
    yield from _in_order(turns)


def _in_order(turns: list[Said]) -> Iterator[Said]:
    """One message, and the results that come next."""
    if not turns or len(calls := turns[0].get("tool_calls", ())) + bool(turns[0]["content"]) < 2:
        yield from turns
        return
    message, *results = turns
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    if message["content"] or not calls:
        yield rest
        rest = {"role": message["role"], "content": ""}
    for call in calls:
        yield {**rest, "tool_calls": [call]}
        rest = {"role": message["role"], "content": ""}
        yield from [it for it in results if it.get("tool_call_id") == call["id"]]
        results = [it for it in results if it.get("tool_call_id") != call["id"]]
    yield from results


def _told(spoken: Spoken, tell: Callable[[list[Said], str], None]) -> Spoken:
    messages: list[Said] = PausingList()
    before = ""
    for message in with_pauses(spoken.messages):
        role = message["role"]
        if before == "tool" and role in ("tool", "user"):  # one user's message: roles alternate
            both = f"{messages[-1]['content']}\n{_in_words(message)['content']}"
            messages[-1] = {**messages[-1], "content": both}
        else:
            messages.append(_in_words(message))
        before = role
    if spoken.tools:
        lines = "\n".join(_line(tool) for tool in with_pauses(spoken.tools))
        tell(messages, _PREAMBLE % lines)
    return evolve(spoken, messages=messages, tools=())


def _in_words(message: Said) -> Said:
    if message["role"] == "tool":
        return {"role": "user", "content": f"{RESULT}\n{message['content']}\n{RESULT_END}"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    said = [message["content"]] if message["content"] else []
    said += [f"{CALL}\n{_line(call['function'])}\n{CALL_END}" for call in calls]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(said)}


def _tell_in_system(messages: list[Said], told: str) -> None:
    first = messages[0]
    if first["role"] in ("system", "developer"):
        messages[0] = {**first, "content": f"{first['content']}\n\n{told}"}
    else:
        messages.insert(0, {"role": "system", "content": told})


def _tell_by_user(messages: list[Said], told: str) -> None:
    at = next((at for at, it in enumerate(messages) if it["role"] == "user"), None)
    if at is None:
        messages.insert(0, {"role": "user", "content": told})
    else:
        messages[at] = {**messages[at], "content": f"{told}\n\n{messages[at]['content']}"}


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
