"""Whether a turn keeps the contract of :mod:`.runner`, before anything is done. Pure.

An id outside of the vocabulary would end a CUDA context for good, and a wrong position or block
would write into somebody else's memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from attrs import frozen

from chatstream_trio.engine.runner import RunnerInfo, Sampling, Start, Turn


@frozen
class _Write:
    """Tokens that a turn writes: positions from ``start`` to ``stop`` of a row."""

    row: int
    start: int
    stop: int


def check_turn(
    turn: Turn, info: RunnerInfo, prompts: Sequence[tuple[int, ...]]
) -> dict[int, tuple[int, ...]]:
    """Refuse a turn that breaks the contract.

    Args:
        turn: The turn.
        info: What it is for.
        prompts: By row, the prompts of earlier turns.

    Returns:
        The prompt of each row that reads one.

    Raises:
        ValueError: The message says what is wrong.
    """
    started = {start.row: start for start in turn.started}
    for start in turn.started:
        _check_start(start, turn.table(start.row), info)
    read: dict[int, tuple[int, ...]] = {}
    writes = []
    for chunk in turn.prefill:
        first = started.get(chunk.row)
        prompt = first.prompt if first else prompts[chunk.row]
        if not 0 <= chunk.start < chunk.stop <= len(prompt):
            raise ValueError(f"{chunk} is not within a prompt of {len(prompt)} tokens")
        read[chunk.row] = prompt
        writes.append(_Write(chunk.row, chunk.start, chunk.stop))
    for step in turn.decode:
        tokens = (step.token, *step.draft)
        stop = step.position + len(tokens)
        fits = 0 <= step.position < stop <= info.max_model_len
        if not fits or not 0 <= min(tokens) <= max(tokens) < info.vocab_size:
            raise ValueError(f"{step} is out of range")
        writes.append(_Write(step.row, step.position, stop))
    busy = [write.row for write in writes]
    if len(set(busy)) != len(busy) or not all(0 <= row < info.rows for row in busy):
        raise ValueError(f"rows {busy} are not distinct rows of {info.rows}")
    _check_blocks(turn, writes, info)
    return read


def check_abilities(start: Start, info: RunnerInfo) -> None:
    """Refuse a start that needs what the runner cannot do.

    Raises:
        ValueError: The message names it.
    """
    if lacking := start.needs - info.abilities:
        names = " and ".join(sorted(ability.value for ability in lacking))
        raise ValueError(f"this model is served without {names}")


def _check_start(start: Start, table: tuple[int, ...], info: RunnerInfo) -> None:
    check_abilities(start, info)
    if not 0 <= start.row < info.rows:
        raise ValueError(f"there is no row {start.row}")
    if len(start.prompt) > info.max_model_len:
        raise ValueError(f"a prompt of {len(start.prompt)} tokens does not fit")
    source = 0 if start.source is None else start.source
    fits = 0 <= start.kept < min(len(start.prompt), len(table) * info.block_size)
    if not fits or not 0 <= source < info.blocks or not 0 <= start.said < len(start.prompt):
        raise ValueError(f"{start.kept} tokens cannot be kept of block {source}")
    if start.pool is not None and start.prompt_logprobs is not None:
        raise ValueError("a vector and log-probabilities of a prompt exclude each other")
    if start.kept and start.reads_all:
        raise ValueError("what is asked about a prompt can only be told while it is read")
    if not 0 <= min(start.prompt) <= max(start.prompt) < info.vocab_size:
        raise ValueError("the prompt has an id outside of the vocabulary")
    _check_ids(start.sampling, info.vocab_size)


def _check_ids(sampling: Sampling, vocab_size: int) -> None:
    allowed = sampling.allowed_token_ids
    for name, ids in (
        ("logit_bias", sampling.logit_bias),
        ("allowed_token_ids", allowed or ()),
        ("bad_words", chain.from_iterable(sampling.bad_words)),
    ):
        if not all(0 <= id < vocab_size for id in ids):
            raise ValueError(f"{name} has an id outside of the vocabulary")
    if allowed == () or () in sampling.bad_words:
        raise ValueError("no token is allowed, or nothing is a bad word")


def _check_blocks(turn: Turn, writes: Sequence[_Write], info: RunnerInfo) -> None:
    """Refuse tables that are too short, or in which somebody else's block would be written."""
    size = info.block_size
    users = Counter(block for write in writes for block in turn.table(write.row))
    for write in writes:
        table = turn.table(write.row)
        if len(table) * size < write.stop or not 0 <= min(table) <= max(table) < info.blocks:
            raise ValueError(f"row {write.row} cannot have {write.stop} tokens in blocks {table}")
        if any(users[block] > 1 for block in table[write.start // size : -(-write.stop // size)]):
            raise ValueError(f"row {write.row} would write a block that is not its own alone")
