"""``--import``: parts of a file or module are there for every command, its workers included."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenred as tr
from tests.cli.conftest import Run
from tokenred.core.errors import ConfigError

PARTS = '''
import tokenred as tr
from helper_of_parts import HALF


@tr.register_scorer("Corner")
class Corner(tr.Scorer):
    """Later positions stay."""

    def __call__(self, state, attention):
        return state.index.to(state.x.dtype)


@tr.register_fuser("half")
class Half(tr.Fuser):
    """Tokens that stay are weighted."""

    weight: float = HALF

    def transport(self, state, selection, graph, attention):
        stay = state.x.new_full(selection.keep.shape, self.weight)
        return tr.Transport(selection.keep, selection.drop, stay=stay)


@tr.register_strategy("cornered")
def cornered(*, P=4, weight=HALF):
    """Corner and half."""
    return tr.Strategy("Corner", fuser=Half(weight), schedule=P)
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the file of parts; nothing imported from it outlives the test."""
    (tmp_path / "my_parts.py").write_text(PARTS, encoding="utf-8")
    (tmp_path / "helper_of_parts.py").write_text("HALF = 0.5\n", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def test_a_file_given_twice_anywhere_is_listed(run: Run, folder: Path) -> None:
    file = folder / "my_parts.py"
    result = run("--import", file, "list", f"--import={file}")
    assert result.exit_code == 0
    for word in ("Corner", "half", "cornered", "my_parts", "Corner and half."):
        assert word in result.stdout


def test_a_module_of_the_working_folder(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert "Corner" in run("--import", "my_parts", "list", "scorers").stdout


def test_compare_and_show(run: Run, folder: Path) -> None:
    file = folder / "my_parts.py"
    compared = run(
        "compare", "--import", file, "-s", "cornered:P=2", "-s", "gtp:fuser=half,P=2",
        "--limit", 6, "--no-timing", "--out", folder / "out",
    )  # fmt: skip
    assert compared.exit_code == 0, compared.output
    assert "cornered:P=2" in compared.stdout
    shown = run("show", "--import", file, "--demo", "-s", "cornered", "-o", folder / "a.png")
    assert shown.exit_code == 0, shown.output
    assert (folder / "a.png").exists()


@pytest.mark.parametrize(
    "words", ["export -o a.pt2 -s cornered", "ablate -a scorer=Corner --dry-run"]
)
def test_a_forgotten_import_is_hinted_at(run: Run, words: str) -> None:
    assert "name the file that registers it: --import FILE.py" in run(*words.split()).refusal


def test_worker_processes_know_the_parts(run: Run, folder: Path) -> None:
    result = run(
        "--import", folder / "my_parts.py", "ablate", "--base", "cornered",
        "--axis", "weight=0.5,1.0", "--limit", 6, "--engine", "processes", "--workers", 1,
        "--store", folder / "a.db",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with tr.analysis.Store(folder / "a.db", readonly=True) as store:
        frame = store.frame()
    assert (frame["status"] == "done").all()
    assert len(frame) == 3  # and the dense model


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("of_syntax.py", "x = (1\n", "of_syntax.py, line 1: SyntaxError: '(' was never closed"),
        ("of_name.py", "\nimport nothing_such\n", "line 2: ModuleNotFoundError: No module named"),
        (
            "of_ours.py",
            "import tokenred as tr\n\ntr.register_scorer('X')(int)\n",
            "of_ours.py, line 3: PartError: scorer 'X': int must derive from tokenred.Scorer",
        ),
        ("of_exit.py", "raise SystemExit(3)\n", "of_exit.py, line 1: SystemExit: 3"),
    ],
)
def test_a_failing_import_says_where(
    run: Run, folder: Path, name: str, text: str, told: str
) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    result = run("--import", folder / name, "list")
    assert result.exit_code == 2
    assert told in result.stderr
    assert name in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert Path(name).stem not in sys.modules
    assert isinstance(run("--traceback", "--import", folder / name, "list").exception, ConfigError)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nowhere.py", "expected a Python file for --import, found none at nowhere.py"),
        ("no_such_module", "got 'no_such_module', which cannot be found"),
        ("no.such.module", "got 'no.such.module', which cannot be found"),
        ("", "got '', which cannot be found"),
        ("json.py", "has the same name as the module 'json'"),
        ("sys.py", "rename the file"),
    ],
)
def test_what_is_not_there_or_named_like_another_module(run: Run, given: str, told: str) -> None:
    if given in ("json.py", "sys.py"):
        Path(given).write_text(PARTS, encoding="utf-8")
    assert told in run("--import", given, "list").refusal
