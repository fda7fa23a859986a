"""OpenAI's embeddings, described: next to :mod:`.routes`, whose route it is."""

from __future__ import annotations

from typing import Literal

from chatstream_trio.web.embeddings.schema import MOST_INPUTS, EmbeddingsBody
from chatstream_trio.web.openapi.endpoint import Api, Endpoint, Reply, at_least, said


class Embedding(Reply, frozen=True):
    """The vector of one text, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers; or with the format `base64` those in single precision, the lowest byte first."""


class TextUsage(Reply, frozen=True):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Reply, frozen=True):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: TextUsage


API = Api(
    name="OpenAI's embeddings",
    description="Vectors of texts: of the second model, where the server has one; else of the"
    " model that is served. Each text takes a seat, one of them at a time a place in the line.",
    endpoints=(
        Endpoint(
            method="POST",
            path="/v1/embeddings",
            summary="Texts to vectors",
            description="As with OpenAI, they have the length 1.",
            body=EmbeddingsBody,
            examples={
                "one": {"input": "A seat is free"},
                "several": {
                    "input": ["A seat is free", "The hall is full"],
                    "encoding_format": "base64",
                    "dimensions": 4,
                },
            },
            reply=EmbeddingList,
            answers=True,
        ),
    ),
    facts={
        EmbeddingsBody: {
            "input": said(
                f"A text, or tokens; or a list of texts, or of lists of tokens, {MOST_INPUTS} of"
                " them at most. None is empty or longer than the model's context."
            ),
            "model": said("Of the two, where there are two; default: the second one."),
            "encoding_format": said("Default: `float`."),
            "dimensions": at_least(
                1, "So many numbers, the first ones, brought to length 1 again. Default: all."
            ),
            "timeouts": said("Ours: seconds that each phase may take."),
        }
    },
)
