"""Used once, while a model is loaded. Nothing that runs turns imports it."""
