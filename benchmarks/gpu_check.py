"""Is the engine right, and how fast is it, on this machine's GPU? One command says.

First, greedy answers of ragged streams have to be ``generate()``'s. Then, for models in the shapes
of Qwen3-0.6B and Llama-3-8B with random weights, so many streams answer side by side: once through
transformers' own continuous batching (``generate_batch()``), once through the engine. A turn cannot
be faster than the card reads the weights once; that floor is measured as well.

Needs torch, transformers, attrs and this package's ``engine/``; no server, no network.

    PYTHONPATH=src python benchmarks/gpu_check.py
    PYTHONPATH=src python benchmarks/gpu_check.py --device cpu --layers 2 --streams 1 8 \\
        --shapes Qwen3-0.6B --tokens 8
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from attrs import frozen
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from chatstream_trio.engine.runner import Decode, Prefill, Start, Turn
from chatstream_trio.torch_runner.load.build import make_runner
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.runner import TransformersRunner

PROMPT = 64
"""Tokens of each prompt."""
CONTEXT = 1024
CHUNK = 4096
"""Prompt tokens that are read in one turn."""

SHAPES: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
    "Llama-3-8B": {
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
}
SMALL: dict[str, Any] = {
    **SHAPES["Qwen3-0.6B"],
    "vocab_size": 499,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}


@frozen
class Measured:
    """One way of answering so many prompts."""

    streams: int
    seconds: float
    """For everything, the prompts included."""
    tokens: int
    """All that were said."""
    first: float | None = None
    """Seconds to the first token of the last stream."""
    turns: Sequence[float] = ()
    """Seconds of each turn that only decoded."""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def random_model(shape: dict[str, Any], dtype: torch.dtype, device: str) -> PreTrainedModel:
    """Random weights, the same every time."""
    given = dict(shape)
    config = CONFIG_MAPPING[given.pop("model_type")](**given, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def tables(runner: TransformersRunner) -> dict[int, tuple[int, ...]]:
    """Pages for every row, which are not neighbours."""
    rows = runner.info.rows
    pages = -(-runner.info.max_model_len // runner.info.block_size)
    return {row: tuple(range(row, rows * pages, rows)) for row in range(rows)}


def run(
    runner: TransformersRunner, texts: list[tuple[int, ...]], tokens: int
) -> tuple[list[list[int]], Measured]:
    """The answers of streams that start together, and what it took."""
    said: list[list[int]] = [[] for _ in texts]
    pages, turns = tables(runner), []
    begin = time.perf_counter()
    for rows in _batches(texts):
        start = tuple(Start(row, texts[row]) for row in rows)
        read = tuple(Prefill(row, 0, len(texts[row])) for row in rows)
        for step in runner.launch(Turn(started=start, prefill=read, tables=pages))().steps:
            said[step.row].extend(step.tokens)
    first = time.perf_counter() - begin
    for number in range(tokens - 1):
        since = time.perf_counter()
        decode = tuple(
            Decode(row, said[row][-1], len(text) + number) for row, text in enumerate(texts)
        )
        for step in runner.launch(Turn(decode=decode, tables=pages))().steps:
            said[step.row].extend(step.tokens)
        turns.append(time.perf_counter() - since)
    seconds = time.perf_counter() - begin
    return said, Measured(len(texts), seconds, len(texts) * tokens, first, turns)


def _batches(texts: list[tuple[int, ...]]) -> list[range]:
    """Rows whose prompts are read in one turn."""
    size = max(1, CHUNK // max(map(len, texts)))
    return [range(at, min(at + size, len(texts))) for at in range(0, len(texts), size)]


def transformers_batch(
    model: PreTrainedModel, texts: list[tuple[int, ...]], tokens: int
) -> Measured:
    """The same with transformers' continuous batching, whose memory and CUDA graphs are kept."""
    begin = time.perf_counter()
    said = model.generate_batch(
        inputs=[list(text) for text in texts],
        max_new_tokens=tokens,
        do_sample=False,
        persistent_manager=True,
    )
    seconds = time.perf_counter() - begin
    count = sum(len(one.generated_tokens) for one in said.values())
    if count != len(texts) * tokens:
        raise RuntimeError(f"it gave {count} tokens")
    return Measured(len(texts), seconds, count)


def floor(model: PreTrainedModel) -> float:
    """Seconds to read once, on this device, the weights that each token needs."""
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    needed = sum(weight.nbytes for weight in model.parameters() if weight is not table)
    needed += table.nbytes if head is table else 0
    big = torch.ones(2**28, dtype=torch.float32, device=table.device)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        big.sum().item()
        best = min(best, time.perf_counter() - begin)
    return needed * best / big.nbytes


def check(device: str) -> None:
    """Greedy answers of ragged streams against ``generate()``, in float32."""
    model = random_model(SMALL, torch.float32, device)
    lengths = (3, 12, 21, 240, 256, 500)  # within a page, to its end, and across
    texts = [tuple((11 * i + 7 * k) % 499 for i in range(n)) for k, n in enumerate(lengths)]
    expected = []
    for text in texts:
        ids = torch.tensor([text], device=device)
        answer = model.generate(ids, max_new_tokens=40, do_sample=False)
        expected.append(answer[0, ids.shape[1] :])
    runner = make_runner(model, RunnerOptions(model_id="small", rows=8, max_model_len=640))
    said, _ = run(runner, texts, 40)
    for text, answer, wanted in zip(texts, said, expected, strict=True):
        if answer != wanted.tolist():
            raise SystemExit(
                f"WRONG: a prompt of {len(text)} tokens got\n{answer}\n{wanted.tolist()}"
            )
    print(f"right: {len(texts)} ragged streams on {device} say what generate() says")


def measure(name: str, given: argparse.Namespace) -> None:
    """Print a table for one shape."""
    shape = {**SHAPES[name], **({"num_hidden_layers": given.layers} if given.layers else {})}
    model = random_model(shape, getattr(torch, given.dtype), given.device)
    least = floor(model)
    counts = sorted(given.streams)
    texts = {
        count: [tuple((i * 31 + k) % 1000 for i in range(PROMPT)) for k in range(count)]
        for count in counts
    }
    theirs: dict[int, Measured] = {}
    try:
        for count in counts:
            transformers_batch(model, texts[count], given.tokens)  # sets up, for as much as this
            theirs[count] = transformers_batch(model, texts[count], given.tokens)
            model.destroy_cached_continuous_batching_manager()
    except Exception as error:  # whatever another's engine may raise on this device
        print(f"generate_batch() is left out: {type(error).__name__}: {str(error)[:200]}")
    runner = make_runner(
        model, RunnerOptions(model_id=name, rows=counts[-1], max_model_len=CONTEXT)
    )
    print(f"\n{name} shape, {shape['num_hidden_layers']} layers; {'; '.join(runner.info.notes)}")
    print(f"weights read once: {1000 * least:.2f} ms")
    print(
        "| streams | tokens/s | generate_batch() | ratio | first token | turn p50 / p99 | floor |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in counts:
        run(runner, texts[count], 4)
        _, ours = run(runner, texts[count], given.tokens)
        turns = sorted(ours.turns)
        middle, worst = statistics.median(turns), turns[int(0.99 * (len(turns) - 1))]
        other = theirs.get(count)
        print(
            f"| {count} | {ours.rate:.0f} | {f'{other.rate:.0f}' if other else '-'}"
            f" | {f'{ours.rate / other.rate:.2f}' if other else '-'}"
            f" | {1000 * (ours.first or 0):.0f} ms | {1000 * middle:.2f} / {1000 * worst:.2f} ms"
            f" | {least / middle:.0%} |"
        )


def main() -> None:
    """Check, then measure."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = options.add_argument
    add("--device", default="cuda")
    add("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    add("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    add("--layers", type=int, help="fewer, for a quick look")
    add("--streams", type=int, nargs="+", default=[1, 8, 64, 256])
    add("--tokens", type=int, default=128)
    given = options.parse_args()
    # Otherwise float32 products are rounded to ten bits, and the comparison means nothing.
    torch.backends.cuda.matmul.allow_tf32 = False
    if given.device.startswith("cuda"):
        print(torch.cuda.get_device_name(given.device), "with torch", torch.__version__)
    check(given.device)
    for name in given.shapes:
        measure(name, given)
        if given.device.startswith("cuda"):
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
