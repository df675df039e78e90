"""Recognise a saved model: by the attributes of its modules, and by its logits."""

import enum
import functools
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenred.core.errors import CheckpointError, shown
from tokenred.core.fingerprint import digest
from tokenred.core.tensors import evaluating
from tokenred.models.metadata import read_entry

_OF_MODULES = frozenset(vars(nn.Module()))
# Attributes about how a result is computed or where a model came from, not what the result is.
_INCIDENTAL = frozenset(
    {
        *("fused_attn", "grad_checkpointing", "gradient_checkpointing", "device", "dtype"),
        *("pretrained_cfg", "default_cfg", "hf_config", "name_or_path", "torch_dtype"),
        *("transformers_version", "architectures"),
    }
)
_DEEP = 6
_LOGITS = 64
_CLOSE, _CLOSE_IN_HALF = 1e-3, 5e-2
_GOLDEN = 0.6180339887498949


def told_likeness(base: nn.Module, whole: nn.Module, image: Tensor) -> dict[str, str]:
    """Entries for a file's metadata: attributes of the base, and the logits of base and whole."""
    logits = {"base": _logits(base, image), "whole": _logits(whole, image)}
    return {
        "attributes": digest(json.dumps(attributes_of(base))),
        "packages": _packages_of(base),
        "probe": json.dumps({k: [x.hex() for x in v.tolist()] for k, v in logits.items()}),
    }


# ---------------------------------------------------------------- attributes


def check_attributes(metadata: Mapping[str, str], base: nn.Module, origin: str) -> None:
    """Refuse a model whose attributes differ from those of the saved one.

    Checked only with the same versions of the packages, since others may have other attributes.
    """
    found = digest(json.dumps(attributes_of(base)))
    if metadata.get("packages") == _packages_of(base) and metadata.get("attributes") != found:
        raise CheckpointError(
            f"the model is not the one that was saved in {origin}: its modules have other "
            "attributes. Build it as you did then."
        )


def attributes_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """For each module, by name: its class, plain attributes and unsaved buffers.

    Functions and classes are told by name, and tensors by shape, since their values differ between
    machines in the last bit. Private attributes may change in use and are left out.
    """
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        own = {k: v for k, v in vars(module).items() if k not in _OF_MODULES and _lasts(k)}
        own |= {k: module._buffers[k] for k in module._non_persistent_buffers_set}
        found[name] = {"class": _name(type(module))} | {k: _told(own[k]) for k in sorted(own)}
    return found


def _packages_of(model: nn.Module) -> str:
    """The versions of the packages that a model's classes come from, except tokenred."""
    found = {}
    for top in sorted({type(m).__module__.partition(".")[0] for m in model.modules()}):
        try:
            found[top] = version(top)
        except PackageNotFoundError:
            continue
    found.pop("tokenred", None)
    return json.dumps(found)


def _lasts(name: Any) -> bool:
    return not (isinstance(name, str) and (name in _INCIDENTAL or name.startswith("_")))


def _told(value: Any, depth: int = 0) -> Any:
    told = functools.partial(_told, depth=depth + 1)
    if isinstance(value, enum.Enum):
        return f"{_name(type(value))}.{value.name}"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):  # 0 and 0.0 are the same setting; JSON has no infinity
        return int(value) if value.is_integer() else repr(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__}{tuple(value.shape)}"
    if isinstance(value, functools.partial):
        return [told(value.func), told(value.args), told(value.keywords)]
    if hasattr(value, "__qualname__"):  # a class or a function
        return _name(value)
    if depth > _DEEP:
        return _name(type(value))
    if isinstance(value, Mapping):
        return sorted(([told(k), told(v)] for k, v in value.items() if _lasts(k)), key=json.dumps)
    if isinstance(value, set | frozenset):
        return sorted(map(told, value), key=json.dumps)
    if isinstance(value, list | tuple):
        return [told(item) for item in value]
    if hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        return [_name(type(value)), told(vars(value))]
    return _name(type(value))


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{thing.__qualname__}"


# ---------------------------------------------------------------- logits


def check_answers(
    metadata: Mapping[str, str], base: nn.Module, whole: nn.Module, image: Tensor, origin: str
) -> None:
    """Refuse a model whose logits differ from the saved ones by more than rounding.

    Rounding may change which tokens are chosen, so the reduced model is compared only if the
    base's logits are bit-identical.
    """
    told: dict[str, Any] = read_entry(metadata, "probe", dict, origin)
    try:
        was, was_whole = (
            torch.tensor([float.fromhex(x) for x in told[k]], dtype=torch.float64)
            for k in ("base", "whole")
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"expected logits of 'base' and 'whole' in the entry 'probe' of {origin}, got "
            f"{shown(told)}."
        ) from error
    now = _logits(base, image)
    wrong = None
    if not _agree(was, now, image.dtype):
        wrong = "the base model"
    elif now.equal(was) and not _agree(was_whole, _logits(whole, image), image.dtype):
        wrong = "the strategy"
    if wrong is not None:
        raise CheckpointError(
            f"{wrong} is not the one that was saved in {origin}: with the same weights its logits "
            "differ. Build it as you did then, and import the parts that you used."
        )


def probe_image(model: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """A fixed image ``(1, channels, height, width)`` on the model's device."""
    count = channels * size[0] * size[1]
    values = torch.arange(1, count + 1, dtype=torch.float64) * _GOLDEN
    weight = next(p for p in model.parameters() if p.is_floating_point())
    return (values % 1 * 4 - 2).reshape(1, channels, *size).to(weight.device, weight.dtype)


def _logits(model: nn.Module, image: Tensor) -> Tensor:
    """A model's logits in eval mode; at most 64, evenly spaced."""
    try:
        with evaluating(model), torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            given = list(_tensors(model(image)))
        flat = torch.cat([t.detach().reshape(-1).cpu().double() for t in given])
    except Exception as error:  # a model may fail in any way
        raise CheckpointError(
            f"the model does not run on an image of shape {tuple(image.shape)} "
            f"({type(error).__name__}: {error}), so a file could not be checked against it."
        ) from error
    return flat[:: max(1, flat.numel() // _LOGITS)][:_LOGITS]


def _agree(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits are equal up to rounding in weights of this type."""
    if one.shape != other.shape:
        return False
    close = _CLOSE if dtype in (torch.float64, torch.float32) else _CLOSE_IN_HALF
    scale = float(one.nan_to_num(0, 0, 0).abs().amax()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0, atol=close * scale, equal_nan=True)


def _tensors(given: Any) -> Iterator[Tensor]:
    """The tensors in a model's output: one, several, or a mapping of them."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping | list | tuple):
        values = given.values() if isinstance(given, Mapping) else given
        yield from (t for value in values for t in _tensors(value))
