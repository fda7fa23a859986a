"""The response object, whole or within the events of a stream."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from chatstream_trio.events import FinishReason, Usage
from chatstream_trio.web.dialect import Head
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.responses.output import Output

_FIXED: Mapping[str, Any] = {
    "background": False,
    "conversation": None,
    "previous_response_id": None,
    "prompt": None,
    "service_tier": "default",
    "store": False,  # nothing is kept here
    "truncation": "disabled",
}

_NAMES: Mapping[str, str] = {
    "messages": "input",
    "prompt": "input",
    "max_tokens": "max_output_tokens",
    "chat_template_kwargs": "reasoning",
}
"""What the house calls by another name than this API."""


@frozen
class Reply:
    """What a response says of itself besides its output."""

    head: Head
    echo: Mapping[str, Any]
    """The fields of the request that are repeated."""

    def begun(self) -> dict[str, Any]:
        """Of an answer that is being said."""
        return self._json("in_progress", [])

    def ended(self, reason: FinishReason, output: Output, usage: Usage) -> dict[str, Any]:
        """Of one that is complete, or was cut at its greatest length."""
        if reason is FinishReason.LENGTH:
            return self._json(
                "incomplete",
                output.json,
                incomplete_details={"reason": "max_output_tokens"},
                usage=usage_json(usage),
            )
        return self._json(
            "completed", output.json, completed_at=int(time.time()), usage=usage_json(usage)
        )

    def over(self, outcome: str, usage: Usage) -> dict[str, Any]:
        """Of one of which nothing is known any more but how it ended."""
        status = {"finished": "completed", "cancelled": "cancelled"}.get(outcome, "failed")
        return self._json(status, [], usage=usage_json(usage))

    def failed(self, error: ErrorReply, output: Output) -> dict[str, Any]:
        """Of one that will not be complete. OpenAI's types know a few codes and no others; the true
        one is in the event that follows."""
        told = {"code": "server_error", "message": error.message, "type": error.type}
        return self._json("failed", output.json, error=told)

    def _json(self, status: str, output: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        return {
            "id": self.head.id,
            "object": "response",
            "created_at": self.head.created,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": self.head.model,
            "output": output,
            "usage": None,
            **_FIXED,
            **self.echo,
            **fields,
        }


def in_own_words(reply: ErrorReply) -> ErrorReply:
    """The same, with the field named as it is in this API."""
    name = re.split(r"[.\[]", reply.param or "", maxsplit=1)[0]
    return evolve(reply, param=_NAMES.get(name, reply.param))


def usage_json(usage: Usage) -> dict[str, Any]:
    """OpenAI's shape of it, here."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
