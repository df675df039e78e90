"""The gallery: its pictures are there and small, its commands can be read."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command

from tokenred.cli.app import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", TEXT)
BLOCKS = re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]
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


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_can_be_read(line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "tokenred"
    command = get_command(app)
    name = "tokenred"
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    # Refuses options that there are not; runs nothing.
    command.make_context(name, arguments)
