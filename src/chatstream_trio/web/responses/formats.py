"""``text``: which form an answer is asked to have. What a schema says is not looked at here."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.grammar import ANY_OBJECT, Grammar, GrammarKind
from chatstream_trio.web.bodies.reading import Wire

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class FormatBody(Wire, frozen=True, omit_defaults=True):
    """``text.format``."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    """The answer is held to the schema, whatever this says."""

    def grammar(self) -> Grammar | None:
        """What the answer is held to.

        Raises:
            InvalidRequest: There is no schema, or its name is none.
        """
        at = "text.format"
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Grammar(GrammarKind.JSON_SCHEMA, ANY_OBJECT, at)
        if self.name is None or not _NAME.fullmatch(self.name):
            raise InvalidRequest(
                "the name of a schema has 1 to 64 of a-z, A-Z, 0-9, _ and -", param=f"{at}.name"
            )
        if self.schema is None:
            raise InvalidRequest(f"{at}.schema: missing required field", param=f"{at}.schema")
        source = json.dumps(self.schema, ensure_ascii=False)
        return Grammar(GrammarKind.JSON_SCHEMA, source, f"{at}.schema")


class TextBody(Wire, frozen=True):
    """``text``."""

    format: FormatBody | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
