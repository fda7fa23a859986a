"""A suite that nobody here wrote tries what the document allows, and what it does not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from served import open_house

HERE = Path(__file__).parent
EXAMPLES = 60
"""For each path and method, valid and invalid together. All of it takes half a minute."""
LIMIT = 180.0
LEFT_OUT = (
    "not_a_server_error",  # is_no_mistake stands for it
    "positive_data_acceptance",  # what the scripted model cannot do is refused
    "allow_header_conformance",  # "input_tokens" is an id of a response as well
)


def without_large_limits(value: Any) -> Any:
    """The same document; a list of 16,385 messages is not tried by sending so many."""
    if isinstance(value, list):
        return [without_large_limits(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: without_large_limits(item)
        for key, item in value.items()
        if not (key in ("maxItems", "maxProperties") and isinstance(item, int) and item > 100)
    }


@pytest.mark.slow
@pytest.mark.timeout(LIMIT + 30)
async def test_nothing_outside_of_the_document(tmp_path: Path) -> None:
    """Each reply has a status and a shape that are described; what is invalid is refused; there is
    no 500, and no seat is left."""
    async with open_house(pace=0, max_model_len=40, max_active=4, max_waiting=8) as house:
        document = (await house.client.get("/openapi.json")).json()
        place = tmp_path / "openapi.json"
        place.write_text(json.dumps(without_large_limits(document)))
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(place)),
            *("--url", house.served.urls[0], "--mode", "all", "--seed", "1", "--no-color"),
            *("--checks", "all", "--exclude-checks", ",".join(LEFT_OUT)),
            *("--max-examples", str(EXAMPLES), "--request-timeout", "20"),
            *("--exclude-path", "/status/stream"),  # it does not end
            *("--generation-database", "none"),
        ]
        env = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
        with trio.fail_after(LIMIT):
            done = await trio.run_process(
                command,
                check=False,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
                env=env,
                deliver_cancel=interrupt,
            )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said[-8000:]
        generated = re.search(r"(\d+) generated, \1 passed", said)
        assert generated is not None, said[-2000:]
        assert int(generated[1]) > 300
        await house.until(active=0, waiting=0, kv_rows=0)


async def interrupt(process: trio.Process) -> None:
    """End it, and not in its own time."""
    process.send_signal(signal.SIGKILL)
