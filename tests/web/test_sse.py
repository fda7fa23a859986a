"""Server-sent events as bytes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.web.sse import data

SEPARATORS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@given(st.text(st.sampled_from("aé席😀" + SEPARATORS)))
def test_an_event_is_one_line_for_everybody(text: str) -> None:
    """Also for a client that cuts lines where Unicode does; and nothing of the text is changed."""
    event = data({"text": text}).decode()
    assert event.endswith("\n\n")
    (line, blank) = event.splitlines()
    assert blank == ""
    assert json.loads(line.removeprefix("data: ")) == {"text": text}
