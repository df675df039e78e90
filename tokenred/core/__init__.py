"""The base layer: parts, registries, the token state, errors, files."""
