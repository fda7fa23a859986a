"""From logits to tokens, for all rows of a turn at once, each with its own parameters.

What a row gets depends on its own logits, parameters and history alone. Its randomness is one
number for each position, a pure function of seed and position (:func:`uniform`), so that a sample
is the same in any company, on any device and after a restart.

Rows that ask for nothing special cost an ``argmax`` or one cumulative sum; penalties, truncation
and bias are computed on the rows that use them. Nothing here waits for the device, and the device
waits for nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from attrs import define

from chatstream_trio.engine.runner import GREEDY, Sampling
from chatstream_trio.torch_runner.grammars import Masks
from chatstream_trio.torch_runner.masks import Mask
from chatstream_trio.torch_runner.transfer import send

FAULT = -1
"""Stands for a token where a row's logits were not numbers."""
NOTHING = -2
"""Stands for a token where a row may say none of all that there are."""

_MASK = (1 << 64) - 1
_CANDIDATES = 1024
"""Tokens that are looked at before a whole vocabulary is sorted (on a CPU)."""


def uniform(seed: int, position: int) -> float:
    """A number strictly between 0 and 1 for one position of one stream.

    Two rounds of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, "Fast splittable pseudorandom
    number generators"), in integers: the same on every machine. The upper 52 bits, plus one half,
    so that neither 0 nor 1 comes out.
    """
    state = _mix((_mix(seed & _MASK) + position) & _MASK)
    return ((state >> 12) + 0.5) * 2.0**-52


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@define
class _Row:
    """What a row's stream asked for."""

    sampling: Sampling = GREEDY
    prompt_length: int = 0
    bias_ids: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    mask: Mask | None = None

    @property
    def penalised(self) -> bool:
        chosen = self.sampling
        return bool(
            chosen.repetition_penalty != 1 or chosen.presence_penalty or chosen.frequency_penalty
        )

    @property
    def truncated(self) -> bool:
        return bool(self.sampling.top_k or self.sampling.top_p < 1 or self.sampling.min_p)


class Sampler:
    """Chooses tokens; remembers, by row and position, the tokens that each stream consists of.

    Keeping the history by position makes running a turn again harmless.
    """

    def __init__(self, *, rows: int, max_len: int, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._vocab_size = vocab_size
        self._rows = [_Row() for _ in range(rows)]
        self._history = torch.zeros((rows, max_len), dtype=torch.int64, device=device)
        # MPS has no float64. A cumulative sum over 100,000 tokens wants it.
        self._wide = torch.float32 if device.type == "mps" else torch.float64

    def start(
        self, row: int, prompt_length: int, sampling: Sampling, stops: Collection[int] = ()
    ) -> None:
        """A new stream in ``row``, which ``stops`` end; its prompt comes through :meth:`feed`, like
        everything else."""
        state = _Row(sampling, prompt_length)
        state.mask = Mask.of(sampling, prompt_length, stops, self._vocab_size, self._device)
        if sampling.logit_bias:
            ids, values = zip(*sorted(sampling.logit_bias.items()), strict=True)
            state.bias_ids = send(ids, self._device)
            state.bias = send(values, self._device, torch.float32)
        self._rows[row] = state

    def feed(self, rows: torch.Tensor, positions: torch.Tensor, ids: torch.Tensor) -> None:
        """Note the tokens that a turn feeds, each ``[T]``."""
        self._history[rows, positions] = ids

    def remember(self, row: int, tokens: Sequence[int]) -> None:
        """Note the first tokens of a row, which no turn will feed: they are in the KV cache."""
        if tokens:
            self._history[row, : len(tokens)] = send(tokens, self._device)

    def asked(self, rows: Sequence[int]) -> dict[int, int]:
        """By line, of those that want to know how likely tokens are: how many are to be named."""
        wanted = ((line, self._rows[row].sampling.logprobs) for line, row in enumerate(rows))
        return {line: most for line, most in wanted if most is not None}

    def choose(
        self,
        logits: torch.Tensor,
        rows: Sequence[int],
        positions: Sequence[int],
        masks: Masks | None = None,
    ) -> torch.Tensor:
        """One token for each row, or :data:`FAULT`, or :data:`NOTHING`: ``[n]``, on the device.

        Args:
            logits: ``[n, vocabulary]``, any float type; float32 logits may be overwritten.
            rows: The row of each line of ``logits``.
            positions: The position at which the token will stand.
            masks: What grammars leave to choose from, if there are any.
        """
        scores = logits[:, : self._vocab_size].float()
        states = [self._rows[row] for row in rows]
        # The largest score tells: it is nan if any is, inf if any is, -inf if all are.
        sound = scores.amax(dim=-1).isfinite()
        if masks is not None:
            masks.apply(scores)
        for line, state in enumerate(states):
            if state.bias_ids is not None and state.bias is not None:
                scores[line].index_add_(0, state.bias_ids, state.bias)
        penalised = [line for line, state in enumerate(states) if state.penalised]
        if penalised:
            self._penalise(scores, states, rows, positions, penalised)
        masked = masks is not None
        for line, state in enumerate(states):
            if state.mask is not None:
                masked = True
                state.mask.apply(scores[line], positions[line], self._history[rows[line]])
        tokens = scores.argmax(dim=-1)
        drawn = [line for line, state in enumerate(states) if state.sampling.temperature > 0]
        if drawn:
            whole = len(drawn) == len(states)
            lines = None if whole else send(drawn, self._device)
            drawn_tokens = self._draw(
                scores if lines is None else scores[lines],
                [states[line] for line in drawn],
                [uniform(states[line].sampling.seed, positions[line]) for line in drawn],
            )
            tokens = drawn_tokens if lines is None else tokens.index_copy(0, lines, drawn_tokens)
        if masked:
            tokens = tokens.masked_fill(scores.amax(dim=-1) == -torch.inf, NOTHING)
        return torch.where(sound, tokens, FAULT)

    def _penalise(
        self,
        scores: torch.Tensor,
        states: Sequence[_Row],
        rows: Sequence[int],
        positions: Sequence[int],
        lines: Sequence[int],
    ) -> None:
        """Repetition, presence and frequency penalties, in place, on ``lines`` of ``scores``."""
        longest = max(positions[line] for line in lines)
        numbers = send(
            [[line, rows[line], positions[line], states[line].prompt_length] for line in lines],
            self._device,
        )
        line, row, length, prompt = numbers.unbind(dim=1)
        strengths = [states[i].sampling for i in lines]
        repetition, presence, frequency = self._column(
            [[s.repetition_penalty, s.presence_penalty, s.frequency_penalty] for s in strengths]
        )
        said = self._history[row, :longest]
        at = torch.arange(longest, device=self._device)
        alive = (at < length[:, None]).float()
        answer = alive * (at >= prompt[:, None])
        chosen = scores[line]
        seen = torch.zeros_like(chosen).scatter_add_(1, said, alive) > 0
        counts = torch.zeros_like(chosen).scatter_add_(1, said, answer)
        repeated = torch.where(chosen < 0, chosen * repetition, chosen / repetition)
        chosen = torch.where(seen, repeated, chosen)
        scores[line] = chosen - frequency * counts - presence * (counts > 0)

    def _draw(
        self, scores: torch.Tensor, states: Sequence[_Row], numbers: Sequence[float]
    ) -> torch.Tensor:
        """Temperature, truncation, and the inverse of the cumulative distribution: ``[n]`` ids."""
        (temperature,) = self._column([[max(s.sampling.temperature, 1e-6)] for s in states])
        scores = (scores - scores.amax(dim=-1, keepdim=True)) / temperature
        lines = [line for line, state in enumerate(states) if state.truncated]
        if len(lines) == len(states):
            scores = self._truncate(scores, states)
        elif lines:
            index = send(lines, self._device)
            some = self._truncate(scores[index], [states[line] for line in lines])
            scores = scores.index_copy(0, index, some)
        heaped = torch.softmax(scores, dim=-1).to(self._wide).cumsum(dim=-1)
        total = heaped[:, -1:]
        point = send([[u] for u in numbers], self._device, self._wide) * total
        # Rounding must not lift the point to the very end, where improbable tokens wait.
        point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
        tokens = torch.searchsorted(heaped, point, right=True)[:, 0]
        return tokens.clamp_(max=self._vocab_size - 1)

    def _truncate(self, scores: torch.Tensor, states: Sequence[_Row]) -> torch.Tensor:
        """Minus infinity for what top-k, top-p and min-p leave out. The largest score is 0."""
        asked = [state.sampling for state in states]
        if any(s.top_k for s in asked):
            scores = _top_k(scores, [s.top_k for s in asked])
        if any(s.top_p < 1 for s in asked):
            (top_p,) = self._column([[s.top_p] for s in asked])
            scores = _top_p(scores, top_p)
        if any(s.min_p for s in asked):
            (floor,) = self._column([[s.min_p] for s in asked])
            scores = scores.masked_fill(scores < floor.log(), -torch.inf)
        return scores

    def _column(self, values: Sequence[Sequence[float]]) -> tuple[torch.Tensor, ...]:
        """Parameters of each row, as float32 columns ``[n, 1]`` on the device; one copy for all."""
        table = send(values, self._device, torch.float32)
        return tuple(table[:, i : i + 1] for i in range(table.shape[1]))


def _top_k(scores: torch.Tensor, top_k: Sequence[int]) -> torch.Tensor:
    """Keep the ``k`` largest scores of each row, and what equals the smallest of them; 0: all."""
    vocabulary = scores.shape[1]
    limits = [min(k, vocabulary) for k in top_k]
    largest = torch.topk(scores, max(limits), dim=-1).values
    index = send([[max(k, 1) - 1] for k in limits], scores.device)
    floor = largest.gather(1, index)
    if not all(limits):
        everyone = send([[k == 0] for k in limits], scores.device)
        floor = floor.masked_fill(everyone, -torch.inf)
    return scores.masked_fill(scores < floor, -torch.inf)


def _top_p(scores: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Keep the smallest set of most likely tokens whose probability reaches ``top_p``.

    At least one token stays, and so do tokens as likely as the last one kept. Sorting 50,000 scores
    takes a CPU some milliseconds for each row, so there the most likely thousand are tried first:
    they nearly always suffice.
    """
    probabilities = torch.softmax(scores, dim=-1)
    vocabulary = scores.shape[1]
    if scores.device.type == "cpu" and vocabulary > 4 * _CANDIDATES:
        few = torch.topk(probabilities, _CANDIDATES, dim=-1).values
        reached = few.sum(dim=-1, keepdim=True)
        enough = (reached >= top_p) | (top_p >= 1) | reached.isnan()
        if not bool(enough.all()):
            few = probabilities.sort(dim=-1, descending=True).values
    else:
        few = probabilities.sort(dim=-1, descending=True).values
    before = few.cumsum(dim=-1) - few
    kept = (before < top_p) | (top_p >= 1)
    kept[:, 0] = True
    smallest = few.masked_fill(~kept, torch.inf).amin(dim=-1, keepdim=True)
    smallest = smallest.masked_fill(top_p >= 1, 0)
    return scores.masked_fill(probabilities < smallest, -torch.inf)
