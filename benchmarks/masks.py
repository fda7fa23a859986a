"""What do grammars cost a turn of eight streams?

On the shape of SmolLM2-135M with random weights, with 49,152 tokens that were trained on Python's
library: the same turns with grammars and without, side by side, and what the added parts take.
Streams walk through their schemas at temperature 1, so that masks of all kinds are met.

    PYTHONPATH=src python benchmarks/masks.py --rounds 200
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parent))

from batching import STREAMS, smollm_shape

from chatstream_trio.engine.runner import Decode, Prefill, Sampling, Start, Turn
from chatstream_trio.grammars.compiler import Grammars
from chatstream_trio.grammars.grammar import Grammar, GrammarKind
from chatstream_trio.torch_runner.grammars import Masks, RowGrammars
from chatstream_trio.torch_runner.load.build import make_runner
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.runner import TransformersRunner

EOS = 0
VOCABULARY = 49152
RECORD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "rows": {
            "type": "array",
            "minItems": 500,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "pattern": "^[A-Z][a-z ]{3,30}$"},
                    "note": {"type": "string", "maxLength": 80},
                    "age": {"type": "integer", "minimum": 0, "maximum": 150},
                    "kind": {"enum": ["red", "green", "blue"]},
                    "at": {"type": "string", "format": "date-time"},
                },
                "required": ["name", "note", "age", "kind", "at"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["rows"],
}
KINDS = {
    "a record": RECORD,
    "any JSON": {"type": "array", "minItems": 500, "items": {"type": "object"}},
}


def vocabulary() -> Tokenizer:
    """A byte-level tokenizer, trained on what lies about: Python's own library."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library = Path(statistics.__file__).parent
    texts = (path.read_text(errors="replace") for path in sorted(library.rglob("*.py"))[:4000])
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def begin(runner: TransformersRunner, samplings: list[Sampling]) -> list[int]:
    """Start everybody; the first tokens."""
    prompts = [tuple(range(100 + i, 132 + i)) for i in range(STREAMS)]
    turn = Turn(
        started=tuple(
            Start(i, p, s) for i, (p, s) in enumerate(zip(prompts, samplings, strict=True))
        ),
        prefill=tuple(Prefill(i, 0, len(p)) for i, p in enumerate(prompts)),
    )
    return [step.tokens[0] for step in runner.launch(turn)().steps]


class Walk:
    """Eight streams of one kind, a turn at a time."""

    def __init__(self, runner: TransformersRunner, samplings: list[Sampling]) -> None:
        self._runner = runner
        self._said = begin(runner, samplings)
        self._position = 32

    def turn(self) -> float:
        """Seconds that one turn took."""
        decode = tuple(Decode(i, token, self._position) for i, token in enumerate(self._said))
        started = time.perf_counter()
        steps = self._runner.launch(Turn(decode=decode))().steps
        taken = time.perf_counter() - started
        assert all(step.fault is None for step in steps), steps
        self._said = [step.tokens[0] for step in steps]
        self._position += 1
        return taken


def timed(method: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
    """The same; and its seconds, where it had anything to do."""

    def call(self: Any, *args: Any) -> Any:
        started = time.perf_counter()
        result = method(self, *args)
        if isinstance(self, Masks) or result is not None:
            into.append(1e3 * (time.perf_counter() - started))
        return result

    return call


def main(rounds: int, dtype: torch.dtype) -> None:
    """Measure and print."""
    words = vocabulary()
    options = RunnerOptions(model_id="135m", rows=STREAMS, max_model_len=rounds + 64)
    filled: list[float] = []
    applied: list[float] = []
    RowGrammars.masks = timed(RowGrammars.masks, filled)  # type: ignore[method-assign]
    Masks.apply = timed(Masks.apply, applied)  # type: ignore[method-assign]
    runners = []
    for grammars in (None, Grammars(lambda: words)):
        model = smollm_shape(dtype)
        model.generation_config.eos_token_id = EOS
        runners.append(make_runner(model, options, grammars))
    for name, schema in KINDS.items():
        grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
        samplings = [Sampling(seed=seed) for seed in range(STREAMS)]
        free = Walk(runners[0], samplings)
        held = Walk(runners[1], [evolve(sampling, grammar=grammar) for sampling in samplings])
        filled.clear()
        applied.clear()
        both = [(1e3 * free.turn(), 1e3 * held.turn()) for _ in range(rounds)]
        without, with_ = (statistics.median(column) for column in zip(*both, strict=True))
        more = statistics.median(one - other for other, one in both)
        masks, apply = statistics.median(filled), statistics.median(applied)
        print(
            f"{name}: a turn of {STREAMS} takes {without:.2f} ms without, {with_:.2f} ms with"
            f" (median of the differences {more:+.2f} ms); masks {masks:.3f} ms (slowest"
            f" {max(filled):.2f}), applying them {apply:.3f} ms"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args()
    main(given.rounds, getattr(torch, given.dtype))
