"""The conversation behind ``chat``: what it reads of a stream, and what it keeps of it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import httpx
import pytest

from chatstream_trio.console import Conversation, Refused, ServerUnreachable

ODD_LINES = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\r\nh\ri\nj"
"""Everything that some language takes for the end of a line."""


def stream(*events: bytes, end: bytes = b"\n\n") -> httpx.Client:
    """A client of a server that answers with these events, a byte at a time."""
    body = b"".join(event + end for event in (*events, b"data: [DONE]"))

    def answer(request: httpx.Request) -> httpx.Response:
        pieces: Iterable[bytes] = (body[at : at + 1] for at in range(len(body)))
        return httpx.Response(200, content=pieces)

    return httpx.Client(transport=httpx.MockTransport(answer))


def chunk(text: str, *, escaped: bool) -> bytes:
    """An event with a piece of an answer."""
    value = {"choices": [{"delta": {"content": text}}]}
    return b"data: " + json.dumps(value, ensure_ascii=escaped).encode()


def said(client: httpx.Client) -> str:
    """What the answer to a question was."""
    conversation = Conversation("http://server")
    for _ in conversation.ask("hello", client):
        pass
    return conversation.messages[-1]["content"]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("escaped", [True, False])
def test_a_line_ends_at_cr_or_lf_only(escaped: bool, end: bytes) -> None:
    """Other separators are part of an answer, whoever sends it and however its lines end."""
    assert said(stream(chunk(ODD_LINES, escaped=escaped), b": comment", end=end)) == ODD_LINES


def test_an_error_event_is_said_in_its_own_words() -> None:
    """It ends the answer as a refusal, with the message of the server."""
    with pytest.raises(Refused, match="no more"):
        said(stream(chunk("a", escaped=True), b'data: {"error": {"message": "no more"}}'))


def test_what_is_no_event_of_a_chat_is_no_traceback() -> None:
    """A server that sends something else is one line, too."""
    with pytest.raises(ServerUnreachable, match="no chat"):
        said(stream(b"data: <html>"))
