"""What a model says to itself before its answer, between two marks."""

from __future__ import annotations

from functools import partial

from attrs import frozen

from chatstream_trio.events import Reasoning
from chatstream_trio.text.answers.reader import Read
from chatstream_trio.text.answers.source import Source, Steps


@frozen
class Marks:
    """Two marks around what a model says to itself."""

    open: str
    close: str

    def before(self, rest: Read) -> Read:
        """Reads what is between them, if they come first, and then ``rest``."""
        return partial(_read, self, rest)

    def ends_open(self, prompt: str) -> bool:
        """Whether a prompt ends with the first of them: the answer begins behind it."""
        return prompt.rstrip().endswith(self.open.rstrip())

    def ends_closed(self, prompt: str) -> bool:
        """Whether a prompt ends with the second of them: there is no reasoning any more."""
        return prompt.rstrip().endswith(self.close)

    def leaves_open(self, text: str) -> bool:
        """Whether a text ends between them."""
        return text.rfind(self.open) > text.rfind(self.close)


THINK = Marks("<think>", "</think>")
MARKS = {
    "think": THINK,
    "mistral": Marks("[THINK]", "[/THINK]"),
    "gemma4": Marks("<|channel>thought\n", "<channel|>"),
    "seed_oss": Marks("<seed:think>", "</seed:think>"),
    "kimi": Marks("◁think▷", "◁/think▷"),
}
"""By name, as ``--reasoning-parser`` takes it."""
MARKS |= dict.fromkeys(("qwen3", "deepseek_r1"), THINK)


def _read(marks: Marks, rest: Read, source: Source) -> Steps[None]:
    if not source.reasons:
        source.keep()
        yield from source.space()
        source.reasons = bool((yield from source.take(marks.open)))
        if not source.reasons:
            source.go_back()
    if source.reasons:
        source.go_on()
        yield from source.until((marks.close,), Reasoning)
        source.reasons = False
    yield from rest(source)
