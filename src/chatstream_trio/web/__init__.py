"""HTTP in front of the service. Never imports torch."""
