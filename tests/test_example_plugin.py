"""The example package is installed as a user would, beside a broken one, and used."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "tokenred-example"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed into; no network is needed."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the example, is missing")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-index", "--no-deps",
        "--no-build-isolation", "--disable-pip-version-check", "--target", folder, EXAMPLE,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose plug-in registers a part and then fails."""
    folder = tmp_path_factory.mktemp("broken")
    info = folder / "broken_parts-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-parts\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[tokenred.plugins]\nhalf = broken_parts\n")
    (folder / "broken_parts.py").write_text(
        "import tokenred as tr\n"
        "@tr.register_scorer('HalfDone')\nclass HalfDone(tr.Scorer): pass\n"
        "raise RuntimeError('out of order')\n"
    )
    return folder


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """Runs Python in an empty folder, with the example installed."""

    def call(*arguments: object, more: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(str(p) for p in (site, *more, ROOT))
        env = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "TOKENRED_"))}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env=env
            | {
                "PYTHONPATH": path,
                "COLUMNS": "250",
                "PYTHONDONTWRITEBYTECODE": "1",
                "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    return call


def test_listed_beside_a_broken_one(run: Run, broken: Path) -> None:
    done = run("-m", "tokenred", "list", more=(broken,))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for name in ("Contrast", "window", "spread", "contrast"):
        (line,) = [text for text in lines if text.startswith(f"{name} ")]
        assert line.rstrip().endswith("tokenred-example 0.1.0")
    (line,) = [text for text in lines if text.startswith("gtp ")]
    assert "tokenred.strategies.recipes.gtp" in line
    assert "HalfDone" not in done.stdout
    (line,) = [text for text in lines if text.startswith("broken-parts 2.0")]
    assert "half = broken_parts" in line
    assert done.stderr.count("tokenred: warning: ") == 1
    assert (
        "the plug-in 'half' (broken_parts) of broken-parts 2.0 is skipped, with everything it "
        "registers: RuntimeError: out of order." in done.stderr
    )


def test_compared(run: Run, tmp_path: Path) -> None:
    done = run(
        "-m", "tokenred", "compare", "--model", "digits", "--limit", 32, "--no-timing",
        "--out", "out", "-s", "contrast:keep_rate=0.5", "-s", "gtp:P=4,scorer=Contrast",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "contrast" in done.stdout
    assert list((tmp_path / "out").glob("*.csv"))


def test_its_own_tests_pass(run: Run) -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


@pytest.mark.slow
def test_in_worker_processes(run: Run, tmp_path: Path) -> None:
    done = run(
        "-m", "tokenred", "ablate", "--base", "contrast", "--axis", "keep_rate=0.5,0.7",
        "--limit", 16, "--engine", "processes", "--workers", 1, "--threads", 1,
        "--against", "none", "--store", "s.db", "--output", "rows.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3
