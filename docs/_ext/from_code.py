"""What the documentation takes from the code, so that it cannot go stale.

``settings-table`` is every setting with its flag, variable, key, default and range;
``command-help`` is what a command's ``--help`` prints; ``error-table`` is every error with its
code and HTTP status. Besides, a public name is found wherever it is defined.
"""

from __future__ import annotations

import inspect
import io
import os
import re
from typing import Any, ClassVar

from attrs import NOTHING, Attribute, fields
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import chatstream_trio
from chatstream_trio import errors
from chatstream_trio.errors import ChatStreamError, SettingsError
from chatstream_trio.settings import Settings

PACKAGE = "chatstream_trio"


class SettingsTable(SphinxDirective):
    """All settings."""

    def run(self) -> list[nodes.Node]:
        """One definition for each, so that long ones stay readable on a phone."""
        docs = ModuleAnalyzer.for_module(f"{PACKAGE}.settings").find_attr_docs()
        lines: list[str] = []
        for attribute in fields(Settings):
            name = attribute.name
            lines += [
                f"({_anchor(name)})=",
                f"`{_flag(name)}`",
                f": {' '.join(docs['Settings', name]).strip()}",
                "",
                f"  Variable `CHATSTREAM_{name.upper()}`, key `{name}`."
                f"{_default(attribute)}{_allowed(name)}",
                "",
            ]
        return _parse(self, lines)


class CommandHelp(SphinxDirective):
    """The help of one command."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """As a literal block."""
        from rich.console import Console

        from chatstream_trio.cli import app

        out = io.StringIO()
        hidden = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith("CHATSTREAM_")}
        try:
            console = Console(file=out, width=88, color_system=None, force_terminal=False)
            app.help_print(self.arguments[0].split(), console=console)
        finally:
            os.environ.update(hidden)
        text = "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())
        block = nodes.literal_block(text, text)
        block["language"] = "text"
        return [block]


class ErrorTable(SphinxDirective):
    """Every error that a client may be told, by status."""

    def run(self) -> list[nodes.Node]:
        """A table: status, type, code, class, meaning."""
        rows = ["| status | `type` | `code` | raised as | when |", "|---|---|---|---|---|"]
        for cls in _error_classes():
            reply = _reply(cls)
            rows.append(
                f"| {reply.status} | `{reply.type}` | `{cls.code}` "
                f"| {{py:exc}}`~{PACKAGE}.{cls.__name__}` | {_first_sentence(cls)} |"
            )
        return _parse(self, rows)


def _error_classes() -> list[type[ChatStreamError]]:
    """Those that a request can end with, by status."""
    abstract = {ChatStreamError, errors.Unavailable}
    found = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, ChatStreamError)
        and cls not in abstract
        and not issubclass(cls, (SettingsError, errors.ModelNotLoaded))
    ]
    return sorted(found, key=lambda cls: (_reply(cls).status, cls.__name__))


def _reply(cls: type[ChatStreamError]) -> Any:
    from chatstream_trio.web.errors import reply_to

    needs: dict[str, Any] = {"retry_after": 1.0} if issubclass(cls, errors.QueueFull) else {}
    return reply_to(cls("", **needs))


def _first_sentence(cls: type[Any]) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()).replace("``", "`")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _anchor(name: str) -> str:
    return "setting-" + name.replace("_", "-")


def _default(attribute: Attribute[Any]) -> str:
    value = attribute.default
    return "" if value is None or value is NOTHING else f" Default: `{value}`."


def _allowed(name: str) -> str:
    """What the setting's own check says about a value that cannot be right."""
    for impossible in (-1e9, "\0"):
        try:
            Settings(**{name: impossible})
        except SettingsError as error:
            wanted = error.message.removeprefix(f"{name} must be ").partition(";")[0]
            return f" Allowed: {wanted}."
        except TypeError:
            continue
    return ""


def _parse(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    node = nodes.container()
    source = directive.get_source_info()[0]
    directive.state.nested_parse(StringList(lines, source), directive.content_offset, node)
    return node.children


class PublicNames:
    """Where the public names are defined, and which name they go by in the documentation."""

    by_home: ClassVar[dict[str, str]] = {}

    @classmethod
    def read(cls) -> None:
        """Ask the package."""
        for name in chatstream_trio.__all__:
            value = getattr(chatstream_trio, name)
            home = getattr(value, "__module__", None)
            if home and home.startswith(PACKAGE):
                cls.by_home[f"{home}.{getattr(value, '__qualname__', name)}"] = f"{PACKAGE}.{name}"
            cls.by_home[name] = f"{PACKAGE}.{name}"
        cls.by_home["StreamFaultError"] = f"{PACKAGE}.engine.scripted_runner.StreamFaultError"

    @classmethod
    def public(cls, target: str) -> str | None:
        """``chatstream_trio.service.ChatStream.open`` is ``chatstream_trio.ChatStream.open``."""
        head, tail = target, ""
        while head:
            if head in cls.by_home:
                return cls.by_home[head] + tail
            head, _, last = head.rpartition(".")
            tail = f".{last}{tail}"
        return None


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    if node.get("refdomain") != "py":
        return None
    target = PublicNames.public(node["reftarget"])
    if target is None or target == node["reftarget"]:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)


def _short_defaults(*args: Any) -> tuple[str | None, str | None]:
    """``Settings()`` as a default, and not everything that is in it."""
    signature, returns = args[-2:]
    if signature:
        signature = re.sub(r"\b(Settings|Sampling|SamplingOptions)\([^()]*\)", r"\1()", signature)
        signature = signature.replace("= NOTHING", "= ...")
    return signature, returns


class PlainAttributes:
    """Keeps napoleon away from attributes, whose ``a: b`` it takes for a type and its meaning."""

    kinds = ("attribute", "data", "property")

    def __init__(self) -> None:
        self._before: list[str] = []

    def save(self, app: Sphinx, what: str, name: str, obj: Any, _: Any, lines: list[str]) -> None:
        """Called before napoleon."""
        self._before = list(lines)

    def restore(
        self, app: Sphinx, what: str, name: str, obj: Any, _: Any, lines: list[str]
    ) -> None:
        """Called after napoleon."""
        if what in self.kinds and "Raises:" not in self._before:
            lines[:] = self._before


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    PublicNames.read()
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("error-table", ErrorTable)
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-signature", _short_defaults)
    plain = PlainAttributes()
    app.connect("autodoc-process-docstring", plain.save, priority=400)
    app.connect("autodoc-process-docstring", plain.restore, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
