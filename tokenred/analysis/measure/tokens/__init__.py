"""What happens to the tokens: oversmoothing, their graphs, and which of them methods keep."""

from __future__ import annotations

__all__: list[str] = []
