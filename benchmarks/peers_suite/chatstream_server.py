"""Serve a model directory with ChatStream 0.3.0, under OpenAI's endpoint. Runs in its own venv.

    python chatstream_server.py MODELDIR PORT SEATS MAX_NEW_TOKENS

It is the package's own example (FastAPI, the middlewares, ``handle_chat_stream_request``) with a
ChatML prompt and greedy sampling (``top_k=1``). The package's protocol sends the whole answer so
far again with each token; ``/v1/chat/completions`` calls the same handler and sends on what is new,
a chunk for each token. The longest answer is fixed at the start.
"""

import json
import logging
import sys
from contextlib import asynccontextmanager

import uvicorn
from chatstream import AbstractChatPrompt, ChatStream
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse
from transformers import AutoModelForCausalLM, AutoTokenizer

END_OF_SNAPSHOT = "<::EOS::>"
QUEUE = 64

path, port, seats, tokens = sys.argv[1], *map(int, sys.argv[2:5])
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()
# Its samplers know no bfloat16, in which the model may well be faster: they get float32 from it.
model.get_output_embeddings().register_forward_hook(lambda module, inputs, out: out.float())


class ChatML(AbstractChatPrompt):
    """The prompt of one conversation."""

    def __init__(self):
        super().__init__()
        self.set_system("")
        self.set_requester("user")
        self.set_responder("assistant")

    def set_tokenizer(self, tokenizer):
        self.special_tokens = ["<|im_start|>", "<|im_end|>"]

    def get_stop_strs(self):
        return []

    def create_prompt(self, opts=None):
        out = self.system
        for content in self.get_contents(opts or {}):
            role, text = content.get_role(), content.get_message()
            out += f"<|im_start|>{role}\n" + (f"{text}<|im_end|>\n" if text else "")
        return out

    def build_initial_prompt(self, chat_prompt):
        pass


logger = logging.getLogger("chatstream")
logger.setLevel(logging.ERROR)
chat_stream = ChatStream(
    num_of_concurrent_executions=seats,
    max_queue_size=QUEUE,
    model=model,
    tokenizer=tokenizer,
    device="cpu",
    chat_prompt_clazz=ChatML,
    max_new_tokens=tokens,
    context_len=2048,
    temperature=1.0,
    top_k=1,
    too_many_request_as_http_error=True,
    logger=logger,
)


@asynccontextmanager
async def lifespan(app):
    await chat_stream.start_queue_worker()
    yield


app = FastAPI(lifespan=lifespan)
chat_stream.append_middlewares(app)  # without them 0.3.0 answers 500: nobody has a role


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/v1/chat/completions")
async def chat_completions(request: Request):
    body = await request.json()
    question = {"user_input": body["messages"][-1]["content"], "regenerate": False}
    response = await chat_stream.handle_chat_stream_request(request, json.dumps(question).encode())
    if not isinstance(response, StreamingResponse):
        return response
    return StreamingResponse(chunks(response.body_iterator), media_type="text/event-stream")


async def chunks(snapshots):
    """Server-sent events: one for each snapshot, the last one of which brings no token."""
    sent, count = "", -1
    async for snapshot in snapshots:
        text = snapshot.removesuffix(END_OF_SNAPSHOT)
        count += 1
        yield event(choices=[{"index": 0, "delta": {"content": text[len(sent) :]}}])
        sent = text
    yield event(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}])
    yield event(choices=[], usage={"prompt_tokens": 0, "completion_tokens": count})
    yield "data: [DONE]\n\n"


def event(**fields):
    return f"data: {json.dumps(fields)}\n\n"


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
