"""A part's file is found from its registered name in one guess."""

import inspect
import re
from pathlib import Path

import pytest

from tokenred.core.registry import KINDS, Registry


def file_of(name: str) -> str:
    """``CLSAttn`` → ``cls_attn.py``, ``evo-vit`` → ``evo_vit.py``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return words.lower().replace("-", "_") + ".py"


@pytest.mark.parametrize("registry", KINDS.values(), ids=lambda r: r.plural)
def test_each_in_the_file_of_its_name(registry: Registry[object]) -> None:
    own = [entry for entry in registry if entry.source.startswith("tokenred.")]
    assert own
    for entry in own:
        source = inspect.getsourcefile(inspect.unwrap(entry.make))
        assert source is not None
        assert Path(source).name == file_of(entry.name), entry.name
