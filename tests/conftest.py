"""What all tests share: which of them need torch, and which are slow."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NEEDS_TORCH = (
    "web/test_completions.py",
    "web/test_embeddings_model.py",
    "web/test_front_ends.py",
    "web/test_langchain.py",
    "web/test_npm_clients.py",
    "test_demo_model.py",
    "test_train_demo_model.py",
    "test_overload_demo_model.py",
    "embedder/test_embedder.py",
    "engine/test_checkpoint.py",
    "engine/test_batch_invariance.py",
    "engine/test_compiled.py",
    "engine/test_crossing.py",
    "engine/test_grammars.py",
    "engine/test_graphs.py",
    "engine/test_pooling.py",
    "engine/test_prompt_likelihoods.py",
    "engine/test_quantized.py",
    "engine/test_likelihoods.py",
    "engine/test_linears.py",
    "engine/test_loading.py",
    "engine/test_masks.py",
    "engine/test_out_of_memory.py",
    "engine/test_pace.py",
    "engine/test_packing.py",
    "engine/test_paged.py",
    "engine/test_sampling.py",
    "engine/test_transformers_runner.py",
    "text/test_answer_style.py",
    "text/test_prompt.py",
    "text/test_templates.py",
    "web/test_completions_model.py",
    "web/test_logprobs.py",
    "web/test_ollama_model.py",
    "web/test_masked_tokens.py",
    "web/test_prompt_logprobs.py",
    "web/test_tool_calls.py",
    "web/test_histories_model.py",
    "web/test_real_model.py",
    "web/test_responses_model.py",
    "web/test_structured.py",
)
SLOW = ("overload", "process", "gone", "transport", "tls", "bodies", "http1", "http2", "stock")

HAS_TORCH = find_spec("torch") is not None
collect_ignore = [] if HAS_TORCH else [*NEEDS_TORCH]


def pytest_report_header() -> str:
    """Say what is left out, and why."""
    return "" if HAS_TORCH else f"without torch, so without: {', '.join(NEEDS_TORCH)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their module, so that ``-m "not torch and not slow"`` is quick."""
    for item in items:
        if item.path.as_posix().endswith(NEEDS_TORCH):
            item.add_marker(pytest.mark.torch)
        if any(name in item.path.stem for name in SLOW):
            item.add_marker(pytest.mark.slow)
