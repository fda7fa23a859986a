"""Makes a runner: of a name, a path, or a model that is in memory already.

A pipeline: read the model, rewrite its layers (:mod:`.rewrite`), choose its attention, compare it
with what it was (:mod:`.selftest`), lay out the memory, record turns. Each step makes a frozen
value of the one before. It does not know turns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import evolve, frozen
from transformers import PreTrainedModel

from chatstream_trio.engine.runner import Ability, RunnerInfo
from chatstream_trio.errors import ModelNotLoaded, ModelNotSupported, SettingsError, first_line
from chatstream_trio.grammars.compiler import Grammars
from chatstream_trio.torch_runner import graphs
from chatstream_trio.torch_runner.attention.backend import Backend
from chatstream_trio.torch_runner.attention.batches import STEP
from chatstream_trio.torch_runner.attention.gathered import Gathered
from chatstream_trio.torch_runner.attention.paged import Paged
from chatstream_trio.torch_runner.attention.rows import Rows
from chatstream_trio.torch_runner.forward import Eager, ForwardPass, find_deep
from chatstream_trio.torch_runner.kv import KvPool, bytes_per_token
from chatstream_trio.torch_runner.load import architecture, checkpoint, devices, loading, selftest
from chatstream_trio.torch_runner.load.capacity import PAGE, Capacity, Wish, cut
from chatstream_trio.torch_runner.load.layers import quantized
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.load.rewrite import Rewritten, rewrite
from chatstream_trio.torch_runner.load.trial import Trial
from chatstream_trio.torch_runner.runner import TransformersRunner
from chatstream_trio.torch_runner.shape import Shape

_SMALLEST = Shape(tokens=16, wanted=2)
"""What fits the trials of two streams."""


def load_runner(
    source: str,
    options: RunnerOptions,
    progress: Callable[[float], None] | None = None,
    grammars: Grammars | None = None,
) -> TransformersRunner:
    """Load a model and make it ready to serve. Call it in the thread that will run the turns.

    Args:
        source: The path of a folder, or a name on the Hugging Face hub.
        options: How.
        progress: Hears fractions from 0 to 1, in this thread.
        grammars: What they mean to the model; without it, no answer can be held to one.

    Raises:
        ModelNotFound: There is no such path or name.
        ModelNotLoaded: It is there, and cannot be loaded.
        ModelNotSupported: It can be loaded, and the engine cannot serve its architecture.
        SettingsError: ``device``, ``dtype``, ``max_model_len``, ``kv_memory``, ``compile``,
            ``quantize`` or ``batch_invariant`` (the shape) cannot be had.
    """
    hear = progress or (lambda _: None)
    hear(0.0)
    part = progress and (lambda part: hear(min(0.85, 0.05 + 0.8 * part)))
    model = _read(source, options, part)
    hear(0.85)
    runner = make_runner(model, options, grammars)
    hear(1.0)
    return runner


def make_runner(
    model: PreTrainedModel, options: RunnerOptions, grammars: Grammars | None = None
) -> TransformersRunner:
    """A runner for a model that is in memory already, which from now on belongs to the runner.

    Args:
        model: On its device and in its number type, whatever ``options`` say of these.
        options: As for :func:`load_runner`.
        grammars: Likewise.

    Raises:
        ModelNotSupported: As for :func:`load_runner`.
        SettingsError: Likewise.
    """
    device = model.get_input_embeddings().weight.device
    wish = _wish(model, options, device)
    if device.type == "cpu":
        torch.set_num_threads(devices.choose_threads(options.threads))
    try:
        rewritten = rewrite(model, options)
        fitted = _fit(rewritten, wish, options.shape)
        _self_test(fitted)
        if isinstance(rewritten.call, Eager):
            loading.let_go_of_files(model)
    except (ModelNotLoaded, SettingsError):
        raise
    except Exception as error:
        what = f"{model.config.model_type} cannot be run in packed batches"
        raise ModelNotSupported(f"{what}: {first_line(error)}") from error
    pool = _lay_out_memory(fitted)
    forward, recorded = _record(fitted, pool, options.rows)
    forward = evolve(forward, call_deep=find_deep(rewritten.call, device))
    info = RunnerInfo(
        model=options.model_id,
        device=str(device),
        rows=options.rows,
        max_model_len=fitted.capacity.max_model_len,
        vocab_size=rewritten.vocab_size,
        eos_token_ids=loading.eos_token_ids(model, rewritten.vocab_size),
        sampling=loading.sampling_defaults(model),
        abilities=_abilities(forward, grammars),
        computes_aside=device.type != "cpu",
        notes=(*_notes(fitted, pool, options.rows), *recorded),
        block_size=pool.block_size,
        blocks=pool.blocks,
        vector_size=model.config.get_text_config().hidden_size,
    )
    return TransformersRunner(forward, info=info, pool=pool, grammars=grammars)


def _read(
    source: str, options: RunnerOptions, progress: Callable[[float], None] | None
) -> PreTrainedModel:
    """Refuse what cannot be served before its weights are read; then read them."""
    device, dtype = devices.choose_device(options.device), options.dtype
    if options.compiled is not None and device.type != "cpu":
        message = f"a model is compiled for a CPU only, not for {device}"
        raise SettingsError(message, param="compile")
    if options.quantize is not None:
        dtype = quantized.choose_dtype(dtype, device)
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


def _wish(model: PreTrainedModel, options: RunnerOptions, device: torch.device) -> Wish:
    block_size = options.block_size
    if block_size is None and device.type == "cuda":
        block_size = PAGE
    context = architecture.context_length(model.config)
    return Wish(options.rows, options.kv_memory, options.max_model_len, context, block_size)


@frozen
class _Fitted:
    """A model, the forward pass that is to be served, and the sizes of its memory."""

    rewritten: Rewritten
    capacity: Capacity
    forward: ForwardPass


def _fit(rewritten: Rewritten, wish: Wish, shape: Shape | None) -> _Fitted:
    """See what there is memory for, and choose the attention that fits it."""
    layers, device = rewritten.layers, rewritten.device
    capacity = cut(wish, token=bytes_per_token(layers), free=devices.free_memory(device))
    architecture.check_layers(rewritten.model.config, layers, capacity.max_model_len)
    if shape is not None:
        shape = shape.at_least(_SMALLEST)
        capacity = evolve(capacity, block_size=-(-capacity.block_size // STEP) * STEP)
    attention = _choose_attention(rewritten, capacity, invariant=shape is not None)
    return _Fitted(rewritten, capacity, ForwardPass(rewritten.call, attention, shape))


def _choose_attention(rewritten: Rewritten, capacity: Capacity, *, invariant: bool) -> Backend:
    """Pages are read by torch's kernel, where there is one that does what gathering does."""
    if not capacity.paged:
        return Rows(invariant)
    kernel = selftest.find_kernel(rewritten.layers, capacity.block_size, rewritten.device)
    return Gathered(invariant) if kernel is None else Paged(kernel)


def _self_test(fitted: _Fitted) -> None:
    """Compare with what the model was: the plainest forward pass, and the one that is served.

    Raises:
        ModelNotSupported: They differ.
        SettingsError: A fixed shape does not make it batch-invariant.
    """
    rewritten, capacity, forward = fitted.rewritten, fitted.capacity, fitted.forward
    layers, device = rewritten.layers, rewritten.device

    def compare(forward: ForwardPass, page: int) -> Trial:
        pages = page if capacity.paged else None
        trial = Trial.of(forward, layers, device, pages=pages)
        dtype = rewritten.model.dtype
        selftest.self_test(trial, rewritten.reference, rewritten.vocab_size, rewritten.name, dtype)
        return trial

    plain = ForwardPass(rewritten.call, Gathered() if capacity.paged else Rows())
    compare(plain, 4)
    if forward != plain:
        trial = compare(forward, capacity.block_size)
        if forward.shape is not None:
            length = max(8, min(80, capacity.max_model_len))
            selftest.check_invariance(
                trial, forward.shape, length, rewritten.vocab_size, rewritten.name
            )


def _lay_out_memory(fitted: _Fitted) -> KvPool:
    """The memory of all streams; where there are pages, with one for nobody's tokens."""
    capacity = fitted.capacity
    return KvPool(
        fitted.rewritten.layers,
        blocks=capacity.blocks,
        block_size=capacity.block_size,
        paged=capacity.paged,
        device=fitted.rewritten.device,
        spare=int(capacity.paged),
    )


def _record(fitted: _Fitted, pool: KvPool, rows: int) -> tuple[ForwardPass, tuple[str, ...]]:
    """Record the turns that only decode, where the device can replay them.

    Returns:
        The forward pass, and what the operator is told.
    """
    forward, capture = fitted.forward, graphs.find_capture(pool.device)
    attention = forward.attention
    if capture is None or not isinstance(attention, Paged) or forward.shape is not None:
        return forward, ()
    longest = fitted.capacity.max_model_len
    try:
        with torch.inference_mode():
            recorded = graphs.DecodeGraphs(
                forward.run, pool, attention, longest=longest, rows=rows, capture=capture
            )
            selftest.check_replay(forward, recorded, pool, fitted.rewritten.vocab_size)
    except Exception as error:  # whatever a model does that cannot be recorded
        return forward, (f"turns are not recorded: {first_line(error)}",)
    told = f"turns of up to {recorded.most} streams are recorded (CUDA graphs)"
    return evolve(forward, graphs=recorded), (told,)


def _abilities(forward: ForwardPass, grammars: Grammars | None) -> frozenset[Ability]:
    """A pass of a fixed shape has logits for those that say a token, and not for whole prompts."""
    able = {Ability.LOGPROBS, Ability.PROMPT_LOGPROBS}
    if forward.shape is not None and forward.shape.wanted < forward.shape.tokens:
        able.remove(Ability.PROMPT_LOGPROBS)
    if forward.call_deep is not None:
        able.add(Ability.POOL)
    if grammars is not None:
        able.add(Ability.GRAMMAR)
    return frozenset(able)


def _notes(fitted: _Fitted, pool: KvPool, rows: int) -> tuple[str, ...]:
    """What the operator is told."""
    capacity, forward = fitted.capacity, fitted.forward
    notes = [capacity.note] if capacity.note else []
    if pool.device.type == "cpu":
        notes.append(f"compute threads: {torch.get_num_threads()}")
    dtype = str(fitted.rewritten.model.dtype).removeprefix("torch.")
    kind = ", ".join([dtype, *fitted.rewritten.how])
    notes.append(f"{kind}; {capacity.describe(rows, pool.nbytes)}")
    if shape := forward.shape:
        notes.append(f"batch-invariant: every turn computes {shape.tokens} tokens")
    if note := forward.attention.note:
        notes.append(note)
    return tuple(notes)
