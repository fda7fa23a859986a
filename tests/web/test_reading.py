"""Bodies to structs, whatever the API: what is checked, what is refused, and how early."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest

from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.web.bodies.reading import MOST_OBJECTS, Foreign, Wire, read

T = TypeVar("T")


class Leaf(Wire, frozen=True):
    text: str


class Branch(Wire, frozen=True):
    foreign = Foreign(labels={"label": lambda value: isinstance(value, str)}, empty=True)
    leaves: str | list[Leaf]
    one: Leaf | None = None


class Flower(Wire, frozen=True, tag_field="kind", tag="flower"):
    colour: str


class Fruit(Wire, frozen=True, tag_field="kind", tag="fruit"):
    weight: int | None = None


class Tree(Wire, frozen=True):
    foreign = Foreign({"n": lambda value: value == 1})
    branches: list[Branch]
    schema_: int | None = msgspec.field(default=None, name="schema")
    grown: str | list[Flower | Fruit] | None = None
    last: Flower | Fruit | None = None


def tree(**fields: Any) -> Tree:
    return read(Tree, json.dumps(fields).encode())


def refused(kind: type[InvalidRequest] = InvalidRequest, **fields: Any) -> str | None:
    """The path of what is wrong."""
    with pytest.raises(kind) as refusal:
        tree(**fields)
    assert type(refusal.value) is kind
    return refusal.value.param


def test_structs_within_structs() -> None:
    """Fields have their types, their defaults, and the names of the wire."""
    said = tree(
        branches=[{"leaves": [{"text": "a"}], "one": {"text": "b"}}, {"leaves": ""}], schema=3
    )
    assert said == Tree([Branch([Leaf("a")], Leaf("b")), Branch("")], 3)
    assert refused(branches=[{"leaves": [{"text": 5}]}]) == "branches[0].leaves[0].text"
    assert refused(branches=[{"one": None}]) == "branches[0].leaves"
    assert refused(branches=[], schema="x") == "schema"
    assert refused(branches=[], schema_=1) == "schema_"


def test_a_tag_tells_structs_apart() -> None:
    """Each is checked as what it says it is; one that is none of them is refused by its tag."""
    flower, fruit = {"kind": "flower", "colour": "red"}, {"kind": "fruit"}
    said = tree(branches=[], grown=[fruit, flower], last=fruit)
    assert said == Tree([], grown=[Fruit(), Flower("red")], last=Fruit())
    assert tree(branches=[], grown="none").grown == "none"
    assert refused(branches=[], grown=[flower, {"kind": "flower"}]) == "grown[1].colour"
    assert refused(branches=[], grown=[{**fruit, "colour": "red"}]) == "grown[0].colour"
    assert refused(branches=[], grown=[{"colour": "red"}]) == "grown[0].kind"
    assert refused(branches=[], grown=[{"kind": 5}]) == "grown[0].kind"
    assert refused(UnsupportedField, branches=[], last={"kind": "stone"}) == "last.kind"
    assert refused(branches=[], last=5) == "last"
    with pytest.raises(UnsupportedField, match=r"'stone' cannot be here; .* 'flower', 'fruit'"):
        tree(branches=[], grown=[{"kind": "stone"}])


def test_unknown_fields_are_found_wherever_they_are() -> None:
    """One walk knows all structs: no class has to look for itself."""
    assert refused(branches=[], odd=1) == "odd"
    assert (
        refused(branches=[{"leaves": [{"text": "", "odd": None}]}]) == "branches[0].leaves[0].odd"
    )
    assert refused(branches=[{"leaves": "", "one": {"text": "", "x": 1}}]) == "branches[0].one.x"
    assert refused(branches=[], zz=1, aa=2) == "zz"  # the first that the client wrote


def test_unknown_fields_may_be_passed_over() -> None:
    """Whoever reads a body says so, and is told of each by its path; what matters is refused."""
    seen: list[str] = []
    leaf = {"text": "a", "odd": {"x": [1]}}
    body = {"branches": [{"leaves": [leaf], "one": leaf, "label": 5, "": 1}], "odd": None, "n": 1}
    assert read(Tree, json.dumps(body).encode(), unknown=seen.append) == Tree(
        [Branch([Leaf("a")], Leaf("a"))]
    )
    assert seen == [
        "branches[0].leaves[0].odd",
        "branches[0].one.odd",
        "branches[0].label",
        "branches[0].",
        "odd",
    ]
    with pytest.raises(UnsupportedField):
        read(Tree, json.dumps({**body, "n": 2}).encode(), unknown=seen.append)
    with pytest.raises(InvalidRequest, match="JSON"):
        read(Tree, b'{"branches": [], "odd": [}', unknown=seen.append)


def test_what_changes_nothing_may_be_there() -> None:
    """As the struct declares it: known fields with such values, or all that say nothing."""
    assert tree(branches=[], n=1) == tree(branches=[], n=None) == Tree([])
    assert refused(UnsupportedField, branches=[], n=2) == "n"
    assert tree(branches=[{"leaves": "", "label": "x", "odd": []}]) == Tree([Branch("")])
    assert refused(branches=[{"leaves": "", "label": 5}]) == "branches[0].label"
    assert refused(branches=[{"leaves": "", "odd": [1]}]) == "branches[0].odd"
    large = "x" * 2**17  # is not even looked at
    assert refused(branches=[{"leaves": "", "label": large}]) == "branches[0].label"


def test_a_list_is_counted_before_anything_is_made_of_it() -> None:
    """Else its first item would be complained of, after all of them were looked at."""
    assert refused(branches=[{}] * (MOST_OBJECTS + 1)) == "branches"
    assert refused(branches=[{"leaves": [{}] * (MOST_OBJECTS + 1)}]) == "branches[0].leaves"
    assert refused(branches=[{}] * MOST_OBJECTS) == "branches[0].leaves"


def test_a_walk_may_pause_at_each_item() -> None:
    """All that a client can make long goes through it: items, and fields that nobody knows."""
    seen: list[object] = []

    def walk(items: Iterable[T]) -> Iterator[T]:
        for item in items:
            seen.append(item)
            yield item

    labels = {f"x{i}": None for i in range(100)}
    body = {"branches": [{"leaves": "", **labels}] * 3}
    read(Tree, json.dumps(body).encode(), walk)
    assert [name for name in seen if isinstance(name, str) and name in labels] == [*labels] * 3
    assert sum(isinstance(item, tuple) for item in seen) == 3


def test_a_complaint_is_short() -> None:
    """Nobody gets their megabytes back."""
    with pytest.raises(InvalidRequest) as refusal:
        tree(branches=[], **{"y" * 2**20: 1})
    assert len(refusal.value.message) < 300
