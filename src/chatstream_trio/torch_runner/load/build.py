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

from chatstream_trio.engine.runner import RunnerInfo
from chatstream_trio.errors import ModelNotLoaded, ModelNotSupported, SettingsError, first_line
from chatstream_trio.torch_runner import graphs
from chatstream_trio.torch_runner.attention import interface
from chatstream_trio.torch_runner.attention.backend import Backend
from chatstream_trio.torch_runner.attention.batches import STEP
from chatstream_trio.torch_runner.attention.gathered import Gathered
from chatstream_trio.torch_runner.attention.paged import Paged
from chatstream_trio.torch_runner.attention.rows import Rows
from chatstream_trio.torch_runner.forward import Eager, ForwardPass, probe
from chatstream_trio.torch_runner.kv import KvPool, LayerShape, bytes_per_token
from chatstream_trio.torch_runner.load import architecture, checkpoint, devices, loading, selftest
from chatstream_trio.torch_runner.load.capacity import PAGE, Capacity, Wish, cut
from chatstream_trio.torch_runner.load.layers import compiled, linears, pace, quantized
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.runner import TransformersRunner
from chatstream_trio.torch_runner.shape import Shape

_TRIAL = 128
"""Tokens of a stream in a trial."""
_SMALLEST = Shape(tokens=16, wanted=2)
"""What fits the trials of two streams."""


def load_runner(
    source: str, options: RunnerOptions, progress: Callable[[float], None] | None = None
) -> TransformersRunner:
    """Load a model and make it ready to serve. Call it in the thread that will run the turns.

    Args:
        source: The path of a folder, or a name on the Hugging Face hub.
        options: How.
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
    device, dtype = devices.choose_device(options.device), options.dtype
    if options.compiled is not None and device.type != "cpu":
        message = f"a model is compiled for a CPU only, not for {device}"
        raise SettingsError(message, param="compile")
    if options.quantize is not None:
        dtype = quantized.choose_dtype(dtype, device)
    part = progress and (lambda part: hear(min(0.85, 0.05 + 0.8 * part)))
    model = _read(source, device, dtype, part)
    hear(0.85)
    runner = make_runner(model, options)
    hear(1.0)
    return runner


def _read(
    source: str, device: torch.device, dtype: str, progress: Callable[[float], None] | None
) -> PreTrainedModel:
    """Refuse what cannot be served before its weights are read; then read them."""
    config = loading.read_config(source)
    architecture.check_config(config)
    architecture.check_class(loading.model_class(config), config.model_type)
    checkpoint.check_architectures(config)
    checkpoint.check_quantization(config)
    number = devices.choose_dtype(dtype, getattr(config, "dtype", None), device)
    if dtype == "auto" and device.type == "cpu":
        number = loading.affordable_dtype(config, number, devices.free_memory(device))
    return loading.read_model(
        source, config, dtype=number, device=device, attention="eager", progress=progress
    )


def make_runner(model: PreTrainedModel, options: RunnerOptions) -> TransformersRunner:
    """A runner for a model that is in memory already, which from now on belongs to the runner.

    Args:
        model: On its device and in its number type, whatever ``options`` say of these.
        options: As for :func:`load_runner`.

    Raises:
        ModelNotSupported: As for :func:`load_runner`.
        SettingsError: Likewise.
    """
    device, rows, shape = model.get_input_embeddings().weight.device, options.rows, options.shape
    block_size = options.block_size
    if block_size is None and device.type == "cuda":
        block_size = PAGE
    context = architecture.context_length(model.config)
    wish = Wish(rows, options.kv_memory, options.max_model_len, context, block_size)
    if device.type == "cpu":
        torch.set_num_threads(devices.choose_threads(options.threads))
    if options.quantize is not None:
        quantized.quantize(model, options.quantize)
    try:
        ready = _prepare(model, wish, device, options)
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
    forward, recorded = _record(ready, pool, rows)
    info = RunnerInfo(
        model=options.model_id,
        device=str(device),
        rows=rows,
        max_model_len=capacity.max_model_len,
        vocab_size=ready.vocab_size,
        eos_token_ids=loading.eos_token_ids(model, ready.vocab_size),
        sampling=loading.sampling_defaults(model),
        notes=(*_notes(ready, pool, rows, model.dtype), *recorded),
        block_size=pool.block_size,
        blocks=pool.blocks,
    )
    return TransformersRunner(forward, info=info, pool=pool)


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
    model: PreTrainedModel, wish: Wish, device: torch.device, options: RunnerOptions
) -> _Ready:
    """Give the model our attention and faster weights, and compare it with what it was.

    Where nobody said how many compute threads there are, what is faster decides.
    """
    compiled, shape = options.compiled, options.shape
    settle = options.threads is None and shape is None
    vocab_size, name = model.get_input_embeddings().weight.shape[0], model.config.model_type
    model.set_attn_implementation("eager")
    reference = selftest.reference_logits(model, vocab_size)
    model.set_attn_implementation(interface.NAME)
    eager = Eager(model)
    layers, width = probe(eager, device)
    forward = ForwardPass(eager, Rows())
    vocab_size = min(vocab_size, width)
    paged = wish.block_size is not None
    how = [kind] if (kind := quantized.describe(model)) else []
    if compiled is None and linears.pack_linears(model):
        how.append("packed weights")
    if settle and device.type == "cpu":
        trial, ones = (
            _Trial.of(forward, layers, device),
            [Piece(row, 9, (row,)) for row in range(2)],
        )
        devices.settle_threads(lambda: trial(ones))
    if compiled is not None:
        forward, *told = _choose(eager, forward, layers, wish.rows, Path(compiled))
        how += told
    plain = evolve(forward, attention=Gathered() if paged else Rows())
    trial = _Trial.of(plain, layers, device, pages=4 if paged else None)
    capacity = cut(wish, token=bytes_per_token(layers), free=devices.free_memory(device))
    architecture.check_layers(model.config, layers, capacity.max_model_len)
    selftest.self_test(trial, reference, vocab_size, name, model.dtype)
    if forward.call is eager:
        loading.let_go_of_files(model)
    shape = shape and shape.at_least(_SMALLEST)
    attention = _choose_attention(layers, capacity, device, invariant=shape is not None)
    forward = ForwardPass(forward.call, attention, shape)
    if forward != plain:
        pages = capacity.block_size if paged else None
        trial = _Trial.of(forward, layers, device, pages=pages)
        selftest.self_test(trial, reference, vocab_size, name, model.dtype)
    if shape is not None:
        length = max(8, min(80, capacity.max_model_len))
        selftest.check_invariance(trial, shape, length, vocab_size, name)
    return _Ready(forward, layers, capacity, vocab_size, how)


def _choose_attention(
    layers: dict[int, LayerShape], capacity: Capacity, device: torch.device, *, invariant: bool
) -> Backend:
    """Pages are read by torch's kernel, where there is one that does what gathering does."""
    if not capacity.paged:
        return Rows(invariant)
    kernel = selftest.find_kernel(layers, capacity.block_size, device)
    return Gathered(invariant) if kernel is None else Paged(kernel)


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
            quick, device = ForwardPass(compiled.load(place), Rows()), torch.device("cpu")
            rivals = [_Trial.of(form, layers, device, rows=rows) for form in (quick, forward)]
            with linears.restored(model):
                linears.pack_linears(model)
                race = pace.Race(*pace.measure(rivals, rows))
            race.keep(place)
            del quick, rivals  # else it would be there twice
        if race.gain >= 1:
            return ForwardPass(compiled.load(place), Rows()), race.note
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
        device: torch.device,
        *,
        rows: int = 2,
        pages: int | None = None,
    ) -> _Trial:
        """128 tokens for each; ``pages`` is what a page has room for, if there are any."""
        size = pages or _TRIAL
        blocks = rows * -(-_TRIAL // size)
        paged = pages is not None
        pool = KvPool(layers, blocks=blocks, block_size=size, paged=paged, device=device)
        return cls(forward, pool, rows)

    def __call__(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """The logits behind each piece. The blocks are dealt to the rows in turns."""
        blocks = range(self.pool.blocks)
        placed = [evolve(piece, table=tuple(blocks[piece.row :: self.rows])) for piece in pieces]
        return self.forward.run_pieces(self.pool, placed)


def _record(ready: _Ready, pool: KvPool, rows: int) -> tuple[ForwardPass, tuple[str, ...]]:
    """Record the turns that only decode, where the device can replay them.

    Returns:
        The forward pass, and what the operator is told.
    """
    forward, capture = ready.forward, graphs.find_capture(pool.device)
    attention = forward.attention
    if capture is None or not isinstance(attention, Paged) or forward.shape is not None:
        return forward, ()
    longest = ready.capacity.max_model_len
    try:
        with torch.inference_mode():
            recorded = graphs.DecodeGraphs(
                forward.run, pool, attention, longest=longest, rows=rows, capture=capture
            )
            selftest.check_replay(forward, recorded, pool, ready.vocab_size)
    except Exception as error:  # whatever a model does that cannot be recorded
        return forward, (f"turns are not recorded: {first_line(error)}",)
    told = f"turns of up to {recorded.most} streams are recorded (CUDA graphs)"
    return evolve(forward, graphs=recorded), (told,)


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
    if note := ready.forward.attention.note:
        notes.append(note)
    return tuple(notes)
