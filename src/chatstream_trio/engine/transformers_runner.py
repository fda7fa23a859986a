"""A runner over any causal language model of transformers: one forward pass a turn for everybody.

A turn's decode steps and prompt chunks are packed into one row and go through the untouched model
once; :mod:`.packing` keeps the streams apart, :mod:`.kv` holds their keys and values, and
:mod:`.sampling` chooses their tokens. This module does not know requests, text or threads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from chatstream_trio.engine import attention, devices, linears, loading, support
from chatstream_trio.engine.forward import ForwardPass
from chatstream_trio.engine.kv import KvPool, LayerShape, bytes_per_token
from chatstream_trio.engine.packing import Piece, pack
from chatstream_trio.engine.runner import Prefill, RunnerInfo, Start, Step, Turn, TurnResult
from chatstream_trio.engine.sampling import FAULT, Sampler
from chatstream_trio.errors import ModelNotLoaded, ModelNotSupported, SettingsError

_FAULT = "the model's output was not a number"


class TransformersRunner:
    """A :class:`~.runner.Runner`; :func:`load_runner` makes one from a name or a path.

    What a turn writes, it writes by row and position, so that a turn that raised can be run again.
    """

    def __init__(self, forward: ForwardPass, *, info: RunnerInfo, pool: KvPool) -> None:
        self._info = info
        self._forward = forward
        self._pool = pool
        self._prompts: list[tuple[int, ...]] = [()] * info.rows
        self._streams: list[int | None] = [None] * info.rows
        self._sampler = Sampler(
            rows=info.rows,
            max_len=info.max_model_len,
            vocab_size=info.vocab_size,
            device=pool.device,
        )

    @property
    def info(self) -> RunnerInfo:
        """Constant from construction on."""
        return self._info

    def run_turn(self, turn: Turn) -> TurnResult:
        """Carry out one turn; see :meth:`.runner.Runner.run_turn`.

        Raises:
            ValueError: The turn breaks the contract; nothing was done.
            Exception: What the model raised, out of memory for example.
        """
        prompts = self._check(turn)
        with torch.inference_mode():
            return self._run(turn, prompts)

    def _run(self, turn: Turn, prompts: dict[int, tuple[int, ...]]) -> TurnResult:
        for start in turn.started:
            self._start(start)
        pieces = [Piece(step.row, step.position, (step.token,)) for step in turn.decode]
        pieces += [_prompt_piece(chunk, prompts[chunk.row]) for chunk in turn.prefill]
        if not pieces:
            return TurnResult()
        packed = pack(self._pool, pieces)
        logits = self._forward.run(packed)
        self._sampler.feed(packed.rows, packed.positions[0], packed.ids[0])
        wanted = packed.wanted_pieces
        if not wanted:
            return TurnResult()
        rows, positions = [piece.row for piece in wanted], [piece.stop for piece in wanted]
        tokens = self._sampler.choose(logits, rows, positions)
        return TurnResult(tuple(map(_step, rows, tokens)))

    def _start(self, start: Start) -> None:
        """Make a row ready for its stream; do nothing when a turn is run again."""
        if start.stream is not None and self._streams[start.row] == start.stream:
            return
        source = start.row if start.source is None else start.source
        if source == start.row:
            self._pool.forget(start.row, start.kept)
        else:
            self._pool.forget(start.row)
            self._pool.copy(source, start.row, start.kept)
        self._prompts[start.row] = start.prompt
        self._sampler.start(start.row, len(start.prompt), start.sampling)
        self._sampler.remember(start.row, start.prompt[: start.kept])
        self._streams[start.row] = start.stream

    def _check(self, turn: Turn) -> dict[int, tuple[int, ...]]:
        """Refuse a turn that breaks the contract, before anything changes.

        An id outside of the vocabulary would end a CUDA context for good, and a wrong position
        would write into somebody else's memory.

        Returns:
            The prompt of each row that reads one.
        """
        started = {start.row: start for start in turn.started}
        for start in turn.started:
            self._check_start(start)
        prompts = {}
        for chunk in turn.prefill:
            first = started.get(chunk.row)
            prompt = first.prompt if first else self._prompts[chunk.row]
            if not 0 <= chunk.start < chunk.stop <= len(prompt):
                raise ValueError(f"{chunk} is not within a prompt of {len(prompt)} tokens")
            prompts[chunk.row] = prompt
        busy = [chunk.row for chunk in turn.prefill] + [step.row for step in turn.decode]
        if len(set(busy)) != len(busy) or not all(0 <= row < self._info.rows for row in busy):
            raise ValueError(f"rows {busy} are not distinct rows of {self._info.rows}")
        for step in turn.decode:
            fits = 0 <= step.position < self._info.max_model_len
            if not fits or not 0 <= step.token < self._info.vocab_size:
                raise ValueError(f"{step} is out of range")
        return prompts

    def _check_start(self, start: Start) -> None:
        if not 0 <= start.row < self._info.rows:
            raise ValueError(f"there is no row {start.row}")
        if len(start.prompt) > self._info.max_model_len:
            raise ValueError(f"a prompt of {len(start.prompt)} tokens does not fit")
        source = start.row if start.source is None else start.source
        if not 0 <= start.kept < len(start.prompt) or not 0 <= source < self._info.rows:
            raise ValueError(f"{start.kept} tokens cannot be kept of row {source}")
        if not 0 <= min(start.prompt) <= max(start.prompt) < self._info.vocab_size:
            raise ValueError("the prompt has an id outside of the vocabulary")


def _prompt_piece(chunk: Prefill, prompt: tuple[int, ...]) -> Piece:
    tokens = prompt[chunk.start : chunk.stop]
    return Piece(chunk.row, chunk.start, tokens, wanted=chunk.stop == len(prompt))


def _step(row: int, token: int) -> Step:
    return Step(row, fault=_FAULT) if token == FAULT else Step(row, (token,))


def load_runner(
    model: str,
    *,
    model_id: str,
    device: str = "auto",
    dtype: str = "auto",
    rows: int = 8,
    max_model_len: int | None = None,
    threads: int | None = None,
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
            own context, or less if the memory of all rows would take more than half of what is
            free.
        threads: Compute threads on a CPU; see :func:`.devices.choose_threads`.
        progress: Hears fractions from 0 to 1, in this thread.

    Raises:
        ModelNotFound: There is no such path or name.
        ModelNotLoaded: It is there, and cannot be loaded.
        ModelNotSupported: It can be loaded, and the engine cannot serve its architecture.
        SettingsError: ``device``, ``dtype`` or ``max_model_len`` cannot be had.
    """
    hear = progress or (lambda _: None)
    hear(0.0)
    place = devices.choose_device(device)
    config = loading.read_config(model)
    support.check_config(config)
    support.check_class(loading.model_class(config), config.model_type)
    number = devices.choose_dtype(dtype, getattr(config, "dtype", None), place)
    if dtype == "auto" and place.type == "cpu":
        number = loading.affordable_dtype(config, number, devices.free_memory(place))
    hear(0.05)
    loaded = loading.read_model(
        model,
        config,
        dtype=number,
        device=place,
        attention="eager",
        progress=progress and (lambda part: hear(min(0.85, 0.05 + 0.8 * part))),
    )
    hear(0.85)
    runner = make_runner(
        loaded, model_id=model_id, rows=rows, max_model_len=max_model_len, threads=threads
    )
    hear(1.0)
    return runner


def make_runner(
    model: PreTrainedModel,
    *,
    model_id: str,
    rows: int = 8,
    max_model_len: int | None = None,
    threads: int | None = None,
) -> TransformersRunner:
    """A runner for a model that is in memory already, which from now on belongs to the runner.

    The arguments and errors are :func:`load_runner`'s.
    """
    device = model.get_input_embeddings().weight.device
    name, dtype = model.config.model_type, model.dtype
    notes = []
    if device.type == "cpu":
        torch.set_num_threads(devices.choose_threads(threads))
    vocab_size = model.get_input_embeddings().weight.shape[0]
    try:
        model.set_attn_implementation("eager")
        reference = support.reference_logits(model, vocab_size)
        model.set_attn_implementation(attention.NAME)
        forward = ForwardPass(model)
        layers, width = forward.probe()
        packed = linears.pack_linears(model)
        vocab_size = min(vocab_size, width)
        length, note = _fit(model, layers, rows, max_model_len, device)
        support.check_layers(model.config, layers, length)
        small = KvPool(layers, rows=2, max_len=16, device=device)
        support.self_test(
            lambda pieces: forward.run_pieces(small, pieces), reference, vocab_size, name, dtype
        )
        if device.type == "cpu" and threads is None:
            ones = [Piece(row, 9, (row,)) for row in range(2)]
            devices.settle_threads(lambda: forward.run_pieces(small, ones))
    except (ModelNotLoaded, SettingsError):
        raise
    except Exception as error:
        reason = loading.one_line(error)
        raise ModelNotSupported(f"{name} cannot be run in packed batches: {reason}") from error
    pool = KvPool(layers, rows=rows, max_len=length, device=device)
    notes += [note] if note else []
    if device.type == "cpu":
        notes.append(f"compute threads: {torch.get_num_threads()}")
    kind = f"{str(dtype).removeprefix('torch.')}{', packed weights' if packed else ''}"
    notes.append(f"{kind}; {_size(pool.nbytes)} of KV memory for {rows} rows")
    info = RunnerInfo(
        model=model_id,
        device=str(device),
        rows=rows,
        max_model_len=length,
        vocab_size=vocab_size,
        eos_token_ids=loading.eos_token_ids(model),
        sampling=loading.sampling_defaults(model),
        notes=tuple(notes),
    )
    return TransformersRunner(forward, info=info, pool=pool)


def _fit(
    model: PreTrainedModel,
    layers: dict[int, LayerShape],
    rows: int,
    wanted: int | None,
    device: torch.device,
) -> tuple[int, str | None]:
    """How long a row is, and a note if memory made that shorter than the model could do."""
    context = support.context_length(model.config)
    if wanted is not None:
        if context is not None and wanted > context:
            message = f"max_model_len {wanted} is more than the model's context of {context} tokens"
            raise SettingsError(message, param="max_model_len")
        return wanted, None
    token = bytes_per_token(layers)
    room = devices.free_memory(device) // 2 // (token * rows) if token else context or 1
    if context is not None and room >= context:
        return context, None
    if room < 64:
        raise SettingsError(
            f"memory is too small for {rows} rows: {_size(token)} for each token",
            param="max_active",
        )
    of = f" of {context}" if context else ""
    return room, f"max_model_len is {room}{of}: {rows} rows then fill half of the free memory"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
