"""What tells a model from any other: the attributes of its modules, and its logits for an image."""

from __future__ import annotations

import enum
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from tokenred.core.errors import CheckpointError
from tokenred.core.wording import shown
from tokenred.models.metadata import read_entry

__all__ = [
    "attributes_of",
    "check_answers",
    "check_attributes",
    "evaluating",
    "probe_image",
    "told_likeness",
]

Attributes: TypeAlias = Mapping[str, Mapping[str, str]]
Answer: TypeAlias = tuple[float, ...]

_OF_MODULES = frozenset(vars(nn.Module()))
# How a result is computed or where a model came from, not what the result is.
_INCIDENTAL = frozenset(
    {
        *("fused_attn", "grad_checkpointing", "gradient_checkpointing", "device", "dtype"),
        *("pretrained_cfg", "default_cfg", "hf_config", "name_or_path", "torch_dtype"),
        *("transformers_version", "architectures"),
    }
)
_NAMED, _LONG, _DEEP = 4, 200, 6
_KEPT = 64
_CLOSE = {torch.float64: 1e-3, torch.float32: 1e-3}
_CLOSE_IN_HALF = 5e-2
_GOLDEN = 0.6180339887498949


def told_likeness(base: nn.Module, whole: nn.Module, image: Tensor) -> dict[str, str]:
    """Entries for a file's metadata: the base's attributes, what base and whole say to an image.

    Raises:
        CheckpointError: for a model that does not run.
    """
    alike: dict[str, list[str]] = {}
    for name, attributes in attributes_of(base).items():
        alike.setdefault(json.dumps(attributes), []).append(name)
    answers = {"base": _probed(base, image), "whole": _probed(whole, image)}
    return {
        "attributes": json.dumps([[json.loads(text), names] for text, names in alike.items()]),
        "packages": json.dumps(_packages_of(base)),
        "probe": json.dumps({k: [value.hex() for value in v] for k, v in answers.items()}),
    }


# ---------------------------------------------------------------- attributes


def check_attributes(metadata: Mapping[str, str], base: nn.Module, origin: str) -> None:
    """Refuse a model of other settings than the one that a file was made from, saying which.

    Only where the packages are of the same versions: others may have other attributes.
    """
    saved: dict[str, dict[str, str]] = {}
    for entry in read_entry(metadata, "attributes", list, origin):
        match entry:
            case [dict(attributes), list(names)] if all(isinstance(n, str) for n in names):
                saved |= {name: {k: str(v) for k, v in attributes.items()} for name in names}
            case _:
                raise CheckpointError(
                    f"expected attributes and modules in the entry 'attributes' of {origin}, got "
                    f"{shown(entry)}."
                )
    if read_entry(metadata, "packages", dict, origin) != _packages_of(base):
        return
    found = list(_differences(saved, attributes_of(base)))
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise CheckpointError(
            f"the model is not the one that was saved in {origin}: "
            f"{'; '.join(found[:_NAMED])}{more}. Build it as you did then."
        )


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


def _differences(saved: Attributes, found: Attributes) -> Iterator[str]:
    for name in sorted({*saved, *found}):
        then, now = saved.get(name, {}), found.get(name, {})
        for key in sorted({*then, *now}):
            if then.get(key) != now.get(key):
                was, value = then.get(key, "absent"), now.get(key, "absent")
                yield f"{name or type(found).__name__}.{key} was {was}, here it is {value}"


def _packages_of(model: nn.Module) -> dict[str, str]:
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


# ---------------------------------------------------------------- logits


def check_answers(
    metadata: Mapping[str, str], base: nn.Module, whole: nn.Module, image: Tensor, origin: str
) -> None:
    """Refuse a model that has a file's weights and gives other logits, but for rounding.

    What chooses tokens may choose others after another rounding. So the whole is only compared
    where the base's logits are the same to the last bit.
    """
    told: dict[str, Any] = read_entry(metadata, "probe", dict, origin)
    try:
        saved = {k: tuple(map(float.fromhex, told[k])) for k in ("base", "whole")}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"expected logits of 'base' and 'whole' in the entry 'probe' of {origin}, got "
            f"{shown(told)}."
        ) from error
    answer = _probed(base, image)
    wrong = None
    if not _agree(saved["base"], answer, image.dtype):
        wrong = "the base model"
    elif torch.tensor(answer).equal(torch.tensor(saved["base"])) and not _agree(
        saved["whole"], _probed(whole, image), image.dtype
    ):
        wrong = "the strategy"
    if wrong is not None:
        raise CheckpointError(
            f"{wrong} is not the one that was saved in {origin}: with the same weights it gives "
            "other logits. Build it as you did then, and import the parts that you used."
        )


def probe_image(model: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """An image, ``(1, channels, height, width)``: the same everywhere, on the model's device."""
    count = channels * size[0] * size[1]
    values = torch.arange(1, count + 1, dtype=torch.float64) * _GOLDEN
    weight = next(p for p in model.parameters() if p.is_floating_point())
    return (values % 1 * 4 - 2).reshape(1, channels, *size).to(weight.device, weight.dtype)


def _probed(model: nn.Module, image: Tensor) -> Answer:
    """What a model says to an image, in evaluation mode: at most 64 numbers, evenly chosen."""
    try:
        with evaluating(model), torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            given = list(_tensors(model(image)))
        flat = torch.cat([t.detach().reshape(-1).cpu().double() for t in given])
    except Exception as error:  # whatever a model runs into
        raise CheckpointError(
            f"the model does not run on an image of shape {tuple(image.shape)} "
            f"({type(error).__name__}: {error}), so that a file could not be checked against it."
        ) from error
    step = max(1, flat.numel() // _KEPT)
    return tuple(flat[::step][:_KEPT].tolist())


def _agree(one: Answer, other: Answer, dtype: torch.dtype) -> bool:
    """Whether two answers are the same but for rounding in weights of this type."""
    close = _CLOSE.get(dtype, _CLOSE_IN_HALF)
    left, right = (torch.tensor(a, dtype=torch.float64) for a in (one, other))
    if left.shape != right.shape:
        return False
    scale = float(left.nan_to_num(0, 0, 0).abs().amax()) if left.numel() else 0.0
    return torch.allclose(left, right, rtol=0, atol=close * scale, equal_nan=True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation mode, and afterwards each as it was."""
    # Of a reduced model the base is no child.
    roots = [m for m in (model, vars(model).get("base")) if isinstance(m, nn.Module)]
    before = [(module, module.training) for root in roots for module in root.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _tensors(given: Any) -> Iterator[Tensor]:
    """The tensors in what a model returns: one, several, or a mapping of them."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping | list | tuple):
        values = given.values() if isinstance(given, Mapping) else given
        yield from (t for value in values for t in _tensors(value))
