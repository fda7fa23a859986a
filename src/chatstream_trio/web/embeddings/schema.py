"""The body of a request for embeddings. What is particular to its fields is here, and no seat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.request import Timeouts
from chatstream_trio.validation.values import check_text
from chatstream_trio.web.bodies.reading import Foreign, Unknown, Wire, read
from chatstream_trio.web.openai.foreign import CHANGES_NOTHING, HABITS
from chatstream_trio.web.timeouts import TimeoutsBody

MOST_INPUTS = 2048
"""In one request, as with OpenAI."""
_LARGEST_ID = 2**32


class EmbeddingsBody(Wire, frozen=True):
    """The body of ``POST /v1/embeddings``."""

    foreign = Foreign(
        {
            "truncate_prompt_tokens": CHANGES_NOTHING["truncate_prompt_tokens"],
            "messages": CHANGES_NOTHING["chat_template"],
            "chat_template": CHANGES_NOTHING["chat_template"],
            "add_special_tokens": lambda value: value is True,
            "normalize": lambda value: value is True,
            "use_activation": lambda value: value is True,
        },
        {
            "user": CHANGES_NOTHING["user"],
            "metadata": CHANGES_NOTHING["metadata"],
            "safety_identifier": CHANGES_NOTHING["safety_identifier"],
            "request_id": HABITS["request_id"],
            "priority": HABITS["priority"],
        },
    )
    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    timeouts: TimeoutsBody | None = None


@frozen
class EmbeddingsCall:
    """A body that was read."""

    inputs: Sequence[str | tuple[int, ...]]
    model: str | None
    base64: bool
    dimensions: int | None
    timeouts: Timeouts


def parse_embeddings(
    body: bytes, timeouts: Timeouts, walk: Walk, unknown: Unknown
) -> EmbeddingsCall:
    """Read the body of a request.

    Raises:
        InvalidRequest: It cannot be read, or asks for what cannot be; ``param`` says where.
    """
    said = read(EmbeddingsBody, body, walk, unknown)
    if said.dimensions is not None and said.dimensions < 1:
        raise InvalidRequest("dimensions must be at least 1", param="dimensions")
    return EmbeddingsCall(
        _inputs(said.input, walk),
        said.model,
        said.encoding_format == "base64",
        said.dimensions,
        (said.timeouts.to_timeouts() if said.timeouts else Timeouts()).under(timeouts),
    )


def _inputs(said: str | list[str | int | list[int]], walk: Walk) -> Sequence[str | tuple[int, ...]]:
    """One text or several, as strings or as tokens."""
    if isinstance(said, str):
        return [_text(said, "input")]
    if not said:
        raise InvalidRequest("input must not be empty", param="input")
    kind = type(said[0])
    for at, each in enumerate(walk(said)):
        if type(each) is not kind:
            raise InvalidRequest(
                "input must be a text, tokens, or a list of either, and no mixture",
                param=f"input[{at}]",
            )
    if kind is int:
        return [_tokens(said, "input", walk)]
    if len(said) > MOST_INPUTS:
        raise InvalidRequest(
            f"input holds {len(said)} texts, of at most {MOST_INPUTS}", param="input"
        )
    found: list[str | tuple[int, ...]] = []
    for at, each in enumerate(said):
        place = f"input[{at}]"
        found.append(_text(each, place) if isinstance(each, str) else _tokens(each, place, walk))
    return found


def _text(said: str, at: str) -> str:
    if not said:
        raise InvalidRequest("a text must not be empty", param=at)
    check_text(said, at)
    return said


def _tokens(said: object, at: str, walk: Walk) -> tuple[int, ...]:
    assert isinstance(said, list)
    if not said:
        raise InvalidRequest("tokens must not be empty", param=at)
    for place, token in enumerate(walk(said)):
        if not 0 <= token < _LARGEST_ID:
            raise InvalidRequest("a token id must be from 0 on", param=f"{at}[{place}]")
    return tuple(said)
