"""Which blocks of the KV memory are free, and what each still holds: so that a prompt that begins
like something in the memory is not read again. Pure: no tensors, no clock, no streams.

A block has room for ``size`` tokens. Where a block is a stream's whole row, a stream has one; where
blocks are pages, it has a block table, and gets another when the last one is full. A block is free
as soon as nobody uses it, and what it holds is cached until it is evicted, because somebody needs
the block: the least recently used goes first.

What a newcomer gets is decided block by block, from the beginning of its prompt (prefix caching):

1. Full blocks that hold what it begins with, all that comes before them included, it *shares*,
   whoever uses them: they are never written again.
2. The block in which it parts from what is held, if they have ``WORTH_IT`` tokens of it in common,

   a. it takes over, if nobody uses it, and if these are half of what it holds at least or there are
      no other blocks to be had;
   b. or else it gets a copy of these tokens in a fresh block.
3. All further blocks are fresh: first those that hold nothing, then by evicting.

At least its last token is always read, since that is what gives the next.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256

from attrs import define, field

WORTH_IT = 16
"""Common tokens below which nothing is copied: chat templates all begin alike."""
_STRIDE = 256
_NOTHING = b""
"""The digest of nothing: what is held before the first block."""


@define
class Table:
    """The block table of one stream. Read it; only :class:`Blocks` changes it.

    The blocks from number ``shared`` on are the stream's alone: nobody else writes to them, and it
    writes to no others.
    """

    blocks: tuple[int, ...]
    """Position ``p`` is in ``blocks[p // size]``. It only gets longer."""
    shared: int
    """So many blocks at the beginning were full when it came, and written by somebody else."""
    kept: int
    """Tokens at the beginning that need not be read: they are in the memory. All of the shared
    blocks, and less than a whole block more."""
    source: int | None
    """Where the kept tokens end in the middle of a block: the block that holds the last of them,
    which may be the table's own. None: they end with a block."""
    filled: int
    """Tokens that are noted in the blocks. What was copied or taken over is noted only once it is
    really there: with the first tokens that are read behind it."""


@define
class _Block:
    tokens: list[int] = field(factory=list)
    """What it holds, by position; it stays when the block gets free, until it is evicted."""
    before: bytes = _NOTHING
    """The digest of all that its stream has before it, set with its first token. (The blocks before
    it are full then.)"""
    path: bytes = _NOTHING
    """The digest of ``before`` and its own tokens, once it is full."""
    users: int = 0
    """Tables that it is in: none if, and only if, it is in :attr:`Blocks._free`; several only once
    it is full."""
    listed: bool = False
    """Whether newcomers may find it: it is in :attr:`Blocks._after` under ``before``. So it is from
    its first token on, until it is evicted or its stream turns out not to be sound."""


@define
class Blocks:
    """The blocks of one runner."""

    count: int
    size: int
    """Tokens that a block has room for."""
    _blocks: list[_Block] = field(init=False)
    """All blocks, by number."""
    _free: OrderedDict[int, None] = field(init=False)
    """The blocks in no table, in the order in which they are given away: first those that hold
    nothing that can be found, then the least recently used; of one table the last block first."""
    _after: dict[bytes, dict[int, None]] = field(factory=dict, init=False)
    """The digest of what comes before -> the listed blocks that continue it, in the order in which
    they were begun. Nothing is empty in here."""

    def __attrs_post_init__(self) -> None:
        self._blocks = [_Block() for _ in range(self.count)]
        self._free = OrderedDict.fromkeys(range(self.count))

    @property
    def free(self) -> int:
        """Blocks that nobody uses, what they hold being cached or not."""
        return len(self._free)

    def needed(self, length: int) -> int:
        """How many blocks so many tokens take."""
        return -(-length // self.size)

    def take(
        self, tokens: Sequence[int], spare: int = 0, *, fresh_only: bool = False
    ) -> Table | None:
        """Blocks for tokens that are about to be read; all of them, with ``fresh_only``.

        Returns:
            None if that would leave less than ``spare`` free blocks; nothing has changed then.
        """
        shared, rest, source = ([], 0, None) if fresh_only else self._find(list(tokens))
        fresh = self.needed(len(tokens)) - len(shared)
        idle = sum(1 for block in shared if not self._blocks[block].users)
        if fresh + spare > len(self._free) - idle:
            return None
        for block in shared:
            self._use(block)
        own: list[int] = []
        if source is not None and self._goes_on(source, rest, fresh):
            own.append(self._evict(source))
        while len(own) < fresh:
            own.append(self._evict(self._next_free(but=source)))
        whole = len(shared) * self.size
        return Table((*shared, *own), len(shared), whole + rest, source, filled=whole)

    def grow(self, table: Table, length: int) -> bool:
        """Give the table blocks for ``length`` tokens; False if there are not enough of them."""
        more = self.needed(length) - len(table.blocks)
        if more <= 0:
            return True
        if more > len(self._free):
            return False
        table.blocks += tuple(self._evict(self._next_free()) for _ in range(more))
        return True

    def fill(self, table: Table, tokens: Sequence[int], stop: int) -> None:
        """The table's blocks hold the first ``stop`` of ``tokens`` from now on."""
        while table.filled < stop:
            index = table.filled // self.size
            number = table.blocks[index]
            block = self._blocks[number]
            if not block.tokens:
                block.before = self._blocks[table.blocks[index - 1]].path if index else _NOTHING
                self._after.setdefault(block.before, {})[number] = None
                block.listed = True
            end = min(stop, (index + 1) * self.size)
            block.tokens.extend(tokens[table.filled : end])
            table.filled = end
            if len(block.tokens) == self.size:
                held = array("q", block.tokens).tobytes()
                block.path = sha256(block.before + held).digest()

    def release(self, table: Table, *, sound: bool = True) -> None:
        """Nobody uses the table any more. What it holds is cached, unless it is not ``sound``."""
        for index in range(len(table.blocks) - 1, -1, -1):  # an end is of no use without its start
            number = table.blocks[index]
            block = self._blocks[number]
            if not sound and index >= table.shared:
                self._hide(number)
            block.users -= 1
            if not block.users:
                self._free[number] = None
                if not block.listed:
                    self._free.move_to_end(number, last=False)

    def _find(self, tokens: list[int]) -> tuple[list[int], int, int | None]:
        """Full blocks to share, and how many tokens more are at the beginning of which block."""
        shared: list[int] = []
        before, limit = _NOTHING, len(tokens) - 1
        while True:
            at = len(shared) * self.size
            page = tokens[at : at + self.size]
            best, common = None, 0
            for number in self._after.get(before, ()):
                alike = _common(self._blocks[number].tokens, page)
                if alike > common:
                    best, common = number, alike
            common = min(common, limit - at)
            if best is None or common < self.size:
                return (shared, common, best) if common >= WORTH_IT else (shared, 0, None)
            shared.append(best)
            before = self._blocks[best].path

    def _goes_on(self, source: int, rest: int, fresh: int) -> bool:
        """Whether a newcomer takes the block over, rather than getting a copy of its beginning."""
        if source not in self._free:
            return False
        return 2 * rest >= len(self._blocks[source].tokens) or len(self._free) <= fresh

    def _next_free(self, but: int | None = None) -> int:
        """The free block that is given away next; not the one that is about to be copied."""
        return next(block for block in self._free if block != but)

    def _use(self, number: int) -> None:
        self._blocks[number].users += 1
        self._free.pop(number, None)

    def _evict(self, number: int) -> int:
        """Use a free block for something new; what was cached in it is found no more."""
        self._hide(number)
        self._use(number)
        block = self._blocks[number]
        block.tokens, block.before, block.path = [], _NOTHING, _NOTHING
        return number

    def _hide(self, number: int) -> None:
        block = self._blocks[number]
        if block.listed:
            block.listed = False
            siblings = self._after[block.before]
            del siblings[number]
            if not siblings:
                del self._after[block.before]


def _common(held: list[int], page: list[int]) -> int:
    """How many tokens two lists have in common at their beginning."""
    most = min(len(held), len(page))
    start = 0
    while start < most and held[start : start + _STRIDE] == page[start : start + _STRIDE]:
        start += _STRIDE
    end = min(most, start + _STRIDE)
    return next((i for i in range(start, end) if held[i] != page[i]), min(most, end))
