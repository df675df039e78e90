"""The README's code runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import REGISTRIES

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number: int) -> None:
    code = BLOCKS[number]
    if "downloads weights" in code:  # the embedded model's place: the same lines otherwise
        code = code.replace("pretrained=True", "pretrained=False")
    exec(compile(code, f"README block {number}", "exec"), {"__name__": "__main__"})


def test_says_the_two_commands_and_names_every_part() -> None:
    assert "make demo" in TEXT
    assert "make test" in TEXT
    # Only what tokenred brings itself: a test module may register parts of its own on import.
    ours = [e.name for r in REGISTRIES for e in r if e.source.startswith("tokenred.")]
    assert len(ours) > 20
    for name in ours:
        assert f"`{name}`" in TEXT, f"{name} is missing in the README"
