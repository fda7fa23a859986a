"""A second, small model that gives vectors: a forward pass of its own. No trio."""
