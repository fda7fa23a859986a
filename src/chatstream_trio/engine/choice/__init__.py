"""How a stream's tokens are chosen."""
