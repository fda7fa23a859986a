"""Fields of Anthropic's schema that we do not have: which of them matter.

A table for each kind of object. What is in none of them is unknown. This module knows no body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatstream_trio.web.bodies.reading import Harmless

_is_string: Harmless = lambda value: isinstance(value, str)  # noqa: E731
_is_bool: Harmless = lambda value: isinstance(value, bool)  # noqa: E731
_is_object: Harmless = lambda value: isinstance(value, dict)  # noqa: E731
_is_list: Harmless = lambda value: isinstance(value, list)  # noqa: E731
_is_empty: Harmless = lambda value: value in ([], {})  # noqa: E731
_only_null: Harmless = lambda value: False  # noqa: E731


def _keeps_all(value: Any) -> bool:
    """Whether ``context_management`` takes nothing away but what a model has thought."""
    edits = value.get("edits") or [] if isinstance(value, dict) else None
    return isinstance(edits, list) and all(
        isinstance(edit, dict) and str(edit.get("type")).startswith("clear_thinking_")
        for edit in edits
    )


CHANGES_NOTHING: Mapping[str, Harmless] = {
    "mcp_servers": _is_empty,
    **dict.fromkeys(("container", "thread", "compaction"), _only_null),
}
"""Fields that change the answer and that we do not have; and which of their values do not."""

HABITS: Mapping[str, Harmless] = {
    "metadata": _is_object,
    "cache_control": _is_object,  # a prefix is cached by itself
    "context_management": _keeps_all,
    "service_tier": _is_string,
    "speed": lambda value: value == "standard",
    "betas": _is_list,
    "fallbacks": _is_empty,
    **dict.fromkeys(("diagnostics", "billing_policy"), _is_object),
    **dict.fromkeys(("inference_geo", "user_profile_id", "workspace_id"), _is_string),
    **dict.fromkeys(("anthropic_version", "fallback_credit_token"), _is_string),
}
"""Fields that mean nothing here; and the values of which nobody need hear that they are ignored."""

LABELS: Mapping[str, Harmless] = {
    "id": _is_string,
    "cache_control": _is_object,
    "citations": _is_list,
    "caller": lambda value: isinstance(value, dict) and value.get("type") == "direct",
    "signature": _is_string,
}
"""Fields of messages and their blocks that clients put there, or send back from an earlier answer,
and that only label. Any field may be there that says nothing."""

OF_TOOLS: Mapping[str, Harmless] = {
    "cache_control": _is_object,
    "allowed_callers": lambda value: value == ["direct"],
    "input_examples": _is_list,
    **dict.fromkeys(("defer_loading", "eager_input_streaming"), _is_bool),
}
"""Fields of tools that change neither what may be called nor how."""
