"""Methods that merge tokens."""
