"""The rules for what a caller asks for, whatever the API: each names the place that breaks it."""
