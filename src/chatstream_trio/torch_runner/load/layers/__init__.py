"""The layers of a model, made smaller or faster. They know no architecture, and no runner."""
