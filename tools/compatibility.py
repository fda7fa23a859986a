"""Write docs/reference/compatibility.md: every field of every API, and what becomes of it here.

    python tools/compatibility.py             # write the page
    python tools/compatibility.py --refresh   # first take the fields anew from the official clients

What becomes of a field is found out by sending it, with many values, through what reads a body.
Which fields there are is in tools/official_fields.json, so that the page does not change with the
clients that happen to be installed; the fields of peers are in it by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from attrs import define, field, frozen

from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.house import Names
from chatstream_trio.request import Timeouts
from chatstream_trio.web.anthropic.described import MessageReply, MessagesUsage
from chatstream_trio.web.anthropic.messages import Messages
from chatstream_trio.web.app import APIS
from chatstream_trio.web.bodies.reading import Unknown, Wire, read
from chatstream_trio.web.completions.completions import Completions
from chatstream_trio.web.dialect import Dialect, Given
from chatstream_trio.web.embeddings.embeddings import Embeddings
from chatstream_trio.web.ollama.call import NothingAsked, Ollama
from chatstream_trio.web.openai import replies
from chatstream_trio.web.openai.chat import ChatCompletions
from chatstream_trio.web.openapi.endpoint import Endpoint, Reply
from chatstream_trio.web.responses import shapes
from chatstream_trio.web.responses.call import Responses
from chatstream_trio.web.responses.schema import InputBody

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/compatibility.md"
DATA = ROOT / "tools/official_fields.json"

Parser = Callable[[bytes, Unknown], Any]


def by(dialect: Dialect) -> Parser:
    """What reads the bodies of a dialect, ranges included."""
    names = Names("model", ("*",))

    def parse(body: bytes, unknown: Unknown) -> None:
        with suppress(NothingAsked):
            dialect.parse(body, Given(names, 2**32, Timeouts(), unknown, str), iter)

    return parse


PARSERS: Mapping[str, Parser] = {
    "/v1/chat/completions": by(ChatCompletions()),
    "/v1/completions": by(Completions()),
    "/v1/embeddings": by(Embeddings()),
    "/v1/messages": by(Messages()),
    "/api/chat": by(Ollama(chat=True)),
    "/api/generate": by(Ollama(chat=False)),
    "/v1/responses": by(Responses()),
    "/v1/responses/input_tokens": lambda body, unknown: read(InputBody, body, iter, unknown).read(
        iter, unknown
    ),
}
"""Of the endpoints where a struct alone does not say what is refused."""

OFFICIAL: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("openai.types.chat.completion_create_params:CompletionCreateParams",),
    "/v1/chat/completions messages[]": ("openai.types.chat:ChatCompletionMessageParam",),
    "/v1/chat/completions messages[].content[]": (
        "openai.types.chat:ChatCompletionContentPartParam",
    ),
    "/v1/chat/completions stream_options": ("openai.types.chat:ChatCompletionStreamOptionsParam",),
    "/v1/completions": ("openai.types.completion_create_params:CompletionCreateParams",),
    "/v1/responses": ("openai.types.responses.response_create_params:ResponseCreateParams",),
    "/v1/responses input[]": ("openai.types.responses:ResponseInputItemParam",),
    "/v1/responses tools[]": ("openai.types.responses:ToolParam",),
    "/v1/responses text": ("openai.types.responses:ResponseTextConfigParam",),
    "/v1/responses text.format": ("openai.types.responses:ResponseFormatTextConfigParam",),
    "/v1/responses reasoning": ("openai.types.shared_params:Reasoning",),
    "/v1/responses stream_options": (
        "openai.types.responses.response_create_params:StreamOptions",
    ),
    "/v1/responses/input_tokens": ("openai.types.responses:InputTokenCountParams",),
    "/v1/embeddings": ("openai.types.embedding_create_params:EmbeddingCreateParams",),
    "/v1/messages": ("anthropic.types.message_create_params:MessageCreateParams",),
    "/v1/messages/count_tokens": (
        "anthropic.types.message_count_tokens_params:MessageCountTokensParams",
    ),
}
"""Where the fields of a request, or of an object within it, are to be found."""

REPLIES: tuple[tuple[str, str, type[Reply]], ...] = (
    ("ChatCompletion", "openai.types.chat:ChatCompletion", replies.ChatCompletion),
    ("Choice", "openai.types.chat.chat_completion:Choice", replies.ChatChoice),
    ("ChatCompletionMessage", "openai.types.chat:ChatCompletionMessage", replies.ChatAnswer),
    ("ChatCompletionChunk", "openai.types.chat:ChatCompletionChunk", replies.ChatCompletionChunk),
    ("ChoiceDelta", "openai.types.chat.chat_completion_chunk:ChoiceDelta", replies.Delta),
    ("CompletionUsage", "openai.types:CompletionUsage", replies.Usage),
    (
        "PromptTokensDetails",
        "openai.types.completion_usage:PromptTokensDetails",
        replies.PromptTokensDetails,
    ),
    (
        "CompletionTokensDetails",
        "openai.types.completion_usage:CompletionTokensDetails",
        replies.CompletionTokensDetails,
    ),
    ("Model", "openai.types:Model", replies.Model),
    ("Response", "openai.types.responses:Response", shapes.Response),
    (
        "ResponseOutputMessage",
        "openai.types.responses:ResponseOutputMessage",
        shapes.MessageOutput,
    ),
    (
        "ResponseReasoningItem",
        "openai.types.responses:ResponseReasoningItem",
        shapes.ReasoningOutput,
    ),
    (
        "ResponseFunctionToolCall",
        "openai.types.responses:ResponseFunctionToolCall",
        shapes.CallOutput,
    ),
    ("ResponseUsage", "openai.types.responses:ResponseUsage", shapes.ResponseUsage),
    ("Message", "anthropic.types:Message", MessageReply),
    ("Usage", "anthropic.types:Usage", MessagesUsage),
)
"""Official replies and ours."""

PROBES: tuple[Any, ...] = (
    *(True, False, 0, 1, -1, 7, 0.5),
    *("", "x", "none", "auto", "default", "low", "medium", "high", "disabled"),
    *([], ["x"], ["text"], [7], [{}]),
    *({}, {"x": 1}, {"x": "y"}, {"type": "text"}, {"type": "json_object"}),
)
"""What is tried for each field."""
_REPEATED = "no effect; the reply repeats it"
SAID: Mapping[str, Mapping[str, str]] = {
    "/v1/responses": {
        "store": "no effect: nothing is kept, and the reply says so",
        "service_tier": "no effect",
        **dict.fromkeys(("max_tool_calls", "metadata", "prompt_cache_key"), _REPEATED),
        **dict.fromkeys(("safety_identifier", "user"), _REPEATED),
    },
    "/v1/responses stream_options": {"include_obfuscation": "no effect"},
    "/v1/responses reasoning": {"summary": _REPEATED},
    "/v1/responses text": {"verbosity": 'unknown, unless it is `"medium"` or `null`'},
    "/v1/chat/completions stream_options": {"include_obfuscation": "no effect"},
}
"""What becomes of fields that a struct has for nothing: no trying tells."""
NOTHING: tuple[Any, ...] = (False, "", [], {})
REFUSED = "refused: 400 `unsupported_parameter`"


# ---- What becomes of a field


@define
class Seen:
    """What became of the values that were tried."""

    fine: list[Any] = field(factory=list)
    ignored: list[Any] = field(factory=list)
    unsupported: list[Any] = field(factory=list)
    invalid: list[Any] = field(factory=list)


def probe(parse: Parser, base: Mapping[str, Any], name: str) -> Seen:
    """Try a field with many values, in a body that is fine without it."""
    seen = Seen()
    for value in PROBES:
        ignored: list[str] = []
        body = json.dumps({**base, name: value}).encode()
        try:
            parse(body, ignored.append)
        except UnsupportedField:
            seen.unsupported.append(value)
        except InvalidRequest:
            seen.invalid.append(value)
        else:
            (seen.ignored if name in ignored else seen.fine).append(value)
    return seen


def verdict(seen: Seen, *, ours: bool, empty: bool = False) -> str:
    """In words.

    Args:
        seen: What became of it.
        ours: Whether the struct has it.
        empty: Whether it is said elsewhere that any field may say nothing.
    """
    if ours:
        return verdict_of_ours(seen)
    worst = REFUSED if seen.unsupported else "unknown"
    fine = in_words([value for value in seen.fine if not (empty and says_nothing(value))])
    if not fine:
        return worst
    if not (seen.unsupported or seen.ignored):
        return "no effect"
    values = " or ".join([*fine, "`null`"])
    if seen.unsupported and all(word[0] == "`" for word in fine):
        return f"{REFUSED}, unless it is {values}"
    return f"no effect, if it is {values}; else {worst}"


def verdict_of_ours(seen: Seen) -> str:
    """In words, of a field that a struct has: it may be there only to be refused."""
    if seen.unsupported and all(says_nothing(value) for value in seen.fine):
        values = " or ".join([*in_words(seen.fine), "`null`"])
        return f"{REFUSED}, unless it is {values}" if seen.fine else REFUSED
    ignored = " or ".join(in_words(seen.ignored))
    return f"yes; {ignored}: unknown" if ignored else "yes"


def says_nothing(value: Any) -> bool:
    """Whether it is empty; 0 is not."""
    return any(type(value) is type(nothing) and value == nothing for nothing in NOTHING)


def in_words(values: list[Any]) -> list[str]:
    """Some of the probes, and what they stand for."""
    left = {json.dumps(value): value for value in values}
    words = []
    kinds = {
        "a boolean": ["true", "false"],
        "a number": ["0", "1", "-1", "7", "0.5"],
        "a string": ['"x"', '"none"', '"auto"'],
        "an object": ['{"x": 1}', '{"type": "text"}'],
        "a list": ['["x"]', "[7]"],
    }
    types = {"a boolean": bool, "a number": (int, float), "a string": str}
    types |= {"an object": dict, "a list": list}
    for kind, needed in kinds.items():
        if set(needed) <= set(left):
            words.append(kind)
            left = {k: v for k, v in left.items() if not isinstance(v, types[kind])}
    return [*words, *(f"`{key}`" for key in left)]


# ---- Objects and what is in them


@frozen
class Object:
    """A body, or an object within one."""

    key: str
    """The path, and where in the body."""
    cls: type[Wire]
    parse: Parser
    base: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Of the endpoint."""
        return self.key.partition(" ")[0]

    @property
    def place(self) -> str:
        """Where in the body; nothing for the body itself."""
        return self.key.partition(" ")[2]

    @property
    def title(self) -> str:
        """The place, and which of the objects that may be there."""
        config = self.cls.__struct_config__
        which = f" with the {config.tag_field} `{config.tag}`" if config.tag_field else ""
        return f"`{self.place}`{which}"


def objects(endpoint: Endpoint) -> Iterator[Object]:
    """The body of an endpoint, and the objects within it, each class once."""
    assert endpoint.body is not None
    assert issubclass(endpoint.body, Wire)
    body = endpoint.body
    parse = PARSERS.get(endpoint.path) or reader(body)
    yield Object(endpoint.path, body, parse, next(iter(endpoint.examples.values())))
    done: set[type[Wire]] = {body}
    queue = [("", body)]
    while queue:
        at, cls = queue.pop(0)
        for info in msgspec.structs.fields(cls):
            for kind, mark in within(info.type):
                if kind not in done:
                    done.add(kind)
                    place = f"{at}.{info.encode_name}{mark}".lstrip(".")
                    queue.append((place, kind))
                    yield Object(f"{endpoint.path} {place}", kind, reader(kind), least(kind))


def reader(cls: type[Wire]) -> Parser:
    """What reads an object by its struct alone."""
    return lambda body, unknown: read(cls, body, iter, unknown)


def within(kind: Any, mark: str = "") -> Iterator[tuple[type[Wire], str]]:
    """The structs in the type of a field."""
    if isinstance(kind, type) and issubclass(kind, Wire):
        yield kind, mark
    for argument in get_args(kind):
        yield from within(argument, "[]" if get_origin(kind) is list else mark)


def least(cls: type[Wire]) -> dict[str, Any]:
    """An object with what is required."""
    return {it.encode_name: sample(it.type) for it in msgspec.structs.fields(cls) if it.required}


def sample(kind: Any) -> Any:
    """A value of a type."""
    match msgspec.inspect.type_info(kind):
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case msgspec.inspect.StrType():
            return "x"
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return 1
        case msgspec.inspect.ListType():
            return []
        case msgspec.inspect.StructType(cls=cls):
            return least(cls)
        case msgspec.inspect.UnionType():
            return sample(get_args(kind)[0])
        case _:
            return {}


# ---- The page

HEAD = """\
# Compatibility

Every field of every API, and what becomes of it here. The tables are made by
`tools/compatibility.py`, by sending each field with many values through what reads the bodies. The
fields are those of the official clients ({versions}), of vLLM, SGLang and llama-server, and ours.

- **yes**: it does what it says; what it may be is in {{doc}}`http` and at `/docs`.
- **no effect**: accepted, and it changes nothing.
- **refused**: a 400 that names the field.
- **unknown**: ignored, and named in the header `X-Ignored-Fields` and in the log; with
  `--unknown-fields refuse` a 400 `invalid_value` that names it.

`null` is everywhere the same as leaving a field out. What a model cannot do, because of its kind or
its template, is refused besides with `unsupported_parameter`.
"""


def page(data: Mapping[str, Any]) -> str:
    """All of it."""
    versions = " and ".join(f"{name} {version}" for name, version in data["versions"].items())
    parts = [HEAD.format(versions=versions)]
    described: set[str] = set()
    told: dict[type[Wire], str] = {}
    for api in APIS:
        for endpoint in api.endpoints:
            if endpoint.body is not None:
                described.add(endpoint.path)
                for one in objects(endpoint):
                    if one.cls in told:
                        parts.append(f"{one.title} is as in `{told[one.cls]}`.\n")
                    else:
                        parts.append(table(one, data))
                        told[one.cls] = one.path
    absent = [path for path in data["requests"] if path.partition(" ")[0] not in described]
    if absent:
        names = ", ".join(f"`{path}`" for path in absent)
        parts.append(f"## Not here\n\nThese paths are a 404: {names}.\n")
    parts.append("## Replies\n\nWhat is sent, of what the official clients know, and besides.\n")
    parts += [reply(title, ours, data) for title, _, ours in REPLIES]
    return "\n".join(parts)


def table(one: Object, data: Mapping[str, Any]) -> str:
    """The fields of an object of a request."""
    title = f"### {one.title} of `{one.path}`" if one.place else f"## `POST {one.path}`"
    official = data["requests"].get(one.key, [])
    peers = data["peers"].get(one.key, {})
    known = {it.encode_name for it in msgspec.structs.fields(one.cls)}
    foreign = [*one.cls.foreign.harmless, *one.cls.foreign.labels]
    rows = [title, ""]
    if one.cls.foreign.empty:
        rows += ['Here any field may be that says nothing: `null`, `false`, `""`, `[]`, `{}`.', ""]
    rows += ["| field | whose | here |", "|---|---|---|"]
    for name in dict.fromkeys([*official, *sorted({*known, *peers, *foreign})]):
        whose = ["official"] if name in official else []
        whose += [peer for peer in peers.get(name, ()) if name not in official]
        if name == one.cls.__struct_config__.tag_field:
            continue
        seen = probe(one.parse, one.base, name)
        said = verdict(seen, ours=name in known, empty=one.cls.foreign.empty)
        said = SAID.get(one.key, {}).get(name, said)
        rows.append(f"| `{name}` | {', '.join(whose) or '–'} | {said} |")
    return "\n".join([*rows, ""])


def reply(title: str, ours: type[Reply], data: Mapping[str, Any]) -> str:
    """The fields of an object of a reply."""
    official = data["replies"][title]
    optional = {it.encode_name for it in msgspec.structs.fields(ours) if not it.required}
    sent = [it.encode_name for it in msgspec.structs.fields(ours)]
    rows = [f"### `{title}`", "", "| field | whose | here |", "|---|---|---|"]
    for name in dict.fromkeys([*official, *sent]):
        said = "–" if name not in sent else "where there is some" if name in optional else "always"
        rows.append(f"| `{name}` | {'official' if name in official else '–'} | {said} |")
    return "\n".join([*rows, ""])


# ---- The official clients


def refreshed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with the fields of the clients that are installed."""
    requests = {key: sorted(names_at(*places)) for key, places in OFFICIAL.items()}
    known = {title: sorted(names_at(place)) for title, place, _ in REPLIES}
    versions = {name: metadata.version(name) for name in ("openai", "anthropic")}
    return {**data, "versions": versions, "requests": requests, "replies": known}


def names_at(*places: str) -> set[str]:
    """The fields of some types, named as ``module:Type``."""
    found: set[str] = set()
    for place in places:
        module, _, name = place.partition(":")
        found |= names_of(getattr(import_module(module), name))
    return found


def names_of(kind: Any) -> set[str]:
    """The fields of a model, of a dictionary, or of any of a union's."""
    if fields := getattr(kind, "model_fields", None):
        return {info.alias or name for name, info in fields.items()}
    if hasattr(kind, "__required_keys__"):
        return {*kind.__required_keys__, *kind.__optional_keys__}
    return set().union(*(names_of(argument) for argument in get_args(kind)))


def main() -> None:
    """Write the page."""
    data = json.loads(DATA.read_text())
    if "--refresh" in sys.argv:
        data = refreshed(data)
        DATA.write_text(json.dumps(data, indent=1) + "\n")
    PAGE.write_text(page(data))


if __name__ == "__main__":
    main()
