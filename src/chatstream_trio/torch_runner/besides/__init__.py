"""What a turn gives besides tokens, for those who ask."""
