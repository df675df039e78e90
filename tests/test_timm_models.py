"""timm knows tokenred's models once these are loaded, and tokenred alone imports no timm."""

import subprocess
import sys

import pytest

BUILD = "timm.create_model('lvvit_s', img_size=32, embed_dim=32, depth=1, num_heads=2)"
LIGHT = (
    "import importlib.util, sys, tokenred;"
    "assert importlib.util.find_spec('timm');"  # asking where it is does not import it
    "assert not {'timm', 'torch'} & set(sys.modules);"
)


@pytest.mark.parametrize(
    "program",
    [LIGHT + f"import timm; tokenred.models; {BUILD}", f"import timm, tokenred; {BUILD}"],
    ids=["tokenred first", "timm first"],
)
def test_registered(program: str) -> None:
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", program], check=True)
