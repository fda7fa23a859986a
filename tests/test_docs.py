"""What the documentation shows is what happens: its examples are run, and its references exist.

Every ``python`` block is run, block after block with the names of those before it on the page; then
the ``test_…`` functions that the page defines. Every ``curl`` in a ``bash`` block is run as well.
``http://127.0.0.1:8000`` is a scripted server. ``<!-- not run: why -->`` before a block exempts it.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import fields, frozen
from trio.testing import MockClock

from chatstream_trio import Settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts),
]
URL = "http://127.0.0.1:8000"
FENCE = re.compile(
    r"^(?P<skip><!-- not run: .+ -->\n+)?```(?P<kind>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)


@frozen
class Block:
    """An example."""

    page: Path
    line: int
    kind: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(kind: str) -> list[Block]:
    """All examples of a kind that are to be tried."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in FENCE.finditer(text):
            if match["kind"] == kind and not match["skip"]:
                line = text.count("\n", 0, match.start("code")) + 1
                found.append(Block(page, line, kind, match["code"]))
    return found


def by_page(kind: str) -> dict[str, list[Block]]:
    pages: dict[str, list[Block]] = {}
    for block in blocks(kind):
        pages.setdefault(str(block.page.relative_to(ROOT)), []).append(block)
    return pages


PYTHON = by_page("python")
CURLS = [block for block in blocks("bash") if block.code.startswith("curl ")]
TOMLS = blocks("toml")
JSONS = blocks("json")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a scripted server in a process of its own."""
    command = [sys.executable, "-m", "chatstream_trio", "serve", "--model", "scripted"]
    command += ["--unknown-fields", "refuse"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [*command, "--port", "0"], stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stderr is not None
        try:
            first = process.stderr.readline()
            assert first.startswith("Listening on "), first
            yield first.removeprefix("Listening on ").strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0


def run_tests_of(names: dict[str, Any]) -> None:
    """What pytest would do with a page's own tests."""
    for name, test in names.items():
        if not name.startswith("test_"):
            continue
        jumps = "autojump_clock" in inspect.signature(test).parameters
        clock = MockClock(autojump_threshold=0) if jumps else None
        if inspect.iscoroutinefunction(test):
            trio.run(test, *([clock] if jumps else []), clock=clock)
        else:
            test()


@pytest.mark.parametrize("page", PYTHON)
def test_python_examples_run(page: str, server: str) -> None:
    """Every Python example of the documentation runs."""
    names: dict[str, Any] = {"__name__": "example"}
    for block in PYTHON[page]:
        code = block.code.replace(URL, server)
        exec(compile(code, block.name, "exec", dont_inherit=True), names)
    run_tests_of(names)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("block", CURLS, ids=lambda block: block.name)
def test_curl_examples_get_an_answer(block: Block, server: str) -> None:
    """Every curl of the documentation gets a well-formed answer."""
    done = subprocess.run(
        ["bash", "-ec", block.code.replace(URL, server)],
        capture_output=True,
        timeout=30,
        check=True,
    )
    answer = done.stdout.decode()
    assert answer
    assert "unknown or unsupported field" not in answer
    assert "was not found on the server" not in answer


@pytest.mark.parametrize("block", JSONS, ids=lambda block: block.name)
def test_json_examples_are_json(block: Block) -> None:
    """Every JSON example parses."""
    json.loads(block.code)


@pytest.mark.parametrize("block", TOMLS, ids=lambda block: block.name)
def test_toml_examples_are_settings(block: Block) -> None:
    """Every TOML example is a file of settings."""
    Settings(**tomllib.loads(block.code))


def test_flags_exist() -> None:
    """Every flag of ``chatstream-trio serve`` that the documentation names is a setting."""
    known = {"--" + field.name.replace("_", "-") for field in fields(Settings)}
    known |= {"--config", "--help"}
    for page in PAGES:
        for command in re.findall(r"chatstream-trio serve([^`\n|&]*)", page.read_text("utf-8")):
            assert set(re.findall(r"--[a-z-]+", command)) <= known, page


def test_relative_links_exist() -> None:
    """Every link from a Markdown page to a file of the repository leads to one."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_examples_were_found() -> None:
    """The patterns above still see the examples."""
    assert len(PYTHON) >= 4
    assert CURLS
    assert TOMLS
    assert JSONS
