"""The default requests of front-ends that people use are answered, by a real model on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from front_ends import CHATS, COMPLETIONS, IMAGE, RESPONSES
from served import House, serve_chat, sse_events
from tiny_model_folder import make_folder

from chatstream_trio import Settings

pytestmark = pytest.mark.trio

REASONS = {"stop", "length", "tool_calls"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that reads long prompts."""
    return make_folder(tmp_path_factory.mktemp("models") / "tiny", context=32_768)


@pytest.fixture
async def house(folder: Path) -> AsyncIterator[House]:
    settings = Settings(model=str(folder), max_active=2, threads=1, unknown_fields="refuse")
    async with serve_chat(settings, None) as house:
        yield house


def short(body: dict[str, Any]) -> dict[str, Any]:
    """The same, but for how long the answer may be where it does not say."""
    said = {"max_tokens", "max_completion_tokens", "max_output_tokens"} & set(body)
    return body if said else {**body, "max_tokens": 24}


@pytest.mark.parametrize("name", CHATS)
async def test_a_chat_is_answered(house: House, name: str) -> None:
    """No field of it is unknown; streams end as they should."""
    body = short(CHATS[name])
    response = await house.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    if not body["stream"]:
        assert response.json()["choices"][0]["finish_reason"] in REASONS
        return
    *chunks, done = sse_events(response.text)
    assert done == "[DONE]"
    reasons = [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]]
    assert reasons[-1] in REASONS
    assert chunks[-1]["usage"]["prompt_tokens"] > 0 if "stream_options" in body else True
    await house.until(active=0, waiting=0)


@pytest.mark.parametrize("name", COMPLETIONS)
async def test_a_completion_is_answered(house: House, name: str) -> None:
    """From beside the cursor, and as an older client asks."""
    response = await house.client.post("/v1/completions", json=COMPLETIONS[name])
    assert response.status_code == 200, response.text
    await house.until(active=0, waiting=0)


@pytest.mark.parametrize("name", RESPONSES)
async def test_a_response_is_given(house: House, name: str) -> None:
    """The newer API of OpenAI."""
    response = await house.client.post("/v1/responses", json=RESPONSES[name])
    assert response.status_code == 200, response.text
    assert response.json()["status"] in {"completed", "incomplete"}
    await house.until(active=0, waiting=0)


@pytest.mark.parametrize("name", ["Open WebUI", "Cline", "LibreChat"])
async def test_an_image_is_refused_by_name(house: House, name: str) -> None:
    """Where there are eyes missing, the client hears which part it was; no seat is taken."""
    body = short(CHATS[name])
    *before, last = body["messages"]
    seen = {"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]}
    response = await house.client.post(
        "/v1/chat/completions", json={**body, "messages": [*before, last, seen]}
    )
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"].startswith(f"messages[{len(before) + 1}].content[1]")
    assert "image" in error["message"]
    assert (await house.status())["active"] == 0
