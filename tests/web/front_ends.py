"""What well-known front-ends send by default: whole bodies, as they come over the wire.

Written down from what these programs send with their defaults; long prompts are shortened, and
nothing else is left out: system blocks, tools with nested schemas, results and errors of tools in
the history, habits of each.
"""

from __future__ import annotations

from typing import Any

STRING = {"type": "string"}


def function(name: str, description: str, **properties: Any) -> dict[str, Any]:
    """A tool as OpenAI's chat completions write it."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": sorted(properties)[:1],
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


EDIT = {
    "type": "array",
    "description": "The edits, in order",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "old_text": {"type": "string", "description": "What is there"},
            "new_text": {"type": ["string", "null"], "description": "What will be there"},
            "range": {
                "type": "object",
                "properties": {
                    "start": {"type": "integer", "minimum": 1},
                    "end": {"type": "integer", "minimum": 1},
                },
                "required": ["start"],
            },
        },
        "required": ["old_text", "new_text"],
    },
}
TOOLS = [
    function("read_file", "Read a file", path={**STRING, "description": "Relative to the root"}),
    function("write_to_file", "Write a file", path=STRING, content=STRING),
    function("edit_file", "Edit a file", path=STRING, edits=EDIT),
    function("list_files", "List a folder", path=STRING, recursive={"type": "boolean"}),
    function("search_files", "Search by a regular expression", path=STRING, regex=STRING),
    function("execute_command", "Run a command", command=STRING, cwd={"type": ["string", "null"]}),
    function("browser_action", "Use a browser", action={"enum": ["launch", "click", "close"]}),
    function(
        "ask_followup_question", "Ask", question=STRING, options={"type": "array", "items": STRING}
    ),
    function("attempt_completion", "Say that it is done", result=STRING),
    function("switch_mode", "Change the mode", mode_slug=STRING, reason=STRING),
    function("update_todo_list", "Keep a list", todos=STRING),
    function(
        "new_task", "Begin a task", mode={"anyOf": [STRING, {"type": "null"}]}, message=STRING
    ),
]

SYSTEM = "You are a careful engineer. " + "Follow the rules of the project. " * 40


def agent_history(*, parts: bool) -> list[dict[str, Any]]:
    """A conversation of an agent: a task, a call, its result, a failed call, its error."""

    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if parts else text

    def call(id: str, name: str, arguments: str) -> dict[str, Any]:
        return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}

    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": content("<task>\nMend the test\n</task>")},
        {
            "role": "assistant",
            "content": "I look first.",
            "tool_calls": [call("call_1", "read_file", '{"path":"a.py"}')],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": content("assert 1 == 2\n")},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call("call_2", "execute_command", '{"command":"pytest","cwd":null}')],
        },
        {"role": "tool", "tool_call_id": "call_2", "content": "Error: exit code 1"},
        {"role": "user", "content": content("<environment_details>\nnone\n</environment_details>")},
    ]


USAGE = {"include_usage": True}

CHATS: dict[str, dict[str, Any]] = {
    "Open WebUI": {
        "stream": True,
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "User Context:\n\n"},
            {"role": "user", "content": "hello"},
        ],
        "tools": TOOLS[:3],
        "stream_options": USAGE,
    },
    "Open WebUI, the title of a chat": {
        "model": "tiny",
        "messages": [{"role": "user", "content": "### Task:\nGenerate a concise, 3-5 word title"}],
        "stream": False,
        "max_completion_tokens": 100,
    },
    "Roo Code": {
        "model": "tiny",
        "temperature": 0,
        "messages": agent_history(parts=True),
        "stream": True,
        "stream_options": USAGE,
        "tools": TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    },
    "Cline": {
        "model": "tiny",
        "messages": agent_history(parts=True),
        "temperature": 0,
        "reasoning_effort": "medium",
        "stream": True,
        "stream_options": USAGE,
        "tools": TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    },
    "Zed": {
        "model": "tiny",
        "messages": agent_history(parts=True),
        "stream": True,
        "stream_options": USAGE,
        "max_completion_tokens": 200,
        "stop": [],
        "temperature": 1.0,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "tools": TOOLS,
        "prompt_cache_key": "2a6fb4ad",
        "reasoning_effort": None,
    },
    "Continue": {
        "messages": agent_history(parts=False),
        "model": "tiny",
        "max_tokens": 200,
        "stream": True,
        "stream_options": USAGE,
        "tools": [
            {"type": "function", "function": {**tool["function"], "strict": False}}
            for tool in TOOLS
        ],
        "parallel_tool_calls": False,
    },
    "LobeChat": {
        "messages": [
            {"content": SYSTEM, "role": "system"},
            {"content": "hello", "role": "user"},
        ],
        "model": "tiny",
        "stream": True,
        "stream_options": USAGE,
        "temperature": 1,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "tools": TOOLS[:2],
        "user": "7c0f8ad2",
    },
    "LibreChat": {
        "model": "tiny",
        "temperature": 1,
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "n": 1,
        "stream": True,
        "stream_options": USAGE,
        "user": "6651f0b1",
        "messages": [{"role": "user", "content": "hello", "name": "Ada"}],
    },
    "n8n": {
        "model": "tiny",
        "stream": False,
        "temperature": 0.7,
        "n": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_p": 1,
        "max_tokens": 64,
        "response_format": {"type": "text"},
        "tools": TOOLS[:2],
        "tool_choice": "auto",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant"},
            {"role": "user", "content": "hello"},
        ],
    },
}
"""By the front-end: the body of a ``POST /v1/chat/completions``."""

COMPLETIONS: dict[str, dict[str, Any]] = {
    "Continue, beside the cursor": {
        "prompt": "<fim_prefix>def add(a, b):\n<fim_suffix>\n<fim_middle>",
        "model": "tiny",
        "max_tokens": 64,
        "temperature": 0.01,
        "stop": ["<fim_prefix>", "<fim_suffix>", "\n\n", "```"],
        "stream": True,
    },
    "LlamaIndex": {
        "model": "tiny",
        "prompt": "Context: a seat is free.\nAnswer:",
        "temperature": 0.1,
        "max_tokens": 32,
        "stream": False,
    },
}
"""By the front-end: the body of a ``POST /v1/completions``."""

RESPONSES: dict[str, dict[str, Any]] = {
    "n8n": {
        "model": "tiny",
        "input": [
            {"type": "message", "role": "system", "content": "You are a helpful assistant"},
            {"type": "message", "role": "user", "content": "hello"},
        ],
        "stream": False,
        "temperature": 0.7,
        "max_output_tokens": 64,
        "parallel_tool_calls": True,
        "store": False,
        "text": {"format": {"type": "text"}},
        "tools": [
            {
                "type": "function",
                "name": tool["function"]["name"],
                "description": tool["function"]["description"],
                "parameters": tool["function"]["parameters"],
                "strict": None,
            }
            for tool in TOOLS[:3]
        ],
    },
}
"""By the front-end: the body of a ``POST /v1/responses``."""

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
