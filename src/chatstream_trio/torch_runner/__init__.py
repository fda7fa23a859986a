"""A runner with a transformers model: one forward pass a turn for everybody."""
