"""Structured output from end to end: the demo model, a real server, the official client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import jsonschema
import openai
import pytest
import trio
from pydantic import BaseModel
from served import House, serve_chat, sse_events

from chatstream_trio import Settings
from conftest import GUARD
from schemas import SCHEMAS
from structured import ask_for_all

SETTINGS = Settings(max_active=4, max_waiting=64, threads=1)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with serve_chat(SETTINGS, None) as house:
        yield house


def named(name: str, **more: Any) -> dict[str, Any]:
    schema = {"name": "answer", "schema": SCHEMAS[name], **more}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


class Seat(BaseModel):
    """What the official client asks for, and makes of the answer."""

    row: int
    taken: bool


async def test_the_official_client_is_answered(house: House) -> None:
    """``create`` with each format, streamed and not; and ``parse`` into a class."""

    def ask() -> None:
        url = f"{house.served.urls[0]}/v1"
        with openai.OpenAI(base_url=url, api_key="none", timeout=GUARD, max_retries=0) as client:
            create: Any = partial(
                client.chat.completions.create,
                model="*",
                messages=[{"role": "user", "content": "Who has a seat?"}],
                max_tokens=200,
                temperature=1.0,
            )
            for seed in range(4):
                strict = bool(seed % 2)
                whole = create(seed=seed, **named("rows", strict=strict)).choices[0]
                chunks = list(create(seed=seed, stream=True, **named("rows", strict=strict)))
                text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
                assert text == whole.message.content
                assert whole.finish_reason == chunks[-1].choices[0].finish_reason
                if whole.finish_reason == "stop":
                    jsonschema.validate(json.loads(text), SCHEMAS["rows"])
                free = create(seed=seed, response_format={"type": "json_object"}).choices[0]
                assert free.message.content[0] == "{"
                if free.finish_reason == "stop":
                    assert isinstance(json.loads(free.message.content), dict)
                one = create(seed=seed, extra_body={"guided_choice": ["rot", "grün"]}).choices[0]
                assert one.message.content in ("rot", "grün")
                assert one.finish_reason == "stop"
            seat = client.chat.completions.parse(
                model="*",
                messages=[{"role": "user", "content": "Who has a seat?"}],
                response_format=Seat,
                max_tokens=200,
            )
            assert isinstance(seat.choices[0].message.parsed, Seat)
            with pytest.raises(openai.LengthFinishReasonError):
                client.chat.completions.parse(
                    model="*",
                    messages=[{"role": "user", "content": "x"}],
                    response_format=Seat,
                    max_tokens=3,
                )

    house.chat.names = type(house.chat.names)(house.chat.names.said, any=True)
    await trio.to_thread.run_sync(ask)


async def test_sixty_answers_fit_their_schemas(house: House) -> None:
    """Law 14: at temperature 1, all that were not cut, in company of each other."""
    tally = await ask_for_all(house.chat, range(60), at_once=16)
    assert tally.invalid == []
    assert len(tally.cut) <= 6
    assert tally.valid + len(tally.cut) == 60


async def test_company_changes_nothing(house: House) -> None:
    """Law 7: a held answer is the same alone and in company, and so is one beside it; also where
    the prompt is still in the cache."""
    asked: list[dict[str, Any]] = [
        {"seed": 3},
        {"seed": 4, **named("person")},
        {"seed": 5, **named("tree")},
    ]
    answers: dict[int, set[str]] = {}

    async def ask(index: int) -> None:
        given = {"temperature": 1.0, "max_tokens": 60, **asked[index]}
        response = await house.ask("Tell me about seats, please", **given)
        assert response.status_code == 200, response.text
        said = response.json()["choices"][0]["message"]["content"]
        answers.setdefault(index, set()).add(said)

    for index in range(3):
        await ask(index)
    async with trio.open_nursery() as nursery:
        for index in (0, 1, 2, 1, 0):
            nursery.start_soon(ask, index)
    assert [len(said) for said in answers.values()] == [1, 1, 1]


async def test_several_choices_have_one_form(house: House) -> None:
    """Each of ``n`` answers is held."""
    response = await house.ask(n=3, seed=1, max_tokens=100, temperature=1, **named("enum"))
    said = [json.loads(choice["message"]["content"]) for choice in response.json()["choices"]]
    assert len(said) == 3
    assert set(said) <= {"red", "green", "blue"}


async def test_a_cut_answer_says_so(house: House) -> None:
    """Law 14: ``length``, streamed or not."""
    body = {"max_tokens": 3, **named("person")}
    whole = (await house.ask(**body)).json()
    assert whole["choices"][0]["finish_reason"] == "length"
    last = sse_events((await house.ask(stream=True, **body)).text)[-2]
    assert last["choices"][0]["finish_reason"] == "length"


WRONG: list[tuple[dict[str, Any], str, str]] = [
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": schema},
            }
        },
        "response_format.json_schema.schema",
        why,
    )
    for schema, why in [
        ({"type": "objekt"}, "Invalid type: objekt"),
        ({"not": {}}, "Unimplemented keys"),
        ({"$ref": "#/$defs/nowhere"}, "does not exist"),
        (
            {"allOf": [{"pattern": f"(a|b)*a(a|b){{{i}}}c"} for i in range(40)]},
            "more than 8 patterns",
        ),
        ({"enum": ["x" * 100] * 2000}, "more than 131072"),
    ]
] + [
    ({"guided_regex": "("}, "guided_regex", "unclosed group"),
    ({"grammar": "root :"}, "grammar", "cannot be compiled"),
    ({"guided_json": "{"}, "guided_json", "Expecting property name"),
    ({"guided_json": '{"items":' * 30_000 + "{}" + "}" * 30_000}, "guided_json", "more than"),
    ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos", "nothing may end"),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_schema_is_a_400(house: House, stream: bool) -> None:
    """That names the place, before a seat is taken, and on one line."""
    for fields, param, why in WRONG:
        response = await house.ask(stream=stream, max_tokens=3, **fields)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"] == param
        assert why in error["message"]
        assert "\n" not in error["message"]
    status = await house.status()
    assert (status["active"], status["waiting"], status["turns"]) == (0, 0, 0)


async def test_a_response_is_held_to_a_schema(house: House) -> None:
    """``/v1/responses`` as well: ``parse`` into a class, a bad schema by its own name."""

    def ask() -> None:
        url = f"{house.served.urls[0]}/v1"
        with openai.OpenAI(base_url=url, api_key="none", timeout=GUARD, max_retries=0) as client:
            ask: dict[str, Any] = {
                "model": house.chat.model_id,
                "input": "Which seat?",
                "max_output_tokens": 64,
            }
            parsed = client.responses.parse(**ask, text_format=Seat)
            assert isinstance(parsed.output_parsed, Seat)
            assert parsed.status == "completed"
            with client.responses.stream(**ask, text_format=Seat) as stream:
                final = stream.get_final_response()
            assert isinstance(final.output_parsed, Seat)
            free = client.responses.create(**ask, text={"format": {"type": "json_object"}})
            assert free.output_text.startswith("{")
            bad: Any = {"type": "json_schema", "name": "n", "schema": {"type": "odd"}}
            with pytest.raises(openai.BadRequestError) as error:
                client.responses.create(**ask, text={"format": bad})
            assert str(error.value.param).startswith("text.format.schema")

    await trio.to_thread.run_sync(ask)
