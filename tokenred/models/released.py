"""Weights of learned parts, trained by other programs."""

from __future__ import annotations

import os
import re

from torch import nn

from tokenred.core.errors import CheckpointError
from tokenred.models.checkpoint_file import load_strictly, read_checkpoint

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
