"""JSON Schemas of the classes that read bodies and that describe replies.

msgspec makes them; what it cannot know is added: what is written below the fields of a class, and
ranges that are checked where the values go.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from attrs import define, field

from chatstream_trio.web.openapi.endpoint import Facts

_PLACE = "#/components/schemas/{name}"
_NARROWER = {
    "number": ("minimum", "maximum", "exclusiveMinimum"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "anyOf"),
    "string": ("minLength", "maxLength", "pattern", "format", "enum"),
    "array": ("minItems", "maxItems"),
    "object": ("maxProperties", "propertyNames"),
}
"""Which keywords belong to which type, where a field may have several."""


@define
class Schemas:
    """The schemas of some types, each class once and by its name."""

    types: Sequence[Any]
    facts: Facts = field(factory=dict)
    components: dict[str, Any] = field(init=False)
    _roots: dict[Any, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        types = list(dict.fromkeys([*self.types, *self.facts, *_classes_in(self.types)]))
        made = msgspec.json.schema_components(types, ref_template=_PLACE)
        roots, components = _with_short_names(*made)
        self.components = dict(sorted(components.items()))
        self._roots = dict(zip(types, roots, strict=True))
        for kind, root in self._roots.items():
            if _is_struct(kind):
                name = root["$ref"].rpartition("/")[2]
                self._say_more(kind, self.components[name])

    def of(self, kind: Any) -> dict[str, Any]:
        """A schema that refers to the components."""
        return dict(self._roots[kind])

    def _say_more(self, kind: type[msgspec.Struct], schema: dict[str, Any]) -> None:
        schema.pop("title", None)
        schema["description"] = _plain(inspect.getdoc(kind) or "")
        facts, written = self.facts.get(kind, {}), field_docs(kind)
        for name, told in schema.get("properties", {}).items():
            keywords = dict(facts.get(name, {}))
            if description := keywords.pop("description", "") or written.get(name, ""):
                told["description"] = _plain(description)
            if keywords:
                _narrow(told, keywords)
        unknown = set(facts) - set(schema.get("properties", {}))
        assert not unknown, f"{kind.__name__} has no {unknown}"


def _with_short_names(roots: Any, components: dict[str, Any]) -> Any:
    """The same, where several APIs have classes of one name: those have the module's folder in
    theirs, and not all that is above it."""
    short = {name: ".".join(name.split(".")[-3::2]) for name in components if "." in name}
    assert len({*short.values()}) == len(short), short
    text = json.dumps(roots)
    rest = json.dumps({short.get(name, name): it for name, it in components.items()})
    for name, wanted in short.items():
        place, other = (f'"{_PLACE.format(name=it)}"' for it in (name, wanted))
        text, rest = text.replace(place, other), rest.replace(place, other)
    return json.loads(text), json.loads(rest)


def field_docs(cls: type[Any]) -> dict[str, str]:
    """The strings below the fields of a class. Where there is no source, there are none."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        [declared] = tree.body
        nodes = declared.body if isinstance(declared, ast.ClassDef) else []
        for node, below in pairwise(nodes):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[node.target.id] = inspect.cleandoc(text)
    return found


def _plain(text: str) -> str:
    """Markdown, of one paragraph a line."""
    paragraphs = [" ".join(part.split()) for part in text.replace("``", "`").split("\n\n")]
    return "\n\n".join(paragraphs)


def _narrow(schema: dict[str, Any], keywords: dict[str, Any]) -> None:
    """Put keywords where they belong: a field may be null, or of one of several types."""
    branches = schema.get("anyOf", [schema])
    for keyword, value in keywords.items():
        homes = [it for it in branches if keyword in _NARROWER.get(it.get("type", ""), ())]
        for home in homes or [schema]:
            home[keyword] = value


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _classes_in(types: Sequence[Any]) -> list[type[msgspec.Struct]]:
    """The structs that are reached from some types, themselves included."""
    found: dict[type[msgspec.Struct], None] = {}
    queue = [msgspec.inspect.type_info(kind) for kind in types]
    while queue:
        info = queue.pop()
        match info:
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                if cls not in found:
                    found[cls] = None
                    queue += [it.type for it in fields]
            case msgspec.inspect.UnionType(types=members):
                queue += members
            case msgspec.inspect.ListType(item_type=item):
                queue.append(item)
            case msgspec.inspect.DictType(value_type=value):
                queue.append(value)
            case _:
                pass
    return list(found)
