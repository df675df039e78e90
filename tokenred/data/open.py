"""Open a dataset by name or path."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor

from tokenred.core.errors import DataError, DataWarning
from tokenred.data.classes import CIFAR10_CLASSES, ClassMap, resolve_classes
from tokenred.data.dataset import ImageDataset
from tokenred.data.digits import DIGITS_CLASSES, DigitsSource
from tokenred.data.layout import IMAGE_SUFFIXES, find_layout, narrow_to_split, told
from tokenred.data.places import HOW, VARIABLE, check_fits, check_there, place_of_cifar10
from tokenred.data.sources import source_at

Transform = Callable[[Image.Image], Tensor]


def open_dataset(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    transform: Transform | None = None,
    class_map: ClassMap = None,
) -> ImageDataset:
    """Open labelled images for evaluation.

    Args:
        source: ``"digits"`` (bundled); ``"cifar10"`` (in the folder that the environment
            variable ``TOKENRED_DATA`` names) or ``"cifar10:PATH"``; the path of an image folder,
            or of a ``.zip`` or ``.tar`` of one, laid out as ``CLASS/IMAGE`` or
            ``SPLIT/CLASS/IMAGE``.
        split: such as ``"test"``, ``"val"`` or ``"train"``. Default: test for named data; for a
            path the only split, or val, then test, then train.
        transform: maps an RGB image to a tensor, such as ``eval_transform(model)``.
        class_map: the index of each class folder. By default its rank among the sorted folder
            names, or among all 1000 if the names are ImageNet's WNIDs. Otherwise a
            mapping from name to index, ``"imagenet-1k"``, ``"folders"`` (always the rank among
            the folders), or the number of classes of the model.

    Returns:
        The dataset of (image, label, index).

    Raises:
        DataError: if the source is missing, unreadable, empty, or has another layout.
        ConfigError: if ``class_map`` is invalid.
    """
    text = check_there(source)
    check_fits(text, split, class_map)
    if text == "digits":
        digits = DigitsSource(split or "test")
        return ImageDataset(digits, digits.labels, DIGITS_CLASSES, "digits", transform)
    if text == "cifar10" or text.startswith("cifar10:"):
        return _open_cifar10(text.partition(":")[2], split or "test", transform)
    path = Path(text).expanduser()
    return _open_path(path, path.name or str(path), split, transform, class_map)


def _open_path(
    path: Path, name: str, split: str | None, transform: Transform | None, class_map: ClassMap
) -> ImageDataset:
    root = path
    if path.is_dir():
        root, split = narrow_to_split(path, split)
    source = source_at(root)
    folders = find_layout(source.names, split, str(path), source.left_out)
    index, classes = resolve_classes(set(folders.values()), class_map, str(path))
    if others := told(source.left_out):
        warnings.warn(
            f"files in {path} that are not images were skipped: {others}. Images end in "
            f"{', '.join(IMAGE_SUFFIXES)}.",
            DataWarning,
            stacklevel=3,
        )
    source.names = list(folders)
    labels = [index[folder] for folder in folders.values()]
    return ImageDataset(source, labels, classes, name, transform, source.left_out)


# ---------------------------------------------------------------- CIFAR-10


def _open_cifar10(path: str, split: str, transform: Transform | None) -> ImageDataset:
    """Open CIFAR-10, which is too large to embed and never downloaded."""
    class_map = {name: index for index, name in enumerate(CIFAR10_CLASSES)}
    place = _find_cifar10(path, split)
    try:
        return _open_path(place, "cifar10", split, transform, class_map)
    except DataError:
        # An extracted cifar10-test or test folder contains the classes themselves.
        if place.is_dir() and {e.name for e in place.iterdir()} >= set(CIFAR10_CLASSES):
            return _open_path(place, "cifar10", None, transform, class_map)
        raise


def _find_cifar10(path: str, split: str) -> Path:
    given = place_of_cifar10(path)
    names = [
        stem + suffix for stem in (f"cifar10-{split}", "cifar10") for suffix in (".zip", "", ".tar")
    ]
    found = next((given / name for name in names if (given / name).exists()), None)
    if found is None and not path:
        raise DataError(
            f"expected cifar10-{split}.zip, cifar10-{split} or cifar10 in {given} (from "
            f"{VARIABLE}), found none; {HOW}."
        )
    return found or given
