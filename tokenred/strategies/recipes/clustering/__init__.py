"""Methods that cluster tokens, or assign them softly to new ones."""
