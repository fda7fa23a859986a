"""Bodies of requests: bounded, unpacked, and cut into fields. Knows no API and no service."""
