"""Ollama's API on a real model: forms of the answer, raw prompts, seeds, likelihoods."""

from __future__ import annotations

import json
from typing import Any

from served import House, serve_chat

from chatstream_trio import Settings

SCHEMA = {
    "type": "object",
    "properties": {"seat": {"enum": ["free", "taken"]}},
    "required": ["seat"],
    "additionalProperties": False,
}


async def ask(house: House, path: str, **body: Any) -> dict[str, Any]:
    response = await house.client.post(path, json={"stream": False, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_it_is_the_same_model() -> None:
    """A form is kept to, a raw prompt is the model's own input, and a seed says what it says in
    chat completions."""
    async with serve_chat(Settings(threads=1, max_active=2), None) as house:
        asked = [{"role": "user", "content": "What is a seat?"}]
        for form in (SCHEMA, "json"):
            options = {"num_predict": 60, "seed": 3, "temperature": 1}
            said = await ask(house, "/api/chat", messages=asked, format=form, options=options)
            if said["done_reason"] == "stop":
                answer = json.loads(said["message"]["content"])
                assert answer.keys() == {"seat"} if form is SCHEMA else isinstance(answer, dict)
        assert said["message"]["content"].startswith("{")
        options = {"seed": 7, "temperature": 1, "num_predict": 12}
        seeded = {"seed": 7, "temperature": 1, "max_tokens": 12}
        chat = (await house.ask("What is a seat?", **seeded)).json()["choices"][0]["message"]
        whole = await ask(house, "/api/chat", messages=asked, options=options)
        assert whole["message"]["content"] == chat["content"]
        assert (await ask(house, "/api/generate", prompt="What is a seat?", options=options))[
            "response"
        ] == chat["content"]
        raw = await ask(house, "/api/generate", prompt="A seat is", raw=True, options=options)
        body = {"prompt": "A seat is", **seeded}
        completion = (await house.client.post("/v1/completions", json=body)).json()
        assert raw["response"] == completion["choices"][0]["text"]
        assert raw["prompt_eval_count"] == completion["usage"]["prompt_tokens"]
        likely = await ask(house, "/api/chat", messages=asked, options=options, top_logprobs=2)
        assert len(likely["logprobs"]) == likely["eval_count"] == 12
        assert {len(it["top_logprobs"]) for it in likely["logprobs"]} == {2}
        lines = await house.client.post(
            "/api/chat", json={"messages": asked, "options": options, "logprobs": True}
        )
        told = [json.loads(line) for line in lines.text.splitlines()]
        assert sum(len(line.get("logprobs", ())) for line in told) == 12
        shown = await house.client.post("/api/show", json={})
        assert "tools" in shown.json()["capabilities"]
