"""What strategies do with the patches of an image."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tokenred.analysis.measure.inputs import shown_pixels
from tokenred.analysis.measure.machine import base_of, running
from tokenred.analysis.plots.token_pictures import Picture, PictureRow, Stage
from tokenred.core.errors import ConfigError, InputError, shown
from tokenred.data import eval_transform
from tokenred.data.classes import class_names
from tokenred.graphs import Graph
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.trace import Trace
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import StrategyLike, parse_spec

Strategies = Sequence[StrategyLike]
Transform = Callable[[Image.Image], Tensor]
_ALIKE = 1e-4


def trace_picture(
    model: nn.Module,
    image: Image.Image | Tensor,
    strategies: Strategies,
    layers: Sequence[int] | None = None,
    *,
    classes: Sequence[str] | None = None,
    transform: Transform | None = None,
    edges: bool = False,
) -> Picture:
    """Run strategies on one image and record what happens to its patches.

    The owner of a patch is the token with the largest fuser weight from it (`Trace.owners`). Mixing
    by attention is not counted.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        image: a photograph, to which the model's own preprocessing is applied; or a preprocessed
            tensor, ``(3, H, W)`` or ``(1, 3, H, W)``.
        strategies: as for `tokenred.analysis.parse_spec`.
        layers: blocks to show, from 0; None for the last of each quarter.
        classes: names of the classes; None for the model's own, if they are known.
        transform: the preprocessing, if not the model's own.
        edges: record the token graph's edges between remaining and removed tokens.

    Raises:
        ConfigError: for blocks that the model does not have, or no strategy.
        InputError: for an image of another kind or shape.
        TokenredError: as raised by `parse_spec` and `tokenred.wrap`.
    """
    base = base_of(model)
    if isinstance(strategies, StrategyLike) or not strategies:
        raise ConfigError(f"expected a list of strategies, got {shown(strategies)}.")
    reduced = [(spec.label, wrap(base, spec)) for spec in map(parse_spec, strategies)]
    first = reduced[0][1]
    chosen = _blocks(layers, first.info.depth)
    transform = transform or eval_transform(base)
    batch = _batch(image, transform)
    with running([base], None) as place:
        batch = batch.to(place, next(base.parameters()).dtype)
        rows = [_row(label, own, batch, chosen, edges) for label, own in reduced]
        dense = PictureRow("dense", (), *_said(base, base(batch)))
    return Picture(
        pixels=shown_pixels(batch[0], transform),
        grid=first.backbone.grid_of(batch.shape[2], batch.shape[3]),
        dense=dense,
        rows=tuple(rows),
        classes=class_names(base) if classes is None else tuple(classes),
    )


def _blocks(layers: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(sorted({max(0, depth * quarter // 4 - 1) for quarter in (1, 2, 3, 4)}))
    wrong = [layer for layer in layers if type(layer) is not int or not 0 <= layer < depth]
    if wrong or not layers or list(layers) != sorted(set(layers)):
        raise ConfigError(
            f"expected blocks from 0 to {depth - 1}, ascending and each once, got "
            f"{', '.join(map(str, layers)) or 'none'}."
        )
    return tuple(layers)


def _batch(image: Image.Image | Tensor, transform: Transform) -> Tensor:
    if isinstance(image, Image.Image):
        return transform(image.convert("RGB"))[None]
    if not isinstance(image, Tensor):
        raise InputError(f"expected a PIL image or a tensor, got {type(image).__name__}.")
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or len(batch) != 1:
        raise InputError(
            f"expected one image, (3, H, W) or (1, 3, H, W), got {tuple(image.shape)}."
        )
    return batch


def _said(base: nn.Module, logits: Any) -> tuple[int | None, float]:
    headless = getattr(base, "num_classes", None) == 0
    if headless or not isinstance(logits, Tensor) or logits.ndim != 2:
        return None, float("nan")
    shares = logits[0].float().softmax(dim=0)
    return int(shares.argmax()), float(shares.max())


def _row(
    label: str, reduced: ReducedViT, batch: Tensor, layers: tuple[int, ...], edges: bool
) -> PictureRow:
    logits, trace = reduced.run_with_trace(batch)
    embedded = reduced.backbone.embed(batch)
    graph = None
    if edges and any(step.uses_graph for step in reduced.strategy.steps):
        builder: Any = reduced.strategy.graph.built_for(reduced.info)
        graph = builder(embedded.x0, trace.grid)
    stages = tuple(_stage(reduced, trace, embedded.x, layer, graph) for layer in layers)
    return PictureRow(label, stages, *_said(reduced.base, logits))


def _stage(
    reduced: ReducedViT, trace: Trace, start: Tensor, layer: int, graph: Graph | None
) -> Stage:
    cut = trace.cut(layer)
    places, owner = cut.index[0].cpu(), cut.owners()[0].cpu()
    alive = torch.zeros(trace.num_patches, dtype=torch.bool)
    alive[places[places >= 0]] = True
    # If its owner represents no single patch, the holder is −1 too.
    holder = torch.where(owner >= 0, places[owner.clamp_min(0)], -1)
    pooled = ~alive & (owner >= 0) & (holder < 0)
    idle = _idle(reduced, trace, start, layer)
    edges = np.zeros((0, 2), dtype=np.int64)
    if graph is not None:
        between = (graph.dense()[0].cpu() > 0) & alive[:, None] & ~alive[None, :]
        edges = between.nonzero().numpy()
    maps: dict[str, Any] = {"alive": alive, "idle": idle, "holder": holder, "pooled": pooled}
    maps = {name: values.reshape(trace.grid).numpy() for name, values in maps.items()}
    tokens = int((places >= 0).sum()) + len(owner[pooled].unique())
    return Stage(layer=layer, tokens=tokens, edges=edges, **maps)


def _idle(reduced: ReducedViT, trace: Trace, start: Tensor, layer: int) -> Tensor:
    """Which patches' tokens were idle in a block.

    The trace does not say so, but the features do: idle tokens are all changed by the same amount,
    usually not at all.
    """
    out = torch.zeros(trace.num_patches, dtype=torch.bool)
    router, info = reduced.strategy.router, reduced.info
    if router.active(layer, info.depth, info.at(trace.grid).num_patches) is None:
        return out
    before = (trace.features[layer - 1] if layer else start)[0, trace.num_prefix :]
    after = trace.features[layer][0, trace.num_prefix :]
    index = (trace.index_per_layer[layer - 1] if layer else trace.start_index)[0]
    if not torch.equal(index, trace.index_per_layer[layer][0]):
        raise InputError(
            f"in block {layer} some tokens are idle and others are removed; which were idle cannot "
            "be determined."
        )
    change = (after - before).float()
    still = change.abs().amax(dim=-1) == 0
    if not still.any():
        # The largest group that moved together, as with one token representing them all. Without
        # matrix products, which suffer from cancellation for nearly equal vectors.
        apart = torch.cdist(change, change, compute_mode="donot_use_mm_for_euclid_dist")
        alike = apart < _ALIKE * change.norm(dim=-1).mean()
        largest = alike[alike.sum(dim=-1).argmax()]
        still = largest & (largest.sum() > 1)
    out[index[still].cpu()] = True
    return out
