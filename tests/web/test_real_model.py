"""The laws on the real thing: transformers models behind a real Hypercorn on a real socket."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anthropic
import pytest
import torch
import trio
from needs import let_compiled_win, needs_compiler
from served import House, chat_body, raw_request, serve_chat, sse_events
from tiny_model_folder import ALTERNATING, CHATML, make_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatstream_trio import Settings
from chatstream_trio.web.transport.server import open_connections
from conftest import GUARD, wait_until

SETTINGS: dict[str, Any] = {"max_active": 3, "max_waiting": 20, "prefill_chunk": 16, "threads": 1}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny Llama for most tests."""
    return make_folder(tmp_path_factory.mktemp("models") / "tiny-llama")


def generate(folder: Path, messages: list[dict[str, str]], tokens: int) -> str:
    """What transformers itself says, greedily."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = model.generate(ids, max_new_tokens=tokens, do_sample=False)
    said = tokenizer.decode(out[0][ids.shape[1] :], skip_special_tokens=True)
    return str(said).rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("architecture", "template", "compiled"),
    [
        ("llama", CHATML, False),
        ("gpt_neox", CHATML, False),
        ("qwen3", ALTERNATING, False),
        ("gpt2", ALTERNATING, False),
        pytest.param("llama", CHATML, True, marks=needs_compiler),
    ],
)
async def test_greedy_text_is_what_generate_says(
    architecture: str,
    template: str,
    compiled: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law 7 from end to end: streaming and whole, alone and in company, through the template."""
    let_compiled_win(monkeypatch)
    folder = make_folder(tmp_path / architecture, architecture, template)
    asked = ["Hello there", "席が空くまで", "🎉 world", "A seat"]
    texts: dict[str, str] = {}

    async def ask(house: House, text: str, stream: bool) -> None:
        response = await house.ask(text, temperature=0, max_tokens=40, stream=stream)
        if stream:
            events = sse_events(response.text)[:-1]
            texts[text] = "".join(e["choices"][0]["delta"].get("content", "") for e in events)
        else:
            texts[text] = response.json()["choices"][0]["message"]["content"]

    settings = Settings(
        model=str(folder), compile=compiled, cache_dir=str(tmp_path / "cache"), **SETTINGS
    )
    async with serve_chat(settings, None) as house:
        assert ("compiled (1.5" in " ".join(house.chat.info.notes)) == compiled
        assert (await house.client.get("/v1/models")).json()["data"][0]["id"] == architecture
        async with trio.open_nursery() as nursery:
            for number, text in enumerate(asked):
                nursery.start_soon(ask, house, text, number % 2 == 0)
    for text in asked:
        assert texts[text] == generate(folder, [{"role": "user", "content": text}], 40)


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_client_hears_the_same(folder: Path, stream: bool) -> None:
    """Law 7 in the other dialect, with a system prompt; and usage is what the tokenizer counts."""
    said = [{"role": "system", "content": "席"}, {"role": "user", "content": "Hello there"}]
    asked: Any = {
        "model": folder.name,
        "max_tokens": 30,
        "system": "席",
        "messages": said[1:],
        "extra_body": {"temperature": 0},
    }

    def talk(url: str) -> tuple[anthropic.types.Message, int]:
        with anthropic.Anthropic(base_url=url, api_key="none", timeout=GUARD) as client:
            counted = client.messages.count_tokens(
                model=folder.name, system="席", messages=asked["messages"]
            )
            if not stream:
                return client.messages.create(**asked), counted.input_tokens
            with client.messages.stream(**asked) as events:
                return events.get_final_message(), counted.input_tokens

    async with serve_chat(Settings(model=str(folder), **SETTINGS), None) as house:
        message, counted = await trio.to_thread.run_sync(talk, house.served.urls[0])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    tokens = len(tokenizer(text, add_special_tokens=False).input_ids)
    assert counted == tokens == message.usage.input_tokens
    assert message.content[0].type == "text"
    assert message.content[0].text == generate(folder, said, 30)


async def test_a_seed_says_the_same_again(folder: Path) -> None:
    """Law 7: alone, in company, and after a restart; another seed says something else."""
    said: list[str] = []
    for company in (0, 2, 0):
        async with serve_chat(Settings(model=str(folder), **SETTINGS), None) as house:
            async with trio.open_nursery() as nursery:
                for _ in range(company):
                    nursery.start_soon(lambda house=house: house.ask("noise", max_tokens=30))
                answer = await house.ask("seeded", temperature=1.5, seed=7, max_tokens=30)
            other = await house.ask("seeded", temperature=1.5, seed=8, max_tokens=30)
        said.append(answer.json()["choices"][0]["message"]["content"])
        assert other.json()["choices"][0]["message"]["content"] != said[-1]
    assert said[0] == said[1] == said[2]


async def test_in_half_precision_as_well_if_that_is_asked_for(folder: Path) -> None:
    """Law 7 with ``batch_invariant`` in bfloat16: every seeded answer, alone and among others whose
    prompts are read beside it, and after a restart."""
    settings = Settings(
        model=str(folder), dtype="bfloat16", batch_invariant=True, **{**SETTINGS, "threads": 2}
    )
    asked = [f"question {number} " * (1 + number % 4) for number in range(9)]

    async def ask(house: House, number: int, texts: dict[int, str]) -> None:
        given = {"temperature": 1.0, "seed": number, "max_tokens": 40}
        response = await house.ask(asked[number], **given)
        texts[number] = response.json()["choices"][0]["message"]["content"]

    alone: dict[int, str] = {}
    company: dict[int, str] = {}
    async with serve_chat(settings, None) as house:
        for number in range(len(asked)):
            await ask(house, number, alone)
    async with serve_chat(settings, None) as house, trio.open_nursery() as nursery:
        for number in reversed(range(len(asked))):
            nursery.start_soon(ask, house, number, company)
    assert company == alone
    assert len({*alone.values()}) == len(asked)


async def test_templates_that_refuse_and_templates_that_are_not_there(tmp_path: Path) -> None:
    """A refusal of the template is a 400; a base model without one gets a plain one."""
    folder = make_folder(tmp_path / "strict", template=ALTERNATING)
    async with serve_chat(Settings(model=str(folder), **SETTINGS), None) as house:
        messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
        response = await house.client.post("/v1/chat/completions", json={"messages": messages})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "messages"
        assert "System role not supported" in response.json()["error"]["message"]
        too_long = await house.ask("x" * 3000)
        assert too_long.json()["error"]["code"] == "context_length_exceeded"
        await house.until(active=0, waiting=0, kv_rows=0)
    bare = make_folder(tmp_path / "bare", template=None)
    async with serve_chat(Settings(model=str(bare), **SETTINGS), None) as house:
        assert (await house.ask("hello", max_tokens=3)).status_code == 200


async def test_a_storm_of_hang_ups_leaves_nothing(folder: Path) -> None:
    """Law 9: waiting, prefilling, decoding, streaming and not, FIN and RST, and cancel by id."""
    chance = random.Random(3)
    settings = Settings(model=str(folder), **SETTINGS)
    # What the client that watches keeps in its pool ends soon, too.
    async with serve_chat(settings, None, keep_alive_timeout=1) as house:
        expected = (await house.ask("calm", temperature=0, max_tokens=20)).json()
        before = await house.until(active=0)
        threads = threading.active_count()
        async with trio.open_nursery() as nursery:
            for number in range(80):
                nursery.start_soon(_come_and_go, house, chance, f"storm-{number}")
                await trio.sleep(0.01)
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])
        await wait_until(lambda: open_connections() <= 1)
        await house.until(tasks=before["tasks"])
        assert threading.active_count() <= threads + 2
        again = (await house.ask("calm", temperature=0, max_tokens=20)).json()
        assert again["choices"] == expected["choices"]


async def _come_and_go(house: House, chance: random.Random, id: str) -> None:
    client = await house.served.connect()
    text = "x " * chance.choice([1, 30, 120])
    body = chat_body(text, stream=chance.random() < 0.5, ignore_eos=True)
    await client.send(raw_request(body, f"X-Stream-Id: {id}"))
    with trio.move_on_after(chance.random() * 0.5):
        while await client.receive():
            pass
    if chance.random() < 0.2:
        await house.client.delete(f"/v1/streams/{id}")
    client.leave(chance.choice(["fin", "rst"]))


COMMAND = [sys.executable, "-m", "chatstream_trio", "serve", "--port", "0", "--threads", "1"]


def test_a_signal_while_it_loads_ends_it_at_once(folder: Path) -> None:
    """Law 11: exit code 0, no traceback, nothing waited for."""
    with subprocess.Popen([*COMMAND, "--model", str(folder)], stderr=subprocess.PIPE) as server:
        port = _listening_port(server.pid)
        assert port
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=GUARD)
    assert (server.returncode, said) == (0, b"")


def _listening_port(pid: int) -> int:
    """Wait until the process listens, which it does before it loads; Linux tells us so."""
    end = time.monotonic() + GUARD
    while time.monotonic() < end:
        links = set(_links(Path(f"/proc/{pid}/fd")))
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            part = line.split()
            if part[3] == "0A" and f"socket:[{part[9]}]" in links:
                return int(part[1].partition(":")[2], 16)
        time.sleep(0.01)
    raise AssertionError("it does not listen")


def _links(path: Path) -> Iterator[str]:
    """Where the links in a folder lead; any of them may be gone at any moment."""
    with suppress(FileNotFoundError):
        for link in list(path.iterdir()):
            with suppress(FileNotFoundError):
                yield str(link.readlink())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"config.json": "{broken"}, "config.json"),
        (
            {"config.json": '{"model_type": "mamba", "architectures": ["MambaForCausalLM"]}'},
            "mamba",
        ),
        ({"model.safetensors": "these are no weights"}, "weights"),
        ({"tokenizer.json": "{}"}, "tokenizer"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line_and_code_1(
    tmp_path: Path, spoil: dict[str, str], words: str
) -> None:
    """And the same for an architecture that the engine cannot serve."""
    folder = make_folder(tmp_path / "spoilt")
    for name, text in spoil.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [*COMMAND, "--model", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("chatstream-trio: ")
    assert words.lower() in line.lower() or "spoilt" in line


def test_drain_on_the_real_thing(folder: Path) -> None:
    """Law 11: a stream that fits is finished; exit code 0."""
    import httpx

    with subprocess.Popen(
        [*COMMAND, "--model", str(folder), "--drain-seconds", "60"],
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        url = next(li.split()[-1] for li in server.stderr if li.startswith("Listening on "))
        body = chat_body("hello", stream=True, max_tokens=300, ignore_eos=True, temperature=1)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert server.wait(60) == 0
