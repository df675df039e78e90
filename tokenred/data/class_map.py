"""From the names of class folders to the classes of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from timm.data import ImageNetInfo

from tokenred.core.errors import ConfigError, DataError
from tokenred.data.layout import natural

__all__ = ["ClassMap", "imagenet_classes", "resolve_classes"]

ClassMap = Mapping[str, int] | str | int | None
_WNID = re.compile(r"n\d{8}")
_IMAGENET = "imagenet-1k"
_FOLDERS = "folders"
_IMAGENET_SIZE = 1000


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """Return the 1000 WNIDs of ImageNet-1k in the order of the models' outputs."""
    return tuple(ImageNetInfo(_IMAGENET).label_names())


def resolve_classes(
    folders: set[str], class_map: ClassMap, source: str
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Give each class folder its index.

    Args:
        folders: the names of the class folders.
        class_map: a mapping from name to index; ``"imagenet-1k"`` (the rank among all 1000
            WNIDs); ``"folders"`` (the rank among the folders in timm's natural order, 9 before
            10); the number of classes of the model (1000 with WNIDs means ImageNet-1k, otherwise
            there must be as many folders); or None: ImageNet-1k if all names are WNIDs of it,
            otherwise the rank.
        source: for messages.

    Returns:
        The index of each folder, and the class names by index ("" where no folder has it).

    Raises:
        ConfigError: if ``class_map`` is none of these.
        DataError: if folders are missing from the mapping, or too many or too few.
    """
    if isinstance(class_map, Mapping):
        return _from_mapping(folders, class_map, source)
    if class_map == _FOLDERS or (class_map is None and not _is_imagenet(folders)):
        return _ranks(folders)
    if class_map in (None, _IMAGENET):
        return _among_imagenet(folders, source)
    if type(class_map) is not int or class_map < 1:
        raise ConfigError(
            f"expected class_map as a mapping from folder to index, {_IMAGENET!r}, {_FOLDERS!r}, "
            f"a number of classes or None, got {class_map!r}; choose one of these."
        )
    if class_map == _IMAGENET_SIZE and _is_imagenet(folders):
        return _among_imagenet(folders, source)
    if len(folders) != class_map:
        raise DataError(
            f"expected {class_map} class folders in {source} for a model of {class_map} classes, "
            f"found {len(folders)}; pass class_map= with the index of each folder, or "
            f"class_map={_FOLDERS!r} to number them in order."
        )
    return _ranks(folders)


def _is_imagenet(folders: set[str]) -> bool:
    return all(_WNID.fullmatch(name) for name in folders) and folders <= set(imagenet_classes())


def _ranks(folders: set[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    classes = tuple(sorted(folders, key=natural))
    return {name: index for index, name in enumerate(classes)}, classes


def _among_imagenet(folders: set[str], source: str) -> tuple[dict[str, int], tuple[str, ...]]:
    classes = imagenet_classes()
    index = {name: rank for rank, name in enumerate(classes)}
    _refuse_unknown(folders - index.keys(), source, f"folders named by WNIDs of {_IMAGENET}")
    return {name: index[name] for name in folders}, classes


def _from_mapping(
    folders: set[str], class_map: Mapping[str, int], source: str
) -> tuple[dict[str, int], tuple[str, ...]]:
    wrong = [name for name, index in class_map.items() if type(index) is not int or index < 0]
    if wrong:
        raise ConfigError(
            f"expected class_map to give whole numbers from 0, got {class_map[wrong[0]]!r} for "
            f"{wrong[0]!r}; mend it."
        )
    _refuse_unknown(folders - class_map.keys(), source, "all class folders in class_map")
    classes = [""] * (max(class_map.values()) + 1)
    for name, index in class_map.items():
        classes[index] = name
    return {name: class_map[name] for name in folders}, tuple(classes)


def _refuse_unknown(unknown: set[str], source: str, expected: str) -> None:
    if unknown:
        names = sorted(unknown)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise DataError(
            f"expected {expected}, but {source} also has {', '.join(names[:5])}{more}; add them "
            "to class_map, rename them or take them out."
        )
