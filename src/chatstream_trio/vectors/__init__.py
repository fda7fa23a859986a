"""Texts that become vectors: many as one request."""
