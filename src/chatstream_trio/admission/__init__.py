"""Seats and the waiting room: who may compute now, and who is next."""
