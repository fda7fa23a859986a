"""Which model a name means, and how its runner and its words are loaded.

The only place that knows every kind of model. torch and transformers are imported inside the
loading functions, which run in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve, frozen

from chatstream_trio.engine.budget import Budget
from chatstream_trio.engine.runner import Runner, RunnerLost
from chatstream_trio.engine.scripted_runner import ScriptedRunner, StreamFaultError
from chatstream_trio.errors import ModelNotFound, ModelNotLoaded, SettingsError, one_line
from chatstream_trio.settings import Settings
from chatstream_trio.text.codec import Codec
from chatstream_trio.text.words import SEPARATOR, VOCAB_SIZE, WordCodec, token_id
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.load.source import folder_of
from chatstream_trio.torch_runner.shape import Shape

if TYPE_CHECKING:
    from chatstream_trio.grammars.compiler import Grammars, Vocabulary

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
class LoadScripted:
    """Loads the scripted runner, which fails at some words. A value: it can go to a child."""

    rows: int
    max_model_len: int
    pace: float
    """Seconds that a turn lasts at least."""

    def __call__(self, progress: Progress) -> Runner:
        """At once."""
        return ScriptedRunner(
            rows=self.rows,
            max_model_len=self.max_model_len,
            pace=self.pace,
            vocab_size=VOCAB_SIZE,
            model=SCRIPTED,
            separator=SEPARATOR,
            faults={token_id(f"{word} "): fault for word, fault in SCRIPTED_FAULTS.items()},
        )


@cache
def grammars_of(source: str) -> Grammars:
    """Those of a model of transformers. Who checks requests and who runs turns share them, where
    they are in one process: what one has compiled, the other need not."""

    from chatstream_trio.grammars.compiler import Grammars

    def load() -> Vocabulary:
        from transformers import AutoTokenizer

        tokenizer: Vocabulary = AutoTokenizer.from_pretrained(source).backend_tokenizer
        return tokenizer

    return Grammars(load)


@frozen
class LoadTransformers:
    """Loads a model of transformers. A value: it can go to a child, and holds no secret."""

    source: str
    """The path of a folder, or a name on the Hugging Face hub."""
    options: RunnerOptions

    def __call__(self, progress: Progress) -> Runner:
        """See :func:`.load.build.load_runner`."""
        from chatstream_trio.torch_runner.load.build import load_runner

        return load_runner(self.source, self.options, progress, grammars_of(self.source))


@frozen
class Model:
    """A model that is known by name, and not loaded yet."""

    id: str
    """The id under which it is served."""
    load_codec: Callable[[], Codec]
    """Loads the codec. It blocks; run it in a thread."""
    load_runner: Callable[[Progress], Runner]
    """Loads the runner. It blocks; run it in the thread that will run the turns."""
    grammars: Grammars | None = None
    """What grammars mean to it; None if its answers cannot be held to one."""


@frozen
class LoadEmbedder:
    """Loads a second model, which gives vectors. A value: it can go to a child."""

    source: str
    model_id: str
    device: str
    rows: int

    def __call__(self, progress: Progress) -> Runner:
        """See :func:`~chatstream_trio.embedder.loading.load_embedder`."""
        from chatstream_trio.embedder.loading import load_embedder
        from chatstream_trio.torch_runner.load.devices import choose_device

        return load_embedder(self.source, self.model_id, choose_device(self.device), self.rows)


def find_embedder(settings: Settings, rows: int) -> Model | None:
    """What ``settings.embedding_model`` means, if anything. Quick, as :func:`find_model` is.

    Args:
        settings: All of them.
        rows: Texts at once.

    Raises:
        SettingsError: It is a path, and no folder is there.
    """
    name = settings.embedding_model
    if name is None:
        return None
    try:
        folder = folder_of(name)
    except ModelNotFound as error:
        raise ModelNotFound(error.message, param="embedding_model") from None
    source, id = (name, name) if folder is None else (str(folder), folder.resolve().name)
    found = _configured(source, id, settings)

    def load_codec() -> Codec:
        try:
            return found.load_codec()
        except ModelNotLoaded as error:
            raise SettingsError(error.message, param="embedding_model") from error

    load = LoadEmbedder(source, id, settings.device, rows)
    return Model(id, load_codec, load)


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

    load = LoadScripted(settings.max_active, settings.max_model_len or 1_000_000, seconds)
    return Model(SCRIPTED, WordCodec, load)


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
        return ChatCodec(
            tokenizer,
            settings.trust_special_tokens,
            settings.tool_parser,
            settings.reasoning_parser,
        )

    load = LoadTransformers(source, _options(model_id, settings))
    return Model(model_id, load_codec, load, grammars_of(source))


def _options(model_id: str, settings: Settings) -> RunnerOptions:
    """What the settings say of a runner. The largest turn has a step and its guesses for every
    seat, and a chunk."""
    steps = settings.max_active * (1 + settings.speculate)
    whole = Shape(tokens=steps + settings.prefill_chunk, wanted=steps)
    return RunnerOptions(
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
    )
