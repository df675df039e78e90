"""The shapes in the signatures hold: the golden cases run again, every call checked.

In a process of its own, because checked functions cannot be compiled.
"""

import subprocess
import sys
from pathlib import Path

from beartype import BeartypeConf, beartype

# A whole number is welcome where a float is asked for, as everywhere in Python.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

PACKAGES = [
    "tokenred.attention",
    "tokenred.backbones.base",
    "tokenred.backbones.vision_transformer",
    "tokenred.backbones.vit_blocks",
    "tokenred.graphs",
    "tokenred.strategies",
    "tokenred.reduced.loop",
    "tokenred.core.state",
    "tokenred.core.tensors",
    "tokenred.reduced.trace",
    "tokenred.strategies.transport",
]


def test_golden_cases_under_shape_checks() -> None:
    here = Path(__file__).parent
    program = (
        "import sys; from jaxtyping import install_import_hook; import pytest\n"
        f"sys.path.insert(0, {str(here)!r})\n"
        f"install_import_hook({PACKAGES!r}, 'test_shapes.checked')\n"
        f"sys.exit(pytest.main([{str(here / 'test_golden.py')!r}, '-p', 'no:cacheprovider',"
        " '-W', 'ignore::pytest.PytestAssertRewriteWarning']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=here.parent,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "passed" in done.stdout
