"""A model that trains in a blink, and a few dozen digits to train it on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import tokenred as tr
from tokenred.data import ImageDataset, open_dataset
from tokenred.training import Finetuned, Settings, finetune, settings_for


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as in the runs that are processes of their own
    yield
    torch.set_num_threads(before)


def tiny() -> VisionTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
        return VisionTransformer(**sizes, num_classes=10)


def digits(split: str, count: int) -> ImageDataset:
    data = open_dataset("digits", split=split)
    data.labels = data.labels[:count]
    return data


def small(name: str = "evit", **changes: Any) -> Settings:
    few = {"epochs": 3, "batch_size": 16, "ema": 0.9, "keep_warmup": (1, 2)}
    return settings_for(name, "digits").replace(**(few | changes))


def train(output: str | Path, name: str = "evit", **arguments: Any) -> Finetuned:
    given = {
        "strategy": tr.strategy(name), "settings": small(name), "data": digits("train", 48),
        "validation": digits("test", 20), "progress": False, "device": "cpu",
    } | arguments  # fmt: skip
    return finetune(given.pop("model", None) or tiny(), output=output, **given)
