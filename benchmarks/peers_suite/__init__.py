"""What the comparison with other servers is made of; run it with ``python -m benchmarks.peers``."""
