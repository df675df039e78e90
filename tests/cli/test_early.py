"""What is refused before PyTorch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from tests.cli.conftest import Run
from tokenred.cli.app import app
from tokenred.cli.early import OPTIONS

WRITES = {
    "ablate -a P=4 -o new.csv": "new.csv",
    "agreement": "tokenred-out/agreement/agreement.png",
    "agreement --output out": "out/agreement.csv",
    "bench": "tokenred-out/bench/results.db",
    "compare": "tokenred-out/comparison.csv",
    "compare --out=out": "out/comparison.csv",
    "oversmoothing --out out": "out/oversmoothing.png",
    "export -o mine.onnx": "mine.onnx",
    "finetune -s evit -o out": "out/state.pt",
    "finetune -s evit -o out --dry-run": "out/log.csv",
    "graph --demo": "tokenred-out/graph.png",
    "oversmoothing": "tokenred-out/oversmoothing/oversmoothing.csv",
    "plot lines mine.csv": "lines.png",
    "report mine.csv": "report.html",
    "show --demo": "tokens.png",
}
MISSING = {
    "ablate none.toml": "the study file none.toml",
    "compare --checkpoint none.pth": "the weights none.pth",
    "compare --class-map none.json": "the class map none.json",
    "graph none.png": "the photograph none.png",
    "plot lines none.csv": "read none.csv",
    "report none.db": "read none.db",
    "show none.png": "the photograph none.png",
    "show --demo --classes none.txt": "the names of the classes none.txt",
}
CONTRARY = [f"{name} --resume --overwrite" for name in ("bench", "compare", "finetune -s evit")]
MISTYPED = {
    "compare --strateg gtp": "Did you mean --strategy?",
    "reproduce --no-progres": "Did you mean --progress?",
    "list --zzz": "unknown option --zzz. --help lists",
}
# One interpreter for all, since to start one takes longest.
PROGRAM = """
import sys
from pathlib import Path
from tokenred.cli import main

for line in sys.argv[1:]:
    words, _, old = line.partition(" > ")
    if old:
        Path(old).parent.mkdir(parents=True, exist_ok=True)
        Path(old).write_text("mine")
    try:
        main(words.split())
    except SystemExit as left:
        assert left.code == 2, (words, left.code)
    if old:
        assert Path(old).read_text() == "mine"
        Path(old).unlink()
    assert not {"torch", "timm", "pandas"} & set(sys.modules), words
"""


def test_files_are_looked_at_before_anything_is_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a")
    lines = [f"{words} > {old}" for words, old in WRITES.items()]
    lines += [*MISSING, *CONTRARY, *MISTYPED]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *lines], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    told = ran.stderr.splitlines()
    assert len(told) == len(lines)
    for line, words in zip(told, [*WRITES, *MISSING, *CONTRARY, *MISTYPED], strict=True):
        assert line.startswith("tokenred: "), line
        assert (MISSING | MISTYPED).get(
            words, "choose one" if words in CONTRARY else "--overwrite"
        ) in line


def test_the_options_are_those_of_the_commands() -> None:
    def names(program: App) -> set[str]:
        found: set[str] = set()
        for name in program:
            if name.startswith("-"):
                found.add(name)
                continue
            command = program[name]
            if command.default_command is not None:
                arguments = command.assemble_argument_collection()
                found |= {option for argument in arguments for option in argument.names}
            found |= names(command)
        return found

    there = names(app) | {"--help", "--version", "--import", "--traceback"}
    plain = {name[2:] for name in there if name.startswith("--")} - {""}
    assert {name for name in plain if not name.startswith(("no-", "empty-"))} == OPTIONS


@pytest.mark.parametrize("words", ["report --help", "plot lines --help", "show -h", "list routers"])
def test_help_is_never_refused(run: Run, words: str) -> None:
    Path("report.html").write_text("mine")
    Path("tokens.png").write_text("mine")
    assert run(*words.split()).exit_code == 0
