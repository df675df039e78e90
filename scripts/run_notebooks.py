"""Run the notebooks in ``notebooks/`` on the CPU, and refuse outputs in git.

Run ``python scripts/run_notebooks.py [notebook ...]``, by default all of them. Each runs in its own
temporary folder. ``--output FOLDER`` keeps the executed copies, for pages that show outputs.
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
# As in an activated environment, so that shell commands in cells find this Python and `tokenred`.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
# Progress bars of other libraries warn if Jupyter's widgets are missing.
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 300
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def stored(path: Path) -> str:
    """The notebook as stored in git, or the file itself if git does not have it."""
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


def run(path: Path, folder: Path, timeout: int, output: Path) -> None:
    """Execute one notebook in ``folder``; the executed copy goes to ``output``."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        # A busy machine starts kernels slowly.
        startup_timeout=timeout,
        kernel_name="python3",
        # A warning about local sockets for each kernel would bury the results.
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    nbformat.write(notebook, output / path.name)


def main() -> int:
    """Check and run the notebooks; return 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--timeout", type=int, default=TIMEOUT, help="seconds for one cell")
    parser.add_argument("--output", type=Path, help="a folder for the executed copies")
    args = parser.parse_args()

    paths = [p.resolve() for p in args.notebooks] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if not paths:
        print("notebooks: there are none")
        return 0

    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
    bad = []
    begin = time.monotonic()
    for path in paths:
        if has_outputs(path):
            bad.append(path.name)
            print(f"{path.name}: has outputs in git; run .venv/bin/nbstripout on it")
    with tempfile.TemporaryDirectory() as top:
        # Keeps the kernels' history and sockets out of the home folder.
        os.environ["IPYTHONDIR"] = str(Path(top, "ipython"))
        os.environ["JUPYTER_RUNTIME_DIR"] = str(Path(top, "runtime"))
        for path in paths:
            folder = Path(top, path.stem)
            folder.mkdir()
            start = time.monotonic()
            try:
                run(path, folder, args.timeout, args.output or folder)
            except (CellExecutionError, TimeoutError, RuntimeError) as error:
                bad.append(path.name)
                print(f"{path.name}: FAILED\n{COLOUR.sub('', str(error))}")
            else:
                print(f"{path.name}: ok, {time.monotonic() - start:.0f} s", flush=True)
    if bad:
        print(f"notebooks: failed: {', '.join(sorted(set(bad)))}")
        return 1
    print(f"notebooks: {len(paths)} run, {time.monotonic() - begin:.0f} s in total")
    return 0


if __name__ == "__main__":
    sys.exit(main())
