"""What to ask, and the whole answer that an idle server gives to it.

For the scripted model the answer can be computed, so every request has words of its own and a
stream that met another is caught. For other models it is collected first, one request after the
other, at temperature 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from attrs import Factory, evolve, frozen
from benchmarks.overload_suite.client import ask
from benchmarks.overload_suite.records import Ask, Ending

from chatstream_trio.bench.http import Address

WORDS = 7
PROMPTS = (
    "What is structured concurrency?",
    "What is a nursery in Trio?",
    "Say hello in Japanese.",
    "Who are you?",
    "How does a waiting room stay fair?",
    "What happens when I hang up?",
    "Count from one to ten.",
    "What is a token?",
)


class Texts(Protocol):
    """Makes requests whose answer is known."""

    def ask(self, number: int, max_tokens: int, **more: Any) -> Ask:
        """The request with this number; ``more`` are fields of :class:`Ask`."""
        ...


@frozen
class ScriptedTexts:
    """For ``--model scripted``."""

    model: str | None = None

    def ask(self, number: int, max_tokens: int, **more: Any) -> Ask:
        text = more.pop("text", None) or " ".join(f"n{number}w{i}" for i in range(WORDS))
        return Ask(
            text=text,
            max_tokens=max_tokens,
            expected=scripted_answer(text, max_tokens),
            model=self.model,
            **more,
        )


def scripted_answer(text: str, tokens: int) -> str:
    """What the scripted model says: the words of the message, over and over."""
    words = re.findall(r"\S+\s*", text)
    if not words[-1][-1].isspace():
        words[-1] += " "
    return "".join(words[i % len(words)] for i in range(tokens))


@frozen
class CollectedTexts:
    """For any other model, at temperature 0."""

    model: str | None
    answers: Mapping[str, str]
    fields: Mapping[str, Any] = Factory(dict)
    """More fields of every request."""

    def ask(self, number: int, max_tokens: int, **more: Any) -> Ask:
        text = more.pop("text", None) or PROMPTS[number % len(PROMPTS)]
        fields = {"temperature": 0, **self.fields, **more.pop("fields", {})}
        return Ask(
            text=text,
            max_tokens=max_tokens,
            expected=self.answers.get(text),
            model=self.model,
            fields=fields,
            **more,
        )


async def collect(address: Address, texts: CollectedTexts, max_tokens: int) -> CollectedTexts:
    """Ask an idle server every prompt, one after the other.

    Raises:
        RuntimeError: It did not answer one.
    """
    answers = {}
    for number, prompt in enumerate(PROMPTS):
        record = await ask(address, texts.ask(number, max_tokens))
        if record.ending is not Ending.SERVED:
            raise RuntimeError(f"an idle server did not answer {prompt!r}: {record.error}")
        answers[prompt] = record.text
    return evolve(texts, answers=answers)
