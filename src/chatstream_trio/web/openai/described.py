"""OpenAI's paths, described: next to :mod:`.routes`, whose routes they are."""

from __future__ import annotations

from chatstream_trio import errors
from chatstream_trio.request import MAX_ALLOWED, MAX_BAD_WORDS, MAX_SECONDS, MAX_STOP_STRINGS
from chatstream_trio.validation.tools import MOST_TOOLS
from chatstream_trio.web.bodies.reading import MOST_OBJECTS
from chatstream_trio.web.openai.body import MOST_CHOICES, MOST_IDS, MOST_LOGPROBS, StreamOptions
from chatstream_trio.web.openai.formats import MOST_CHOICES as MOST_TEXTS
from chatstream_trio.web.openai.formats import JsonSchema, ResponseFormat, StructuredOutputs
from chatstream_trio.web.openai.messages import (
    AssistantMessage,
    DeveloperMessage,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from chatstream_trio.web.openai.replies import (
    ChatCompletion,
    ChatCompletionChunk,
    Detokenized,
    Ended,
    Model,
    Models,
    QueueNews,
    Tokenized,
    Version,
)
from chatstream_trio.web.openai.schema import ChatCompletionBody
from chatstream_trio.web.openai.tokens import DetokenizeBody, TokenizeBody
from chatstream_trio.web.openai.tools import AllowedNames, FunctionBody
from chatstream_trio.web.openapi.endpoint import (
    Api,
    Endpoint,
    Error,
    Facts,
    Schema,
    Stream,
    at_least,
    at_most,
    between,
    said,
)
from chatstream_trio.web.timeouts import TimeoutsBody

_GREETING = [{"role": "user", "content": "Good morning"}]
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "find_seat", "arguments": '{"row": 7}'},
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "find_seat",
        "description": "Find a free seat.",
        "parameters": {"type": "object", "properties": {"row": {"type": "integer"}}},
    },
}
_HEAD = (
    '{"id":"chatcmpl-0e56e7720ecf7ebee7298daf","object":"chat.completion.chunk",'
    '"created":1795218189,"model":"demo","system_fingerprint":"fp_2a5c7e0b91","choices":[{"index":0,'
)
_EVENTS = f"""\
: queued position=2 eta=3.1

data: {_HEAD}"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}]}}

data: {_HEAD}"delta":{{"content":"Good "}},"logprobs":null,"finish_reason":null}}]}}

data: {_HEAD}"delta":{{}},"logprobs":null,"finish_reason":"stop"}}]}}

data: [DONE]

"""

CHAT = Endpoint(
    method="POST",
    path="/v1/chat/completions",
    summary="Answer a conversation",
    description="Whole, or in a stream of events. The request is as OpenAI's.",
    body=ChatCompletionBody,
    examples={
        "short": {"messages": _GREETING, "max_tokens": 16},
        "stream": {
            "messages": [{"role": "system", "content": "Be brief."}, *_GREETING],
            "stream": True,
            "stream_options": {"include_usage": True, "include_queue": True},
            "temperature": 0.7,
            "top_p": 0.9,
            "seed": 7,
            "max_tokens": 16,
        },
        "tools": {
            "messages": [
                {"role": "user", "content": "Is there a seat?"},
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "Seat 7 is free."},
            ],
            "tools": [_TOOL],
            "tool_choice": "auto",
            "max_tokens": 16,
        },
        "several": {"messages": _GREETING, "n": 2, "stop": [".", "\n"], "max_tokens": 16},
    },
    reply=ChatCompletion,
    stream=Stream(events=(ChatCompletionChunk, QueueNews, Error), example=_EVENTS, last="[DONE]"),
    answers=True,
)

_REST = (
    Endpoint(
        method="GET",
        path="/v1/models",
        summary="What is served",
        description="The model, under each of its names; and a second one for embeddings.",
        reply=Models,
    ),
    Endpoint(
        method="GET",
        path="/v1/models/{name}",
        summary="One of the names",
        places={"name": {"type": "string", "minLength": 1}},
        reply=Model,
        errors=(errors.ModelNotServed,),
    ),
    Endpoint(
        method="POST",
        path="/v1/tokenize",
        summary="From a text or a conversation to tokens",
        description="As vLLM has it. It takes no seat and waits for nobody.",
        body=TokenizeBody,
        examples={
            "text": {"prompt": "Good morning"},
            "conversation": {"messages": _GREETING},
        },
        reply=Tokenized,
        errors=(errors.ModelNotServed, errors.EngineFailed, errors.Draining),
    ),
    Endpoint(
        method="POST",
        path="/v1/detokenize",
        summary="From tokens to their text",
        description="As vLLM has it. The scripted model has no vocabulary, and refuses all.",
        body=DetokenizeBody,
        examples={"nothing": {"tokens": []}},
        reply=Detokenized,
        errors=(errors.ModelNotServed, errors.EngineFailed, errors.Draining),
    ),
    Endpoint(
        method="DELETE",
        path="/v1/streams/{id}",
        summary="Cancel a request",
        description="One that ended within the last minute is told about as well.",
        places={"id": {"type": "string", "minLength": 1}},
        reply=Ended,
        errors=(errors.StreamNotFound,),
    ),
    Endpoint(method="GET", path="/v1/version", summary="Which version this is", reply=Version),
)

_SECONDS: Schema = {"exclusiveMinimum": 0, "maximum": MAX_SECONDS}
_TOKENS: Schema = {"anyOf": [{"const": -1}, {"minimum": 1}]}
_TEXTS: Schema = {"minItems": 1, "maxItems": MOST_TEXTS}
_CONTENT: dict[str, Schema] = {"content": at_most(MOST_OBJECTS)}
_OF_A_PROMPT: dict[str, Schema] = {
    "tools": at_most(MOST_TOOLS, "The functions that the model may call."),
    "chat_template_kwargs": said(
        "Variables of the model's own template, such as `enable_thinking`."
    ),
    "add_generation_prompt": said(
        "Whether the prompt ends with what opens an answer. Default: unless one is continued."
    ),
    "continue_final_message": said(
        "Whether the answer goes on where the last message, an assistant's, ends."
    ),
}
_A_MESSAGE: Schema = {"minItems": 1, "maxItems": MOST_OBJECTS}

FACTS: Facts = {
    ChatCompletionBody: {
        "messages": {**_A_MESSAGE, "description": "The conversation so far."},
        **_OF_A_PROMPT,
        "tool_choice": said(
            "Whether a tool is called, or which has to be. Default: as the model likes."
        ),
        "parallel_tool_calls": said("Whether an answer may call several tools. Default: it may."),
        "include_reasoning": said("Whether reasoning is told. Default: it is."),
        "model": said("One of the names of the model that is served; default: it."),
        "stream": said("Send tokens as they come, in a stream of events."),
        "stream_options": said("Only with `stream`."),
        "max_tokens": {
            **_TOKENS,
            "description": "Tokens of the answer at most. Default, also for -1, and where it is"
            " more than that: what the context leaves.",
        },
        "max_completion_tokens": {**_TOKENS, "description": "Another name of `max_tokens`."},
        "stop": at_most(
            MAX_STOP_STRINGS, "The answer ends before the first of these. Empty ones are ignored."
        ),
        "temperature": between(0, 2, "0: the likeliest token, always. Default: the model's."),
        "top_p": between(0, 1, "Default: the model's."),
        "top_k": between(-1, 2**31 - 1, "0: all tokens. Default, also for -1: the model's."),
        "min_p": between(0, 1, "Default: the model's."),
        "presence_penalty": between(-2, 2, "Over the answer."),
        "frequency_penalty": between(-2, 2, "Over the answer."),
        "repetition_penalty": between(0.01, 100, "Over prompt and answer. Default: the model's."),
        "logit_bias": {
            "maxProperties": MOST_IDS,
            "description": "Token id, as a string, to what is added to its logit: -100 to 100.",
        },
        "seed": between(
            -(2**63), 2**63 - 1, "The same seed and request give the same answer. -1: random."
        ),
        "stop_token_ids": at_most(MOST_IDS, "The answer ends at one of these tokens."),
        "ignore_eos": said("Go on after the model's end of sequence."),
        "timeouts": said("Ours: seconds that each phase may take."),
        "logprobs": said("How likely each token was, by the model's raw logits."),
        "n": between(1, MOST_CHOICES, "How many answers; each takes a seat."),
        "top_logprobs": between(0, MOST_LOGPROBS),
        "prompt_logprobs": between(
            0, MOST_LOGPROBS, "How likely the tokens of the prompt were; not with `stream`."
        ),
        "min_tokens": at_least(0, "The answer does not end before so many; at most `max_tokens`."),
        "allowed_token_ids": {
            "minItems": 1,
            **at_most(MAX_ALLOWED, "The answer consists of these tokens."),
        },
        "bad_words": at_most(MAX_BAD_WORDS, "What may not be in the answer."),
        "include_stop_str_in_output": said("Whether the stop string that ended it is part of it."),
        "response_format": said("The form that the answer is held to. Not on the scripted model."),
        "structured_outputs": said("The same, in vLLM's words: one of these."),
        "guided_json": said("A JSON Schema, or its text; vLLM's former name."),
        "guided_regex": said("A regular expression; vLLM's former name."),
        "guided_choice": {**_TEXTS, "description": "One of these; vLLM's former name."},
        "guided_grammar": said("A grammar, Lark's or llama.cpp's; vLLM's former name."),
        "json_schema": said("A JSON Schema; llama-server's name."),
        "grammar": said("A grammar; llama-server's name."),
        "regex": said("A regular expression; SGLang's name."),
        "ebnf": said("A grammar; SGLang's name."),
    },
    ResponseFormat: {"json_schema": said("With the type `json_schema`.")},
    JsonSchema: {
        "name": {"pattern": "^[a-zA-Z0-9_-]{1,64}$"},
        "schema": said("A JSON Schema, of draft 2020-12."),
    },
    StructuredOutputs: {"choice": {**_TEXTS, "description": "One of these."}},
    SystemMessage: _CONTENT,
    DeveloperMessage: _CONTENT,
    UserMessage: _CONTENT,
    AssistantMessage: _CONTENT,
    ToolMessage: {**_CONTENT, "tool_call_id": {"minLength": 1}},
    FunctionBody: {
        "name": {"pattern": "^[A-Za-z0-9_.-]{1,128}$"},
        "strict": said("Whether arguments always follow the schema."),
    },
    AllowedNames: {"tools": at_most(MOST_OBJECTS)},
    StreamOptions: {"include_usage": said("The last chunk has the usage, and no choices.")},
    TimeoutsBody: {
        "queue": {**_SECONDS, "description": "From its arrival to its seat."},
        "first_token": {**_SECONDS, "description": "From its seat to its first token."},
        "total": {**_SECONDS, "description": "From its arrival to the end of its answer."},
    },
    TokenizeBody: {
        "prompt": said("A text; or `messages`."),
        "messages": {**_A_MESSAGE, "description": "A conversation: the tokens of its prompt."},
        **_OF_A_PROMPT,
        "model": said("One of the names of the model that is served; default: it."),
    },
    DetokenizeBody: {
        "tokens": {"description": "Ids below the size of the model's vocabulary."},
        "model": said("One of the names of the model that is served; default: it."),
    },
}

API = Api(
    name="OpenAI",
    description="OpenAI's API, and what its peers have beside it.",
    endpoints=(CHAT, *_REST),
    facts=FACTS,
)
