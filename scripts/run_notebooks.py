"""Run every notebook of ``notebooks/`` on the CPU, and refuse outputs that got into git.

Run ``python scripts/run_notebooks.py [notebook ...]``; without arguments it takes all of them.
The executed copies go to a temporary folder, which is also where the notebooks run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Set before Jupyter is imported, and inherited by the kernels.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 300
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def stored(path: Path) -> str:
    """The notebook as git has it; the file itself where git has none."""
    try:
        name = path.relative_to(ROOT).as_posix()
        shown = subprocess.run(
            ["git", "show", f":{name}"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, ValueError, subprocess.CalledProcessError):
        return path.read_text(encoding="utf-8")
    return shown.stdout.decode("utf-8")


def has_outputs(path: Path) -> bool:
    """Whether a stored cell has an output or an execution count."""
    cells = nbformat.reads(stored(path), as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    return any(cell.outputs or cell.execution_count is not None for cell in code)


def run(path: Path, folder: Path, timeout: int) -> None:
    """Execute one notebook in ``folder`` and leave the executed copy there."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        # A warning on local sockets for each kernel would bury the results.
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    nbformat.write(notebook, folder / path.name)


def main() -> int:
    """Check and run; the exit status says whether all went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--timeout", type=int, default=TIMEOUT, help="seconds for one cell")
    args = parser.parse_args()

    paths = [p.resolve() for p in args.notebooks] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if not paths:
        print("notebooks: there are none")
        return 0

    bad = []
    for path in paths:
        if has_outputs(path):
            bad.append(path.name)
            print(f"{path.name}: has outputs in git; run .venv/bin/nbstripout on it")
    with tempfile.TemporaryDirectory() as top:
        # The kernels' history and sockets stay out of the home folder.
        os.environ["IPYTHONDIR"] = str(Path(top, "ipython"))
        os.environ["JUPYTER_RUNTIME_DIR"] = str(Path(top, "runtime"))
        for path in paths:
            folder = Path(top, path.stem)
            folder.mkdir()
            start = time.monotonic()
            try:
                run(path, folder, args.timeout)
            except (CellExecutionError, TimeoutError, RuntimeError) as error:
                bad.append(path.name)
                print(f"{path.name}: FAILED\n{COLOUR.sub('', str(error))}")
            else:
                print(f"{path.name}: ok, {time.monotonic() - start:.0f} s", flush=True)
    if bad:
        print(f"notebooks: not in order: {', '.join(sorted(set(bad)))}")
        return 1
    print(f"notebooks: {len(paths)} run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
