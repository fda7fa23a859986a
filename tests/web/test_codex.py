"""Codex CLI itself, from npm, against a real server: it thinks, runs a command, and reads on.

`nox -s suites` installs it. What it sent is compared with what is recorded here for the tests that
have no Codex.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from acting import open_acting
from test_responses import CODEX

from chatstream_trio.web import answering as endpoints
from chatstream_trio.web.bodies.body_reader import read_body

pytestmark = [pytest.mark.trio, pytest.mark.suite]

PROGRAM = Path(__file__).parent / "npm" / "node_modules" / ".bin" / "codex"
PATIENCE = 90
SETTINGS = """
model = "m"
model_provider = "trio"
[model_providers.trio]
name = "ChatStream Trio"
base_url = "{url}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
ACTS = '<think> hm </think> so <call:exec_command> {"cmd":"echo a-b END"} </call> END'


def shape(value: Any) -> Any:
    """Which fields there are, of which types; lists by what is in them."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(inner), sort_keys=True) for inner in value})
    return type(value).__name__


async def test_it_runs_what_the_model_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is run, its result is read, and what the model thought is there again."""
    bodies: list[Any] = []

    async def read_and_keep(request: Any, most: int) -> bytes:
        body = await read_body(request, most)
        bodies.append(json.loads(body))
        return body

    monkeypatch.setattr(endpoints, "read_body", read_and_keep)
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    command = [str(PROGRAM), "exec", "--json", "--skip-git-repo-check"]
    command += ["--dangerously-bypass-approvals-and-sandbox", ACTS]
    async with open_acting(served_model_name=("m",)) as acting:
        (home / "config.toml").write_text(SETTINGS.format(url=acting.house.served.urls[0]))
        done = await trio.to_thread.run_sync(
            partial(
                subprocess.run,
                command,
                cwd=work,
                env={**os.environ, "CODEX_HOME": str(home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
        )
        assert done.returncode == 0, done.stderr
        await acting.house.until(active=0, waiting=0)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    (ran,) = [item for item in items if item["type"] == "command_execution"]
    assert (ran["exit_code"], ran["aggregated_output"].strip()[-7:]) == (0, "a-b END")
    said = [item["text"] for item in items if item["type"] == "agent_message"]
    assert said[0] == "so "
    assert said[1].endswith("a-b ")
    first, second = acting.conversations
    assert "exec_command" in [tool.name for tool in first.tools]
    assistant, result = second.messages[-2:]
    assert (assistant.text, assistant.reasoning) == ("so ", "hm ")
    assert (result.role, result.tool_call_id) == ("tool", assistant.tool_calls[0].id)
    for name in set(CODEX) - {"input", "tools", "client_metadata"}:
        assert shape(bodies[1][name]) == shape(CODEX[name]), name
    assert set(bodies[1]) == set(CODEX)
    recorded, sent = ({tool["type"] for tool in body["tools"]} for body in (CODEX, bodies[1]))
    assert sent == recorded
    asked = [item for item in CODEX["input"] if item["type"] == "message"]
    assert shape(bodies[0]["input"]) == shape(asked)
