"""The table and the sentences of a comparison."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from tokenred.analysis.results import Comparison
from tokenred.core.errors import OutputExistsError


def make(images: bool = True, skipped: int = 0, **options: Any) -> Comparison:
    rows = [
        {"strategy": "dense", "tokens": (64,) * 5, "gmacs": 1.0},
        {"strategy": "gtp[P=4]", "tokens": (64, 60, 50, 40, 30), "gmacs": 0.51234},
    ]
    evaluations: Any = {}
    if images:
        rows[0] |= {"top1": 80.0, "images": 1}
        rows[1] |= {"top1": 79.0, "images": 1, "difference": -0.001, "difference_low": -2.5,
                    "difference_high": 1.5}  # fmt: skip
        evaluations = {
            "dense": SimpleNamespace(skipped=[(f"{i}.jpg", "cut") for i in range(skipped)])
        }
    frame = pd.DataFrame(rows).assign(
        model="ViT", data="digits" if images else "", tokenred="0", torch="2", timm="1", seed=3,
        weights="abc",
    )  # fmt: skip
    return Comparison(frame, evaluations, None, **options)


def test_the_table() -> None:
    text = str(make(level=0.9, notes=("a note",)))
    title, *lines = text.splitlines()
    assert title.strip() == "ViT on digits"
    assert "[90% paired interval]" in text
    row = next(line for line in lines if "gtp" in line)
    # Brackets are no markup, nothing is −0.00, tokens are those at the quarters of the depth.
    assert row.split() == ["gtp[P=4]", "64→60→50→40→30", "0.512", "79.00", "+0.00", "[-2.50,",
                           "+1.50]"]  # fmt: skip
    assert "Accuracy: 1 image, the same for all rows." in text
    assert "seed 3, weights abc." in text
    assert lines[-1] == "a note"


def test_without_images() -> None:
    made = make(images=False)
    text = str(made)
    assert "top-1" not in text
    assert "Accuracy" not in text
    assert text.splitlines()[0].strip() == "ViT"
    assert made.resolution() == ""


def test_what_so_many_images_can_tell() -> None:
    told = make().resolution()
    assert told.startswith("What 1 images can tell: the 95% intervals are 4.0 to 4.0 points wide.")
    assert "more than about 2.0 points shows" in told


def test_unreadable_images_are_named() -> None:
    (line,) = [line for line in make(skipped=7).footnotes() if line.startswith("Left out")]
    names = "; ".join(f"{i}.jpg (cut)" for i in range(5))
    assert line == f"Left out: 7 unreadable images: {names}; and 2 more."


def test_the_csv_is_not_overwritten(tmp_path: Path) -> None:
    path = make().to_csv(tmp_path / "a.csv")
    assert pd.read_csv(path)["strategy"].tolist() == ["dense", "gtp[P=4]"]
    with pytest.raises(OutputExistsError):
        make().to_csv(path)
    make(images=False).to_csv(path, overwrite=True)
    assert "top1" not in pd.read_csv(path)
