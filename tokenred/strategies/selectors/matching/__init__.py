"""Selectors that match tokens in pairs."""
