"""Gives a model our attention and smaller or faster layers, in the form that is fastest here.

Before that it asks the model what it says as it is. It does not know the memory of streams, nor
whether what comes out is right: :mod:`.selftest` compares.
"""

from __future__ import annotations

from pathlib import Path

import torch
from attrs import evolve, frozen
from transformers import PreTrainedModel

from chatstream_trio.errors import SettingsError
from chatstream_trio.torch_runner.attention import interface
from chatstream_trio.torch_runner.attention.rows import Rows
from chatstream_trio.torch_runner.forward import Call, Eager, ForwardPass, probe
from chatstream_trio.torch_runner.kv import LayerShape
from chatstream_trio.torch_runner.load import devices, selftest
from chatstream_trio.torch_runner.load.layers import compiled, linears, pace, quantized
from chatstream_trio.torch_runner.load.options import RunnerOptions
from chatstream_trio.torch_runner.load.trial import Trial
from chatstream_trio.torch_runner.pieces import Piece


@frozen
class Rewritten:
    """A model that can be called with packed tokens, and what was learned of it."""

    model: PreTrainedModel
    call: Call
    device: torch.device
    layers: dict[int, LayerShape]
    vocab_size: int
    reference: list[torch.Tensor]
    """What it said before; see :func:`.selftest.reference_logits`."""
    how: tuple[str, ...] = ()
    """What was done to make it smaller or faster, for the operator."""

    @property
    def name(self) -> str:
        """The architecture."""
        return str(self.model.config.model_type)


def rewrite(model: PreTrainedModel, options: RunnerOptions) -> Rewritten:
    """Rewrite the layers: quantised if that is asked for; packed, or compiled where that is asked
    for and faster. Where nobody said how many compute threads there are, what is faster decides.

    Args:
        model: Is changed in place.
        options: ``quantize``, ``compiled``, ``threads``, ``shape`` and ``rows`` count.

    Raises:
        ModelNotSupported: Its attention is not transformers' own.
        SettingsError: ``quantize`` or ``compile`` cannot be had.
        Exception: What the model raised when it was called in a way that it does not know.
    """
    if options.quantize is not None:
        quantized.quantize(model, options.quantize)
    plain = _with_our_attention(model)
    if options.compiled is None and linears.pack_linears(model):
        plain = evolve(plain, how=(*plain.how, "packed weights"))
    if options.threads is None and options.shape is None and plain.device.type == "cpu":
        trial, turn = _trial(plain, rows=2), [Piece(row, 9, (row,)) for row in range(2)]
        devices.settle_threads(lambda: trial(turn))
    if options.compiled is None:
        return plain
    try:
        return _compiled_or_packed(plain, options.rows, Path(options.compiled))
    except compiled.CannotCompile as error:
        message = f"{plain.name} cannot be compiled here: {error}"
        raise SettingsError(message, param="compile") from error


def _with_our_attention(model: PreTrainedModel) -> Rewritten:
    """Hear what the model says, then give it our attention and look at its layers."""
    embeddings = model.get_input_embeddings().weight
    device, vocab_size = embeddings.device, embeddings.shape[0]
    model.set_attn_implementation("eager")
    reference = selftest.reference_logits(model, vocab_size)
    model.set_attn_implementation(interface.NAME)
    eager = Eager(model)
    layers, width = probe(eager, device)
    kind = quantized.describe(model)
    how = (kind,) if kind else ()
    return Rewritten(model, eager, device, layers, min(vocab_size, width), reference, how)


def _compiled_or_packed(plain: Rewritten, rows: int, folder: Path) -> Rewritten:
    """Compile the model, and take it compiled or with packed weights, whichever is faster here.

    It is measured once, when both are in memory anyway, and kept beside what was compiled.

    Raises:
        CannotCompile: For whatever reason.
    """
    model, eager = plain.model, Eager(plain.model)
    place = compiled.build(model, eager.logits, folder)
    race = pace.Race.kept(place)
    if race is None:
        quick = evolve(plain, call=compiled.load(place))
        rivals = [_trial(form, rows=rows) for form in (quick, plain)]
        with linears.restored(model):
            linears.pack_linears(model)
            race = pace.Race(*pace.measure(rivals, rows))
        race.keep(place)
        del quick, rivals  # else it would be there twice
    told = evolve(plain, how=(*plain.how, race.note))
    if race.gain >= 1:
        return evolve(told, call=compiled.load(place))
    linears.pack_linears(model)
    return told


def _trial(form: Rewritten, *, rows: int) -> Trial:
    return Trial.of(ForwardPass(form.call, Rows()), form.layers, form.device, rows=rows)
