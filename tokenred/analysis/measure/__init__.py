"""Measurements: accuracy, speed, memory, and what happens to tokens; each returns one result."""
