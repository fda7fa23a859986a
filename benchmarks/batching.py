"""How much faster are streams that share a forward pass?

Compares ``model.generate()``, one prompt after the other, with the runner at 1 and 8 streams, on
the shape of SmolLM2-135M with random weights. The runner computes a bfloat16 model in float32 where
it would do so when serving (a processor without bfloat16 instructions); ``generate()`` is then
measured in both, and the ratio is to the faster of the two. All variants take turns within a round,
because machines are rarely quiet; the figures are medians over the rounds.

    PYTHONPATH=src python benchmarks/batching.py --rounds 5
    PYTHONPATH=src python benchmarks/batching.py --threads 1 --cpu-time   # on a busy machine
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from chatstream_trio.engine.runner import Decode, Prefill, Start, Turn
from chatstream_trio.torch_runner.load.build import make_runner
from chatstream_trio.torch_runner.load.layers.linears import has_bfloat16_instructions
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.runner import TransformersRunner

STREAMS = 8


def smollm_shape(dtype: torch.dtype) -> PreTrainedModel:
    """135 M parameters, as in HuggingFaceTB/SmolLM2-135M, with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def prompts(length: int) -> list[tuple[int, ...]]:
    """As many different prompts as there are streams."""
    return [tuple((7 * i + 13 * k) % 49152 for i in range(length)) for k in range(STREAMS)]


def sequential(model: PreTrainedModel, texts: list[tuple[int, ...]], tokens: int) -> None:
    """One request after the other, as a server without batching does it."""
    for text in texts:
        model.generate(torch.tensor([text]), max_new_tokens=tokens, do_sample=False)


def batched(runner: TransformersRunner, texts: list[tuple[int, ...]], tokens: int) -> None:
    """All of ``texts`` side by side."""
    start = tuple(Start(row, text) for row, text in enumerate(texts))
    read = tuple(Prefill(row, 0, len(text)) for row, text in enumerate(texts))
    steps = runner.launch(Turn(started=start, prefill=read))().steps
    for number in range(tokens - 1):
        decode = tuple(Decode(s.row, s.tokens[0], len(texts[s.row]) + number) for s in steps)
        steps = runner.launch(Turn(decode=decode))().steps


def variants(given: argparse.Namespace) -> tuple[str, dict[str, tuple[int, Callable[[], None]]]]:
    """The runner's notes; and by name: how many streams speak, and what to time."""
    stored = getattr(torch, given.dtype)
    used = stored
    if given.runner_dtype != "auto":
        used = getattr(torch, given.runner_dtype)
    elif stored == torch.bfloat16 and not has_bfloat16_instructions():
        used = torch.float32
    # The runner takes its model over, and generate() needs an untouched one.
    runner = make_runner(
        smollm_shape(used),
        RunnerOptions(model_id="bench", rows=STREAMS, max_model_len=1024, threads=given.threads),
    )
    texts, tokens = prompts(given.prompt), given.tokens
    work: dict[str, tuple[int, Callable[[], None]]] = {}
    for dtype in dict.fromkeys((stored, used)):
        run = partial(sequential, smollm_shape(dtype), texts[: given.requests], tokens)
        work[f"generate(), {str(dtype)[6:]}"] = (given.requests, run)
    work["runner, 1 stream"] = (1, partial(batched, runner, texts[:1], tokens))
    work[f"runner, {STREAMS} streams"] = (STREAMS, partial(batched, runner, texts, tokens))
    return "; ".join(runner.info.notes), work


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--requests", type=int, default=STREAMS, help="prompts for generate()")
    options.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    options.add_argument("--prompt", type=int, default=16, help="tokens of each prompt")
    options.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    options.add_argument("--runner-dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--cpu-time", action="store_true", help="instead of elapsed time")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.cpu_time else time.perf_counter
    notes, work = variants(given)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(given.rounds + 1):
        for name, (_, run) in work.items():
            begin = clock()
            run()
            if number:  # the first round warms up
                seconds[name].append(clock() - begin)
    rates = {
        name: sorted(count * given.tokens / second for second in seconds[name])
        for name, (count, _) in work.items()
    }
    base = max(statistics.median(r) for name, r in rates.items() if name.startswith("generate"))
    print(f"{given.tokens} tokens each after {given.prompt}; {notes}")
    print(f"{'':26}{'tokens/s':>10}{'lowest':>9}{'highest':>9}{'ratio':>8}")
    for name, rate in rates.items():
        middle = statistics.median(rate)
        print(f"{name:26}{middle:10.1f}{rate[0]:9.1f}{rate[-1]:9.1f}{middle / base:8.2f}")


if __name__ == "__main__":
    main()
