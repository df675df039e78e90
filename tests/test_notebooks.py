"""Notebooks as they are stored: no outputs, a title, a line in the table."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
TABLE = (FOLDER / "README.md").read_text(encoding="utf-8")
LONGEST = 15
PART = re.compile(r"^@tr\.register_(scorer|graph|fuser)\(", re.MULTILINE)

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def _cells(path: Path, kind: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def _source(cell: dict[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def test_there_are_some() -> None:
    assert len(PATHS) >= 5


@each
def test_stripped(path: Path) -> None:
    for cell in _cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert "execution" not in cell["metadata"]


@each
def test_title_and_kernel(path: Path) -> None:
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert whole["metadata"]["kernelspec"]["name"] == "python3"
    first = whole["cells"][0]
    assert first["cell_type"] == "markdown"
    assert re.match(r"# \S", _source(first))
    titles = [line for c in whole["cells"] for line in _source(c).splitlines()
              if c["cell_type"] == "markdown" and line.startswith("# ")]  # fmt: skip
    assert len(titles) == 1


@each
def test_cells_have_names_that_stay(path: Path) -> None:
    ids = [cell["id"] for kind in ("code", "markdown") for cell in _cells(path, kind)]
    assert len(ids) == len(set(ids))
    assert not [name for name in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", name)]


@each
def test_in_the_table(path: Path) -> None:
    (row,) = [line for line in TABLE.splitlines() if f"({path.name})" in line]
    assert f"[{path.stem}]" in row
    assert re.search(r"\| *[1-9]\d* \|$", row), "the seconds it takes"


@each
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(_source(cell) for cell in _cells(path, "markdown"))
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (FOLDER / target).exists(), target


@each
def test_no_path_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/|\.\./shared", text)


def test_parts_are_short() -> None:
    cells = [_source(cell) for cell in _cells(FOLDER / "02_compose_a_method.ipynb", "code")]
    parts = {found[1]: cell for cell in cells if (found := PART.match(cell))}
    assert set(parts) == {"scorer", "graph", "fuser"}
    for kind, cell in parts.items():
        ast.parse(cell)
        assert len(cell.rstrip().splitlines()) <= LONGEST, kind
        assert any(f"check_{kind}(" in other for other in cells), f"nothing checks the {kind}"
