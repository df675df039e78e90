"""The modules of a model with their plain attributes, as text that a file can hold."""

from __future__ import annotations

import enum
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from torch import Tensor, nn

__all__ = ["Attributes", "attributes_of", "differences", "packages_of"]

Attributes = Mapping[str, Mapping[str, str]]

_OF_MODULES = frozenset(vars(nn.Module()))
# How a result is computed or where a model came from, not what the result is.
_INCIDENTAL = frozenset(
    {
        *("fused_attn", "grad_checkpointing", "gradient_checkpointing", "device", "dtype"),
        *("pretrained_cfg", "default_cfg", "hf_config", "name_or_path", "torch_dtype"),
        *("transformers_version", "architectures"),
    }
)
_LONG = 200
_DEEP = 6


def attributes_of(model: nn.Module) -> dict[str, dict[str, str]]:
    """For each module by name its class, and its plain attributes and unsaved buffers as text.

    Numbers, words and what is made of them stand as JSON; functions and classes by name; tensors
    by shape, since their values differ from machine to machine in the last bit. What a library
    keeps for itself (with an underscore in front) may be filled as it runs, and is left out.
    """
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        own = {k: v for k, v in vars(module).items() if k not in _OF_MODULES and _lasts(k)}
        own |= {k: module._buffers[k] for k in module._non_persistent_buffers_set}
        found[name] = {"class": _name(type(module))} | {k: _text(v) for k, v in own.items()}
    return found


def differences(saved: Attributes, found: Attributes) -> Iterator[str]:
    """Where the attributes of two models differ, in words."""
    for name in sorted({*saved, *found}):
        then, now = saved.get(name, {}), found.get(name, {})
        for key in sorted({*then, *now}):
            if then.get(key) != now.get(key):
                was, value = then.get(key, "absent"), now.get(key, "absent")
                yield f"{name or type(found).__name__}.{key} was {was}, here it is {value}"


def packages_of(model: nn.Module) -> dict[str, str]:
    """The versions of the packages that a model's classes come from, tokenred left out."""
    found = {}
    for top in sorted({type(m).__module__.partition(".")[0] for m in model.modules()}):
        try:
            found[top] = version(top)
        except PackageNotFoundError:
            continue
    return {top: number for top, number in found.items() if top != "tokenred"}


def _lasts(name: Any) -> bool:
    return not (isinstance(name, str) and (name in _INCIDENTAL or name.startswith("_")))


def _text(value: Any) -> str:
    text = json.dumps(_told(value))
    return text if len(text) <= _LONG else hashlib.sha256(text.encode()).hexdigest()[:16]


def _told(value: Any, depth: int = 0) -> Any:
    told = functools.partial(_told, depth=depth + 1)
    if isinstance(value, enum.Enum):
        return f"{_name(type(value))}.{value.name}"
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float | np.generic):
        number = value.item() if isinstance(value, np.generic) else value
        # 0 and 0.0 are one setting; JSON has no infinity.
        whole = isinstance(number, float) and number.is_integer()
        return int(number) if whole else repr(number) if isinstance(number, float) else str(number)
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__}{tuple(value.shape)}"
    if depth <= _DEEP and isinstance(value, Mapping):
        return sorted(([told(k), told(v)] for k, v in value.items() if _lasts(k)), key=json.dumps)
    if depth <= _DEEP and isinstance(value, set | frozenset):
        return sorted(map(told, value), key=json.dumps)
    if depth <= _DEEP and isinstance(value, list | tuple):
        return [told(item) for item in value]
    if isinstance(value, functools.partial):
        return [told(value.func), told(value.args), told(value.keywords)]
    if hasattr(value, "__qualname__"):  # a class or a function
        return _name(value)
    if depth <= _DEEP and hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        return [_name(type(value)), told(vars(value))]
    return _name(type(value))


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{thing.__qualname__}"
