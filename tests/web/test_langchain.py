"""LangChain's client for OpenAI, in its thread, against a real model on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr
from served import House, serve_chat
from tiny_model_folder import make_folder

from chatstream_trio import Settings
from conftest import GUARD

pytestmark = pytest.mark.trio


class Place(BaseModel):
    """Where a seat is."""

    row: int
    side: Literal["left", "right"]


@tool
def find_seat(row: int) -> str:
    """Find a free seat in a row."""
    return f"row {row}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "tiny", context=4096)


@pytest.fixture
async def house(folder: Path) -> AsyncIterator[House]:
    settings = Settings(model=str(folder), max_active=2, threads=1, unknown_fields="refuse")
    async with serve_chat(settings, None) as house:
        yield house


async def ask(house: House, work: Callable[[ChatOpenAI], Any], **fields: Any) -> Any:
    """What the client makes of it."""
    chat = ChatOpenAI(
        base_url=f"{house.served.urls[0]}/v1",
        api_key=SecretStr("none"),
        model="tiny",
        timeout=GUARD,
        max_retries=0,
        **{"max_tokens": 200, "temperature": 1, "seed": 3, **fields},
    )
    said = await trio.to_thread.run_sync(lambda: work(chat))
    await house.until(active=0, waiting=0)
    return said


async def test_invoke_and_stream(house: House) -> None:
    """The same text, and usage in both."""
    whole = await ask(house, lambda chat: chat.invoke("hello"), max_tokens=24)
    chunks = await ask(house, lambda chat: list(chat.stream("hello")), max_tokens=24)
    assert "".join(chunk.content for chunk in chunks) == whole.content
    assert whole.usage_metadata["output_tokens"] > 0


async def test_structured_output(house: House) -> None:
    """By a strict schema, as ``with_structured_output`` asks by default."""
    place = await ask(house, lambda chat: chat.with_structured_output(Place).invoke("a seat?"))
    assert isinstance(place, Place)


async def test_tools(house: House) -> None:
    """A forced call comes as the client's own."""
    message = await ask(
        house, lambda chat: chat.bind_tools([find_seat], tool_choice="find_seat").invoke("a seat?")
    )
    (call,) = message.tool_calls[:1]
    assert call["name"] == "find_seat"
    assert isinstance(call["args"]["row"], int)


async def test_the_responses_api(house: House) -> None:
    """Which it uses for some features by itself."""
    message = await ask(house, lambda chat: chat.invoke("hello"), use_responses_api=True, seed=None)
    assert message.usage_metadata["output_tokens"] > 0
