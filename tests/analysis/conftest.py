"""The embedded model, once."""

import pytest
from torch import nn

from tokenred.models import load_model


@pytest.fixture(scope="session")
def digits() -> nn.Module:
    return load_model("digits")
