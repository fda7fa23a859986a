"""Reads answers in tests: whole, or cut anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from chatstream_trio.conversation import Tool
from chatstream_trio.events import Piece
from chatstream_trio.text.answer import Answer
from chatstream_trio.text.answers.calls import Calls, Offer
from chatstream_trio.text.answers.formats import FORMATS, HARMONY
from chatstream_trio.text.answers.harmony import read_harmony
from chatstream_trio.text.answers.reader import AnswerReader, read_text
from chatstream_trio.text.answers.reasoning import Marks
from chatstream_trio.text.codec import AnswerParser

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 0, "maximum": 9},
        "units": {"enum": ["C", "F"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = (Tool("weather", "Tells it.", WEATHER), Tool("now"))


def reader(
    name: str | None,
    *,
    marks: Marks | None = None,
    begun: bool = False,
    most: int | None = None,
    tools: tuple[Tool, ...] = TOOLS,
) -> AnswerReader:
    """For a format, by its name; ids are ``id0``, ``id1``, and so on."""
    numbers = count()
    calls = Calls(Offer(tools, lambda: f"id{next(numbers)}"))
    read = read_text
    if name is not None:
        format = FORMATS[name]

        def read(source):  # type: ignore[no-untyped-def, no-redef]
            if format is HARMONY:
                return read_harmony(source, calls)
            return format.read(source, calls)

    return AnswerReader(read if marks is None else marks.before(read), most, begun)


def read_all(make: Callable[[], AnswerParser], parts: Sequence[str]) -> tuple[Piece, ...]:
    """What is said, with neighbours joined."""
    parser, answer = make(), Answer()
    for part in parts:
        answer.say(*parser.push(part))
    answer.say(*parser.flush())
    return answer.whole


def cut(text: str, places: Sequence[int]) -> list[str]:
    """A text in parts, none of them empty."""
    ends = sorted({place % len(text) for place in places} - {0}) if text else []
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True) if a < b]
