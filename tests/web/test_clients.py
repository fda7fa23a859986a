"""Who a client is, and what that means: keys, fairness, ownership, timeouts, and the line seen."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
from quart import request
from quart_trio import QuartTrio
from served import House, chat_body, open_house, sse_events

from chatstream_trio import NotAuthenticated, Settings
from chatstream_trio.web.clients import Clients
from conftest import GUARD

pytestmark = pytest.mark.trio


async def who(
    settings: Settings, address: str = "9.9.9.9", **headers: str
) -> tuple[str, bool, bool]:
    """What the settings make of a request."""
    app = QuartTrio("who")
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with app.test_request_context("/", headers={"Remote-Addr": address, **names}):
        client = Clients(settings).identify(request)
        return client.key, client.admin, client.sees_all


@pytest.mark.parametrize(
    ("settings", "address", "headers", "key"),
    [
        ({}, "127.0.0.1", {}, "address 127.0.0.1"),
        ({}, "127.0.0.1", {"Authorization": "Bearer me"}, "bearer me"),
        ({"host": "localhost"}, "127.0.0.1", {"Authorization": "bearer me"}, "bearer me"),
        ({"host": "0.0.0.0"}, "9.9.9.9", {"Authorization": "Bearer me"}, "address 9.9.9.9"),
        ({"host": "0.0.0.0"}, "9.9.9.9", {"X_Forwarded_For": "1.1.1.1"}, "address 9.9.9.9"),
        (
            {"host": "0.0.0.0", "trust_proxy": 1},
            "9.9.9.9",
            {"X_Forwarded_For": "6.6.6.6, 1.1.1.1"},
            "address 1.1.1.1",
        ),
        (
            {"host": "0.0.0.0", "trust_proxy": 2},
            "9.9.9.9",
            {"X_Forwarded_For": "6.6.6.6, 2.2.2.2, 1.1.1.1"},
            "address 2.2.2.2",
        ),
        ({"trust_proxy": 3}, "9.9.9.9", {"X_Forwarded_For": "1.1.1.1"}, "address 1.1.1.1"),
        ({"trust_proxy": 1}, "9.9.9.9", {"X_Forwarded_For": "junk"}, "unknown via 9.9.9.9"),
        ({"client_key": "address"}, "127.0.0.1", {"Authorization": "Bearer me"}, None),
        ({"host": "0.0.0.0", "client_key": "bearer"}, "9.9.9.9", {"Authorization": "Bearer x"}, 0),
        ({}, "2001:db8::1:2", {}, "address 2001:db8::/64"),
        ({}, "::ffff:9.9.9.9", {}, "address 9.9.9.9"),
        ({"api_key": ["k1", "k2=3"]}, "9.9.9.9", {"Authorization": "Bearer k2"}, "key k2"),
    ],
)
async def test_the_key_of_a_client(
    settings: dict[str, Any], address: str, headers: dict[str, str], key: str | int | None
) -> None:
    """By configured key; else by address or by bearer token, as the settings say."""
    expected = {None: "address 127.0.0.1", 0: "bearer x"}.get(key, key)  # type: ignore[call-overload]
    assert (await who(Settings(**settings), address, **headers))[0] == expected


async def test_configured_keys_are_asked_for() -> None:
    """401 without one or with a wrong one; an admin's sees and may do more."""
    settings = Settings(api_key=("good", "pad==", "heavy=2.5"), admin_key=("boss",))
    assert await who(settings, Authorization="Bearer pad==") == ("key pad==", False, False)
    assert await who(settings, Authorization="Bearer boss") == ("key boss", True, True)
    for header in ("", "Bearer ", "Bearer bad", "Basic good", "Bearer gööd"):
        with pytest.raises(NotAuthenticated):
            await who(settings, "127.0.0.1", Authorization=header)


async def test_keys_over_the_wire() -> None:
    """401 in OpenAI's shape everywhere but /health; the key opens the door."""
    async with open_house(api_key=["sk-one"], admin_key=["sk-boss"]) as house:
        for method, path in [
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/tokenize"),
            ("GET", "/v1/models"),
            ("DELETE", "/v1/streams/x"),
            ("GET", "/status"),
            ("GET", "/status/stream"),
        ]:
            response = await house.client.request(method, path)
            assert response.status_code == 401, path
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
        assert (await house.client.get("/health")).status_code == 200
        house.client.headers["Authorization"] = "Bearer sk-one"
        assert (await house.ask(max_tokens=1)).status_code == 200


def as_client(name: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}", **headers}


async def hold(house: House, name: str, id: str, task_status: trio.TaskStatus[None]) -> None:
    """A stream without an end."""
    async with house.client.stream(
        "POST",
        "/v1/chat/completions",
        json=chat_body(stream=True),
        headers=as_client(name, **{"X-Stream-Id": id}),
    ) as response:
        task_status.started()
        with pytest.raises(httpx.HTTPError):  # noqa: PT012
            async for _ in response.aiter_bytes():
                pass
            raise httpx.HTTPError("it was ended by the server")


@pytest.mark.parametrize("who_asks", ["owner", "other", "boss"])
async def test_only_the_owner_or_an_admin_cancels(who_asks: str) -> None:
    """Somebody else's request is not found, neither while it runs nor after."""
    keys = {"api_key": ["owner", "other"], "admin_key": ["boss"]}
    async with open_house(**keys) as house, trio.open_nursery() as nursery:
        await nursery.start(hold, house, "owner", "mine")
        status = (await house.client.get("/status", headers=as_client(who_asks))).json()
        assert len(status["streams"]) == (0 if who_asks == "other" else 1)
        for _ in range(2):
            done = await house.client.delete("/v1/streams/mine", headers=as_client(who_asks))
            assert done.status_code == (404 if who_asks == "other" else 200)
        nursery.cancel_scope.cancel()


async def test_a_flood_of_one_key_leaves_the_door_open() -> None:
    """Its own requests are refused as too many; another's is served in the next round."""
    async with open_house(max_active=1, max_waiting=8, pace=0.01) as house:
        statuses: list[int] = []
        order: list[str] = []

        async def ask(name: str) -> None:
            response = await house.client.post(
                "/v1/chat/completions", json=chat_body(max_tokens=5), headers=as_client(name)
            )
            if response.status_code == 200:
                order.append(name)
            else:
                statuses.append(response.status_code)
                assert response.json()["error"]["code"] == "too_many_for_key"
                assert int(response.headers["retry-after"]) >= 1

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask, "flood")
            await house.until(waiting=7)
            nursery.start_soon(ask, "polite")
        assert statuses == [429] * 4
        assert order.index("polite") <= 3


@pytest.mark.parametrize("where", ["body", "header"])
async def test_timeouts_over_the_wire(where: str) -> None:
    """504 before the headers, an error event after; each with its own code."""
    async with open_house(max_active=1, total_timeout=30) as house, trio.open_nursery() as nursery:
        await nursery.start(hold, house, "host", "host")

        async def ask(stream: bool, **timeouts: float) -> httpx.Response:
            names = {"queue": "X-Timeout-Queue", "total": "X-Timeout-Total"}
            headers = {names[k]: str(v) for k, v in timeouts.items()} if where == "header" else {}
            fields = {"timeouts": timeouts} if where == "body" else {}
            return await house.client.post(
                "/v1/chat/completions", json=chat_body(stream=stream, **fields), headers=headers
            )

        whole = await ask(False, queue=0.05)
        assert whole.status_code == 504
        assert whole.json()["error"]["code"] == "queue_timeout"
        streamed = await ask(True, queue=0.05)
        assert sse_events(streamed.text)[-1]["error"]["code"] == "queue_timeout"
        await house.client.delete("/v1/streams/host", headers=as_client("host"))
        streamed = await ask(True, total=0.2)
        assert sse_events(streamed.text)[-1]["error"]["code"] == "total_timeout"
        assert '"content":"one "' in streamed.text
        whole = await ask(False, total=0.05)
        assert whole.json()["error"]["code"] == "total_timeout"
        bad = await ask(False, queue=-1)
        assert bad.status_code == 400
        expected = "X-Timeout-Queue" if where == "header" else "timeouts.queue"
        assert bad.json()["error"]["param"] == expected
        nursery.cancel_scope.cancel()


async def test_the_status_stream() -> None:
    """At once, and then at each change, the newest with its time."""
    async with open_house(max_active=1) as house, trio.open_nursery() as nursery:
        seen: list[dict[str, Any]] = []

        async def watch(task_status: trio.TaskStatus[None]) -> None:
            async with house.client.stream("GET", "/status/stream") as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        seen.append(json.loads(line[6:]))
                        task_status.started()
                        task_status = trio.TASK_STATUS_IGNORED

        async def until(active: int, waiting: int) -> None:
            with trio.fail_after(GUARD):
                while (seen[-1]["active"], seen[-1]["waiting"]) != (active, waiting):
                    await trio.sleep(0.005)

        await nursery.start(watch)
        assert seen[0]["active"] == 0
        await nursery.start(hold, house, "a", "first")
        await until(1, 0)
        await nursery.start(hold, house, "b", "second")
        await until(1, 1)
        await house.client.delete("/v1/streams/second", headers=as_client("b"))
        await until(1, 0)
        await house.client.delete("/v1/streams/first", headers=as_client("a"))
        await until(0, 0)
        times = [status["time"] for status in seen]
        assert times == sorted(times)
        nursery.cancel_scope.cancel()
