"""A runner that breaks now and then, by the scripted model's own fault words.

At 0.8 of the capacity one request in five has the word ``!fault`` (its row fails) or ``!raise``
(the whole turn raises, and is run again row by row) somewhere in its message. Its stream must say
what comes before, and then end with the error ``stream_fault``; all others must not notice.

At twice the capacity one early request says ``!lost``: the runner is gone, and so are the next two,
until that request ends. Whoever has a seat goes on with the next runner and says every word,
whoever waits keeps the place, and new ones get a 503 meanwhile.
"""

from __future__ import annotations

import random
from functools import partial

from attrs import evolve
from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.load import poisson
from benchmarks.overload_suite.records import Ask, Ending
from benchmarks.overload_suite.texts import WORDS

FACTOR = 0.8
FAULTY = 0.2
CASES = {"a row fails": "!fault", "a turn fails": "!raise"}
LOST = "!lost"
LOST_FACTOR = 2.0


async def faults(bench: Bench) -> None:
    """Three cases: faults of a row, of a whole turn, and of the runner."""
    if bench.options.turn is None:
        bench.skip("faults", "needs a scripted server of its own")
        return
    for case, word in CASES.items():
        async with bench.trial("faults", case) as trial:
            await _run(trial, word)
    async with bench.trial("faults", "the runner is lost", words="the engine was lost") as trial:
        await _lose(trial)


async def _run(trial: Trial, word: str) -> None:
    make = partial(_ask, trial, word=word, rng=trial.rng)
    await trial.offer(poisson(trial.capacity * FACTOR, trial.begin(), trial.rng), make=make)
    faulty = [r for r in trial.records if word in r.ask.text.split()]
    extra, problems = trial.result.extra, trial.result.problems
    extra["faulty"] = len(faulty)
    extra["faulty_that_said_so"] = sum(r.error == "stream_fault" for r in faulty)
    if extra["faulty_that_said_so"] < sum(r.ending is not Ending.REFUSED for r in faulty):
        problems.append("a stream that broke did not end with the error stream_fault")
    if any(r.error == "stream_fault" for r in trial.records if r not in faulty):
        problems.append("a fault ended somebody else's stream")
    cut_short = [r for r in faulty if r.status == 200 and r.ask.stream]
    if any(r.text != (r.ask.expected or "").partition(word)[0] for r in cut_short):
        problems.append("a stream that broke did not say what came before")


async def _lose(trial: Trial) -> None:
    times = poisson(trial.capacity * LOST_FACTOR, trial.begin(), trial.rng)
    culprit = len(times) // 10

    def make(number: int) -> Ask:
        ask = trial.ask(number)
        return trial.ask(number, text=f"{LOST} {ask.text}") if number == culprit else ask

    await trial.offer(times, make=make)
    extra, problems = trial.result.extra, trial.result.problems
    refused = [r for r in trial.records if r.status == 503]
    guilty = [r for r in trial.records if r.ask.text.startswith(LOST)]
    broken = [r for r in trial.records if r.error is not None and r not in refused + guilty]
    extra["refused_503"] = len(refused)
    extra["others_that_broke"] = sum(r.ending is not Ending.REFUSED for r in broken)
    if [r.error for r in guilty] != ["stream_fault"]:
        problems.append("the stream that the runner was lost with did not end with stream_fault")
    if extra["others_that_broke"]:
        problems.append("a lost runner ended somebody else's stream")
    (when,) = [r.ended_at or 0.0 for r in guilty] or [0.0]
    back = [r.seat_at for r in trial.records if (r.seat_at or 0.0) > when]
    extra["served_afterwards"] = len(back)
    if not back:
        problems.append("no runner came after the one that was lost")


def _ask(trial: Trial, number: int, *, word: str, rng: random.Random) -> Ask:
    usual = trial.ask(number, stream=rng.random() < 0.7)
    if rng.random() >= FAULTY:
        return usual
    words = usual.text.split()
    words.insert(rng.randrange(WORDS), word)
    return evolve(trial.ask(number, text=" ".join(words)), stream=usual.stream)
