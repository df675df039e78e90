"""A part whose code changed raises its number where its results changed, too."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "part_versions.py"))
NOTED: dict[str, list[Any]] = json.loads(SCRIPT["NOTED"].read_text(encoding="utf-8"))
FOUND: dict[str, tuple[int, str]] = SCRIPT["look"]()


@pytest.mark.parametrize("name", sorted({*NOTED, *FOUND}))
def test_the_number_is_raised(name: str) -> None:
    assert list(FOUND.get(name, ())) == NOTED.get(name), (
        f"{name} is another one than noted. Raise `version` in the class if its results are "
        "others, so that no stored one is found again; then run scripts/part_versions.py."
    )
