"""The README's code runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tokenred.strategies.base import scorers

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number: int) -> None:
    code = BLOCKS[number]
    if "downloads weights" in code:  # the embedded model's place: the same lines otherwise
        code = code.replace("pretrained=True", "pretrained=False")
    try:
        exec(compile(code, f"README block {number}", "exec"), {"__name__": "__main__"})
    finally:
        scorers._entries.pop("normattn", None)


def test_says_the_two_commands_and_names_every_part() -> None:
    import tokenred as tr

    assert "make demo" in TEXT
    assert "make test" in TEXT
    lists = [tr.list_scorers(), tr.list_graphs(), tr.list_fusers(), tr.list_strategies()]
    for name in [n for names in [*lists, tr.list_schedules()] for n in names]:
        assert f"`{name}`" in TEXT, f"{name} is missing in the README"
