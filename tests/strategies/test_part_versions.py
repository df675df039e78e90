"""What scripts/part_versions.py notes of the parts is what they are."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "part_versions.py"))
NOTED: dict[str, list[Any]] = json.loads(SCRIPT["NOTED"].read_text(encoding="utf-8"))
STUBS: dict[Path, str] = SCRIPT["stubs"]()
FOUND: dict[str, tuple[int, str]] = SCRIPT["look"]()


@pytest.mark.parametrize("name", sorted({*NOTED, *FOUND}))
def test_the_number_is_raised(name: str) -> None:
    assert list(FOUND.get(name, ())) == NOTED.get(name), (
        f"{name} is another one than noted. Raise `version` in the class if its results are "
        "others, so that no stored one is found again; then run scripts/part_versions.py."
    )


@pytest.mark.parametrize("path", STUBS, ids=lambda path: path.parent.name)
def test_checkers_know_every_part(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == STUBS[path], "run scripts/part_versions.py"
