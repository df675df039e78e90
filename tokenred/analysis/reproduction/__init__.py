"""The GTP paper's experiments: run again, and set beside what was published."""
