"""Save and load a reduced model with everything it needs to run again."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tokenred._version import __version__
from tokenred.core.errors import (
    CheckpointError,
    ConfigError,
    PartError,
    TokenredError,
    UntrainedPartWarning,
    UnusedWarning,
)
from tokenred.core.files import SAFE_SUFFIX, check_output, exists
from tokenred.core.tensors import state_digest
from tokenred.models.checkpoint_file import (
    check_fit,
    load_strictly,
    read_checkpoint,
    save_checkpoint,
)
from tokenred.models.likeness import check_answers, check_attributes, probe_image, told_likeness
from tokenred.models.metadata import (
    parse_preprocessing,
    read_entry,
    set_preprocessing,
    told_preprocessing,
)
from tokenred.models.rebuild import build_described, describe_base, weightless
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.config import to_config
from tokenred.strategies.strategy import Strategy, from_config

FORMAT = "tokenred/2"
"""The metadata entry ``format`` of files that `save` writes."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ANY_SIZE = (224, 224)


def save(reduced: ReducedViT, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a reduced model to a safetensors file: base, strategy, weights and learned parts.

    The file also contains what identifies the base: the attributes of its modules, and its logits
    for one fixed image. It is written completely or not at all.

    Raises:
        PartError: for anything other than a `ReducedViT`.
        ConfigError: if a part has no registered name, or the strategy would be read back as another
            one.
        ConfigError, DataError, OutputExistsError: if the file cannot be written.
        CheckpointError: for weights of unusual types, or a model that does not run.
    """
    if not isinstance(reduced, ReducedViT):
        raise PartError(
            f"save takes what tokenred.wrap returned, got {type(reduced).__name__}. Save a plain "
            "model with timm or safetensors."
        )
    path = check_output(path, (SAFE_SUFFIX,), overwrite=overwrite)
    weights = reduced.state_dict()
    kinds = {weight.dtype for weight in weights.values() if weight.is_floating_point()}
    if not kinds or not kinds <= set(_FLOATS):
        got = sorted({str(weight.dtype) for weight in weights.values()})
        raise CheckpointError(
            f"expected weights in {', '.join(map(str, _FLOATS))}, got {', '.join(got)}."
        )
    metadata = {
        "format": FORMAT,
        "tokenred": __version__,
        "base": json.dumps(describe_base(reduced.base)),
        "strategy": _told_strategy(reduced.strategy),
        "preprocessing": json.dumps(told_preprocessing(reduced.base)),
        "weights": state_digest(weights),
        **told_likeness(reduced.base, reduced, _image(reduced)),
    }
    return save_checkpoint(path, weights, metadata, overwrite=overwrite)


def check_loadable(reduced: ReducedViT) -> None:
    """Refuse, before any work is done, a model that `load` could not read back by itself.

    Raises:
        CheckpointError: for a base that cannot be rebuilt, or unusual preprocessing.
        ConfigError: for a strategy that cannot be stored in a file.
    """
    if describe_base(reduced.base) is None:
        raise CheckpointError(
            f"a {type(reduced.base).__name__} that was changed after its creation cannot be "
            "rebuilt, so its file could not be loaded. Create it with timm.create_model alone."
        )
    told_preprocessing(reduced.base)
    _told_strategy(reduced.strategy)


def _told_strategy(strategy: Strategy) -> str:
    told = json.dumps(to_config(strategy))
    if from_config(json.loads(told)) != strategy:
        raise ConfigError(
            f"{strategy!r} cannot be stored in a file: it would be read back as another strategy."
        )
    return told


def is_saved(path: str | Path) -> bool:
    """Whether a file was written by `save`, and so contains a strategy and learned parts too."""
    path = Path(path)
    if path.suffix != ".safetensors" or not exists(path):
        return False
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("format", "")
            return str(found).startswith("tokenred/")
    except (SafetensorError, OSError):
        return False  # the loader reports what is wrong with it


def load(path: str | Path, *, model: nn.Module | None = None) -> ReducedViT:
    """Read what `save` wrote: the model in eval mode, on the CPU, in its saved type.

    Nothing in the file is trusted or executed. A model that does not give the saved logits is
    refused.

    Args:
        path: the file.
        model: a base to load the weights into, if it cannot be built from the file.

    Raises:
        CheckpointError: for a file that `save` did not write, weights that do not fit, a missing
            ``model``, or one that differs from the saved base; it is unchanged then.
        UnknownNameError: for a part that is not registered (import its module first).
    """
    weights, metadata = read_checkpoint(path)
    origin = str(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"expected a file written by tokenred.save (format {FORMAT}), got "
            f"{metadata.get('format', 'no format entry')!r} in {path}. Load plain weights with "
            "tokenred.models.load_model."
        )
    if metadata.get("weights") != state_digest(weights):
        raise CheckpointError(
            f"the weights in {path} are not the ones that were saved; copy it again."
        )
    with _told(f"expected a strategy in {origin}"):
        strategy = from_config(read_entry(metadata, "strategy", dict, origin))
    base = model
    if base is None:
        description = read_entry(metadata, "base", (dict, type(None)), origin)
        if description is None:
            raise CheckpointError(
                f"{path} contains a model that could not be described when it was saved. Build it "
                "as you did then, and pass it: tokenred.load(path, model=…)."
            )
        record = parse_preprocessing(metadata, origin)
        empty, build = build_described(description, weights, origin)
        with weightless():
            check_fit(_wrapped(empty, strategy, origin), weights, origin)
        with torch.random.fork_rng(devices=[]):
            base = build()
        set_preprocessing(base, record)
    reduced = _wrapped(base, strategy, origin)
    check_fit(reduced, weights, origin)
    check_attributes(metadata, base, origin)
    with _unchanged_on_error(model):
        _cast(reduced, weights)
        load_strictly(reduced, weights, origin)
        check_answers(metadata, base, reduced, _image(reduced), origin)
    return reduced.eval()


@contextmanager
def _unchanged_on_error(model: nn.Module | None) -> Iterator[None]:
    own = {} if model is None else model.state_dict(keep_vars=True)
    before = {name: value.detach().clone() for name, value in own.items()}
    try:
        yield
    except BaseException:
        for name, value in before.items():
            own[name].data = value
        raise


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Report errors due to hostile values, such as impossible sizes, as those of ``what``."""
    try:
        yield
    except TokenredError:
        raise
    except Exception as error:
        raise CheckpointError(f"{what} ({type(error).__name__}: {error}).") from error


def _wrapped(base: nn.Module, strategy: Strategy, origin: str) -> ReducedViT:
    with (
        _told(f"the strategy in {origin} does not fit its model"),
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore", UntrainedPartWarning)  # their weights are in the file
        warnings.simplefilter("ignore", UnusedWarning)  # said when it was wrapped
        return wrap(base, strategy)


def _cast(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give the model the types of the weights, so that fp16 comes back as fp16."""
    kinds = {value.dtype for value in weights.values() if value.is_floating_point()}
    if len(kinds) == 1:
        model.to(dtype=kinds.pop())
        return
    for name, own in model.state_dict(keep_vars=True).items():
        own.data = own.data.to(weights[name].dtype)


def _image(reduced: ReducedViT) -> Tensor:
    info = reduced.info
    size: Any = (getattr(reduced.base, "pretrained_cfg", None) or {}).get("input_size", ())[1:]
    if info.grid is not None and info.patch_size is not None:
        size = tuple(n * side for n, side in zip(info.grid, info.patch_size, strict=True))
    return probe_image(reduced.base, info.channels, size or _ANY_SIZE)
