"""A notebook as a page: its prose, its code and its outputs, in Markdown."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

__all__ = ["notebook_page"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STYLE = re.compile(r"<style.*?</style>", re.DOTALL)


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook, executed or not, and its pictures by name."""
    pieces: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = _joined(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            pieces.append(source)
        elif cell["cell_type"] == "code" and source:
            pieces.append(_fence(source, "python"))
            for output in cell["outputs"]:
                name = f"{path.stem}-{number}-{len(pictures)}.png"
                pieces.append(_output(output, name, pictures))
    return "\n\n".join(piece for piece in pieces if piece) + "\n", pictures


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    if output["output_type"] == "stream":
        return _text(_joined(output["text"]))
    data = output.get("data", {})
    if "image/png" in data:
        pictures[name] = base64.b64decode(_joined(data["image/png"]))
        return f"![Figure drawn by the cell]({name})"
    if "text/html" in data:
        html = _STYLE.sub("", _joined(data["text/html"]))
        # A blank line would end the HTML block.
        lines = [line.strip() for line in html.splitlines() if line.strip()]
        return '<div class="output">\n' + "\n".join(lines) + "\n</div>"
    if "text/markdown" in data:
        return _joined(data["text/markdown"])
    return _text(_joined(data.get("text/plain", "")))


def _text(text: str) -> str:
    # Of a progress bar that rewrites its line, the last state remains.
    lines = [line.rsplit("\r", 1)[-1] for line in _COLOUR.sub("", text).split("\n")]
    shown = "\n".join(lines).strip("\n")
    return f'<div class="output" markdown>\n{_fence(shown, "text")}\n</div>' if shown else ""


def _fence(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{language}\n{text}\n{marks}"


def _joined(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
