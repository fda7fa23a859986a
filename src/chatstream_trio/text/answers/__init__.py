"""What a model's answer is made of: text, reasoning and tool calls, as each family writes them."""
