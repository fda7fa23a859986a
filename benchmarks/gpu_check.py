"""Is the engine right, and how fast is it, on this machine's GPU? One command says.

Needs torch, transformers, attrs and this package's ``engine/``; no server, no network.

    PYTHONPATH=src python benchmarks/gpu_check.py
    PYTHONPATH=src python benchmarks/gpu_check.py --device cpu --layers 4 --streams 1 8
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from chatstream_trio.engine.runner import Decode, Prefill, Start, Turn
from chatstream_trio.engine.transformers_runner import TransformersRunner, make_runner

QWEN3_06B: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
SMALL: dict[str, Any] = {
    **QWEN3_06B,
    "vocab_size": 499,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}


def random_model(shape: dict[str, Any], dtype: torch.dtype, device: str) -> PreTrainedModel:
    """Random weights, the same every time."""
    torch.manual_seed(0)
    config = Qwen3Config(**shape, bos_token_id=None, eos_token_id=None)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).to(device).eval()


def tables(runner: TransformersRunner) -> dict[int, tuple[int, ...]]:
    """Pages for every row, which are not neighbours."""
    rows = runner.info.rows
    pages = -(-runner.info.max_model_len // runner.info.block_size)
    return {row: tuple(range(row, rows * pages, rows)) for row in range(rows)}


def run(
    runner: TransformersRunner, texts: list[tuple[int, ...]], tokens: int
) -> tuple[list[list[int]], float]:
    """The answers of streams that start together, and tokens per second of decoding alone."""
    start = tuple(Start(row, text) for row, text in enumerate(texts))
    read = tuple(Prefill(row, 0, len(text)) for row, text in enumerate(texts))
    pages = tables(runner)
    steps = runner.run_turn(Turn(started=start, prefill=read, tables=pages)).steps
    said: list[list[int]] = [[] for _ in texts]
    begin = time.perf_counter()
    for number in range(tokens):
        for step in steps:
            said[step.row].extend(step.tokens)
        decode = tuple(Decode(s.row, s.tokens[0], len(texts[s.row]) + number) for s in steps)
        steps = runner.run_turn(Turn(decode=decode, tables=pages)).steps
    return said, len(texts) * tokens / (time.perf_counter() - begin)


def check(device: str) -> None:
    """Greedy answers of ragged streams against ``generate()``, in float32."""
    model = random_model(SMALL, torch.float32, device)
    lengths = (3, 12, 21, 240, 256, 500)  # within a page, to its end, and across
    texts = [tuple((11 * i + 7 * k) % 499 for i in range(n)) for k, n in enumerate(lengths)]
    expected = []
    for text in texts:
        ids = torch.tensor([text], device=device)
        expected.append(model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :])
    runner = make_runner(model, model_id="small", rows=8, max_model_len=640)
    said, _ = run(runner, texts, 40)
    for text, answer, wanted in zip(texts, said, expected, strict=True):
        if answer != wanted.tolist():
            raise SystemExit(
                f"WRONG: a prompt of {len(text)} tokens got\n{answer}\n{wanted.tolist()}"
            )
    print(f"right: {len(texts)} ragged streams on {device} say what generate() says")


def main() -> None:
    """Check, then measure."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="cuda")
    options.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    options.add_argument("--layers", type=int, default=28, help="fewer for a smaller model")
    options.add_argument("--streams", type=int, nargs="+", default=[1, 8, 64])
    options.add_argument("--tokens", type=int, default=128)
    given = options.parse_args()
    # Otherwise float32 products are rounded to ten bits, and the comparison means nothing.
    torch.backends.cuda.matmul.allow_tf32 = False
    check(given.device)
    shape = {**QWEN3_06B, "num_hidden_layers": given.layers}
    model = random_model(shape, getattr(torch, given.dtype), given.device)
    runner = make_runner(model, model_id="0.6B", rows=max(given.streams), max_model_len=1024)
    print(f"Qwen3-0.6B shape, {given.layers} layers; {'; '.join(runner.info.notes)}")
    for count in given.streams:
        texts = [tuple((i * 31 + k) % 1000 for i in range(64)) for k in range(count)]
        run(runner, texts, 8)
        _, rate = run(runner, texts, given.tokens)
        print(f"{count:3} streams: {rate:9.1f} tokens/s, {1000 * count / rate:7.1f} ms a turn")


if __name__ == "__main__":
    main()
