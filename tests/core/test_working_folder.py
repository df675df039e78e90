"""What lies in the working folder is not imported, by no way in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokenred.core.plugins import is_working_folder

ROOT = Path(__file__).parents[2]
CODE = """
import os, sys
sys.path.insert(0, os.getcwd())
from tokenred.core.plugins import load_plugins
print([plugin.value for plugin in load_plugins()])
"""


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A working folder with a plug-in and a module named like a library."""
    info = tmp_path / "here" / "evil-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0")
    (info / "entry_points.txt").write_text("[tokenred.plugins]\nx = evil_plugin")
    for name in ("evil_plugin.py", "numpy.py"):
        (info.parent / name).write_text("open('RAN', 'w').close()")
    return info.parent


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not (folder / "RAN").exists(), arguments
    return done.stdout


def test_plug_ins_come_from_elsewhere(evil: Path) -> None:
    # As in a program that was started with -m, whose path has the working folder by its name.
    assert python(evil, "-P" if sys.version_info >= (3, 11) else "-I", "-c", CODE) == "[]\n"


@pytest.mark.parametrize("given", ["mine", pytest.param("./mine.py", marks=pytest.mark.slow)])
def test_the_command_and_its_imports_come_from_elsewhere(evil: Path, given: str) -> None:
    (evil / "mine.py").write_text("import tokenred")
    assert "no plug-ins" in python(evil, "-m", "tokenred", "--import", given, "list", "plugins")


def test_a_folder_that_is_asked_for_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert is_working_folder("")
    assert is_working_folder(str(tmp_path))
    assert not is_working_folder("/somewhere")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert not is_working_folder(str(tmp_path))
