"""Fields of OpenAI's responses that we do not have: which of them matter.

A table for each kind of object; see :mod:`chatstream_trio.web.openai.foreign`. This module knows no
body.
"""

from __future__ import annotations

from collections.abc import Mapping

from chatstream_trio.web.bodies.reading import Harmless

_anything: Harmless = lambda value: True  # noqa: E731
_is_string: Harmless = lambda value: isinstance(value, str)  # noqa: E731
_is_object: Harmless = lambda value: isinstance(value, dict)  # noqa: E731
_is_empty: Harmless = lambda value: value in ("", [], {})  # noqa: E731
_only_null: Harmless = lambda value: False  # noqa: E731

CHANGES_NOTHING: Mapping[str, Harmless] = {
    "prompt": _only_null,  # a template that is kept elsewhere
    "conversation": _only_null,
    "context_management": _is_empty,
    **dict.fromkeys(("moderation", "image", "background_options"), _is_empty),
}
"""Fields of a body that change the answer and that we do not have; and which of their values change
nothing."""

HABITS: Mapping[str, Harmless] = {
    "client_metadata": _is_object,  # Codex
    "prompt_cache_options": _is_object,
    "prompt_cache_retention": _is_string,
    "access_programs": _is_object,
}
"""Fields of a body that clients send out of habit, and that mean nothing here."""

ITEM_LABELS: Mapping[str, Harmless] = {
    "id": _is_string,
    "status": _is_string,
    "phase": _is_string,
    "caller": _is_object,
    "created_by": _is_string,
    "internal_chat_message_metadata_passthrough": _anything,  # Codex
}
"""Fields of items that only label, most of them sent back from an earlier answer."""

PART_LABELS: Mapping[str, Harmless] = {
    "annotations": lambda value: isinstance(value, list),
    "logprobs": lambda value: isinstance(value, list),
    "prompt_cache_breakpoint": _anything,
    # Of images, files and sound, which are refused for what they are
    **dict.fromkeys(("image_url", "detail", "file_id", "file_data", "file_url"), _anything),
    **dict.fromkeys(("filename", "input_audio"), _anything),
}
"""Fields of parts that say nothing to a model."""

TOOL_LABELS: Mapping[str, Harmless] = {
    "allowed_callers": _anything,
    "defer_loading": _anything,  # every function is there from the beginning
    "output_schema": _anything,
    # Of tools that OpenAI runs, which are passed over or refused for what they are
    **dict.fromkeys(("search_context_size", "user_location", "filters"), _anything),
    **dict.fromkeys(
        ("external_web_access", "search_content_types", "indexed_web_access"), _anything
    ),
    **dict.fromkeys(("vector_store_ids", "max_num_results", "ranking_options"), _anything),
    **dict.fromkeys(("container", "environment", "server_label", "server_url"), _anything),
    **dict.fromkeys(("server_description", "connector_id", "require_approval"), _anything),
    **dict.fromkeys(("allowed_tools", "authorization", "headers"), _anything),
    **dict.fromkeys(("display_width", "display_height", "execution"), _anything),
    **dict.fromkeys(("size", "quality", "output_format", "output_compression"), _anything),
    **dict.fromkeys(("background", "partial_images", "moderation", "action"), _anything),
    **dict.fromkeys(("input_fidelity", "input_image_mask", "model", "format"), _anything),
}
"""Fields of tools that change nothing about a function."""

REASONING_LABELS: Mapping[str, Harmless] = {
    "generate_summary": _is_string,
    "context": _is_string,
    "mode": _is_string,
}
"""Fields of ``reasoning`` that mean nothing here."""
