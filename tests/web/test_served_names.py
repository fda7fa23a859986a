"""By which names a model is asked for: its own, those of ``--served-model-name``, or any."""

from __future__ import annotations

import threading
from typing import Any

import openai
import pytest
import trio
from served import open_house, serve_chat, sse_events

from chatstream_trio import Model, ScriptedRunner, Settings, SettingsError
from chatstream_trio.house import Names
from chatstream_trio.text.words import WordCodec
from conftest import GUARD


async def names_of(house: Any) -> list[str]:
    cards = (await house.client.get("/v1/models")).json()["data"]
    return [card["id"] for card in cards]


async def test_its_own_name() -> None:
    """Without the setting: that one, or none at all."""
    async with open_house() as house:
        assert await names_of(house) == ["scripted"]
        assert (await house.ask(model="scripted", max_tokens=1)).json()["model"] == "scripted"
        assert (await house.ask(model="gpt-4o")).json()["error"]["code"] == "model_not_found"


async def test_given_names() -> None:
    """They take the place of its own; the first is said, in streams and whole and in the status."""
    async with open_house(served_model_name=["gpt-4o", "org/small"]) as house:
        assert await names_of(house) == ["gpt-4o", "org/small"]
        for name in ("gpt-4o", "org/small", None):
            body = (await house.ask(model=name, max_tokens=1)).json()
            assert body["model"] == "gpt-4o"
        stream = await house.ask(model="org/small", max_tokens=1, stream=True)
        assert sse_events(stream.text)[0]["model"] == "gpt-4o"
        assert (await house.status())["model"] == "gpt-4o"
        for name in ("scripted", "*", ""):
            refused = await house.ask(model=name)
            assert refused.status_code == 404
            assert "'gpt-4o' is" in refused.json()["error"]["message"]
        card = await house.client.get("/v1/models/org/small")
        assert card.json()["id"] == "org/small"
        assert (await house.client.get("/v1/models/scripted")).status_code == 404


@pytest.mark.parametrize(
    ("given", "first"), [(["*"], "scripted"), (["*", "mine"], "mine"), (["mine", "*"], "mine")]
)
async def test_any_name(given: list[str], first: str) -> None:
    """A star is no name that is said."""
    async with open_house(served_model_name=given) as house:
        assert await names_of(house) == [first]
        for name in ("claude", "scripted", "*"):
            assert (await house.ask(model=name, max_tokens=1)).json()["model"] == first
            assert (await house.client.get(f"/v1/models/{name}")).json()["id"] == name


async def test_the_official_client_looks_models_up() -> None:
    """A list, and one by its name with a slash in it; what is not there is its own exception."""
    async with open_house(pace=0, served_model_name=["org/small"], max_model_len=77) as house:
        url = f"{house.served.urls[0]}/v1"

        def talk() -> None:
            client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
            (card,) = client.models.list().data
            assert card.id == "org/small"
            assert card.max_model_len == 77  # type: ignore[attr-defined]
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("other")

        await trio.to_thread.run_sync(talk)


async def test_the_context_is_said_once_it_is_known() -> None:
    """While the model loads its name is known, and nothing else."""
    may_load = threading.Event()

    def load(progress: object) -> ScriptedRunner:
        may_load.wait(GUARD)
        return ScriptedRunner(rows=1, max_model_len=50)

    model = Model("slow", WordCodec, load)
    async with serve_chat(Settings(max_active=1), model, wait=False) as house:
        try:
            (card,) = (await house.client.get("/v1/models")).json()["data"]
            assert (card["id"], card["max_model_len"]) == ("slow", None)
        finally:
            may_load.set()
        await house.chat.ready()
        assert (await house.client.get("/v1/models/slow")).json()["max_model_len"] == 50


def test_names_are_values() -> None:
    """At least one is there to be said."""
    assert Names.of("own", ()) == Names(("own",))
    assert Names.of("own", ["*"]) == Names(("own",), any=True)
    assert Names.of("own", ["a", "*", "b"]) == Names(("a", "b"), any=True)
    with pytest.raises(SettingsError, match="served_model_name must not be empty"):
        Settings(served_model_name=("a", ""))
