"""How the KV memory is cut: how many blocks there are, how long they are, how long a stream may be.

It knows bytes and tokens. It does not know models, devices or streams.
"""

from __future__ import annotations

from attrs import frozen

from chatstream_trio.engine.budget import Budget, in_words
from chatstream_trio.errors import SettingsError

PAGE = 256
"""Tokens of a page. torch's paged attention takes multiples of this."""
_SHORTEST = 64
_REMEMBERED = 4
"""Pages are at most so many times what all rows could fill: more could only remember the past."""


@frozen
class Wish:
    """What was asked for."""

    rows: int
    budget: Budget
    max_model_len: int | None = None
    context: int | None = None
    """What the model can do, where it says so."""
    block_size: int | None = None
    """Tokens of a page; None: a block is a whole row."""

    def __attrs_post_init__(self) -> None:
        wanted, context = self.max_model_len, self.context
        if wanted is not None and context is not None and wanted > context:
            message = f"max_model_len {wanted} is more than the model's context of {context} tokens"
            raise SettingsError(message, param="max_model_len")


@frozen
class Capacity:
    """What it came to."""

    max_model_len: int
    blocks: int
    block_size: int
    paged: bool
    note: str | None = None
    """Said at start, if memory made streams shorter than the model could do."""

    def describe(self, rows: int, nbytes: int) -> str:
        """One line for the operator."""
        room = f"{in_words(nbytes)} of KV memory"
        upto = f"{rows} streams of up to {self.max_model_len} tokens"
        if not self.paged:
            return f"{room} for {upto}"
        return f"{room}: {self.blocks} pages of {self.block_size} tokens for {upto}"


def cut(wish: Wish, *, token: int, free: int) -> Capacity:
    """Cut the memory.

    Args:
        wish: What was asked for.
        token: Bytes that one token takes in all layers.
        free: Bytes that are free.

    Raises:
        SettingsError: It is too small.
    """
    budget = wish.budget.of(free)
    if wish.block_size is None:
        return _whole_rows(wish, token, budget)
    return _pages(wish, wish.block_size, token, budget)


def _whole_rows(wish: Wish, token: int, budget: int) -> Capacity:
    rows, wanted = wish.rows, wish.max_model_len
    room = budget // (token * rows) if token else wanted or wish.context or 1
    if wanted is not None:
        # A share is no limit here: on a CPU a row takes memory only when it is written.
        if wish.budget.bytes is not None and room < wanted:
            raise _too_small(wish, token * rows * wanted, f"{rows} rows of {wanted} tokens")
        return Capacity(wanted, rows, wanted, paged=False)
    length, note = _length(wish, token, room, f"{rows} rows then fill {_named(wish)}")
    return Capacity(length, rows, length, paged=False, note=note)


def _pages(wish: Wish, size: int, token: int, budget: int) -> Capacity:
    room = budget // (token * size) if token else 1 << 20
    wanted, note = wish.max_model_len, None
    if wanted is None:
        wanted, note = _length(wish, token, room * size, f"one stream then fills {_named(wish)}")
    longest = -(-wanted // size)
    if room < longest:
        raise _too_small(wish, token * size * longest, f"one stream of {wanted} tokens")
    return Capacity(wanted, min(room, _REMEMBERED * wish.rows * longest), size, True, note)


def _length(wish: Wish, token: int, room: int, why: str) -> tuple[int, str | None]:
    """As long as the model's context, or as there is room for."""
    context = wish.context
    if context is not None and room >= context:
        return context, None
    if room < _SHORTEST:
        raise SettingsError(
            f"memory is too small for {wish.rows} rows: {in_words(token)} for each token",
            param="max_active" if wish.budget.bytes is None else "kv_memory",
        )
    return room, f"max_model_len is {room}{f' of {context}' if context else ''}: {why}"


def _too_small(wish: Wish, needed: int, what: str) -> SettingsError:
    return SettingsError(
        f"kv_memory {wish.budget.text} is too small: {what} needs {in_words(needed)}",
        param="kv_memory",
    )


def _named(wish: Wish) -> str:
    budget = wish.budget
    return f"{budget.text} of the free memory" if budget.bytes is None else budget.text
