"""Attention over the KV pool, for a model of transformers that knows nothing of it."""
