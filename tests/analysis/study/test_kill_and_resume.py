"""SIGKILL at random moments: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_and_resume.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_25_kills(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "runs.db"), "25", "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout)
    assert (told["kills"], told["rows"], told["integrity"]) == (25, 150, "ok")
    # The kills came in the middle, not all at the start or the end.
    assert sum(0 < count < told["cells"] for count in told["finished at each kill"]) >= 12
