"""Data: datasets for evaluation, data loaders, and the preprocessing of models."""

from tokenred.data.dataset import SKIPPED_LABEL, ImageDataset, balanced_subset, make_loader
from tokenred.data.open import open_dataset
from tokenred.data.transforms import CIFAR10_MEAN, CIFAR10_STD, eval_transform

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "SKIPPED_LABEL",
    "ImageDataset",
    "balanced_subset",
    "eval_transform",
    "make_loader",
    "open_dataset",
]
