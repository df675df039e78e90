from __future__ import annotations

import pytest
import torch

from tokenred.core.errors import ConfigError
from tokenred.models import load_model
from tokenred.models.embedded import EMBEDDED_MODELS


@pytest.mark.parametrize("name", EMBEDDED_MODELS)
def test_each_by_name(name: str) -> None:
    model = load_model(name.upper())
    random = load_model(name, pretrained=False)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in random.state_dict().items()
    }
    assert not torch.equal(model.pos_embed, random.pos_embed)
    assert model.pretrained_cfg["mean"] == random.pretrained_cfg["mean"]
    with pytest.raises(ConfigError, match="has 10 classes, got num_classes=7"):
        load_model(name, num_classes=7)
