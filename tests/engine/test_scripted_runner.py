"""The scripted runner keeps the contract that the transformers runner keeps."""

from __future__ import annotations

import pytest
from contract import MakeRunner, RunnerContract
from drive import Paged

from chatstream_trio.engine.runner import Decode, Prefill, Start, Turn
from chatstream_trio.engine.scripted_runner import ScriptedRunner


class TestScriptedRunner(RunnerContract):
    """Laws 5, 7 and 8 at the runner's level."""

    @pytest.fixture
    def make_runner(self) -> MakeRunner:
        """The suite asks for rows and a context."""
        return ScriptedRunner


class TestScriptedRunnerWithPages(RunnerContract):
    """The same, with tables of blocks."""

    @pytest.fixture
    def make_runner(self) -> MakeRunner:
        """Each row gets pages that are not neighbours."""
        return lambda **given: Paged(ScriptedRunner(block_size=16, **given))


def test_it_says_the_last_message_over_and_over() -> None:
    """A word a token, any number of tokens."""
    runner = ScriptedRunner(rows=1)
    prompt = (0, 1, 2, 0, 7, 8)
    result = runner.launch(Turn(started=(Start(0, prompt),), prefill=(Prefill(0, 0, 6),)))()
    said = list(result.steps[0].tokens)
    for position in range(6, 10):
        said += runner.launch(Turn(decode=(Decode(0, said[-1], position),)))().steps[0].tokens
    assert said == [7, 8, 7, 8, 7]


def test_a_gap_in_the_cache_is_an_error() -> None:
    """It can tell that a turn loop forgot to feed a token."""
    runner = ScriptedRunner(rows=1)
    runner.launch(Turn(started=(Start(0, (7, 8)),), prefill=(Prefill(0, 0, 2),)))()
    with pytest.raises(RuntimeError, match="position 3 after only 2"):
        runner.launch(Turn(decode=(Decode(0, 7, 3),)))()


def test_a_wrong_table_is_heard() -> None:
    """Whoever is given another's blocks says another's words."""
    runner = ScriptedRunner(rows=2, max_model_len=64, block_size=4)
    starts = (Start(0, (1, 2, 3)), Start(1, (7, 8, 9)))
    prefill = (Prefill(0, 0, 3), Prefill(1, 0, 3))
    runner.launch(Turn((), starts, prefill, tables={0: (5,), 1: (3,)}))()
    (step,) = runner.launch(Turn(decode=(Decode(0, 1, 3),), tables={0: (3,)}))().steps
    assert step.tokens == (8,)
    start = Start(0, (1, 2, 3, 4, 5), kept=4)
    with pytest.raises(RuntimeError, match="do not hold 4 tokens"):
        runner.launch(Turn((), (start,), (Prefill(0, 4, 5),), tables={0: (6, 7)}))()
