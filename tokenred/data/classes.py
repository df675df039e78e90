"""Classes of data and models: from names to indices and back."""

import re
from collections.abc import Mapping
from functools import lru_cache

from torch import nn

from tokenred.core.errors import ConfigError, DataError, shown
from tokenred.data.digits import DIGITS_CLASSES
from tokenred.data.layout import natural
from tokenred.data.places import CLASS_MAPS

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
ClassMap = Mapping[str, int] | str | int | None
Resolved = tuple[dict[str, int], tuple[str, ...]]
_WNID = re.compile(r"n\d{8}")
_IMAGENET, _FOLDERS = CLASS_MAPS
_IMAGENET_SIZE = 1000


@lru_cache(maxsize=1)
def _wnids() -> tuple[str, ...]:
    """The 1000 WNIDs of ImageNet-1k in the order of the models' outputs."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo(_IMAGENET).label_names())


def class_names(model: nn.Module) -> tuple[str, ...] | None:
    """Names of a model's classes, in the order of its outputs, or None if they are not known.

    A timm model with 1000 classes is assumed to have those of ImageNet-1k.
    """
    recorded = dict(getattr(model, "pretrained_cfg", None) or {})
    classes = getattr(model, "num_classes", None)
    if recorded.get("architecture") == "digits_vit":
        return DIGITS_CLASSES
    own = recorded.get("label_names")
    if own is not None and len(own) == classes:
        return tuple(map(str, own))
    if classes == _IMAGENET_SIZE:
        from timm.data import ImageNetInfo

        info = ImageNetInfo(_IMAGENET)
        return tuple(info.index_to_description(i) for i in range(_IMAGENET_SIZE))
    return None


def resolve_classes(names: set[str], class_map: ClassMap, source: str) -> Resolved:
    """The index of each class name, and the names by index ("" if no class has that index).

    Args:
        names: of the class folders; their order is timm's natural one, 9 before 10.
        class_map: see `tokenred.data.open_dataset`; 1000 with WNIDs means ImageNet-1k.
        source: for messages.
    """
    if isinstance(class_map, Mapping):
        return _from_mapping(names, class_map, source)
    own = tuple(sorted(names, key=natural))
    in_order = {name: index for index, name in enumerate(own)}, own
    if class_map == _FOLDERS:
        return in_order
    if class_map not in (None, _IMAGENET) and (type(class_map) is not int or class_map < 1):
        raise ConfigError(
            f"expected class_map as a mapping from class to index, {_IMAGENET!r}, {_FOLDERS!r}, "
            f"a number of classes or None, got {shown(class_map)}; use one of these."
        )
    if class_map in (None, _IMAGENET, _IMAGENET_SIZE) and (
        all(map(_WNID.fullmatch, names)) and names <= set(_wnids())
    ):
        return {name: _wnids().index(name) for name in own}, _wnids()
    if class_map is None:
        return in_order
    if class_map == _IMAGENET:
        _refuse_unknown(names - set(_wnids()), source, f"folders named by WNIDs of {_IMAGENET}")
    if len(own) != class_map:
        raise DataError(
            f"expected {class_map} classes in {source} for a model of {class_map} classes, found "
            f"{len(own)}; pass class_map= with the index of each, or class_map={_FOLDERS!r} for "
            "the data's own order."
        )
    return in_order


def _from_mapping(names: set[str], class_map: Mapping[str, int], source: str) -> Resolved:
    wrong = [name for name, index in class_map.items() if type(index) is not int or index < 0]
    if wrong:
        raise ConfigError(
            f"expected class_map to give whole numbers from 0, got {shown(class_map[wrong[0]])} "
            f"for {wrong[0]!r}; correct it."
        )
    _refuse_unknown(names - class_map.keys(), source, "all classes in the class map")
    classes = [""] * (max(class_map.values(), default=-1) + 1)
    for name, index in class_map.items():
        classes[index] = name
    return {name: class_map[name] for name in names}, tuple(classes)


def _refuse_unknown(unknown: set[str], source: str, expected: str) -> None:
    if unknown:
        names = sorted(unknown)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise DataError(
            f"expected {expected}, but {source} also has {', '.join(names[:5])}{more}; add them "
            "to it, rename them or take them out."
        )
