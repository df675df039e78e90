"""Attention on the CPU in tiles that stay in the cache, with statistics."""
