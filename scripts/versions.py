"""Versions of the dependencies: install the tested ones, raise them, try the lowest and newest.

`make` calls this: ``install EXTRAS`` (into the environment that runs it, with constraints.txt),
``upgrade`` (writes constraints.txt), ``lowest`` and ``newest`` (the most important tests in a
separate environment; further arguments are passed to pytest instead of those tests).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTED = ROOT / "constraints.txt"
# uv has its own certificates; behind a TLS proxy only the system's work (the second name is for
# older versions).
CERTIFICATES = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
# The lowest NumPy, pandas and SciPy have no wheels for newer versions of Python.
LOWEST_PYTHON = ">=3.10,<3.12"
# Triton 3.2, which comes with PyTorch 2.6, imports setuptools without declaring it; what
# matplotlib 3.8 calls, pyparsing 3.3 warns of.
BESIDE = ("pyparsing<3.3", "pytest-xdist>=3.6.1", "setuptools<80")
# What touches each dependency.
TESTS = (
    "tests/test_golden.py",
    "tests/core/test_progress.py",  # tqdm
    "tests/core/test_values.py",  # annotated-types, typing-extensions
    "tests/strategies/test_config.py",  # tomli, tomli-w
    "tests/graphs/test_graph.py",  # networkx, scipy, jaxtyping, hypothesis
    "tests/data/test_open.py",  # pillow
    "tests/backbones/test_forms.py::test_opened",  # timm
    "tests/backbones/test_forms.py::test_precisions",
    "tests/models/test_rebuild.py",
    "tests/models/test_checkpoint_file.py",  # pydantic
    "tests/reduced/test_saving.py",  # safetensors
    "tests/reduced/test_static_graphs.py",  # what PyTorch compiles and exports
    "tests/analysis/study/test_store.py",  # pandas
    "tests/analysis/study/test_engines.py::test_as_in_process",  # cloudpickle, loky
    "tests/analysis/plots/test_tradeoff.py",  # matplotlib
    "tests/analysis/plots/test_heat_map.py",  # seaborn
    "tests/analysis/reports/test_report.py",  # jinja2
    "tests/cli/test_listing.py",  # cyclopts, docstring-parser, rich
)


def find_uv() -> str | None:
    """The uv next to this Python, or the one on the PATH."""
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv")


def run_uv(arguments: Sequence[str]) -> bool:
    """Run uv, if necessary with the system's certificates; return whether it succeeded."""
    uv = find_uv()
    if uv is None:
        return False
    command, again = [uv, *arguments], os.environ | CERTIFICATES
    return not subprocess.call(command) or not subprocess.call(command, env=again)


def install(extras: str) -> int:
    """Install the project with its extras: the tested versions, or else any that install here."""
    project = ["-e", f"{ROOT}[{extras}]"]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    for versions in (["-c", str(TESTED)], []):
        if not versions:
            print(f"== the versions in {TESTED.name} do not install here: taking the newest")
        if run_uv(["pip", "install", "--python", sys.executable, *versions, *project]):
            return 0
        print("== uv could not install them: trying pip, which is slower")
        if not subprocess.call([*pip, *versions, *project]):
            return 0
    return 1


def resolve(output: Path) -> None:
    """Write the newest compatible versions, for every version of Python and system."""
    options = ["--universal", "--python-version", "3.10", "--extra", "dev", "--extra", "docs"]
    quiet = ["--upgrade", "--no-annotate", "--no-header", "--quiet"]
    source = str(ROOT / "pyproject.toml")
    if not run_uv(["pip", "compile", *options, *quiet, source, "--output-file", str(output)]):
        raise SystemExit("uv could not resolve the dependencies (is it installed? pip install uv)")


def pins(project: dict[str, Any]) -> list[str]:
    """The dependencies at run time and of the tests, each at its lowest version.

    Raises:
        ValueError: for a dependency without a lowest version.
    """
    asked = [*project["dependencies"], *project["optional-dependencies"]["testing"]]
    found = []
    for text in asked:
        name, least, rest = re.fullmatch(r"([\w.-]+)(?:>=([\w.]+))?(.*)", text).groups()  # type: ignore[union-attr]
        if least is None:
            raise ValueError(f"pyproject.toml declares no lowest version: {text!r}")
        found.append(f"{name}=={least}{rest}")
    return found


def environment(name: str, wanted: str, base: str) -> Path:
    """The Python of an environment with these packages; recreated if they changed."""
    venv = ROOT / f".venv-{name}"
    python, stamp = venv / "bin" / "python", venv / "pins.txt"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(venv, ignore_errors=True)
    if not run_uv(["venv", "--quiet", "--python", base, str(venv)]):
        raise SystemExit(f"uv found no Python {base} for the {name} versions")
    half = venv / "pins.half"
    half.write_text(wanted, encoding="utf-8")
    if not run_uv(["pip", "install", "--quiet", "--python", str(python), "-r", str(half)]):
        raise SystemExit(f"the {name} versions do not install")
    half.rename(stamp)
    return python


def lowest() -> Path:
    """The Python with the lowest declared versions."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = "\n".join([*pins(project), *BESIDE]) + "\n"
    return environment("lowest", wanted, LOWEST_PYTHON)


def newest() -> Path | None:
    """The Python with the newest versions; None if those are the tested ones."""
    with tempfile.TemporaryDirectory() as folder:
        resolve(found := Path(folder, "newest.txt"))
        wanted = found.read_text(encoding="utf-8")
    tested = set(TESTED.read_text(encoding="utf-8").splitlines())
    if not (raised := [line for line in wanted.splitlines() if line not in tested]):
        print(f"{TESTED.name} already has the newest versions")
        return None
    print("newer than tested:", *raised, sep="\n  ")
    return environment("newest", wanted, sys.executable)


def main() -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("install", "upgrade", "lowest", "newest"))
    parser.add_argument("rest", nargs="*", help="extras to install, or arguments for pytest")
    args = parser.parse_args()
    if args.what == "install":
        return install(",".join(args.rest) or "dev")
    if args.what == "upgrade":
        resolve(TESTED)
        print(f"wrote {TESTED.name}; run make test before you commit it")
        return 0
    python = lowest() if args.what == "lowest" else newest()
    if python is None:
        return 0
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.call([python, "-m", "pytest", *(args.rest or TESTS)], cwd=ROOT, env=env)


if __name__ == "__main__":
    sys.exit(main())
