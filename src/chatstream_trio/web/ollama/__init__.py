"""Ollama's API, for the front-ends that look for one."""
