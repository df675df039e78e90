"""The README says what it must."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_screen_has_the_picture_the_two_commands_and_the_table() -> None:
    first = TEXT.split("\n## ")[0]
    assert len(first.splitlines()) < 50
    for wanted in ("make demo", "make test", "tr.wrap(", "images/speedup.png", "| `gtp:P=8` |"):
        assert wanted in first


def test_every_page_can_be_reached() -> None:
    linked = set(re.findall(r"\]\(docs/([^)]+\.md)\)", TEXT))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    # The last is reached from the first.
    assert pages - linked == set()
