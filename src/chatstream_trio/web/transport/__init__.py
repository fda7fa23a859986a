"""Bytes, connections and the server. It knows no chat."""
