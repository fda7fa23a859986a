"""The page on compatibility says what the code does."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    """``tools/compatibility.py``."""
    return runpy.run_path(str(ROOT / "tools/compatibility.py"))


def rows(page: str, heading: str) -> dict[str, str]:
    """The fields below a heading, and what becomes of each."""
    below = page.partition(f"{heading}\n")[2].split("\n#")[0]
    cells = [line.strip("| ").split(" | ") for line in below.splitlines() if line.startswith("| `")]
    return {name.strip("`"): here for name, _, here in cells}


def test_the_page_is_what_the_code_says(tool: dict[str, Any]) -> None:
    """After a change of fields: ``python tools/compatibility.py``."""
    assert tool["page"](json.loads(tool["DATA"].read_text())) == tool["PAGE"].read_text()


def test_what_becomes_of_a_field(tool: dict[str, Any]) -> None:
    """Each verdict, for a field of which it is known; and every field of the clients is there."""
    data = json.loads(tool["DATA"].read_text())
    chat = rows(tool["PAGE"].read_text(), "## `POST /v1/chat/completions`")
    assert chat["temperature"] == "yes"
    assert chat["bootstrap_host"] == "unknown"
    assert chat["web_search_options"] == "refused: 400 `unsupported_parameter`"
    assert chat["user"].startswith("no effect, if it is a string or `null`")
    assert chat["store"] == "no effect, if it is `false` or `null`; else unknown"
    assert set(data["requests"]["/v1/chat/completions"]) <= set(chat)


def test_a_verdict_is_found_by_trying(tool: dict[str, Any]) -> None:
    """A field that a struct has, only to refuse it, is refused."""
    from chatstream_trio.errors import UnsupportedField

    def refuses(body: bytes, unknown: Any) -> None:
        if "suffix" in json.loads(body):
            raise UnsupportedField("no", param="suffix")

    seen = tool["probe"](refuses, {"prompt": "x"}, "suffix")
    assert tool["verdict"](seen, ours=True) == "refused: 400 `unsupported_parameter`"
    assert tool["verdict"](tool["probe"](refuses, {}, "prompt"), ours=True) == "yes"


def test_a_field_that_is_ours_may_not_take_every_value(tool: dict[str, Any]) -> None:
    """One that is refused unless it says nothing, and one of which a value is passed over."""
    responses = rows(tool["PAGE"].read_text(), "## `POST /v1/responses`")
    assert responses["background"].startswith("refused")
    assert responses["background"].endswith("unless it is `false` or `null`")
    assert responses["truncation"] == 'yes; `"auto"`: unknown'
    assert responses["temperature"] == "yes"


def test_what_is_said_by_hand_is_of_fields_that_there_are(tool: dict[str, Any]) -> None:
    """And it is on the page."""
    page = tool["PAGE"].read_text()
    for key, said in tool["SAID"].items():
        path, _, place = key.partition(" ")
        heading = f"### `{place}` of `{path}`" if place else f"## `POST {path}`"
        assert rows(page, heading).items() >= said.items()


def test_each_heading_is_there_once(tool: dict[str, Any]) -> None:
    """Objects of several kinds in one place are told apart."""
    headings = [line for line in tool["PAGE"].read_text().splitlines() if line.startswith("#")]
    assert len(set(headings)) == len(headings)
