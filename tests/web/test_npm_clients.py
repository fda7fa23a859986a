"""Clients from npm, each a process of its own, against a real model on a real socket.

`nox -s suites` installs them; each case is one run of a script beside this file.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from served import House, serve_chat
from tiny_model_folder import make_folder

from chatstream_trio import Settings

pytestmark = [pytest.mark.trio, pytest.mark.suite]

SCRIPTS = Path(__file__).with_name("npm")
PATIENCE = 60
"""Seconds for one case, the start of Node included."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "tiny", context=4096)


@pytest.fixture
async def house(folder: Path) -> AsyncIterator[House]:
    settings = Settings(model=str(folder), max_active=2, threads=1, unknown_fields="refuse")
    async with serve_chat(settings, None) as house:
        yield house


async def run(house: House, script: str, case: str) -> Any:
    """What a case says; the house is empty behind it."""
    node = shutil.which("node")
    assert node is not None, "no node: run `nox -s suites`, which brings one"
    command = [node, f"{script}.mjs", house.served.urls[0], case]
    done = await trio.to_thread.run_sync(
        partial(
            subprocess.run,
            command,
            cwd=SCRIPTS,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    )
    assert done.returncode == 0, done.stderr
    await house.until(active=0, waiting=0)
    return json.loads(done.stdout)


def check_place(arguments: dict[str, Any]) -> None:
    assert 1 <= arguments["row"] <= 40


class TestOpenAI:
    """The official client."""

    async def test_whole_and_stream_are_one(self, house: House) -> None:
        whole = await run(house, "openai", "whole")
        stream = await run(house, "openai", "stream")
        assert whole["choices"][0]["message"]["content"] == stream["content"]
        assert whole["choices"][0]["finish_reason"] == stream["reasons"][0]
        assert whole["usage"]["completion_tokens"] == stream["usage"]["completion_tokens"]
        helper = await run(house, "openai", "runner")
        assert helper["content"] == stream["content"]

    async def test_choices_and_logprobs(self, house: House) -> None:
        assert len((await run(house, "openai", "choices"))["choices"]) == 2
        (choice,) = (await run(house, "openai", "logprobs"))["choices"]
        assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 3

    @pytest.mark.parametrize("case", ["tool", "tool_stream"])
    async def test_a_tool_is_called(self, house: House, case: str) -> None:
        said = await run(house, "openai", case)
        if case == "tool":
            (choice,) = said["choices"]
            assert choice["finish_reason"] == "tool_calls"
            call = choice["message"]["tool_calls"][0]["function"]
        else:
            assert said["reasons"] == ["tool_calls"]
            call = said["calls"]["0"]
        assert call["name"] == "find_seat"
        check_place(json.loads(call["arguments"]))

    async def test_a_schema_is_followed(self, house: House) -> None:
        parsed = await run(house, "openai", "parsed")
        assert set(parsed) == {"row", "note"}

    async def test_completions_and_responses(self, house: House) -> None:
        assert len((await run(house, "openai", "completion"))["choices"]) == 2
        response = await run(house, "openai", "response")
        assert response["status"] in {"completed", "incomplete"}
        types = (await run(house, "openai", "response_stream"))["types"]
        assert types[0] == "response.created"
        assert types[-1] in {"response.completed", "response.incomplete"}

    async def test_embeddings_and_models(self, house: House) -> None:
        vectors = (await run(house, "openai", "embedding"))["data"]
        assert len(vectors) == 2
        assert [model["id"] for model in await run(house, "openai", "models")] == ["tiny"]

    async def test_a_refusal_is_its_own_error(self, house: House) -> None:
        assert await run(house, "openai", "refused") == {
            "bad": True,
            "param": "temperature",
            "code": "invalid_value",
            "status": 400,
        }

    async def test_leaving_frees_the_seat(self, house: House) -> None:
        await run(house, "openai", "abort")


class TestAnthropic:
    """The official client."""

    async def test_whole_and_stream(self, house: House) -> None:
        whole = await run(house, "anthropic", "whole")
        assert whole["stop_reason"] in {"end_turn", "max_tokens"}
        stream = await run(house, "anthropic", "stream")
        assert stream["types"][0] == "message_start"
        assert stream["types"][-1] == "message_stop"

    @pytest.mark.parametrize("case", ["tool", "tool_stream"])
    async def test_a_tool_is_used(self, house: House, case: str) -> None:
        message = await run(house, "anthropic", case)
        assert message["stop_reason"] == "tool_use"
        use = next(block for block in message["content"] if block["type"] == "tool_use")
        assert use["name"] == "find_seat"
        check_place(use["input"])

    async def test_tokens_are_counted(self, house: House) -> None:
        assert (await run(house, "anthropic", "count"))["input_tokens"] > 5

    async def test_a_refusal_is_its_own_error(self, house: House) -> None:
        said = await run(house, "anthropic", "refused")
        assert said == {"bad": True, "type": "invalid_request_error", "status": 400}

    async def test_leaving_frees_the_seat(self, house: House) -> None:
        await run(house, "anthropic", "abort")


class TestAiSdk:
    """The AI SDK's provider for compatible servers."""

    async def test_text(self, house: House) -> None:
        for case in ("whole", "stream"):
            said = await run(house, "ai_sdk", case)
            assert said["finishReason"] in {"stop", "length"}
            assert said["usage"]["outputTokens"] > 0

    async def test_an_object_follows_its_schema(self, house: House) -> None:
        assert set(await run(house, "ai_sdk", "object")) == {"row", "note"}

    async def test_a_tool_is_called(self, house: House) -> None:
        said = await run(house, "ai_sdk", "tool")
        assert said["finishReason"] == "tool-calls"
        assert said["calls"][0]["toolName"] == "find_seat"
        check_place(said["calls"][0]["input"])

    async def test_embedding(self, house: House) -> None:
        assert (await run(house, "ai_sdk", "embedding"))["length"] > 0
