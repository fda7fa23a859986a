"""Text in, tokens out, and back. Pure: neither trio nor torch is imported here."""
