"""The README says what it must."""

from __future__ import annotations

from pathlib import Path

from tokenred.core.registry import KINDS

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_says_the_two_commands_and_names_every_part() -> None:
    assert "make demo" in TEXT
    assert "make test" in TEXT
    # Only what tokenred brings itself: a test module may register parts of its own on import.
    ours = [e.name for r in KINDS.values() for e in r if e.source.startswith("tokenred.")]
    assert len(ours) > 20
    for name in ours:
        assert f"`{name}`" in TEXT, f"{name} is missing in the README"
