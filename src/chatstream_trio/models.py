"""Which model a name means, and how its runner and its words are loaded.

The only place that knows every kind of model. torch and transformers are imported inside the
loading functions, which run in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from attrs import evolve, frozen

from chatstream_trio.engine.budget import Budget
from chatstream_trio.engine.runner import Runner, RunnerLost
from chatstream_trio.engine.scripted_runner import ScriptedRunner, StreamFaultError
from chatstream_trio.errors import ModelNotLoaded, SettingsError, one_line
from chatstream_trio.settings import Settings
from chatstream_trio.text.codec import Codec
from chatstream_trio.text.words import SEPARATOR, VOCAB_SIZE, WordCodec, token_id
from chatstream_trio.torch_runner.load.source import folder_of

Progress: TypeAlias = Callable[[float], None]
"""Called with how much is loaded, from 0 to 1."""

SCRIPTED = "scripted"
SCRIPTED_PACE = 0.01
"""Seconds a turn of ``--model scripted`` takes."""
SCRIPTED_FAULTS: Mapping[str, Exception] = {
    "!fault": StreamFaultError("asked for by the word !fault"),
    "!raise": RuntimeError("asked for by the word !raise"),
    "!lost": RunnerLost("asked for by the word !lost"),
}
"""Words at which the scripted model fails, so that one can see how a server takes it: a fault of
one stream, a turn that raises, and a runner that is lost."""


@frozen
class Model:
    """A model that is known by name, and not loaded yet."""

    id: str
    """The id under which it is served."""
    load_codec: Callable[[], Codec]
    """Loads the codec. It blocks; run it in a thread."""
    load_runner: Callable[[Progress], Runner]
    """Loads the runner. It blocks; run it in the thread that will run the turns."""


def find_model(settings: Settings) -> Model:
    """What ``settings.model`` means. Quick: nothing is loaded and no network is asked.

    Raises:
        ModelNotFound: It is a path, and no folder is there.
        SettingsError: ``scripted:`` with something that is no number behind it.
    """
    name = settings.model
    if name is None:
        from chatstream_trio import demo

        return _transformers(str(demo.path()), demo.MODEL_ID, settings)
    if name == SCRIPTED or name.startswith(SCRIPTED + ":"):
        return _scripted(name, settings)
    folder = folder_of(name)
    if folder is None:
        return _configured(name, name, settings)
    return _configured(str(folder), folder.resolve().name, settings)


def _configured(source: str, model_id: str, settings: Settings) -> Model:
    """A model whose configuration is read before all else: what is wrong with a name, or with a
    folder, would otherwise be said of its tokenizer."""
    model = _transformers(source, model_id, settings)

    def load_codec() -> Codec:
        from chatstream_trio.torch_runner.load.loading import read_config

        read_config(source)
        return model.load_codec()

    return evolve(model, load_codec=load_codec)


def _scripted(name: str, settings: Settings) -> Model:
    _, _, pace = name.partition(":")
    try:
        seconds = float(pace) / 1000 if pace else SCRIPTED_PACE
        if not 0 <= seconds <= 60:
            raise ValueError
    except ValueError:
        raise SettingsError(
            f"{name!r}: what follows 'scripted:' is a turn's length in milliseconds", param="model"
        ) from None

    def load_runner(_: Progress) -> Runner:
        return ScriptedRunner(
            rows=settings.max_active,
            max_model_len=settings.max_model_len or 1_000_000,
            pace=seconds,
            vocab_size=VOCAB_SIZE,
            model=SCRIPTED,
            separator=SEPARATOR,
            faults={token_id(f"{word} "): fault for word, fault in SCRIPTED_FAULTS.items()},
        )

    return Model(SCRIPTED, WordCodec, load_runner)


def _transformers(source: str, model_id: str, settings: Settings) -> Model:
    def load_codec() -> Codec:
        from transformers import AutoTokenizer

        from chatstream_trio.text.prompt import ChatCodec

        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
        except Exception as error:  # whatever a tokenizer's files can make go wrong
            raise ModelNotLoaded(
                f"the tokenizer of {model_id!r} cannot be loaded: {one_line(error)}"
            ) from error
        if not tokenizer.is_fast:
            raise ModelNotLoaded(
                f"{model_id!r} has no fast tokenizer (tokenizer.json), which streaming needs"
            )
        return ChatCodec(tokenizer, settings.trust_special_tokens)

    def load_runner(progress: Progress) -> Runner:
        from chatstream_trio.torch_runner.inputs import Shape
        from chatstream_trio.torch_runner.load.build import load_runner

        steps = settings.max_active * (1 + settings.speculate)
        whole = Shape(tokens=steps + settings.prefill_chunk, wanted=steps)
        return load_runner(
            source,
            model_id=model_id,
            device=settings.device,
            dtype=settings.dtype,
            rows=settings.max_active,
            max_model_len=settings.max_model_len,
            threads=settings.threads,
            kv_memory=Budget.parse(settings.kv_memory),
            compiled=settings.compiled_folder if settings.compile else None,
            quantize=settings.quantize,
            shape=whole if settings.batch_invariant else None,
            progress=progress,
        )

    return Model(model_id, load_codec, load_runner)
