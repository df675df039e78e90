"""Load a model by name or path, and the weights that other programs trained for learned parts."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants
from timm.models import get_pretrained_cfg
from torch import nn

from tokenred.core.errors import CheckpointError, ConfigError, UnknownNameError
from tokenred.core.values import Count, checked
from tokenred.data.places import HUB, names_file, no_weights, unreachable
from tokenred.data.transforms import Mean, Std
from tokenred.models.checkpoint_file import load_strictly, read_checkpoint
from tokenred.models.embedded import EMBEDDED_MODELS, embedded_model
from tokenred.models.metadata import parse_preprocessing, set_preprocessing
from tokenred.models.rebuild import read_described


@checked
def load_model(
    spec: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    num_classes: Count | None = None,
    pretrained: bool | None = None,
    mean: Mean | None = None,
    std: Std | None = None,
    use_ema: bool | None = None,
) -> nn.Module:
    """Load a model, with weights that fit entirely or not at all.

    Args:
        spec: ``"digits"`` or ``"cifar10_vit"`` (the bundled models); a timm model name, such as
            ``"deit_small_patch16_224"`` or ``"lvvit_s"``; or the path of a ``.safetensors`` file
            whose metadata entry ``config`` holds the arguments of timm's ``VisionTransformer`` as
            JSON.
        checkpoint: weights for a named model, instead of its published ones.
        num_classes: number of classes of a timm model; None for its own.
        pretrained: load the published (or bundled) weights; by default true unless
            ``checkpoint`` is given. With false, the weights are random.
        mean, std: three numbers each, recorded as the model's preprocessing.
        use_ema: whether to take averaged weights from ``checkpoint``, see `read_checkpoint`.

    Returns:
        The model in fp32 and eval mode. ``pretrained_cfg`` holds its preprocessing; ``mean`` and
        ``std`` are absent there if neither the file nor the caller gave them.

    Raises:
        UnknownNameError: if timm has no such model.
        CheckpointError: if weights are not available, not safe to open, or do not fit.
        ConfigError: if the arguments contradict each other.
    """
    if not isinstance(spec, (str, os.PathLike)):
        raise ConfigError(
            f"expected a model name or a path, got {type(spec).__name__}; a model in memory needs "
            "no loading."
        )
    if checkpoint is not None and pretrained:
        raise ConfigError(
            "expected one source of weights, got checkpoint= and pretrained=True; leave one out."
        )
    if use_ema is not None and checkpoint is None:
        raise ConfigError(f"expected a checkpoint= with use_ema={use_ema}, got none; leave it out.")
    name = os.fspath(spec)
    if pretrained is None:
        pretrained = checkpoint is None
    model: nn.Module
    record: dict[str, Any] = {}
    if names_file(name):
        if checkpoint is not None or not pretrained:
            raise ConfigError(
                f"{name} is a checkpoint itself, got also "
                f"{'checkpoint=' if checkpoint is not None else 'pretrained=False'}; give one."
            )
        model, record = read_described(Path(name), num_classes)
    else:
        is_embedded = name.casefold() in EMBEDDED_MODELS
        if not is_embedded and not name.startswith(HUB):
            _check_name(name)
        # Before the model is built, which takes long if it is large.
        weights = None if checkpoint is None else read_checkpoint(checkpoint, use_ema=use_ema)
        if not is_embedded:
            model = _from_timm(name, pretrained, num_classes)
        else:
            model = embedded_model(name.casefold(), pretrained)
            if num_classes not in (None, model.num_classes):
                raise ConfigError(
                    f"the model {name} has {model.num_classes} classes, got "
                    f"num_classes={num_classes}; leave it out."
                )
        if weights is not None:
            record = parse_preprocessing(weights[1], str(checkpoint))
            load_strictly(model, weights[0], str(checkpoint))
    given = {"mean": mean, "std": std}
    set_preprocessing(model, record | {k: v for k, v in given.items() if v is not None})
    return model.float().eval()


def _from_timm(name: str, pretrained: bool, num_classes: int | None) -> nn.Module:
    options = {} if num_classes is None else {"num_classes": num_classes}
    needed = pretrained or name.startswith(HUB)  # the hub has the model's configuration, too
    if needed and (host := _out_of_reach(name)):
        # The hub's client would try again for most of a minute.
        raise no_weights(name, f"{host} cannot be reached")
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # The hub, the network and the cache each fail in their own way.
        if not needed:
            raise
        raise no_weights(name, f"{type(error).__name__}: {error}") from error
    return model


def _out_of_reach(name: str) -> str:
    """The host of weights that are not in a cache, if it cannot be reached; otherwise empty."""
    prefix, _, rest = name.partition(":")
    config = None if rest else get_pretrained_cfg(name)
    repository = rest if prefix in ("hf-hub", "hf_hub") else getattr(config, "hf_hub_id", None)
    url = getattr(config, "url", None)
    if repository:
        folder = f"models--{repository.partition('@')[0].replace('/', '--')}"
        url, cached = constants.ENDPOINT, Path(constants.HF_HUB_CACHE, folder)
    elif url:
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    return unreachable(url) if url and not cached.exists() else ""


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        raise UnknownNameError.of_model(name, [*timm.list_models(), *EMBEDDED_MODELS])
    if tag:
        try:
            get_pretrained_cfg(name, allow_unregistered=False)
        except RuntimeError as error:
            tags = [n.partition(".")[2] for n in timm.list_models(f"{architecture}.*", "", True)]
            raise UnknownNameError.of(f"weights of {architecture}", tag, tags) from error


# ---------------------------------------------------------------- weights of learned parts

# Names of modules in the programs of Haurum et al. (Sinkhorn, PatchMerger, SiT, DPC-KNN) and of
# DynamicViT, which name the backbone as timm does.
_NAMES = (
    (re.compile(r"^cluster_layers\.(?=\d)"), "parts.{role}."),
    (re.compile(r"^score_predictor\.(\d+)\.in_conv\."), r"parts.{role}.stages.\1.embed."),
    (re.compile(r"^score_predictor\.(\d+)\.out_conv\."), r"parts.{role}.stages.\1.decide."),
)


def load_released(
    model: nn.Module, path: str | os.PathLike[str], *, use_ema: bool | None = None
) -> None:
    """Load a checkpoint of a method's own program into a reduced model, all of it or nothing.

    Reads checkpoints of JoakimHaurum/TokenReduction and raoyongming/DynamicViT: the
    backbone and the learned parts of ``sinkhorn``, ``patchmerger``, ``sit``, ``dpcknn`` and
    ``dynamicvit``. For methods without learned parts (``evit``, ``topk``, ``kmedoids``, …) they are
    plain weights of the backbone, which `load_model` reads.

    Args:
        model: made by `tokenred.wrap`, with the recipe, the blocks and the rates of the checkpoint.
        path: as for `read_checkpoint`.
        use_ema: as for `read_checkpoint`.

    Raises:
        CheckpointError: for a file that cannot be read, has no learned parts or does not fit.
    """
    state, _ = read_checkpoint(path, use_ema=use_ema)
    roles = {name.split(".")[1] for name in model.state_dict() if name.startswith("parts.")}
    if len(roles) != 1:
        raise CheckpointError(
            f"expected a model with one learned part, got {', '.join(sorted(roles)) or 'none'}; "
            "wrap it with the recipe of the checkpoint, such as tokenred.wrap(model, 'sinkhorn')."
        )
    (role,) = roles
    renamed = {}
    for name, value in state.items():
        for pattern, ours in _NAMES:
            name = pattern.sub(ours.replace("{role}", role), name)
        renamed[name] = value
    if not any(name.startswith("parts.") for name in renamed):
        raise CheckpointError(
            f"expected weights of a learned part in {path} (cluster_layers or score_predictor), "
            "found none; plain weights of a model are loaded by tokenred.models.load_model."
        )
    load_strictly(model, renamed, str(path))
