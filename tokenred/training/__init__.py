"""Training: the recipe that made the embedded weights."""
