"""Blocks of the KV memory: who gets which, and what of a prompt need not be read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.engine.blocks import WORTH_IT, Blocks, Table

SYSTEM = list(range(100, 140))
"""A system prompt of 40 tokens that conversations share."""
ROW = 1000
"""The size of a block that is a whole row."""


def take(blocks: Blocks, prompt: list[int]) -> Table:
    table = blocks.take(prompt)
    assert table is not None
    return table


def talk(blocks: Blocks, prompt: list[int], said: int = 0) -> Table:
    """A stream from its start to its end."""
    table = take(blocks, prompt)
    tokens = prompt + [1000 + i for i in range(said)]
    assert blocks.grow(table, len(tokens))
    blocks.fill(table, tokens, len(tokens))
    blocks.release(table)
    return table


def place(table: Table) -> tuple[tuple[int, ...], int, int | None]:
    return table.blocks, table.kept, table.source


# ---- A block is a whole row


def test_the_next_turn_of_a_conversation_goes_on_in_its_row() -> None:
    """The whole of the previous turn is still there."""
    blocks = Blocks(3, ROW)
    talk(blocks, list(range(50)), said=10)
    talk(blocks, list(range(500, 550)))
    conversation = [*range(50), *range(1000, 1010), 7, 8]
    assert place(take(blocks, conversation)) == ((0,), 60, 0)


def test_a_shared_beginning_is_copied_and_not_taken_away() -> None:
    """Two conversations with one system prompt: each keeps its own row."""
    blocks = Blocks(3, ROW)
    talk(blocks, [*SYSTEM, *range(200)], said=10)
    assert place(take(blocks, [*SYSTEM, 900, 901])) == ((1,), 40, 0)
    assert place(take(blocks, [*SYSTEM, *range(200), 3])) == ((0,), 240, 0)


def test_an_active_stream_lends_its_beginning() -> None:
    """What somebody is generating from can be copied, as far as it was read."""
    blocks = Blocks(2, ROW)
    first, second = take(blocks, [*SYSTEM, 1]), take(blocks, [*SYSTEM, 2])
    assert place(second) == ((1,), 0, None)  # nothing was read yet
    blocks.release(second)
    blocks.fill(first, [*SYSTEM, 1], 41)
    assert place(take(blocks, [*SYSTEM, 2])) == ((1,), 40, 0)


def test_the_least_recently_used_goes_first() -> None:
    """A stranger takes an empty row, then the oldest."""
    blocks = Blocks(3, ROW)
    for beginning in (0, 1000, 2000):
        talk(blocks, list(range(beginning, beginning + 50)))
    talk(blocks, list(range(51)))  # the first is the most recent now
    assert take(blocks, list(range(5000, 5050))).blocks == (1,)
    assert take(blocks, list(range(6000, 6050))).blocks == (2,)


def test_the_last_token_is_always_read() -> None:
    """It is what gives the first token of the answer."""
    blocks = Blocks(1, ROW)
    talk(blocks, list(range(50)))
    assert place(take(blocks, list(range(50)))) == ((0,), 49, 0)


def test_a_few_common_tokens_are_not_worth_a_copy() -> None:
    """Templates all begin alike."""
    blocks = Blocks(2, ROW)
    talk(blocks, list(range(WORTH_IT - 1)))
    assert place(take(blocks, [*range(WORTH_IT - 1), 99, 99])) == ((1,), 0, None)


def test_what_is_not_sound_is_not_kept() -> None:
    """A stream that faulted may have written anything."""
    blocks = Blocks(1, ROW)
    table = take(blocks, list(range(50)))
    blocks.fill(table, list(range(50)), 50)
    blocks.release(table, sound=False)
    assert take(blocks, list(range(60))).kept == 0


def test_no_block_is_given_twice() -> None:
    """Law 4: what somebody has, nobody else gets."""
    blocks = Blocks(1, ROW)
    take(blocks, [1])
    assert blocks.take([2]) is None


# ---- Blocks are pages


def test_full_pages_are_shared_by_who_comes_later() -> None:
    """A system prompt is in the memory once, however many conversations use it."""
    blocks = Blocks(8, 16)
    first = take(blocks, [*SYSTEM, 1, 2])
    blocks.fill(first, [*SYSTEM, 1, 2], 42)
    second = take(blocks, [*SYSTEM, 7])
    assert second.blocks[:2] == first.blocks[:2]
    assert (second.shared, second.kept, second.source) == (2, 32, None)
    assert second.blocks[2] != first.blocks[2]
    assert blocks.free == 8 - 3 - 1


def test_what_is_common_beyond_full_pages_is_copied() -> None:
    """The page in which two texts part is each one's own."""
    blocks = Blocks(8, 64)
    tokens = [*range(64), *range(200, 230)]
    first = take(blocks, tokens)
    blocks.fill(first, tokens, 94)
    second = take(blocks, [*tokens[:90], 5, 5])
    assert (second.blocks[0], second.shared, second.kept) == (first.blocks[0], 1, 90)
    assert second.source == first.blocks[1] != second.blocks[1]


def test_a_page_that_is_wanted_whole_is_copied_but_for_its_last_token() -> None:
    """The last token is read again, and a page that others may use is never written."""
    blocks = Blocks(8, 32)
    first = take(blocks, list(range(64)))
    blocks.fill(first, list(range(64)), 64)
    second = take(blocks, list(range(64)))
    assert (second.shared, second.kept, second.source) == (1, 63, first.blocks[1])
    assert second.blocks[1] != first.blocks[1]


def test_a_page_is_found_by_all_that_comes_before_it() -> None:
    """The same tokens behind other tokens are other keys and values."""
    blocks = Blocks(8, 16)
    talk(blocks, [*range(16), *range(50, 66), 1])
    assert take(blocks, [*range(100, 116), *range(50, 66), 1]).kept == 0


def test_before_counts_from_the_very_beginning() -> None:
    """Not only the page before: two texts may part, meet again for a page, and part again."""
    blocks = Blocks(12, 16)
    one, other, middle, end = (list(range(n, n + 16)) for n in (0, 100, 200, 300))
    talk(blocks, [*one, *middle, *end, 1])
    talk(blocks, [*other, *middle, 1])
    assert take(blocks, [*other, *middle, *end, 1]).kept == 32


def test_what_holds_nothing_goes_before_what_does() -> None:
    """A block that a faulted stream left is used first, however fresh."""
    blocks = Blocks(2, 16)
    talk(blocks, list(range(16)))
    bad = take(blocks, [7])
    blocks.fill(bad, [7], 1)
    blocks.release(bad, sound=False)
    talk(blocks, [8, 9])
    assert take(blocks, [*range(16), 1]).kept == 16


def test_the_end_of_a_conversation_is_given_away_before_its_beginning() -> None:
    """The beginning alone is of use, the end alone is not."""
    blocks = Blocks(4, 16)
    talk(blocks, list(range(64)))
    talk(blocks, [900] * 16)
    assert take(blocks, list(range(64))).kept == 48


def test_a_stream_that_faulted_takes_nobody_elses_pages_with_it() -> None:
    """Shared pages stay; its own can be found no more, not even while somebody uses them."""
    blocks = Blocks(8, 16)
    talk(blocks, SYSTEM)
    tokens = [*SYSTEM[:32], *range(20)]
    bad = take(blocks, tokens)
    blocks.fill(bad, tokens, 52)
    good = take(blocks, [*tokens, 1])
    assert good.blocks[:3] == bad.blocks[:3]
    blocks.release(bad, sound=False)
    assert take(blocks, [*tokens, 2]).kept == 32
    blocks.release(good)


def test_nothing_is_taken_where_not_enough_would_be_left() -> None:
    """``spare`` blocks stay free, and a refusal changes nothing."""
    blocks = Blocks(4, 16)
    talk(blocks, list(range(16)))
    assert blocks.take(list(range(48)), spare=2) is None
    assert blocks.free == 4
    assert blocks.take(list(range(48)), spare=1) is not None
    assert blocks.free == 1


STREAMS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(1, 300),
        st.integers(0, 40),
        st.sampled_from(["stays", "ends", "faults"]),
    ),
    max_size=30,
)


@given(size=st.sampled_from([1, 4, 16, 20, 64, 400]), count=st.integers(1, 30), streams=STREAMS)
def test_any_history_keeps_blocks_apart(
    size: int, count: int, streams: list[tuple[int, int, int, str]]
) -> None:
    """After any history: what is kept is really there, nobody writes what two have, none leaks.

    A model of the memory is written as the runner would write it.
    """
    blocks = Blocks(count, size)
    memory: dict[tuple[int, int], int] = {}
    alive: list[tuple[Table, list[int]]] = []
    for family, length, more, fate in streams:
        prompt = [(family * 7 + i // 30) % 5 for i in range(length)]
        table = blocks.take(prompt)
        if table is None:
            _in_order(blocks, alive)
            if alive:
                blocks.release(alive.pop(0)[0])
            continue
        _copy(table, memory, size)
        for at in range(table.kept):
            assert memory[table.blocks[at // size], at % size] == prompt[at]
        tokens = prompt + [family] * more
        end = len(tokens) if blocks.grow(table, len(tokens)) else length
        for at in range(table.kept, end):
            block = table.blocks[at // size]
            assert not any(block in other.blocks for other, _ in alive)
            memory[block, at % size] = tokens[at]
        blocks.fill(table, tokens, end)
        alive.append((table, tokens[:end]))
        _in_order(blocks, alive)
        for other, held in alive:
            for at, token in enumerate(held):
                assert memory[other.blocks[at // size], at % size] == token
        if fate != "stays":
            blocks.release(alive.pop()[0], sound=fate == "ends")
    for table, _ in alive:
        blocks.release(table)
    assert blocks.free == count


def _copy(table: Table, memory: dict[tuple[int, int], int], size: int) -> None:
    if table.source is not None:
        for offset in range(table.kept % size):
            memory[table.blocks[table.kept // size], offset] = memory[table.source, offset]


def _in_order(blocks: Blocks, alive: list[tuple[Table, list[int]]]) -> None:
    """Reference counts are what the tables say, and what nobody uses is free."""
    for number, block in enumerate(blocks._blocks):
        users = sum(number in table.blocks for table, _ in alive)
        assert block.users == users
        assert (number in blocks._free) == (users == 0)
        assert block.listed or users or not block.tokens or number in blocks._free
