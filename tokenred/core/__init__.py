"""State, strategy, block loop: what the rest is built on."""
