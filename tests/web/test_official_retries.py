"""The official client sends again what may go through, and never what is over for good."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import openai
import pytest
import trio
from served import House, chat_body, serve_chat
from served import open_house as open_any_house

from chatstream_trio import Settings
from chatstream_trio.models import find_model
from chatstream_trio.web import answering as endpoints
from chatstream_trio.web.bodies.body_reader import read_body
from conftest import GUARD

pytestmark = pytest.mark.trio

open_house = partial(open_any_house, client_key="address")
"""Whoever cancels here is the one who asked, with a token or without."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the requests that the server has seen, sent again or not."""
    seen: list[str] = []

    async def read_and_count(request: Any, most: int) -> bytes:
        seen.append(request.headers.get("X-Stream-Id", ""))
        return await read_body(request, most)

    monkeypatch.setattr(endpoints, "read_body", read_and_count)
    return seen


class Official(openai.OpenAI):
    """The official client with its own retries; instead of sleeping before one it calls back."""

    before_retry: Callable[[], None] = staticmethod(lambda: None)

    def _sleep_for_retry(self, **_: Any) -> None:
        self.before_retry()


def ask(house: House, before_retry: Callable[[], None] = lambda: None, **fields: Any) -> Any:
    """What the client makes of it, in a thread."""
    url = f"{house.served.urls[0]}/v1"
    with Official(base_url=url, api_key="none", timeout=GUARD) as client:
        client.before_retry = before_retry  # type: ignore[method-assign]
        messages = [{"role": "user", "content": fields.pop("text", "a b")}]
        return client.chat.completions.create(model="scripted", messages=messages, **fields)  # type: ignore[call-overload]


async def refused(house: House, kind: type[openai.APIStatusError], **fields: Any) -> str:
    """The code of the error that the client raises."""
    with pytest.raises(kind) as error:
        await trio.to_thread.run_sync(partial(ask, house, **fields), abandon_on_cancel=True)
    return str(error.value.code)


def named(id: str) -> dict[str, str]:
    return {"X-Stream-Id": id}


async def hold(house: House, id: str, task_status: trio.TaskStatus[None]) -> None:
    """A stream without an end."""
    async with house.client.stream(
        "POST", "/v1/chat/completions", json=chat_body(stream=True), headers=named(id)
    ) as response:
        task_status.started()
        async for _ in response.aiter_bytes():
            pass


@pytest.mark.parametrize("state", ["active", "waiting"])
async def test_a_cancelled_request_does_not_come_back(sent: list[str], state: str) -> None:
    """Cancelled by its id while it runs or waits: sent once, and the client's own error."""
    async with open_house(max_active=1) as house, trio.open_nursery() as nursery:
        if state == "waiting":
            await nursery.start(hold, house, "other")

        async def cancel() -> None:
            await house.until(**{state: 1})
            assert (await house.client.delete("/v1/streams/mine")).status_code == 200

        nursery.start_soon(cancel)
        code = await refused(house, openai.ConflictError, extra_headers=named("mine"))
        assert code == "cancelled"
        assert sent.count("mine") == 1
        nursery.cancel_scope.cancel()


async def test_an_id_in_use_is_not_tried_again(sent: list[str]) -> None:
    """The other request lives as long as it lives."""
    async with open_house() as house, trio.open_nursery() as nursery:
        await nursery.start(hold, house, "mine")
        code = await refused(house, openai.ConflictError, extra_headers=named("mine"))
        assert (code, len(sent)) == ("id_in_use", 2)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("by", ["body", "header", "server"])
@pytest.mark.parametrize("phase", ["queue", "total"])
async def test_a_deadline_is_kept_once(sent: list[str], by: str, phase: str) -> None:
    """Whoever set it: three times the time is not what was asked for, or what is allowed."""
    ceiling = {f"{phase}_timeout": 0.1} if by == "server" else {}
    fields: dict[str, Any] = {}
    if by == "body":
        fields["extra_body"] = {"timeouts": {phase: 0.1}}
    elif by == "header":
        fields["extra_headers"] = {f"X-Timeout-{phase}": "0.1"}
    async with open_house(max_active=1, **ceiling) as house, trio.open_nursery() as nursery:
        if phase == "queue":
            await nursery.start(hold, house, "other")
            sent.clear()
        code = await refused(house, openai.InternalServerError, **fields)
        assert (code, len(sent)) == (f"{phase}_timeout", 1)
        nursery.cancel_scope.cancel()


async def test_a_broken_stream_is_not_broken_again(sent: list[str]) -> None:
    """What it asks for broke it, and would again."""
    settings = Settings(model="scripted:0")
    async with serve_chat(settings, find_model(settings)) as house:
        code = await refused(house, openai.InternalServerError, text="a !fault")
        assert (code, len(sent)) == ("stream_fault", 1)


async def test_a_full_house_is_tried_again(sent: list[str]) -> None:
    """429 ``queue_full``, until there is room."""
    async with open_house(max_active=1, max_waiting=0) as house, trio.open_nursery() as nursery:
        await nursery.start(hold, house, "other")
        code = await refused(house, openai.RateLimitError)
        assert (code, len(sent)) == ("queue_full", 1 + 3)

        def make_room() -> None:
            httpx.delete(f"{house.served.urls[0]}/v1/streams/other")
            while httpx.get(f"{house.served.urls[0]}/status").json()["active"]:
                pass

        question = partial(ask, house, make_room, max_tokens=2)
        answer = await trio.to_thread.run_sync(question, abandon_on_cancel=True)
        assert answer.choices[0].message.content == "a b "
        assert len(sent) == 1 + 3 + 2


async def test_a_server_that_ends_is_tried_again() -> None:
    """503 ``draining``: another server may be there by then."""
    tries: list[None] = []
    async with open_house() as house:
        await house.chat.drain(0)
        code = await refused(
            house, openai.InternalServerError, before_retry=lambda: tries.append(None)
        )
        assert (code, len(tries)) == ("draining", 2)
