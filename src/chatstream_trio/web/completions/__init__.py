"""OpenAI's completions: what comes after a text, or after tokens, as they are."""
