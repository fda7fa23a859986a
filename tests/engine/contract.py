"""The laws that every runner keeps; a runner's test module subclasses :class:`RunnerContract`.

Nothing here knows a model: the vocabulary is the runner's own, and no text is expected, only that
what one stream says stays the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from attrs import evolve
from drive import Drive, Stream, run_streams

from chatstream_trio.engine.runner import (
    Ability,
    Decode,
    Pooling,
    Prefill,
    Runner,
    Sampling,
    Start,
    Turn,
    TurnResult,
)
from chatstream_trio.grammars.grammar import Grammar, GrammarKind

MakeRunner = Callable[..., Runner]

SAMPLED = Sampling(temperature=1.0, seed=7)
MIXED = (
    Sampling(temperature=0.0),
    SAMPLED,
    Sampling(temperature=1.5, top_p=0.9, seed=-3),
    Sampling(temperature=0.8, top_k=5, min_p=0.02, seed=2**62),
    Sampling(temperature=0.0, repetition_penalty=1.3),
    Sampling(temperature=1.0, presence_penalty=0.7, frequency_penalty=0.4, seed=1),
    Sampling(temperature=1.0, logit_bias={3: 4.0, 5: -100.0}, seed=11),
)

WHATEVER = "start: ( <[3]> <[4]>? | <[5]> | <[7]> <[9]>{1,3} <[11]> ){500}"
"""A grammar over ids that any vocabulary has."""
HELD = (
    Sampling(temperature=0.0, grammar=Grammar(GrammarKind.LARK, WHATEVER)),
    Sampling(temperature=1.0, seed=5, grammar=Grammar(GrammarKind.LARK, WHATEVER)),
    Sampling(
        temperature=1.2,
        seed=6,
        top_k=2,
        repetition_penalty=1.2,
        logit_bias={3: 4.0},
        grammar=Grammar(GrammarKind.LARK, WHATEVER),
    ),
)
"""For runners that can hold an answer to a grammar."""

NEEDS = {
    Ability.GRAMMAR: Start(0, (1, 2), Sampling(grammar=Grammar(GrammarKind.REGEX, "a+"))),
    Ability.LOGPROBS: Start(0, (1, 2), Sampling(logprobs=0)),
    Ability.ADAPTER: Start(0, (1, 2), adapter="polite"),
    Ability.POOL: Start(0, (1, 2), pool=Pooling.MEAN),
    Ability.PROMPT_LOGPROBS: Start(0, (1, 2), prompt_logprobs=2),
}


def some_prompt(chance: random.Random, runner: Runner, longest: int = 14) -> tuple[int, ...]:
    """Ids that any vocabulary has."""
    top = min(runner.info.vocab_size, 50)
    return tuple(chance.randrange(top) for _ in range(chance.randint(1, longest)))


def mixed(runner: Runner) -> tuple[Sampling, ...]:
    """All samplings that it can do."""
    return (*MIXED, *HELD) if Ability.GRAMMAR in runner.info.abilities else MIXED


def skip_unless_able(runner: Runner, sampling: Sampling) -> None:
    """Skip a test of what this runner refuses."""
    if Start(0, (1,), sampling).needs - runner.info.abilities:
        pytest.skip("it cannot do that")


def some_streams(chance: random.Random, runner: Runner, count: int) -> list[Stream]:
    """Streams that differ in everything that a stream can differ in."""
    return [
        Stream(
            prompt=some_prompt(chance, runner),
            tokens=chance.randint(1, 12),
            sampling=chance.choice(mixed(runner)),
            begin=chance.randint(0, 10),
            chunk=chance.choice([1, 2, 3, 5, 100]),
        )
        for _ in range(count)
    ]


class RunnerContract:
    """Subclasses supply the fixture ``make_runner(rows=..., max_model_len=...) -> Runner``.

    Two runners from one ``make_runner`` serve the same model. 4 rows of 64 tokens must be possible.
    """

    @pytest.fixture
    def runner(self, make_runner: MakeRunner) -> Runner:
        return make_runner(rows=4, max_model_len=64)

    def test_info_is_consistent(self, make_runner: MakeRunner) -> None:
        """What was asked for is what ``info`` says, and it does not change."""
        runner = make_runner(rows=3, max_model_len=48)
        info = runner.info
        assert (info.rows, info.max_model_len) == (3, 48)
        assert info.vocab_size > 0
        assert info.model
        assert info.device
        assert all(token >= 0 for token in info.eos_token_ids)
        run_streams(runner, Stream((1, 2), tokens=2))
        assert runner.info == info

    @pytest.mark.parametrize(("ability", "start"), NEEDS.items())
    def test_what_it_cannot_do_it_refuses(
        self, runner: Runner, ability: Ability, start: Start
    ) -> None:
        """With a sentence that names it, and before anything is done."""
        assert start.needs == {ability}
        if ability not in runner.info.abilities:
            turn = Turn(started=(start,), prefill=(Prefill(0, 0, len(start.prompt)),))
            with pytest.raises(ValueError, match=f"without {ability.value}$"):
                runner.launch(turn)()

    @pytest.mark.parametrize("sampling", [*MIXED, *HELD])
    def test_chunks_of_a_prompt_do_not_change_the_answer(
        self, runner: Runner, sampling: Sampling
    ) -> None:
        """Law 6: read in chunks of 1, 3 or whole, a prompt gets the same answer."""
        skip_unless_able(runner, sampling)
        prompt = (*some_prompt(random.Random(1), runner, 11), 1, 2, 3)
        whole = Stream(prompt, tokens=10, sampling=sampling)
        texts = [run_streams(runner, evolve(whole, chunk=chunk))[0] for chunk in (1, 3, 1000)]
        assert texts[0] == texts[1] == texts[2]
        assert all(0 <= token < runner.info.vocab_size for token in texts[0])

    def test_only_finished_prefills_answer(self, runner: Runner) -> None:
        """Law 5: an unfinished prefill yields no step, a finished one exactly one."""
        start = Start(2, (1, 2, 3, 4))
        assert not runner.launch(Turn(started=(start,), prefill=(Prefill(2, 0, 2),)))().steps
        assert not runner.launch(Turn(prefill=(Prefill(2, 2, 3),)))().steps
        (step,) = runner.launch(Turn(prefill=(Prefill(2, 3, 4),)))().steps
        assert step.row == 2
        assert len(step.tokens) == 1
        assert step.fault is None

    def test_decoding_streams_get_one_token_each(self, runner: Runner) -> None:
        """Law 5: everybody advances by exactly one token a turn, side by side."""
        streams = [Stream((i, i + 1), tokens=6) for i in range(runner.info.rows)]
        drive = Drive(runner, streams)
        drive.run()
        assert len(drive.turns) == 6
        for _, steps in drive.turns:
            assert [len(step.tokens) for step in steps] == [1] * runner.info.rows

    @pytest.mark.parametrize("sampling", [*MIXED, *HELD])
    def test_a_guess_changes_nothing_but_the_number_of_tokens(
        self, make_runner: MakeRunner, sampling: Sampling
    ) -> None:
        """Law 7: a step gives what would have been said one by one, as far as the guess was right,
        and one token more; a wrong guess leaves nothing behind."""
        fresh, used = (make_runner(rows=2, max_model_len=64) for _ in range(2))
        skip_unless_able(fresh, sampling)
        prompt, chance = (3, 1, 4, 1, 5), random.Random(9)
        said = run_streams(fresh, Stream(prompt, tokens=40, sampling=sampling))[0]
        start = Start(1, prompt, sampling)
        used.launch(Turn(started=(start,), prefill=(Prefill(1, 0, len(prompt)),)))()
        done = 1
        while done < 32:
            right = chance.randint(0, 4)
            wrong = tuple((token + 1) % 50 for token in said[done + right : done + right + 2])
            draft = (*said[done : done + right], *wrong[: chance.randint(0, 2)])
            decode = Decode(1, said[done - 1], len(prompt) + done - 1, draft)
            (step,) = used.launch(Turn(decode=(decode,)))().steps
            assert list(step.tokens) == said[done : done + right + 1]
            done += len(step.tokens)

    def test_guesses_of_one_stream_do_not_change_another(self, make_runner: MakeRunner) -> None:
        """Law 5 and 7: with a guess or without, each stream has its one step in the same turn."""
        runner, fresh = (make_runner(rows=2, max_model_len=64) for _ in range(2))
        prompts = ((3, 1, 4), (1, 5, 9, 2))
        said = run_streams(fresh, *(Stream(prompt, tokens=20) for prompt in prompts))
        start = tuple(Start(row, prompt) for row, prompt in enumerate(prompts))
        read = tuple(Prefill(row, 0, len(prompt)) for row, prompt in enumerate(prompts))
        runner.launch(Turn(started=start, prefill=read))()
        one = Decode(0, said[0][0], 3, tuple(said[0][1:6]))
        two = Decode(1, said[1][0], 4)
        steps = {step.row: step.tokens for step in runner.launch(Turn(decode=(one, two)))().steps}
        assert steps == {0: tuple(said[0][1:7]), 1: tuple(said[1][1:2])}

    def test_a_turn_without_work_gives_nothing(self, runner: Runner) -> None:
        """A turn may only say that rows ended, or start one without reading yet."""
        assert runner.launch(Turn())() == TurnResult()
        assert runner.launch(Turn(ended=(0,), started=(Start(0, (1,)),)))() == TurnResult()

    @pytest.mark.parametrize("seed", range(12))
    def test_company_does_not_change_what_a_stream_says(self, runner: Runner, seed: int) -> None:
        """Law 7: alone or among others that come and go, a stream says the same."""
        streams = some_streams(random.Random(seed), runner, count=7)
        together = run_streams(runner, *streams)
        for stream, text in zip(streams, together, strict=True):
            assert run_streams(runner, evolve(stream, begin=0, chunk=1000)) == [text]
            assert len(text) == stream.tokens

    def test_the_row_does_not_change_what_a_stream_says(self, runner: Runner) -> None:
        """Law 7: a stream says the same in every row, also where the rows in between are empty."""
        stream = Stream((4, 5, 6), tokens=8, sampling=SAMPLED)
        alone = {tuple(run_streams(runner, evolve(stream, row=row))[0]) for row in range(4)}
        first, last = run_streams(runner, evolve(stream, row=0), evolve(stream, row=3, begin=2))
        assert alone == {tuple(first)} == {tuple(last)}

    def test_a_reused_row_shows_nothing_of_its_past(self, make_runner: MakeRunner) -> None:
        """Law 7: what a stream says does not depend on who had its row before."""
        fresh, used = (make_runner(rows=2, max_model_len=64) for _ in range(2))
        chance = random.Random(5)
        for sampling in mixed(used):
            long = Stream(some_prompt(chance, used) * 3, tokens=9, sampling=SAMPLED)
            run_streams(used, long, evolve(long, prompt=(*long.prompt[1:], 9)))
            after = [Stream(some_prompt(chance, used, 4), 7, sampling) for _ in range(2)]
            assert run_streams(used, *after) == run_streams(fresh, *after)

    def test_a_row_can_end_and_start_in_one_turn(self, runner: Runner) -> None:
        """A newcomer may get the row of a stream that ended just now, its prompt read or not."""
        expected = run_streams(runner, Stream((7, 8), tokens=1))[0]
        runner.launch(Turn(started=(Start(1, tuple(range(20))),), prefill=(Prefill(1, 0, 15),)))()
        start = Start(1, (7, 8))
        turn = Turn(ended=(1,), started=(start,), prefill=(Prefill(1, 0, 2),))
        (step,) = runner.launch(turn)().steps
        assert list(step.tokens) == expected

    @pytest.mark.parametrize("seed", range(4))
    def test_running_a_turn_again_changes_nothing(self, runner: Runner, seed: int) -> None:
        """A turn that is run twice gives the same twice, and leaves no trace in what follows."""
        streams = some_streams(random.Random(100 + seed), runner, count=5)
        assert run_streams(runner, *streams, twice=True) == run_streams(runner, *streams)

    def test_a_turn_can_be_run_row_by_row(self, make_runner: MakeRunner) -> None:
        """After a turn failed as a whole it may be run again for one row at a time."""
        whole, parts = (make_runner(rows=3, max_model_len=64) for _ in range(2))
        start = tuple(Start(row, (row + 1, row + 2, 3), SAMPLED) for row in range(3))
        first = Turn(started=start, prefill=tuple(Prefill(row, 0, 3) for row in range(3)))
        said = {step.row: step.tokens[0] for step in whole.launch(first)().steps}
        parts.launch(first)()
        decode = tuple(Decode(row, said[row], 3) for row in range(3))
        expected = sorted(
            (step.row, step.tokens) for step in whole.launch(Turn(decode=decode))().steps
        )
        parts.launch(Turn(decode=decode))()
        alone = [parts.launch(Turn(decode=(step,)))().steps[0] for step in decode]
        assert [(step.row, step.tokens) for step in alone] == expected

    def test_the_same_seed_says_the_same_after_a_restart(self, make_runner: MakeRunner) -> None:
        """Law 7: a sample is a function of seed and position, not of the runner's life so far."""
        one, two = (make_runner(rows=2, max_model_len=64) for _ in range(2))
        run_streams(one, Stream((9, 9, 9), tokens=5, sampling=SAMPLED))
        stream = Stream((1, 2, 3), tokens=20, sampling=SAMPLED)
        assert run_streams(one, stream) == run_streams(two, stream)

    def test_a_row_can_be_filled_to_its_last_token(self, make_runner: MakeRunner) -> None:
        """Prompt and answer together may have ``max_model_len`` tokens."""
        runner = make_runner(rows=2, max_model_len=32)
        texts = run_streams(runner, Stream((1,) * 30, tokens=2), Stream((2,) * 2, tokens=30))
        assert [len(text) for text in texts] == [2, 30]

    @pytest.mark.parametrize("row", [0, 2], ids=["in its own row", "copied from another"])
    @pytest.mark.parametrize("sampling", [MIXED[0], SAMPLED, MIXED[4], MIXED[5], *HELD])
    def test_what_is_kept_need_not_be_read(
        self, make_runner: MakeRunner, sampling: Sampling, row: int
    ) -> None:
        """A prompt that continues what a row holds gets the answer that it gets when read whole."""
        used, fresh = (make_runner(rows=3, max_model_len=64) for _ in range(2))
        skip_unless_able(fresh, sampling)
        first = Stream((3, 1, 4, 1, 5, 9, 2, 6), tokens=6, row=0)
        said = run_streams(used, first)[0]
        run_streams(used, Stream((8, 8, 8), tokens=30, row=2))  # what a copy has to overwrite
        prompt = (*first.prompt, *said[:5], 7, 7, 2)
        kept = len(first.prompt) + 5
        start = Start(row, prompt, sampling, kept=kept, source=0, stream=77)
        turn = Turn(started=(start,), prefill=(Prefill(row, kept, len(prompt)),))
        steps = used.launch(turn)().steps
        assert used.launch(turn)().steps == steps
        answer = [steps[0].tokens[0]]
        for position in range(len(prompt), len(prompt) + 7):
            decode = Decode(row, answer[-1], position)
            answer.append(used.launch(Turn(decode=(decode,)))().steps[0].tokens[0])
        assert answer == run_streams(fresh, Stream(prompt, tokens=8, sampling=sampling))[0]

    def test_a_start_is_carried_out_once(self, make_runner: MakeRunner) -> None:
        """A turn may be run again after the row that was copied from has a new stream itself."""
        used, fresh = (make_runner(rows=2, max_model_len=64) for _ in range(2))
        first = Stream((3, 1, 4, 1, 5, 9), tokens=3, row=0)
        run_streams(used, first)
        copied = (*first.prompt, 6, 6)
        other = (9, 8, 7, 6, 5, 4, 3, 2)
        turn = Turn(
            ended=(0,),
            started=(Start(1, copied, kept=6, source=0, stream=1), Start(0, other, stream=2)),
            prefill=(Prefill(1, 6, 8), Prefill(0, 0, 8)),
        )
        expected = {
            1: run_streams(fresh, Stream(copied, tokens=1))[0],
            0: run_streams(fresh, Stream(other, tokens=1))[0],
        }
        for _ in range(2):
            steps = used.launch(turn)().steps
            assert {step.row: list(step.tokens) for step in steps} == expected

    @pytest.mark.parametrize("sampling", [*MIXED, *HELD])
    def test_a_stream_goes_on_after_a_pause(
        self, make_runner: MakeRunner, sampling: Sampling
    ) -> None:
        """Read again with what it has said, in another row or in its own, it says what it would
        have said: the same tokens from the same numbers, penalised for the same past."""
        runner = make_runner(rows=3, max_model_len=64)
        skip_unless_able(runner, sampling)
        stream = Stream((3, 1, 4, 1, 5, 9, 2, 6), tokens=20, sampling=sampling)
        expected = run_streams(runner, stream)[0]
        for row, said in ((0, 1), (1, 9), (1, 14)):
            text = (*stream.prompt, *expected[:said])
            start = Start(row, text, sampling, stream=100 + said, said=said)
            turn = Turn(started=(start,), prefill=(Prefill(row, 0, len(text)),))
            answer = [runner.launch(turn)().steps[0].tokens[0]]
            for position in range(len(text), len(text) + 5):
                decode = Decode(row, answer[-1], position)
                answer += runner.launch(Turn(decode=(decode,)))().steps[0].tokens
            assert answer == expected[said : said + 6]

    def test_full_pages_can_be_shared(self, make_runner: MakeRunner) -> None:
        """Two streams that begin alike have the same pages for it, and go on each by itself, also
        when they are one token apart at a page's end."""
        one, other = (make_runner(rows=4, max_model_len=64) for _ in range(2))
        size = one.info.block_size
        if size >= 64:
            pytest.skip("a block is a whole row")
        begin = tuple(1 + i % 7 for i in range(2 * size))
        first, second = (*begin, 3, 4, 5), (*begin, 8)
        expected = [run_streams(other, Stream(text, tokens=9))[0] for text in (first, second)]
        tables = {0: (5, 2, 7, 0), 1: (5, 2, 3, 6)}
        started = (Start(0, first, stream=1),)
        turn = Turn((), started, (Prefill(0, 0, len(first)),), tables=tables)
        said = [list(one.launch(turn)().steps[0].tokens), []]
        started = (Start(1, second, kept=2 * size, stream=2),)
        decode = (Decode(0, said[0][-1], len(first)),)
        turn = Turn((), started, (Prefill(1, 2 * size, len(second)),), decode, tables)
        for number in range(8):
            for _ in range(2):  # a turn may be run again
                steps = {step.row: step.tokens for step in one.launch(turn)().steps}
            said = [[*said[row], *steps[row]] for row in range(2)]
            decode = (
                Decode(0, said[0][-1], len(first) + number + 1),
                Decode(1, said[1][-1], len(second) + number),
            )
            turn = Turn(decode=decode, tables=tables)
        assert said == [expected[0], expected[1][:8]]
