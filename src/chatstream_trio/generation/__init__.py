"""One request's life, from its ticket to its last event."""
