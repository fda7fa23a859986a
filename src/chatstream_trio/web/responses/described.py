"""The paths of OpenAI's responses, described: next to :mod:`.routes`, whose routes they are."""

from __future__ import annotations

from typing import Any

from chatstream_trio import errors
from chatstream_trio.request import MAX_STOP_STRINGS
from chatstream_trio.web.bodies.reading import MOST_OBJECTS
from chatstream_trio.web.openai.body import MOST_LOGPROBS
from chatstream_trio.web.openapi.endpoint import (
    Api,
    Endpoint,
    Facts,
    Schema,
    Stream,
    at_least,
    at_most,
    between,
    said,
)
from chatstream_trio.web.responses.events import EVENTS
from chatstream_trio.web.responses.formats import FormatBody
from chatstream_trio.web.responses.items import InputItem
from chatstream_trio.web.responses.schema import InputBody, ResponseBody
from chatstream_trio.web.responses.shapes import InputTokens, Response
from chatstream_trio.web.responses.tools import MOST_TOOLS, NAME, ChoiceBody, Function, ToolBody

_PLACE = {"id": {"type": "string", "minLength": 1}}
_WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
_TALK = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "input_text", "text": "How is the weather in Oslo?"}]},
]
_CALLED = [
    {
        "type": "function_call",
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"city": "Oslo"}',
    },
    {"type": "function_call_output", "call_id": "call_1", "output": "Rain"},
]
_EVENTS = """\
event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1_0",\
"output_index":0,"content_index":0,"delta":"Good ","logprobs":[]}

"""

_CREATE = Endpoint(
    method="POST",
    path="/v1/responses",
    summary="Answer an input",
    description="Whole, or in a stream of events. The request is as OpenAI's. Nothing is kept.",
    body=ResponseBody,
    examples={
        "short": {"input": "Good morning", "max_output_tokens": 16},
        "stream": {
            "instructions": "Be brief.",
            "input": "Good morning",
            "stream": True,
            "max_output_tokens": 16,
            "temperature": 0.7,
        },
        "items": {"input": _TALK, "max_output_tokens": 16, "store": False},
    },
    reply=Response,
    stream=Stream(events=EVENTS, example=_EVENTS),
    answers=True,
)


def _not_kept(method: str, below: str = "") -> Endpoint:
    return Endpoint(
        method=method,
        path=f"/v1/responses/{{id}}{below}",
        summary="Nothing",
        description="Answers are not kept: none can be found.",
        places=_PLACE,
        exists=False,
        errors=(404,),
    )


_REST = (
    Endpoint(
        method="POST",
        path="/v1/responses/input_tokens",
        summary="How many tokens an input has",
        description="It takes no seat and waits for nobody.",
        body=InputBody,
        examples={"short": {"input": "Good morning"}, "items": {"input": _TALK}},
        reply=InputTokens,
        errors=(
            errors.ContextTooLong,
            errors.ModelNotServed,
            errors.EngineFailed,
            errors.Draining,
        ),
    ),
    Endpoint(
        method="POST",
        path="/v1/responses/{id}/cancel",
        summary="Cancel an answer",
        description="One that ended within the last minute is told about as well.",
        places=_PLACE,
        reply=Response,
        errors=(errors.StreamNotFound,),
    ),
    _not_kept("GET"),
    _not_kept("DELETE"),
    _not_kept("GET", "/input_items"),
)

_INPUT: dict[str, Schema] = {
    "input": {
        "minItems": 1,
        **at_most(MOST_OBJECTS, "What a user says; or a conversation, as items."),
    },
    "model": said("One of the names of the model that is served; default: it."),
    "instructions": said("What the model is told first."),
    "previous_response_id": said("Refused: no answers are kept here."),
    "tools": said(
        f"Functions, {MOST_TOOLS} at most; also several in a namespace. Searches and images, which"
        " clients offer by default, are ignored; others are refused."
    ),
    "tool_choice": said("`auto`, `none` or `required`; or which."),
    "truncation": said("`auto` is ignored: what is too long is refused."),
}
_PARAMETERS = said("The JSON schema of its arguments.")
FACTS: Facts = {
    InputBody: _INPUT,
    ResponseBody: {
        **_INPUT,
        "stream": said("Send what is said as it comes, in a stream of events."),
        "stream_options": said("Only with `stream`."),
        "background": said("Refused, unless it is false: no answers are kept here."),
        "max_output_tokens": at_least(
            1, "Tokens of the answer at most. Default, and at most: what the context leaves."
        ),
        "temperature": between(0, 2, "0: the likeliest token, always. Default: the model's."),
        "top_p": between(0, 1, "Default: the model's."),
        "top_k": between(-1, 2**31 - 1, "0: all tokens. Default, also for -1: the model's."),
        "min_p": between(0, 1, "Default: the model's."),
        "presence_penalty": between(-2, 2, "Over the answer."),
        "frequency_penalty": between(-2, 2, "Over the answer."),
        "repetition_penalty": between(0.01, 100, "Over prompt and answer. Default: the model's."),
        "seed": between(
            -(2**63), 2**63 - 1, "The same seed and request give the same answer. -1: random."
        ),
        "stop": at_most(
            MAX_STOP_STRINGS, "The answer ends before the first of these. Empty ones are ignored."
        ),
        "top_logprobs": between(
            0, MOST_LOGPROBS, "If `include` has `message.output_text.logprobs`: of how many tokens."
        ),
        "include": said(
            "What is told besides: `message.output_text.logprobs`, `reasoning.encrypted_content`."
        ),
    },
    InputItem: {
        "type": said("`message`, `reasoning`, `function_call` or `function_call_output`."),
        "role": said("Of a message: `system`, `developer`, `user` or `assistant`."),
        "content": at_most(MOST_OBJECTS, "Of a message, or of reasoning."),
        "arguments": said("Of a call: a JSON object."),
        "output": at_most(MOST_OBJECTS, "Of a call that was made."),
        "summary": at_most(MOST_OBJECTS),
    },
    Function: {"name": {"pattern": f"^{NAME.pattern}$"}, "parameters": _PARAMETERS},
    ToolBody: {
        "type": said("`function` or `namespace`."),
        "name": said("1 to 128 of A-Z, a-z, 0-9, `_`, `-` and `.`."),
        "parameters": _PARAMETERS,
    },
    ChoiceBody: {
        "type": said("`function` or `allowed_tools`."),
        "name": said("Of a function."),
        "mode": said("`auto` or `required`, with `allowed_tools`."),
    },
    FormatBody: {
        "name": said("Of a schema: 1 to 64 of a-z, A-Z, 0-9, `_` and `-`."),
        "schema": said("A JSON Schema, of draft 2020-12."),
    },
}

API = Api(
    name="Responses",
    description="OpenAI's newer API: an input of items to an output of items.",
    endpoints=(_CREATE, *_REST),
    facts=FACTS,
)
