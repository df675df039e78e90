"""What a model costs."""

from __future__ import annotations

from tokenred.reduced.wrap import dense, gmacs

__all__ = ["dense", "gmacs"]
