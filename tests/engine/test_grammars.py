"""Answers in a grammar, on a real runner: what it demands holds, alone and in company (law 14)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from attrs import evolve
from drive import Drive, Stream, run_streams, run_turns
from held import EOS, grammars, held, letters, regex, schema, speaker, text_of
from making import make_runner
from torch.utils._python_dispatch import TorchDispatchMode

from chatstream_trio.engine.runner import Decode, Prefill, Sampling, Start, Turn
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.grammars.compiler import Grammars
from chatstream_trio.grammars.grammar import Grammar, GrammarKind
from chatstream_trio.torch_runner.runner import TransformersRunner

SEATS = schema(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Z][a-z]{2,6}$"},
            "seats": {"type": "array", "items": {"enum": [1, 22, 333]}, "maxItems": 3},
        },
        "required": ["name", "seats"],
        "additionalProperties": False,
    }
)
EXPECTED: list[tuple[Grammar, str]] = [
    (regex("(yes|no){3}"), "(yes|no){3}"),
    (regex("[a-z]{4}-[0-9]{4}"), "[a-z]{4}-[0-9]{4}"),
    (SEATS, r'\{ ?"name" ?: ?"[A-Z][a-z]{2,6}" ?, ?"seats" ?: ?\[[ 123,]*\] ?\}'),
    (Grammar(GrammarKind.CHOICE, '["red", "green"]'), "red|green"),
    (Grammar(GrammarKind.GBNF, 'root ::= "<" [0-9]+ ">"'), "<[0-9]+>"),
    (Grammar(GrammarKind.LARK, 'start: "a" <tool> "b"'), "ab"),
]


def runner_for(grammars_: Grammars | None = None, **given: Any) -> TransformersRunner:
    """Four rows of a tiny model that can be held to grammars."""
    options = {"model_id": "held", "rows": 4, "threads": 1, **given}
    return make_runner(speaker(), grammars=grammars_ or grammars(), **options)


def specs() -> list[StreamSpec]:
    """Streams with grammars, and every third one without."""
    chosen = []
    for number in range(12):
        grammar = EXPECTED[number % len(EXPECTED)][0] if number % 3 else None
        sampling = Sampling(temperature=1.0, seed=number, grammar=grammar)
        prompt = (7, 8, 9, *range(10, 10 + number))
        chosen.append(StreamSpec(number, prompt, 60, sampling, frozenset({EOS})))
    return chosen


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("grammar", "pattern"), EXPECTED)
def test_what_a_grammar_demands_holds(grammar: Grammar, pattern: str, seed: int) -> None:
    """Law 14: an answer that ended by itself belongs to its grammar, as a whole."""
    spec = StreamSpec(0, (5, 6, 7), 100, held(grammar, seed=seed), frozenset({EOS}))
    (tokens,) = run_turns(runner_for(), [spec]).tokens.values()
    assert EOS not in tokens
    if len(tokens) < 100:
        assert re.fullmatch(pattern, text_of(tokens)), text_of(tokens)


@pytest.mark.parametrize("given", [{}, {"block_size": 4}, {"block_size": 4, "speculate": 4}])
def test_company_and_pauses_change_nothing(given: dict[str, int]) -> None:
    """Law 7: each says what it says alone, held or not, however often it is paused, and with
    guesses."""
    speculate = given.pop("speculate", 0)
    alone: dict[int, list[int]] = {}
    for spec in specs():
        alone |= run_turns(runner_for(), [spec]).tokens
    small = {"max_model_len": 84, "kv_memory": memory(90)} if given else {}
    loop = run_turns(runner_for(**given, **small), specs(), chunk=7, speculate=speculate)
    assert loop.tokens == alone
    if given and not speculate:
        assert loop.preempted >= 2
    if given:
        assert any(loop.cached.values())


def memory(tokens: int) -> Any:
    """For so many tokens."""
    from chatstream_trio.engine.budget import Budget

    runner = runner_for(block_size=1)
    count = runner._pool.nbytes // (runner.info.blocks * runner.info.block_size)
    return Budget.parse(str(tokens * count))


def test_a_turn_that_ran_twice_changes_nothing() -> None:
    """Design 4: what was taken is kept by position, so that it can be given back."""
    streams = [Stream((1, 2, 3), 10, held(grammar, seed=3)) for grammar, _ in EXPECTED[:3]]
    once = run_streams(runner_for(), *streams)
    assert run_streams(runner_for(), *streams, twice=True) == once


def test_it_ends_when_it_is_complete_and_not_before() -> None:
    """However likely the end is before, and however unlikely it is then."""
    for bias in (100.0, -100.0):
        sampling = held(regex("[a-c]{12}"), seed=1, logit_bias={EOS: bias})
        (tokens,) = run_streams(runner_for(), Stream((1, 2), 13, sampling))
        assert tokens.index(EOS) == 12


def test_special_tokens_are_no_text() -> None:
    """Law 14: where any text may stand, a token such as a mark of a turn may not."""
    sampling = held(regex("(.|\n){30,40}"), seed=1, logit_bias={1: 100.0})
    assert run_streams(runner_for(), Stream((1, 2), 20, Sampling(logit_bias={1: 100.0})))[0][0] == 1
    assert 1 not in run_streams(runner_for(), Stream((1, 2), 20, sampling))[0]


def test_an_end_that_is_text_besides_comes_at_the_end_only() -> None:
    """A model may have several ends, of which some need not be special to its tokenizer: such a one
    is text as well, as which it would end the answer in the middle."""
    model, end = speaker(), letters().token_to_id("q")
    model.generation_config.eos_token_id = [EOS, end]
    runner = make_runner(model, grammars=grammars(), model_id="held", rows=4, threads=1)
    assert runner.info.eos_token_ids == {EOS, end}
    for sampling in (Sampling(seed=1), held(regex("[a-z]{20}"), seed=1)):
        said = run_streams(runner, Stream((1, 2), 21, evolve(sampling, logit_bias={end: 100.0})))
        assert said[0].index(end) == (20 if sampling.grammar else 0)


def test_a_turn_of_before_can_be_run_again() -> None:
    """Design 4: also when a later one has run, and with another token."""
    runner = runner_for()
    a, b, c = (letters().token_to_id(letter) for letter in "abc")
    start = Start(0, (1, 2), held(regex("(ab|ba|cc)a{9}"), seed=3))
    runner.launch(Turn(started=(start,), prefill=(Prefill(0, 0, 2),)))()
    for token, behind in ((a, b), (b, a), (c, c), (a, b)):
        (step,) = runner.launch(Turn(decode=(Decode(0, token, 2),)))().steps
        assert step.tokens == (behind,)
        (step,) = runner.launch(Turn(decode=(Decode(0, behind, 3),)))().steps
        assert step.tokens == (a,)


def test_likelihoods_are_those_of_the_raw_logits() -> None:
    """Before the mask, that is: what would have been likelier is named, allowed or not."""
    free = Sampling(temperature=0.0, logprobs=5)
    found = []
    for sampling in (free, evolve(free, grammar=regex("[0-9]{5}"))):
        start = Start(0, (5, 6, 7), sampling)
        turn = Turn(started=(start,), prefill=(Prefill(0, 0, 3),))
        found.append(runner_for().launch(turn)().steps[0])
    assert found[0].tokens != found[1].tokens
    assert found[0].logprobs[0].best == found[1].logprobs[0].best
    assert found[1].logprobs[0].logprob < found[0].logprobs[0].logprob


def test_a_fault_ends_its_own_stream() -> None:
    """Law 8: a grammar that cannot be compiled, and an answer that has left its own, end alone."""
    runner = runner_for()
    neighbour = Stream((4, 5), 10, Sampling(seed=2))
    expected = run_streams(runner, neighbour)[0]
    bad = Stream((1, 2), 10, held(regex("(")))
    drive = Drive(runner, [bad, neighbour])
    assert drive.run() == [[], expected]
    assert "cannot be compiled" in drive.faults[0]
    start = Start(0, (1, 2), held(regex("a{9}")))
    runner.launch(Turn(started=(start,), prefill=(Prefill(0, 0, 2),)))()
    wrong = Turn(decode=(Decode(0, letters().token_to_id("z"), 2),))
    for _ in range(2):
        (step,) = runner.launch(wrong)().steps
        assert step.fault == "the answer left its grammar"
    drive = Drive(runner, [evolve(neighbour, row=1), Stream((1, 2), 9, start.sampling, row=0)])
    assert drive.run() == [expected, [letters().token_to_id("a")] * 9]


def test_where_nothing_may_come_the_stream_ends() -> None:
    """Law 14: if all that the grammar allows is impossible, no other token is said."""
    model = speaker(tie_word_embeddings=False)
    runner = make_runner(model, grammars=grammars(), model_id="mute", rows=4, threads=1)
    digits = [letters().token_to_id(digit) for digit in "0123456789"]
    mute = torch.zeros(97).index_fill(0, torch.tensor(digits), -torch.inf)
    forward = runner._forward
    runner._forward = evolve(forward, call=lambda given: forward.call(given) + mute)
    neighbour = Stream((4, 5), 10, Sampling(seed=2))
    expected = run_streams(runner, neighbour)[0]
    drive = Drive(runner, [Stream((1, 2), 5, held(regex("ab[0-9]"))), neighbour])
    ab = [letters().token_to_id(letter) for letter in "ab"]
    assert drive.run() == [ab, expected]
    assert list(drive.faults) == [0]


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append(str(func))
        return func(*args, **(kwargs or {}))


def test_who_has_no_grammar_pays_nothing() -> None:
    """A turn of such streams asks the device for the same operations with grammars and without."""
    calls = []
    for able in (True, False):
        runner = make_runner(
            speaker(), grammars=grammars() if able else None, model_id="t", rows=4, threads=1
        )
        with _Count() as count:
            run_streams(runner, Stream((1, 2, 3), 5, Sampling(seed=1)))
        calls.append(count.calls)
    assert calls[0] == calls[1]
