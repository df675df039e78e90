"""``python -m tokenred``."""

from __future__ import annotations

from tokenred.cli import main

if __name__ == "__main__":
    main()
