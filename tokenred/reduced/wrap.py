"""`wrap`: a model and a strategy become a `ReducedViT`."""

from __future__ import annotations

from torch import nn

from tokenred.backbones.huggingface import HuggingFaceViT
from tokenred.reduced.model import ReducedViT, resolved
from tokenred.reduced.tower import ReducedTower
from tokenred.strategies.specs import StrategyLike

__all__ = ["wrap"]


def wrap(
    model: nn.Module,
    strategy: StrategyLike,
    *,
    engine: str = "auto",
    check_finite: bool = False,
) -> ReducedViT:
    """Run a model with fewer tokens.

    The result shares the model's modules and parameters by reference, so training mode, device and
    weights are common to both; the model's code and its own forward stay as they are, also where a
    check fails.

    Args:
        model: a timm VisionTransformer (see `tokenred.backbones`), or a `ReducedViT`, whose base is
            then wrapped anew.
        strategy: a `Strategy`, or text: the name of a recipe, ``"gtp:P=8"``, ``"tome@0.65"``, the
            path of a ``.toml`` (`tokenred.analysis.parse_spec`).
        engine: ``"auto"``, or an attention engine by name, see `tokenred.attention.pick_engine`.
        check_finite: refuse images with NaN or infinite values (reads them; not under compile).

    Raises:
        BackboneError: for a model that no adapter knows.
        ConfigError: for a part that does not fit the model.
        ScheduleError: for more tokens removed than there are.

    Warns:
        UntrainedPartWarning: for a part with weights, which are random until trained or loaded.
    """
    base = model.base if isinstance(model, ReducedViT) else model
    kind = ReducedTower if HuggingFaceViT.knows(base) else ReducedViT
    return kind(base, resolved(base, strategy), engine=engine, check_finite=check_finite)
