"""How the KV memory is cut, and how its size is written."""

from __future__ import annotations

import pytest
from attrs import evolve

from chatstream_trio.engine.budget import Budget, in_words
from chatstream_trio.errors import SettingsError
from chatstream_trio.torch_runner.load.capacity import Capacity, Wish, cut

HALF = Budget.parse("50%")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 2**30),
        ("500MB", 500_000_000),
        ("1.5 kib", 1536),
        ("1000000", 1_000_000),
        ("7B", 7),
        ("50%", 500),
        ("100%", 1000),
        ("0.5 %", 5),
    ],
)
def test_a_budget_is_a_size_or_a_share(text: str, size: int) -> None:
    """Of 1000 free bytes."""
    assert Budget.parse(text).of(1000) == size


@pytest.mark.parametrize(
    "text", ["", "much", "0", "0%", "101%", "-1", "2 GiB or so", "1PB", "%", "1e9", "50%%", "nan"]
)
def test_nonsense_is_refused(text: str) -> None:
    """One line, which names the setting and says what it may be."""
    with pytest.raises(SettingsError, match=r"kv_memory must be .*2GiB.*50%.*") as error:
        Budget.parse(text)
    assert error.value.param == "kv_memory"


def test_a_row_is_as_long_as_the_context_if_there_is_room() -> None:
    """Or as long as there is room for; that is said."""
    wish = Wish(rows=4, budget=HALF, context=1000)
    assert cut(wish, token=10, free=80_000) == Capacity(1000, 4, 1000, paged=False)
    short = cut(wish, token=10, free=40_000)
    assert (short.max_model_len, short.blocks, short.block_size) == (500, 4, 500)
    assert short.note == "max_model_len is 500 of 1000: 4 rows then fill 50% of the free memory"


def test_pages_need_room_for_one_stream_only() -> None:
    """What ``max_active`` streams would take at most is not reserved."""
    wish = Wish(rows=4, budget=HALF, context=1000, block_size=16)
    got = cut(wish, token=10, free=40_000)
    assert (got.max_model_len, got.blocks, got.block_size, got.note) == (1000, 125, 16, None)
    short = cut(wish, token=10, free=10_000)
    assert (short.max_model_len, short.blocks) == (496, 31)
    assert (
        short.note == "max_model_len is 496 of 1000: one stream then fills 50% of the free memory"
    )
    assert cut(wish, token=10, free=10**9).blocks == 4 * 4 * 63  # more could only remember the past
    assert got.describe(4, 20_000) == (
        "20 KiB of KV memory: 125 pages of 16 tokens for 4 streams of up to 1000 tokens"
    )


def test_what_cannot_be_had_is_refused() -> None:
    """Each time naming the setting that could be changed."""
    wish = Wish(rows=4, budget=Budget.parse("10000"), max_model_len=300, context=1000)
    with pytest.raises(
        SettingsError, match="10000 is too small: 4 rows of 300 tokens needs 12 KiB"
    ):
        cut(wish, token=10, free=10**9)
    with pytest.raises(SettingsError, match="one stream of 300 tokens needs"):
        cut(evolve(wish, block_size=256, budget=Budget.parse("5000")), token=10, free=10**9)
    with pytest.raises(SettingsError, match="memory is too small for 4 rows") as error:
        cut(evolve(wish, max_model_len=None, budget=Budget.parse("1000")), token=10, free=10**9)
    assert error.value.param == "kv_memory"
    with pytest.raises(SettingsError, match="max_model_len 2000 is more than the model's context"):
        evolve(wish, max_model_len=2000)


def test_sizes_are_said_in_words() -> None:
    """Binary units."""
    assert [in_words(n) for n in (7, 2048, 3 * 2**20, 5 * 2**30)] == [
        "7 bytes",
        "2 KiB",
        "3 MiB",
        "5.0 GiB",
    ]
