"""Check the contents of wheel and sdist, then try both in a fresh environment.

Run ``python scripts/check_wheel.py dist`` after building; ``--no-install`` skips the trial.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tokenred"
FOLDERS = ("strategies", "graphs", "analysis")
# Files that the package reads at run time, besides its code.
DATA = {".py", ".typed", ".safetensors", ".npz", ".csv", ".json", ".toml", ".txt"}
OUTPUTS = (".pyc", ".db", ".log", ".executed.ipynb")
# The sdist contains the tests and the files they read, so that packagers can run them.
SOURCES = (
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "examples/tokenred-example/pyproject.toml",
    "pyproject.toml",
    "tests/conftest.py",
    f"{PACKAGE}/py.typed",
)


class WheelError(Exception):
    """Something is wrong with the wheel."""


def only(folder: Path, pattern: str) -> Path:
    """The only file that matches this pattern."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise WheelError(f"expected one {pattern} in {folder}, found: {names}")
    return found[0]


def package_files() -> set[str]:
    """The files of the package in this tree."""
    found = (p for p in (ROOT / PACKAGE).rglob("*") if p.is_file())
    return {
        p.relative_to(ROOT).as_posix()
        for p in found
        if "__pycache__" not in p.parts and (p.suffix in DATA or p.name == "py.typed")
    }


def check_wheel(wheel: Path) -> int:
    """Compare the wheel with the tree; returns the number of files."""
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if not n.endswith("/")}
    top = {n.split("/")[0] for n in names}
    info = {t for t in top if t.startswith(f"{PACKAGE}-") and t.endswith(".dist-info")}
    if len(info) != 1 or top != info | {PACKAGE}:
        raise WheelError(f"expected {PACKAGE} and its dist-info at top level, got {sorted(top)}")
    if f"{PACKAGE}/py.typed" not in names:
        raise WheelError(f"{PACKAGE}/py.typed is missing")
    if missing := package_files() - names:
        raise WheelError(f"missing from the wheel: {sorted(missing)}")
    for licence in ("LICENSE", "NOTICE"):
        if not any(n.endswith(f"/licenses/{licence}") for n in names):
            raise WheelError(f"{licence} is missing")
    return len(names)


def check_sdist(sdist: Path) -> None:
    """Check that the sdist contains the tests and no outputs of runs."""
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    bad = [n for n in names if n.endswith(OUTPUTS) or "/__pycache__/" in n or "/.venv/" in n]
    if bad:
        raise WheelError(f"the sdist contains outputs: {bad[:5]}")
    inside = {n.partition("/")[2] for n in names}
    if missing := sorted((package_files() | set(SOURCES)) - inside):
        raise WheelError(f"missing from the sdist: {missing[:5]}")


def call(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    """Run a command; if it fails, the error contains its output."""
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        line = " ".join(map(str, command))
        raise WheelError(f"failed ({done.returncode}): {line}\n{done.stdout}")
    return done.stdout


def install(wheel: Path, folder: Path, env: dict[str, str]) -> Path:
    """Create an environment with the wheel and its dependencies; return its Python."""
    venv = folder / "venv"
    python = venv / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    # The versions installed here: they have been tested, and are in the cache.
    pins = folder / "constraints.txt"
    here = {d.name: d.version for d in distributions() if d.name.lower() != PACKAGE}
    pins.write_text("".join(f"{n}=={v}\n" for n, v in sorted(here.items())), encoding="utf-8")
    if uv.exists():
        try:
            call(uv, "venv", "--python", sys.executable, venv, cwd=folder, env=env)
            call(
                uv, "pip", "install", "--python", python, "--constraint", pins, wheel,
                cwd=folder, env=env,
            )  # fmt: skip
            return python
        except WheelError as error:
            print(f"uv: {error}\ntrying pip")
    call(sys.executable, "-m", "venv", "--clear", venv, cwd=folder, env=env)
    call(
        python, "-m", "pip", "install", "--disable-pip-version-check", "--constraint", pins, wheel,
        cwd=folder, env=env,
    )  # fmt: skip
    return python


def reinstall(sdist: Path, python: Path, env: dict[str, str]) -> None:
    """Replace the installed wheel by one built from the sdist."""
    options = ("install", "--force-reinstall", "--no-deps", sdist)
    uv = Path(sys.executable).parent / "uv"
    # An environment made by uv has no pip.
    ours = [uv, "pip", *options, "--python", python] if uv.exists() else []
    pip = [python, "-m", "pip", *options]
    try:
        call(*(ours or pip), cwd=sdist.parent, env=env)
    except WheelError:
        if not ours or not (python.parent / "pip").exists():
            raise
        call(*pip, cwd=sdist.parent, env=env)


def check_installed(wheel: Path, sdist: Path) -> None:
    """Install and try the wheel in an empty environment, then the sdist in its place."""
    env = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        away = folder / "away"
        away.mkdir()
        python = install(wheel, folder, env)
        try_out(python, away, env)
        call(folder / "venv" / "bin" / PACKAGE, "--help", cwd=away, env=env)
        for name in FOLDERS:
            code = f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is not None)"
            try:
                call(python, "-c", code, cwd=away, env=env)
            except WheelError:
                raise WheelError(f"the wheel must not install a module {name!r}") from None
        reinstall(sdist, python, env)
        try_out(python, away, env)


def try_out(python: Path, away: Path, env: dict[str, str]) -> None:
    """Import the package and list its parts, from an empty folder."""
    code = (
        f"import importlib.metadata as m, pathlib, {PACKAGE} as p; "
        f"assert m.version({PACKAGE!r}) == p.__version__; "
        "assert (pathlib.Path(p.__file__).parent / 'py.typed').exists(); print(p.__file__)"
    )
    where = call(python, "-c", code, cwd=away, env=env).strip()
    if not Path(where).resolve().is_relative_to(python.parent.parent.resolve()):
        raise WheelError(f"{PACKAGE} was imported from {where}, not from the environment")
    if not call(python, "-m", PACKAGE, "list", cwd=away, env=env).strip():
        raise WheelError(f"`python -m {PACKAGE} list` printed nothing")


def main() -> int:
    """Check ``dist``; return 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", nargs="?", type=Path, default=ROOT / "dist")
    parser.add_argument("--no-install", action="store_true", help="only inspect the files")
    args = parser.parse_args()
    try:
        wheel = only(args.dist.resolve(), "*.whl")
        count = check_wheel(wheel)
        sdist = only(args.dist.resolve(), "*.tar.gz")
        check_sdist(sdist)
        if not args.no_install:
            check_installed(wheel, sdist)
    except WheelError as error:
        print(f"wheel: {error}", file=sys.stderr)
        return 1
    print(f"wheel: {wheel.name} is fine, {count} files; {sdist.name} too")
    return 0


if __name__ == "__main__":
    sys.exit(main())
