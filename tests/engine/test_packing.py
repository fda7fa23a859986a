"""How a turn is laid out for the device, and the ways in which its tokens attend."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from attrs import frozen
from attrs.exceptions import FrozenInstanceError
from tiny_models import tiny

from chatstream_trio.torch_runner.attention import interface
from chatstream_trio.torch_runner.attention.backend import Backend, Plan
from chatstream_trio.torch_runner.attention.gathered import Gathered
from chatstream_trio.torch_runner.attention.interface import AttendsLayer
from chatstream_trio.torch_runner.attention.rows import Rows
from chatstream_trio.torch_runner.forward import Eager, ForwardPass, probe
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.load.trial import Trial
from chatstream_trio.torch_runner.pieces import Piece, tables
from chatstream_trio.torch_runner.spans import Numbers

CPU = torch.device("cpu")
TURNS = [
    [Piece(0, 0, (5, 6, 7)), Piece(3, 0, (9,))],
    [Piece(0, 3, (8,)), Piece(3, 1, (10,)), Piece(1, 0, tuple(range(20)))],
    [Piece(row, start, (row + 1,)) for row, start in ((3, 2), (1, 20), (0, 4))],
]


def said(attention: Backend, pages: int | None) -> list[torch.Tensor]:
    """Logits after each turn: steps with gaps between their rows, chunks, and both."""
    model = tiny("llama-gqa-tied")
    model.set_attn_implementation(interface.NAME)
    call = Eager(model)
    layers, _ = probe(call, CPU)
    trial = Trial.of(ForwardPass(call, attention), layers, CPU, rows=4, pages=pages)
    return [trial(pieces) for pieces in TURNS]


@frozen
class Talkative:
    """Puts numbers of its own around those of another way of attending, which stay where they are
    for nobody."""

    inner: Backend
    note: str | None = None

    def order(self, pieces: Sequence[Piece]) -> list[Piece]:
        return self.inner.order(pieces)

    def plan(self, pool: KvPool, pieces: Sequence[Piece], numbers: Numbers) -> Plan:
        numbers.put([-7] * len(pieces))
        inner = self.inner.plan(pool, pieces, numbers)
        return TalkativePlan(inner, numbers.put([-8, -9]))


@frozen
class TalkativePlan:
    inner: Plan
    mine: slice

    def arrive(self, there: torch.Tensor) -> AttendsLayer:
        assert there[self.mine].tolist() == [-8, -9]
        return self.inner.arrive(there)


@pytest.mark.parametrize(("attention", "pages"), [(Rows(), None), (Gathered(), 8)])
def test_numbers_are_found_by_their_spans(attention: Backend, pages: int | None) -> None:
    """Whatever lies before them and behind: no order has to be kept."""
    for one, other in zip(said(attention, pages), said(Talkative(attention), pages), strict=True):
        assert torch.equal(one, other)


def test_a_part_may_be_empty() -> None:
    """Its span is as well."""
    numbers = Numbers()
    spans = [numbers.put(part) for part in ([1, 2], [], [3])]
    assert [numbers.all[span] for span in spans] == [[1, 2], [], [3]]


@pytest.mark.parametrize(
    ("attention", "pages"),
    [(Rows(invariant=True), None), (Gathered(), 8), (Gathered(invariant=True), 64)],
)
def test_all_ways_of_attending_say_the_same(attention: Backend, pages: int | None) -> None:
    """Up to rounding, from the same turns."""
    for one, other in zip(said(Rows(), None), said(attention, pages), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_short_tables_are_padded_with_a_page_of_their_own() -> None:
    """What is masked must be finite, and another row's page need not be."""
    pieces = [Piece(0, 3, (1,), table=(4, 9)), Piece(1, 8, (1,), table=(7, 2, 5))]
    assert tables(pieces, 4) == [4, 4, 4, 7, 2, 5]
    assert tables(pieces, 4, longest=15) == [4, 4, 4, 4, 7, 2, 5, 7]


def test_a_forward_pass_is_never_half_made() -> None:
    """It has all that it has from the start."""
    forward = ForwardPass(lambda _: torch.zeros(1), Rows())
    with pytest.raises(FrozenInstanceError):
        forward.attention = Gathered()  # type: ignore[misc]
