"""Makes a runner: of a name, a path, or a model that is in memory already.

It asks what the model is and whether it can be served, prepares it for this machine, compares it
with what it was, and divides the memory. It does not know turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from attrs import evolve, frozen
from transformers import PreTrainedModel

from chatstream_trio.engine.budget import Budget
from chatstream_trio.engine.runner import RunnerInfo
from chatstream_trio.errors import ModelNotLoaded, ModelNotSupported, SettingsError, first_line
from chatstream_trio.torch_runner import graphs
from chatstream_trio.torch_runner.attention import interface
from chatstream_trio.torch_runner.batches import Piece
from chatstream_trio.torch_runner.forward import Eager, ForwardPass
from chatstream_trio.torch_runner.inputs import Shape
from chatstream_trio.torch_runner.kv import KvPool, LayerShape, bytes_per_token
from chatstream_trio.torch_runner.load import (
    checkpoint,
    compiled,
    devices,
    linears,
    loading,
    pace,
    quantized,
    selftest,
)
from chatstream_trio.torch_runner.load.capacity import PAGE, Capacity, Wish, cut
from chatstream_trio.torch_runner.packing import STEP
from chatstream_trio.torch_runner.runner import TransformersRunner

KV_MEMORY = Budget.parse("50%")
"""What the KV memory may take by default."""
_TRIAL = 128
"""Tokens of a stream in a trial."""
_SMALLEST = Shape(tokens=16, wanted=2)
"""What fits the trials of two streams."""


def load_runner(
    model: str,
    *,
    model_id: str,
    device: str = "auto",
    dtype: str = "auto",
    rows: int = 8,
    max_model_len: int | None = None,
    threads: int | None = None,
    kv_memory: Budget = KV_MEMORY,
    compiled: Path | None = None,
    quantize: str | None = None,
    shape: Shape | None = None,
    progress: Callable[[float], None] | None = None,
) -> TransformersRunner:
    """Load a model and make it ready to serve. Call it in the thread that will run the turns.

    Args:
        model: The path of a folder, or a name on the Hugging Face hub.
        model_id: The name under which it is served.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto`` (the checkpoint's own), ``float32``, ``bfloat16`` or ``float16``.
        rows: Streams that can be active at once.
        max_model_len: Tokens of prompt and answer that one stream may have. By default the model's
            own context, or as many as there is memory for.
        threads: Compute threads on a CPU; see :func:`.devices.choose_threads`.
        kv_memory: What all keys and values may take. With CUDA it is cut into pages, which streams
            share; elsewhere every row has an equal part of it.
        compiled: Compile the model, on a CPU, and keep what comes out in this folder.
        quantize: Keep the weights of linear layers as ``int8`` or ``int4``, on a CPU.
        shape: Make every forward pass so large, with padding: what a stream says then depends on
            nobody else, to the last bit. No turn may be larger.
        progress: Hears fractions from 0 to 1, in this thread.

    Raises:
        ModelNotFound: There is no such path or name.
        ModelNotLoaded: It is there, and cannot be loaded.
        ModelNotSupported: It can be loaded, and the engine cannot serve its architecture.
        SettingsError: ``device``, ``dtype``, ``max_model_len``, ``kv_memory``, ``compile``,
            ``quantize`` or ``batch_invariant`` (the shape) cannot be had.
    """
    hear = progress or (lambda _: None)
    hear(0.0)
    place = devices.choose_device(device)
    if compiled is not None and place.type != "cpu":
        raise SettingsError(f"a model is compiled for a CPU only, not for {place}", param="compile")
    if quantize is not None:
        dtype = quantized.choose_dtype(dtype, place)
    loaded = _load(
        model, place, dtype, progress and (lambda part: hear(min(0.85, 0.05 + 0.8 * part)))
    )
    if quantize is not None:
        quantized.quantize(loaded, quantize)
    hear(0.85)
    runner = make_runner(
        loaded,
        model_id=model_id,
        rows=rows,
        max_model_len=max_model_len,
        threads=threads,
        kv_memory=kv_memory,
        compiled=compiled,
        shape=shape,
    )
    hear(1.0)
    return runner


def _load(
    model: str, device: torch.device, dtype: str, progress: Callable[[float], None] | None
) -> PreTrainedModel:
    """Refuse what cannot be served before its weights are read; then read them."""
    config = loading.read_config(model)
    selftest.check_config(config)
    selftest.check_class(loading.model_class(config), config.model_type)
    checkpoint.check_architectures(config)
    checkpoint.check_quantization(config)
    number = devices.choose_dtype(dtype, getattr(config, "dtype", None), device)
    if dtype == "auto" and device.type == "cpu":
        number = loading.affordable_dtype(config, number, devices.free_memory(device))
    return loading.read_model(
        model, config, dtype=number, device=device, attention="eager", progress=progress
    )


def make_runner(
    model: PreTrainedModel,
    *,
    model_id: str,
    rows: int = 8,
    max_model_len: int | None = None,
    threads: int | None = None,
    kv_memory: Budget = KV_MEMORY,
    block_size: int | None = None,
    compiled: Path | None = None,
    shape: Shape | None = None,
) -> TransformersRunner:
    """A runner for a model that is in memory already, which from now on belongs to the runner.

    The arguments and errors are :func:`load_runner`'s. ``block_size`` asks for pages of so many
    tokens, whatever the device.
    """
    device = model.get_input_embeddings().weight.device
    if block_size is None and device.type == "cuda":
        block_size = PAGE
    context = selftest.context_length(model.config)
    wish = Wish(rows, kv_memory, max_model_len, context, block_size)
    if device.type == "cpu":
        torch.set_num_threads(devices.choose_threads(threads))
    try:
        settle = threads is None and shape is None
        ready = _prepare(model, wish, device, settle=settle, compiled=compiled, shape=shape)
    except (ModelNotLoaded, SettingsError):
        raise
    except Exception as error:
        what = f"{model.config.model_type} cannot be run in packed batches"
        raise ModelNotSupported(f"{what}: {first_line(error)}") from error
    capacity, size = ready.capacity, ready.capacity.block_size
    if shape is not None:
        size = -(-size // STEP) * STEP
    pool = KvPool(
        ready.layers,
        blocks=capacity.blocks,
        block_size=size,
        paged=capacity.paged,
        device=device,
        spare=int(capacity.paged),
    )
    recorded = _record(ready, pool, rows)
    info = RunnerInfo(
        model=model_id,
        device=str(device),
        rows=rows,
        max_model_len=capacity.max_model_len,
        vocab_size=ready.vocab_size,
        eos_token_ids=loading.eos_token_ids(model, ready.vocab_size),
        sampling=loading.sampling_defaults(model),
        computes_aside=device.type != "cpu",
        notes=(*_notes(ready, pool, rows, model.dtype), *recorded),
        block_size=pool.block_size,
        blocks=pool.blocks,
    )
    return TransformersRunner(ready.forward, info=info, pool=pool)


@frozen
class _Ready:
    """A model that was found to be servable, and what it was found to be."""

    forward: ForwardPass
    layers: dict[int, LayerShape]
    capacity: Capacity
    vocab_size: int
    how: list[str]
    """What was done to make it smaller or faster, for the operator."""


def _prepare(
    model: PreTrainedModel,
    wish: Wish,
    device: torch.device,
    *,
    settle: bool,
    compiled: Path | None,
    shape: Shape | None,
) -> _Ready:
    """Give the model our attention and faster weights, and compare it with what it was.

    With ``settle`` the number of compute threads is chosen by what is faster.
    """
    vocab_size, name = model.get_input_embeddings().weight.shape[0], model.config.model_type
    model.set_attn_implementation("eager")
    reference = selftest.reference_logits(model, vocab_size)
    model.set_attn_implementation(interface.NAME)
    eager = Eager(model)
    forward = ForwardPass(eager, device)
    layers, width = forward.probe()
    vocab_size = min(vocab_size, width)
    paged = wish.block_size is not None
    how = [kind] if (kind := quantized.describe(model)) else []
    if compiled is None and linears.pack_linears(model):
        how.append("packed weights")
    if settle and device.type == "cpu":
        trial, ones = _Trial.of(forward, layers), [Piece(row, 9, (row,)) for row in range(2)]
        devices.settle_threads(lambda: trial(ones))
    if compiled is not None:
        forward, *told = _choose(eager, forward, layers, wish.rows, compiled)
        how += told
    trial = _Trial.of(forward, layers, pages=4 if paged else None)
    capacity = cut(wish, token=bytes_per_token(layers), free=devices.free_memory(device))
    selftest.check_layers(model.config, layers, capacity.max_model_len)
    selftest.self_test(trial, reference, vocab_size, name, model.dtype)
    if forward.call is eager:
        loading.let_go_of_files(model)
    if capacity.paged:
        forward.kernel = selftest.find_kernel(layers, capacity.block_size, device)
    if shape is not None:
        forward.shape = shape = shape.at_least(_SMALLEST)
    if forward.kernel is not None or shape is not None:
        trial = _Trial.of(forward, layers, pages=capacity.block_size if paged else None)
        selftest.self_test(trial, reference, vocab_size, name, model.dtype)
    if shape is not None:
        length = max(8, min(80, capacity.max_model_len))
        selftest.check_invariance(trial, shape, length, vocab_size, name)
    return _Ready(forward, layers, capacity, vocab_size, how)


def _choose(
    eager: Eager, forward: ForwardPass, layers: dict[int, LayerShape], rows: int, folder: Path
) -> tuple[ForwardPass, str]:
    """Compile the model, and take it compiled or with packed weights, whichever is faster here.

    It is measured once, when both are in memory anyway, and kept beside what was compiled.

    Returns:
        The forward pass, and what the operator is told.
    """
    model = eager.model
    try:
        place = compiled.build(model, eager.logits, folder)
        race = pace.Race.kept(place)
        if race is None:
            quick = ForwardPass(compiled.load(place), forward.device)
            rivals = [_Trial.of(form, layers, rows=rows) for form in (quick, forward)]
            with linears.restored(model):
                linears.pack_linears(model)
                race = pace.Race(*pace.measure(rivals, rows))
            race.keep(place)
            del quick, rivals  # else it would be there twice
        if race.gain >= 1:
            return ForwardPass(compiled.load(place), forward.device), race.note
    except compiled.CannotCompile as error:
        message = f"{model.config.model_type} cannot be compiled here: {error}"
        raise SettingsError(message, param="compile") from error
    linears.pack_linears(model)
    return forward, race.note


@frozen
class _Trial:
    """A little memory for some streams, to see what a forward pass gives."""

    forward: ForwardPass
    pool: KvPool
    rows: int

    @classmethod
    def of(
        cls,
        forward: ForwardPass,
        layers: dict[int, LayerShape],
        *,
        rows: int = 2,
        pages: int | None = None,
    ) -> _Trial:
        """128 tokens for each; ``pages`` is what a page has room for, if there are any."""
        size = pages or _TRIAL
        blocks = rows * -(-_TRIAL // size)
        paged, device = pages is not None, forward.device
        pool = KvPool(layers, blocks=blocks, block_size=size, paged=paged, device=device)
        return cls(forward, pool, rows)

    def __call__(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """The logits behind each piece. The blocks are dealt to the rows in turns."""
        blocks = range(self.pool.blocks)
        placed = [evolve(piece, table=tuple(blocks[piece.row :: self.rows])) for piece in pieces]
        return self.forward.run_pieces(self.pool, placed)


def _record(ready: _Ready, pool: KvPool, rows: int) -> tuple[str, ...]:
    """Record the turns that only decode, where the device can replay them.

    Returns:
        What the operator is told.
    """
    forward, capture = ready.forward, graphs.find_capture(pool.device)
    if capture is None or forward.kernel is None or forward.shape is not None:
        return ()
    longest = ready.capacity.max_model_len
    try:
        with torch.inference_mode():
            recorded = graphs.DecodeGraphs(
                forward.run, pool, forward.kernel, longest=longest, rows=rows, capture=capture
            )
            selftest.check_replay(forward, recorded, pool, ready.vocab_size)
    except Exception as error:  # whatever a model does that cannot be recorded
        return (f"turns are not recorded: {first_line(error)}",)
    forward.graphs = recorded
    return (f"turns of up to {recorded.most} streams are recorded (CUDA graphs)",)


def _notes(ready: _Ready, pool: KvPool, rows: int, dtype: torch.dtype) -> tuple[str, ...]:
    """What the operator is told."""
    capacity = ready.capacity
    notes = [capacity.note] if capacity.note else []
    if pool.device.type == "cpu":
        notes.append(f"compute threads: {torch.get_num_threads()}")
    kind = ", ".join([str(dtype).removeprefix("torch."), *ready.how])
    notes.append(f"{kind}; {capacity.describe(rows, pool.nbytes)}")
    if shape := ready.forward.shape:
        notes.append(f"batch-invariant: every turn computes {shape.tokens} tokens")
    if capacity.paged:
        how = "read by torch" if ready.forward.kernel else "gathered for attention"
        notes.append(f"pages are {how}")
    return tuple(notes)
