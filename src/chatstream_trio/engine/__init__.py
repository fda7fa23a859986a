"""The engine: turns of one model on one dedicated thread."""
