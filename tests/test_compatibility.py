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
