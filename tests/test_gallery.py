"""The gallery: its pictures are there and small."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", TEXT)
MOST = 150_000  # bytes


@pytest.mark.parametrize(("words", "path"), PICTURES, ids=[path for _, path in PICTURES])
def test_pictures(words: str, path: str) -> None:
    place = ROOT / "docs" / path
    assert len(words) > 20
    assert place.stat().st_size < MOST or "/gallery/" not in path
    with Image.open(place) as image:
        image.verify()


def test_the_script_makes_the_pictures_that_are_shown() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "gallery.py"))
    made = {*script["FIGURES"], *script["TOKEN_PICTURES"], *script["OTHERS"]}
    assert made == {Path(path).stem for _, path in PICTURES if "/gallery/" in path}
    assert {study for study, _ in script["FIGURES"].values()} == set(script["STUDIES"])
