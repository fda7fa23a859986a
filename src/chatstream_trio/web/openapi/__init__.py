"""What the server says of itself: every path, what it takes and what it gives."""
