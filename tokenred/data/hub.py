"""Hugging Face datasets: by name from the hub (which needs ``datasets``), or as an object.

timm's reader must know split and columns in advance and takes no dataset that is already open.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from tokenred.core.errors import DataError, MissingExtraError
from tokenred.data.classes import ClassMap, resolve_classes
from tokenred.data.dataset import ImageDataset
from tokenred.data.layout import pick_split
from tokenred.data.sources import decode, pixels_of, read_file, to_rgb

PREFIX = "hf:"


class HubDataset(Protocol):
    """The part of ``datasets.Dataset`` that is used: rows, columns and column types."""

    features: Any
    column_names: Any

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> Any: ...


class HubSource:
    """The images of a column: Pillow images, encoded bytes, paths, or arrays of pixels."""

    def __init__(self, rows: HubDataset, column: str, name: str) -> None:
        self.rows, self.column, self.label = rows, column, name
        self._undecoded: HubDataset | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"{self.label}[{index}]"

    def image(self, index: int) -> Image.Image:
        value = self._value(self.rows, index)
        if isinstance(value, bytes):
            return decode(value)
        is_image = isinstance(value, Image.Image)
        return to_rgb(value if is_image else Image.fromarray(np.asarray(value)))

    def raw(self, index: int) -> bytes:
        if self._undecoded is None:
            kind: Any = (self.rows.features or {}).get(self.column)
            rows: Any = self.rows
            self._undecoded = rows
            if hasattr(rows, "cast_column") and hasattr(kind, "decode"):
                self._undecoded = rows.cast_column(self.column, type(kind)(decode=False))
        value = self._value(self._undecoded, index)
        return value if isinstance(value, bytes) else pixels_of(self.image(index))

    def _value(self, rows: HubDataset, index: int) -> Any:
        value = rows[index][self.column]
        if isinstance(value, Mapping):  # undecoded
            value = value.get("bytes") or value.get("path")
        return read_file(Path(value)) if isinstance(value, str) else value


def is_hub_dataset(data: object) -> bool:
    """Whether this is a ``datasets.Dataset``, a dictionary of splits, or a stream of one."""
    if isinstance(data, Mapping):
        return bool(data) and all(is_hub_dataset(part) for part in data.values())
    return hasattr(data, "features") and hasattr(data, "column_names")


def open_huggingface(
    source: str | HubDataset | Mapping[str, HubDataset],
    *,
    config: str | None = None,
    split: str | None = None,
    image: str | None = None,
    label: str | None = None,
    transform: Callable[[Image.Image], Tensor] | None = None,
    class_map: ClassMap = None,
) -> ImageDataset:
    """Open a Hugging Face dataset of labelled images.

    Args:
        source: a name, such as ``"ILSVRC/imagenet-1k"``, downloaded unless cached; a
            ``datasets.Dataset``; or a ``datasets.DatasetDict``.
        config: the configuration, if the named dataset has several.
        split: the split, if there are several; by default val, then test, then train.
        image, label: the columns; None for the only one of that type.
        transform: maps an RGB image to a tensor.
        class_map: as in `tokenred.data.open_dataset`; by default the dataset's own numbering, or
            ImageNet's order if the classes are named by its WNIDs.

    Returns:
        The dataset of (image, label, index).

    Raises:
        MissingExtraError: if a name is given and the package ``datasets`` is not installed.
        DataError: if the dataset is not available, lacks the columns, or has no labels.
        ConfigError: if ``class_map`` is invalid.
    """
    rows: Any = source
    if isinstance(source, str):
        name, rows = PREFIX + source, _download(source, config, split)
    else:
        chosen = None
        if isinstance(source, Mapping):
            chosen = split or pick_split(list(source), None, "the dataset") or next(iter(source))
            if chosen not in source:
                raise DataError(
                    f"expected a split among {', '.join(source)}, got {split!r}; choose one."
                )
            rows = source[chosen]
        title = getattr(getattr(rows, "info", None), "dataset_name", None) or "dataset"
        name = PREFIX + "/".join(filter(None, (str(title), chosen)))
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
        raise DataError(
            f"expected a dataset of known length for {name}, got a stream ("
            f"{type(rows).__name__}); load it with streaming=False."
        )
    if hasattr(rows, "with_format"):
        rows = rows.with_format(None)  # values as declared by the column types
    pixels = _column(rows, image, "image", _is_image, name)
    target = _column(rows, label, "label", _is_label, name)
    labels, classes = _labels(rows, target, class_map, name)
    if hasattr(rows, "select_columns"):
        rows = rows.select_columns([pixels])
    return ImageDataset(HubSource(rows, pixels, name), labels, classes, name, transform)


def _download(name: str, config: str | None, split: str | None) -> Any:
    try:
        hub: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtraError(
            f"{PREFIX}{name} needs the package datasets, which is not installed: "
            "pip install datasets. Or pass an image folder, a zip or a tar."
        ) from error
    try:
        if split is None:
            found = list(hub.get_dataset_split_names(name, config))
            split = pick_split(found, None, name) or found[0]
        return hub.load_dataset(name, config, split=split)
    except Exception as error:  # The hub's client raises errors of many libraries.
        raise DataError(
            f"expected the dataset {name!r} on the Hugging Face hub, got {type(error).__name__}: "
            f"{error}; check name, config, split and connection."
        ) from error


def _column(
    rows: HubDataset, given: str | None, kind: str, fits: Callable[[Any], bool], name: str
) -> str:
    columns: Sequence[str] = list(rows.column_names)
    if given is not None and given not in columns:
        raise DataError(
            f"expected a column {given!r} in {name}, found {', '.join(columns)}; pass {kind}=."
        )
    if given is not None:
        return given
    features = rows.features or {}
    found = [column for column in columns if fits(features.get(column))]
    if len(found) == 1:
        return found[0]
    if kind in columns:
        return kind
    raise DataError(
        f"expected one {kind} column in {name}, found {', '.join(found) or 'none'} among "
        f"{', '.join(columns)}; open it with tokenred.data.open_huggingface and pass {kind}=."
    )


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_label(feature: Any) -> bool:
    return hasattr(feature, "names") and hasattr(feature, "num_classes")


def _labels(
    rows: HubDataset, column: str, class_map: ClassMap, name: str
) -> tuple[list[int], tuple[str, ...]]:
    values = list(rows[column])
    if values and all(isinstance(value, str) for value in values):
        index, classes = resolve_classes(set(values), class_map, name)
        return [index[value] for value in values], classes
    try:
        labels = [int(value) for value in values]
    except (TypeError, ValueError):
        labels = []
    if not labels or min(labels) < 0:
        raise DataError(
            f"expected class names or indices from 0 in column {column!r} of {name}, got none or "
            "other values; test splits on the hub often have no labels: pass split='validation'."
        )
    named = getattr((rows.features or {}).get(column), "names", None)
    names = list(named) if named else list(map(str, range(max(labels) + 1)))
    if max(labels) >= len(names):
        raise DataError(f"expected classes below {len(names)} in {name}, got {max(labels)}.")
    # A mapping may omit classes without images.
    used = {names[i] for i in set(labels)} if isinstance(class_map, Mapping) else names
    index, classes = resolve_classes(used, class_map, name)
    return [index[names[i]] for i in labels], classes
