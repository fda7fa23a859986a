"""Languages that an answer has to belong to, and what they mean in a model's vocabulary."""
