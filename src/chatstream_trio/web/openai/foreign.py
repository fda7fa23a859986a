"""Fields of OpenAI's schema, and of its peers', that we do not have: which of them matter.

A table for each kind of object. What is in none of them is unknown. This module knows no body.
"""

from __future__ import annotations

from collections.abc import Mapping

from chatstream_trio.web.bodies.reading import Harmless

_is_string: Harmless = lambda value: isinstance(value, str)  # noqa: E731
_is_bool: Harmless = lambda value: isinstance(value, bool)  # noqa: E731
_is_object: Harmless = lambda value: isinstance(value, dict)  # noqa: E731
is_off: Harmless = lambda value: value is False  # noqa: E731
_is_on: Harmless = lambda value: value is True  # noqa: E731
_is_no_list: Harmless = lambda value: value == []  # noqa: E731
_is_empty: Harmless = lambda value: value in ("", [], {})  # noqa: E731
_only_null: Harmless = lambda value: False  # noqa: E731


def _is(*wanted: float | str) -> Harmless:
    """Whether it is one of these; no bool is a number."""
    return lambda value: not isinstance(value, bool) and value in wanted


CHANGES_NOTHING: Mapping[str, Harmless] = {
    # OpenAI's
    "functions": _is_no_list,
    "function_call": _is("none", "auto"),
    "modalities": lambda value: value == ["text"],
    "audio": _only_null,
    "verbosity": _is("medium"),
    "web_search_options": _only_null,
    "user": _is_string,
    "safety_identifier": _is_string,
    "prompt_cache_key": _is_string,
    "prompt_cache_retention": _is_string,
    "metadata": _is_object,
    # What the model reads, as peers let one say it
    "documents": _is_no_list,
    "add_special_tokens": is_off,
    **dict.fromkeys(("chat_template", "input_ids", "lora_path"), _only_null),
    "truncate_prompt_tokens": _only_null,
    # What it says
    **dict.fromkeys(("structural_tag", "thinking_token_budget"), _only_null),
    **dict.fromkeys(("custom_logit_processor", "repetition_detection", "watermarking"), _only_null),
    "stop_regex": _is_empty,
    **dict.fromkeys(("mirostat", "dynatemp_range", "dry_multiplier"), _is(0)),
    **dict.fromkeys(("best_of", "typical_p", "tfs_z", "repeat_penalty"), _is(1)),
    "xtc_probability": _is(0),
    "top_n_sigma": _is(-1),
    "n_predict": _is(-1),
    "use_beam_search": is_off,
    # How it is said
    **dict.fromkeys(("logprob_token_ids",), _only_null),
    **dict.fromkeys(("no_stop_trim", "return_token_ids"), is_off),
    **dict.fromkeys(("return_tokens_as_token_ids", "return_prompt_token_ids"), is_off),
    **dict.fromkeys(("return_prompt_text", "return_token_offsets"), is_off),
    **dict.fromkeys(("return_hidden_states", "return_routed_experts"), is_off),
    "skip_special_tokens": _is_on,
}
"""Fields of OpenAI's schema, and of its peers', that change the answer and that we do not have; and
which of their values change nothing."""

HABITS: Mapping[str, Harmless] = {
    "service_tier": _is("auto", "default"),
    "store": is_off,
    "prediction": _only_null,  # makes an answer faster elsewhere
    **dict.fromkeys(("request_id", "rid", "session_id"), _is_string),
    "prompt_cache_options": _is_object,
    "separate_reasoning": is_off,
    **dict.fromkeys(
        ("stream_reasoning", "spaces_between_special_tokens", "cache_prompt"), _is_bool
    ),
    **dict.fromkeys(("return_meta_info", "return_cached_tokens_details"), is_off),
    **dict.fromkeys(("timings_per_token", "return_progress"), is_off),
    "length_penalty": lambda value: isinstance(value, int | float),  # of beams, which are refused
    "truncation_side": _is_string,  # of truncate_prompt_tokens
    "priority": _is(0),
    "id_slot": _is(-1),
}
"""Fields that clients send out of habit, and that mean nothing here; and the values of which nobody
need hear that they are ignored."""

LABELS: Mapping[str, Harmless] = {
    "id": _is_string,
    "annotations": lambda value: isinstance(value, list),
    "cache_control": _is_object,
    "metadata": _is_object,
}
"""Fields of messages and their parts that clients put there, or send back from an earlier answer,
and that only label. Any field may be there that says nothing."""
PARTS_OF_SPEECH: Mapping[str, Harmless] = dict.fromkeys(
    ("tool_calls", "function_call", "tool_call_id", "audio", "refusal", "prefix", "images"),
    _only_null,
)
"""Fields of messages without which they are others, where a role does not have them."""
