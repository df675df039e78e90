"""The code of the pages in docs/ runs as it is printed, block after block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("dense.md",)


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(blocks):
        if "downloads weights" in code:  # random ones in their place: the same lines otherwise
            code = code.replace("pretrained=True", "pretrained=False")
        exec(compile(code, f"{page} block {number}", "exec"), names)
    if page == "dense.md":
        assert tuple(names["soft_tokens"].shape[::2]) == (2, 64)
        assert [tuple(found.shape) for found in names["encoder"](names["images"])] == [
            (2, 384, 8, 8)
        ] * 4
        assert names["encoder"].feature_info.reduction() == [14] * 4
