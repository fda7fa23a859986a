"""How far each row's answer is in its grammar, and which tokens may come next.

Kept by row and position, like all that a runner knows of a stream: a turn that runs again goes back
first. It does not know models; what a grammar means, :mod:`chatstream_trio.grammars` knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import define, field, frozen
from llguidance import LLExecutor, LLMatcher
from torch.nn.functional import embedding

from chatstream_trio.engine.runner import RunnerInfo, Start
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.compiler import Grammars, tidy
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.transfer import send

_LEFT = "the answer left its grammar"
_WORD = 32
"""Tokens in a number of a mask."""


@frozen
class Masks:
    """Which tokens may come next, for some lines of a turn's logits."""

    lines: Sequence[int]
    bits: torch.Tensor
    """A bit for each token, ``[m, vocabulary / 32]``, int32; not on the device yet."""
    faults: Mapping[int, str]
    """By row: why its stream is over."""
    penalties: torch.Tensor
    """By byte: 0 for each bit that is set, else minus infinity, ``[256, 8]``; on the device."""

    def apply(self, scores: torch.Tensor) -> None:
        """Minus infinity for what must not come, in place, in scores ``[n, vocabulary]``."""
        device, (lines, vocabulary) = scores.device, scores.shape
        bits = self.bits
        if device.type == "cuda":
            bits = bits.pin_memory().to(device, non_blocking=True)
        hidden = embedding(bits.to(device).view(torch.uint8).int(), self.penalties)
        hidden = hidden.flatten(start_dim=1)[:, :vocabulary]
        if len(self.lines) == lines and list(self.lines) == list(range(lines)):
            scores += hidden
        else:
            scores.index_add_(0, send(self.lines, device), hidden)


@define
class _Row:
    """One stream's answer in its grammar."""

    first: int
    """The position of the answer's first token."""
    said: tuple[int, ...]
    """What the answer was when the stream began in this row."""
    matcher: LLMatcher | None = None
    fault: str | None = None
    taken: list[int] = field(factory=list)
    """The tokens that the matcher has taken: the answer's, from the first on."""
    guesses: Sequence[int] = ()
    """What was guessed behind these. As far as it was right, the next turn begins behind it."""

    def bring(self, piece: Piece) -> LLMatcher | None:
        """Bring the matcher to where the first token of a turn is chosen; None after a fault."""
        answer = piece.start - self.first, piece.tokens[:1]
        if piece.stop <= self.first + len(self.said):  # a prompt's end, and what was said before
            answer = 0, self.said
        if self.matcher is not None and self.fault is None and not self._go_to(*answer):
            self.fault = _LEFT
        self.guesses = piece.tokens[1:] if piece.wanted > 1 else ()
        return self.matcher if self.fault is None else None

    def _go_to(self, offset: int, tokens: Sequence[int]) -> bool:
        """Have taken ``tokens`` from ``offset`` on; False if the grammar does not allow them."""
        if (missing := offset - len(self.taken)) > 0 and not self._take(self.guesses[:missing]):
            return False
        same = 0
        while self.taken[offset + same : offset + same + 1] == list(tokens[same : same + 1]) != []:
            same += 1
        self._go_back(offset + same)
        return len(self.taken) == offset + same and self._take(tokens[same:])

    def _go_back(self, count: int) -> None:
        surplus = len(self.taken) - count
        if surplus > 0 and self.matcher is not None:
            self.matcher.rollback(surplus)
            del self.taken[count:]

    def _take(self, tokens: Sequence[int]) -> bool:
        taken = self.matcher.try_consume_tokens(list(tokens)) if self.matcher else 0
        self.taken += tokens[:taken]
        return taken == len(tokens)


class RowGrammars:
    """The grammars of all rows. Rows without one cost nothing."""

    def __init__(self, grammars: Grammars | None, info: RunnerInfo, device: torch.device) -> None:
        self._grammars = grammars
        self._info = info
        self._rows: dict[int, _Row] = {}
        self._executor: LLExecutor | None = None
        self._loose: tuple[int, ...] = ()
        self._words = -(-info.vocab_size // _WORD)
        bits = torch.arange(256)[:, None] >> torch.arange(8) & 1
        self._penalties = torch.zeros((256, 8)).masked_fill(bits == 0, -torch.inf).to(device)

    def start(self, start: Start) -> None:
        """A new stream in a row, or one that goes on there behind what it has said."""
        self._rows.pop(start.row, None)
        if start.sampling.grammar is None:
            return
        first = len(start.prompt) - start.said
        row = self._rows[start.row] = _Row(first, start.prompt[first:])
        assert self._grammars is not None  # else the turn was refused
        try:
            compiler = self._grammars.compiler(self._info.vocab_size, self._info.eos_token_ids)
            row.matcher = compiler.matcher(start.sampling.grammar)
        except InvalidRequest as error:
            row.fault = error.message
        else:
            self._loose = compiler.loose
            self._words = -(-compiler.vocabulary.vocab_size // _WORD)

    def masks(self, pieces: Sequence[Piece], asked: Sequence[tuple[int, int]]) -> Masks | None:
        """What may come next. The tokens of a turn are known when it begins, so that there is time
        for this while a device computes.

        Args:
            pieces: What the streams bring.
            asked: For each line of the logits its row, and the position of the token to choose.
        """
        held = [piece for piece in pieces if piece.wanted and piece.row in self._rows]
        if not held:
            return None
        places = [(p.row, p.stop - p.wanted + 1 + i) for p in held for i in range(p.wanted)]
        where = {place: line for line, place in enumerate(asked)}
        # All bits are set: what a fault leaves of a line, nobody reads.
        bits = torch.full((len(places), self._words), -1, dtype=torch.int32)
        self._fill(held, bits)
        faults = {p.row: fault for p in held if (fault := self._rows[p.row].fault) is not None}
        return Masks([where[place] for place in places], bits, faults, self._penalties)

    def _fill(self, held: Sequence[Piece], bits: torch.Tensor) -> None:
        firsts: list[tuple[LLMatcher, int]] = []
        line = 0
        for piece in held:
            matcher = self._rows[piece.row].bring(piece)
            if matcher is not None:
                firsts.append((matcher, line))
            line += piece.wanted
        if not firsts:
            return
        if self._executor is None:
            self._executor = LLExecutor()
        size = bits.stride(0) * bits.element_size()
        self._executor.unsafe_compute_mask_ptr(firsts, bits.data_ptr(), size, len(bits))
        line = 0
        for piece in held:
            row = self._rows[piece.row]
            if row.matcher is not None and row.fault is None:
                self._finish(row.matcher, bits[line])
                if row.matcher.is_error():
                    row.fault = tidy(row.matcher.get_error())
                elif row.guesses:
                    self._fill_behind_guesses(row, bits[line + 1 : line + piece.wanted])
            line += piece.wanted

    def _fill_behind_guesses(self, row: _Row, bits: torch.Tensor) -> None:
        """Masks for the tokens behind right guesses: those behind a wrong one nobody reads."""
        assert row.matcher is not None
        matcher = row.matcher.deep_copy()
        for mask, guess in zip(bits, row.guesses, strict=True):
            if matcher.try_consume_tokens([guess]) != 1:
                return
            matcher.unsafe_compute_mask_ptr(mask.data_ptr(), mask.nbytes)
            self._finish(matcher, mask)
            if matcher.is_error():
                mask.zero_()  # the step ends before it, and the next one has the fault
                return

    def _finish(self, matcher: LLMatcher, mask: torch.Tensor) -> None:
        """A token that ends the answer and is text besides comes at the answer's end only."""
        if self._loose and not matcher.is_accepting():
            for token in self._loose:
                mask.view(torch.uint8)[token // 8] &= 255 - (1 << token % 8)
