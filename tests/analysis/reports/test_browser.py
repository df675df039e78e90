"""The page in a browser: it renders, sorts, finds, and runs nothing but its own script."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tokenred.analysis import report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
CLICKS = """<script>
const heads = [...document.querySelectorAll("#s1-cells th button")];
const byName = (name) => heads.find((head) => head.textContent === name);
byName("top-1 %").click();
const read = () => [...document.querySelectorAll("#s1-cells tbody tr:not([hidden])")]
  .map((row) => row.cells[0].textContent).join("");
const up = read();
byName("top-1 %").click();
const down = read();
byName("difference, points").click();
const gap = read();
const find = document.querySelector("input[type=search]");
find.value = "GTP@";
find.dispatchEvent(new Event("input"));
document.body.dataset.found = [up, down, gap, read(), find.parentElement.hidden].join(" ");
</script></body>"""


def _browse(page: Path, folder: Path, *options: str) -> str:
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("needs Chromium to render a page, and none is installed")
    command = [browser, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_sorting_and_finding(comparison: pd.DataFrame, tmp_path: Path) -> None:
    page = report(comparison, tmp_path / "report.html")
    # The page itself would not let this script run.
    text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text())
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("</body>", CLICKS))
    (found,) = re.findall(r'data-found="([^"]*)"', _browse(copy, tmp_path, "--dump-dom"))
    # Top-1 is 80, 79, 78; the dense row has no difference, and comes last.
    assert found.split() == ["321", "123", "321", "2", "false"]


def test_it_renders_and_runs_nothing_else(comparison: pd.DataFrame, tmp_path: Path) -> None:
    page = report(comparison, tmp_path / "report.html")
    evil = "<script>document.body.dataset.hacked = 'yes'</script></body>"
    page.write_text(page.read_text().replace("</body>", evil))
    shown = _browse(page, tmp_path, "--window-size=500,800", "--dump-dom")
    assert 'data-ready="yes"' in shown
    assert 'class="scroll wide"' in shown  # and the caption says so
    assert "data-hacked" not in shown
    assert len(re.findall("<th[^>]*><button", shown)) > 10
