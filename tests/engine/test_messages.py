"""What crosses to a driver: frozen values that survive the way, and hold no secret."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from loads import LoadScripted

from chatstream_trio.engine import messages
from chatstream_trio.engine.messages import (
    CancelStream,
    Lost,
    Outcome,
    Progress,
    Ready,
    StartStream,
    Stop,
    WorkerSpec,
)
from chatstream_trio.engine.runner import (
    Ability,
    Decode,
    Likelihood,
    Pooling,
    Prefill,
    RunnerInfo,
    RunnerLost,
    Sampling,
    Start,
    Step,
    Turn,
    TurnResult,
)
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec
from chatstream_trio.errors import ModelNotFound, SettingsError
from chatstream_trio.grammars.grammar import Grammar, GrammarKind
from chatstream_trio.models import find_model
from chatstream_trio.settings import Settings

SAMPLING = Sampling(
    *(0.5, 0.9, 3),
    logit_bias={7: -2.0},
    seed=2**62,
    min_tokens=2,
    allowed_token_ids=(1, 2),
    bad_words=((3,), (4, 5)),
    grammar=Grammar(GrammarKind.REGEX, "a+", "response_format"),
)
SPEC = StreamSpec(3, (1, 2), 9, SAMPLING, frozenset({4, 5}), said=(8, 9), adapter="polite")
INFO = RunnerInfo("m", "cpu", 4, 64, 100, frozenset({2}), abilities=frozenset(Ability))
VALUES = [
    StartStream(SPEC),
    CancelStream(3),
    Stop(),
    Progress(0.5),
    Ready(INFO),
    Outcome((StreamOutcome(3, (1, 2), Ending.LENGTH, cached_tokens=1),), 7, 2, 1),
    Outcome((StreamOutcome(3, pooled=(0.5, -1.0), stop_token=4),), 7, 2, 1),
    StartStream(StreamSpec(4, (1, 2), 0, pool=Pooling.MEAN)),
    Lost("RunnerLost", "gone", "Traceback", None),
    Turn(
        (1,),
        (Start(0, (1, 2), SAMPLING, kept=1, source=3, stream=4, said=1),),
        (Prefill(0, 1, 2),),
        (Decode(1, 5, 6, (7,)),),
        {0: (1, 2), 1: (3,)},
    ),
    Turn(started=(Start(1, (1, 2), pool=Pooling.LAST, stop_token_ids=frozenset({4})),)),
    TurnResult((Step(2, prompt_logprobs=(Likelihood(-0.5, (), 3),)), Step(3, pooled=(0.5,)))),
    TurnResult((Step(0, (1,), None, (Likelihood(-0.5, ((1, -0.5), (2, -1.5))),)), Step(1))),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_message_survives_the_way(value: Any) -> None:
    """By pickle, and by MessagePack for who is no Python; and nobody can change it on the way."""
    assert pickle.loads(pickle.dumps(value)) == value
    packed = msgspec.msgpack.encode(value)
    assert msgspec.msgpack.decode(packed, type=type(value)) == value
    for name in attrs.fields_dict(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, name, None)


def test_every_message_is_tried() -> None:
    """Also one that is added later."""
    defined = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and value.__module__ == messages.__name__
    }
    assert defined == {*map(type, VALUES), WorkerSpec} & defined


def test_what_is_to_be_loaded_survives_the_way() -> None:
    """A loader is a value too."""
    spec = WorkerSpec(LoadScripted(rows=3, lost_at=(5,)), prefill_chunk=8, speculate=2)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.load(lambda _: None).info.rows == 3


def every_setting(tmp_path: Path, model: str | None) -> Settings:
    """All that may shape a worker, with secrets beside it."""
    return Settings(
        model=model,
        api_key=("sk-hidden=3", "sk-other"),
        admin_key=("sk-hidden-admin",),
        compile=True,
        quantize="int8",
        batch_invariant=True,
        cache_dir=str(tmp_path / "cache"),
    )


@pytest.mark.parametrize("model", [None, "scripted:5", "someone/a-model"])
def test_what_a_model_loads_is_a_value_without_secrets(model: str | None, tmp_path: Path) -> None:
    """It survives the way, by pickle and MessagePack, and no key of the settings goes with it."""
    settings = every_setting(tmp_path, model)
    spec = WorkerSpec(find_model(settings).load_runner, settings.prefill_chunk, settings.speculate)
    way = pickle.dumps(spec)
    assert b"hidden" not in way
    assert b"sk-" not in way
    assert "sk-" not in repr(spec)
    assert pickle.loads(way) == spec
    packed = msgspec.msgpack.encode(spec.load)
    assert b"sk-" not in packed
    assert msgspec.msgpack.decode(packed, type=type(spec.load)) == spec.load


@pytest.mark.parametrize(
    "error",
    [RunnerLost("gone"), ValueError(), ModelNotFound("not there"), SettingsError("no", param="x")],
)
def test_how_a_runner_was_lost_is_said_as_a_value(error: Exception) -> None:
    """An error of the house is that error again; of any other, its name, its words, its trace."""
    try:
        raise error
    except Exception as raised:
        lost = Lost.of(raised)
    assert (lost.kind, lost.message) == (type(error).__name__, str(error))
    assert Path(__file__).name in lost.trace
    if isinstance(error, ModelNotFound | SettingsError):
        assert type(lost.error) is type(error)
        assert (lost.error.message, lost.error.param) == (error.message, error.param)
    else:
        assert lost.error is None


@pytest.mark.parametrize("kind", ["one_line", "ClassVar", "Exception", "__name__", "nothing"])
def test_a_kind_that_is_no_error_of_the_house_makes_none(kind: str) -> None:
    """Whatever a driver says."""
    assert Lost(kind, "words").error is None
