#!/usr/bin/env python3
"""Train the embedded demo model from the corpus in `demo_corpus/`, from nothing, on a CPU.

    python tools/train_demo_model.py --out src/chatstream_trio/demo

The same seed, steps, sizes and number of threads give the same weights on the same machine.
With `--minutes` the schedule follows the clock where that is ahead of the steps, so that training
ends in time; the summary says after how many steps. `--steps` with that number repeats the plan,
though not bit for bit.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from demo_corpus.build import Corpus, Message, Topic
from demo_corpus.encode import (
    CONTEXT,
    IGNORED,
    LEAD,
    Batch,
    Encoder,
    Row,
    cut,
    pad,
    train_tokenizer,
)
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

POOL = 768  # conversations that are sorted by length together
# First the model learns to read, then to speak: the share of conversations of one turn, and of
# those whose last answer is cut after its first tokens.
READING, SPEAKING, READING_ENDS = (0.95, 0.9), (0.5, 0.4), 0.33
LEAD_WEIGHT = 8.0  # of the tokens with which an answer begins
WARMUP, DECAY = 0.02, 0.5  # of the steps


@dataclass
class Options:
    """What the command line says."""

    steps: int
    seed: int
    out: Path
    threads: int
    minutes: float
    vocab: int
    hidden: int
    layers: int
    batch_tokens: int
    lr: float
    init: Path | None
    checkpoints: Path | None
    evaluation: bool


def parse(argv: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("src/chatstream_trio/demo"))
    parser.add_argument("--threads", type=int, default=2, help="0: what is fastest just now")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin to end by then")
    parser.add_argument("--vocab", type=int, default=2304)
    parser.add_argument("--hidden", type=int, default=256, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--init", type=Path, help="go on from the model and tokenizer in here")
    parser.add_argument("--checkpoints", type=Path, help="save here now and then")
    parser.add_argument("--no-evaluation", action="store_false", dest="evaluation")
    return Options(**vars(parser.parse_args(argv)))


class Schedule:
    """Warm up, hold, decay to nothing. It follows the steps, or the clock where that is ahead."""

    def __init__(self, steps: int, minutes: float) -> None:
        self.steps, self._began, self._seconds = steps, time.monotonic(), minutes * 60
        self.done = 0.0
        self._warmup = max(1, int(steps * WARMUP))

    def progress(self, step: int) -> float:
        """From 0 to 1, where training ends."""
        self.done = max(step / self.steps, (time.monotonic() - self._began) / self._seconds)
        return self.done

    def factor(self, step: int) -> float:
        """What the learning rate of this step is multiplied with."""
        return max(0.0, min(1.0, (step + 1) / self._warmup, (1 - self.progress(step)) / DECAY))


def batches(
    corpus: Corpus, encoder: Encoder, options: Options, schedule: Schedule
) -> Iterator[Batch]:
    """Batches of whole conversations of similar length, without end."""
    rng = random.Random(options.seed)

    def draw() -> Row:
        reading = schedule.done < READING_ENDS and not options.init
        single, beginning = READING if reading else SPEAKING
        row = encoder.conversation(corpus.conversation(rng, single))
        return cut(row) if rng.random() < beginning else row

    while True:
        pool = [draw() for _ in range(POOL)]
        pool.sort(key=lambda row: len(row[0]))
        groups: list[list[Row]] = [[]]
        for row in pool:
            if (len(groups[-1]) + 1) * len(row[0]) > options.batch_tokens and groups[-1]:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from map(pad, groups)


def new_model(tokenizer: PreTrainedTokenizerBase, options: Options) -> LlamaForCausalLM:
    """A Llama, very small, with two heads of keys and values for its (usually four) heads."""
    heads = options.hidden // 64
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.hidden,
            intermediate_size=options.hidden * 3,
            num_hidden_layers=options.layers,
            num_attention_heads=heads,
            num_key_value_heads=2 if heads % 2 == 0 else 1,
            head_dim=64,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def logits_and_targets(model: LlamaForCausalLM, batch: Batch) -> Batch:
    """Logits where there is something to learn (the head costs as much as a layer), and targets."""
    ids, labels = batch
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    learned = targets != IGNORED
    return model.lm_head(hidden[learned]), targets[learned]


@torch.no_grad()
def prime_embeddings(model: LlamaForCausalLM, encoder: Encoder, corpus: Corpus) -> None:
    """Begin with embeddings in which tokens of the same topic, or the same neighbours, are near.

    They are the leading singular vectors of the (positive, pointwise) mutual information between
    tokens and topics and neighbours. From random ones it takes far longer to learn to read.
    """
    size, topics = model.config.vocab_size, corpus.all_topics()
    counts = torch.zeros(size, len(topics) + 2 * size)
    for column, topic in enumerate(topics):
        for text in (*topic.asks[:60], *[topic.say] * 4):
            ids = encoder.text(text)
            counts[list(ids), column] += 4.0 / len(topic.asks[:60])
            for left, right in pairwise(ids):
                counts[right, len(topics) + left] += 0.1
                counts[left, len(topics) + size + right] += 0.1
    expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / counts.sum()
    information = torch.log((counts / expected.clamp(min=1e-9)).clamp(min=1.0))
    information[:, len(topics) :] *= 0.3
    vectors, values, _ = torch.svd_lowrank(information, q=model.config.hidden_size, niter=4)
    vectors = vectors * values.sqrt()
    noise = torch.randn_like(vectors)
    empty = counts.sum(1) == 0
    vectors[empty] = 0.0
    vectors = vectors / vectors.std() + 0.1 * noise
    vectors[empty] = noise[empty]
    model.model.embed_tokens.weight.copy_(0.02 * vectors)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Cross entropy in which an answer's first tokens weigh more: they choose the topic.

    Without it the model learns the answers by heart long before it learns to read the question.
    """
    targets = batch[1][:, 1:]
    before = functional.pad(targets, (LEAD, 0), value=IGNORED)[:, :-LEAD]
    leads = (before == IGNORED)[targets != IGNORED]
    losses = functional.cross_entropy(*logits_and_targets(model, batch), reduction="none")
    weights = torch.where(leads, LEAD_WEIGHT, 1.0)
    return (losses * weights).sum() / weights.sum()


class Threads:
    """How many threads compute. On a machine shared with others, fewer may be faster."""

    def __init__(self, fixed: int) -> None:
        self._fixed, self._spent, self._done = fixed, [0.0, 0.0], [1, 1]
        torch.set_num_threads(fixed or 2)

    def measure(self, step: int, seconds: float, tokens: int) -> None:
        """Learn from this step, and choose for the next: of 32, try each number three times."""
        if self._fixed:
            return
        now = torch.get_num_threads() - 1
        self._spent[now] += seconds
        self._done[now] += tokens
        phase = (step + 1) % 32
        if phase == 0:
            self._spent, self._done = [0.0, 0.0], [1, 1]
        rates = [done / (spent or 1.0) for done, spent in zip(self._done, self._spent, strict=True)]
        torch.set_num_threads(1 if phase < 3 else 2 if phase < 6 else 1 + (rates[1] > rates[0]))


def train(
    model: LlamaForCausalLM, data: Iterator[Batch], options: Options, schedule: Schedule
) -> tuple[int, int]:
    """Train in place; return how many steps and how many tokens it took."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98), fused=True)
    threads = Threads(options.threads)
    tokens, smooth, step = 0, 0.0, 0
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, refresh_per_second=1) as progress:
        bar = progress.add_task("training", total=1.0)
        model.train()
        while schedule.progress(step) < 1:
            began = time.monotonic()
            rate = options.lr * schedule.factor(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = next(data)
            loss = loss_of(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            tokens += batch[0].numel()
            smooth = loss.item() if step == 1 else 0.95 * smooth + 0.05 * loss.item()
            threads.measure(step, time.monotonic() - began, batch[0].numel())
            text = f"step {step} loss {smooth:.3f} lr {rate:.1e}"
            progress.update(bar, completed=schedule.progress(step), description=text)
            if step % 50 == 0:
                progress.console.print(f"{time.strftime('%H:%M:%S')} {text} tokens {tokens:,}")
            if step % 200 == 0 and options.checkpoints:
                model.save_pretrained(options.checkpoints)
    return step, tokens


@torch.no_grad()
def recalled(model: LlamaForCausalLM, encoder: Encoder, topic: Topic, ask: str) -> bool:
    """Whether greedy decoding gives exactly the answer: each token is the likeliest one."""
    messages = [Message("user", ask), Message("assistant", topic.say, learn=True)]
    logits, targets = logits_and_targets(model, pad([encoder.conversation(messages)]))
    return bool((logits.argmax(-1) == targets).all())


def evaluate(model: LlamaForCausalLM, encoder: Encoder, corpus: Corpus) -> str:
    """How many questions of the corpus, as they stand there, are answered word for word."""
    model.eval()
    found: dict[str, list[bool]] = {}
    for topic in corpus.all_topics():
        results = [recalled(model, encoder, topic, ask) for ask in topic.asks[:12]]
        found.setdefault(f"{topic.kind}.{topic.lang}", []).extend(results)
        if not all(results):
            print(f"not recalled: {topic.lang} {topic.id}: {results.count(False)}")
    parts = [f"{kind} {sum(r)}/{len(r)}" for kind, r in found.items()]
    every = [result for results in found.values() for result in results]
    return f"recalled {sum(every)}/{len(every)}: " + ", ".join(parts)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the folder: weights in bfloat16, to be loaded in float32. The model is rounded, too."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config.do_sample = False  # its best answer is the most likely one
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(out)
    model.to(torch.float32)
    tokenizer.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    config["dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Train, save, evaluate, and say what came of it."""
    options = parse(argv)
    torch.set_num_threads(options.threads or 2)
    torch.set_flush_denormal(True)
    torch.manual_seed(options.seed)
    corpus = Corpus()
    if options.init:
        tokenizer = AutoTokenizer.from_pretrained(options.init)
        model = LlamaForCausalLM.from_pretrained(options.init, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(corpus, options.vocab)
        model = new_model(tokenizer, options)
    encoder = Encoder(tokenizer)
    if not options.init:
        prime_embeddings(model, encoder, corpus)
    if options.checkpoints:
        tokenizer.save_pretrained(options.checkpoints)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, {len(tokenizer)} tokens in the vocabulary", flush=True)
    began = time.monotonic()
    schedule = Schedule(options.steps, options.minutes)
    data = batches(corpus, encoder, options, schedule)
    steps, tokens = train(model, data, options, schedule)
    seconds = time.monotonic() - began
    save(model, tokenizer, options.out)
    print(f"{steps} steps, {tokens:,} tokens, {seconds / 60:.1f} minutes,"
          f" {tokens / seconds:.0f} tokens/s")  # fmt: skip
    if options.evaluation:
        print(evaluate(model, encoder, corpus))


if __name__ == "__main__":
    main()
