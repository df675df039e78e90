"""Run the tests that matter most with the lowest versions that pyproject.toml declares.

Run ``make lowest``; further arguments go to pytest, in the place of the usual tests. Makes
``.venv-lowest`` with uv, anew where the declared versions have changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-lowest"
# The lowest NumPy, pandas and SciPy have wheels for no newer Python.
PYTHONS = ("3.10", "3.11")
# Triton 3.2, which comes with PyTorch 2.6, imports setuptools without saying so.
BESIDE = ("pytest-xdist>=3.6.1", "setuptools<80")
TESTS = (
    "tests/core/test_config.py",
    "tests/core/test_plan.py",
    "tests/core/test_registry.py",
    "tests/core/test_saving.py",
    "tests/cli/test_listing.py",
    "tests/data/test_zip_archive.py",
    "tests/graphs",
    "tests/models/test_rebuild.py",
    "tests/strategies/fusers",
    "tests/strategies/scorers",
    "tests/test_golden.py",
)


def pins(project: dict[str, Any]) -> list[str]:
    """The run-time dependencies and those of the tests, each at its lowest version.

    Raises:
        ValueError: for a dependency without one.
    """
    asked = [*project["dependencies"], *project["optional-dependencies"]["testing"]]
    found = []
    for text in asked:
        name, least, rest = re.fullmatch(r"([\w.-]+)(?:>=([\w.]+))?(.*)", text).groups()  # type: ignore[union-attr]
        if least is None:
            raise ValueError(f"pyproject.toml declares no lowest version: {text!r}")
        found.append(f"{name}=={least}{rest}")
    return found


def make(uv: str) -> Path:
    """The environment's python; made anew where the versions have changed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = "\n".join([*pins(project), *BESIDE]) + "\n"
    python, stamp = VENV / "bin" / "python", VENV / "pins.txt"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(VENV, ignore_errors=True)
    for version in PYTHONS:
        made = subprocess.run([uv, "venv", "--quiet", "--python", version, str(VENV)])
        if made.returncode == 0:
            break
    else:
        raise SystemExit(f"no Python {' or '.join(PYTHONS)} for the lowest versions")
    half = VENV / "pins.half"
    half.write_text(wanted, encoding="utf-8")
    install = [uv, "pip", "install", "--python", str(python), "-r", str(half)]
    if subprocess.run(install).returncode:  # perhaps for want of the system's certificates
        certificates = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
        subprocess.run(install, check=True, env=os.environ | certificates)
    half.rename(stamp)
    return python


def main() -> int:
    """Make the environment and run pytest in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pytest", nargs="*", default=TESTS, help="what goes to pytest")
    args = parser.parse_args()
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        print("make lowest needs uv (pip install uv)", file=sys.stderr)
        return 1
    python = make(uv)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([python, "-m", "pytest", *args.pytest], cwd=ROOT, env=env)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
