"""Values as they are written on the command line."""

from __future__ import annotations

import pytest

from tokenred.cli.plot_options import fixed_values, given
from tokenred.core.errors import ConfigError


def test_numbers_truth_and_names() -> None:
    pairs = ["P=8", "alpha=0.1", "log_s=True", "graph=mixed", "strategy=gtp:P=4"]
    assert fixed_values(pairs) == {
        "P": 8, "alpha": 0.1, "log_s": True, "graph": "mixed", "strategy": "gtp:P=4",
    }  # fmt: skip
    assert fixed_values(None) == {}


@pytest.mark.parametrize("text", ["P", "=8", "P="])
def test_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="COLUMN=VALUE"):
        fixed_values([text])


def test_what_nobody_chose_is_left_to_the_function() -> None:
    assert given(height=None, width=3.5) == {"width": 3.5}
