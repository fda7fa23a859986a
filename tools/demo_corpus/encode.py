"""From conversations to tensors: the tokenizer, and what of a conversation should be learned.

It knows no model; and it is the only module of this folder that knows torch and tokenizers.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from demo_corpus.build import Corpus, Message

END, IM_START, IM_END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
CONTEXT = 2048
IGNORED = -100
LEAD = 8  # tokens with which an answer begins
Row = tuple[list[int], list[int]]  # token ids, and what should be learned of them
Batch = tuple[torch.Tensor, torch.Tensor]


def train_tokenizer(corpus: Corpus, vocab: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE: any text can be written, and rare characters take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=IM_END,
        pad_token=END,
        additional_special_tokens=[IM_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


class Encoder:
    """From messages to token ids, and to the labels that only cover what should be learned."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.text = lru_cache(maxsize=50_000)(
            lambda text: tuple(tokenizer.encode(text, add_special_tokens=False))
        )

    def message(self, message: Message) -> Row:
        """One message as the chat template writes it."""
        head = [*self.text(f"{IM_START}{message.role}\n")]
        body = [*self.text(message.content + IM_END)]
        tail = [*self.text("\n")]
        learned = body if message.learn else [IGNORED] * len(body)
        return head + body + tail, [IGNORED] * len(head) + learned + [IGNORED] * len(tail)

    def conversation(self, messages: list[Message]) -> Row:
        """A whole conversation, cut where the context ends."""
        ids: list[int] = []
        labels: list[int] = []
        for message in messages:
            more_ids, more_labels = self.message(message)
            ids += more_ids
            labels += more_labels
        return ids[:CONTEXT], labels[:CONTEXT]


def cut(row: Row) -> Row:
    """Only the beginning of the last answer: many more questions are read in the same time."""
    ids, labels = row
    last = max((i for i in range(1, len(ids)) if labels[i - 1] == IGNORED != labels[i]), default=0)
    return (ids[: last + LEAD], labels[: last + LEAD]) if last else row


def pad(rows: list[Row]) -> Batch:
    """Rows of different length as two tensors. Padding stands behind, where nothing sees it."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([i + [0] * (width - len(i)) for i, _ in rows])
    labels = torch.tensor([lab + [IGNORED] * (width - len(lab)) for _, lab in rows])
    return ids, labels
