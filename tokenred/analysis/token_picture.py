"""From an image and strategies to what became of its patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tokenred.analysis.measure.inputs import shown_pixels
from tokenred.analysis.measure.machine import base_of, measured
from tokenred.analysis.plots.token_pictures import Picture, PictureRow, Stage
from tokenred.core.errors import ConfigError, InputError
from tokenred.data import eval_transform
from tokenred.data.classes import class_names
from tokenred.graphs import Graph
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.trace import Trace
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import StrategyLike, parse_spec

__all__ = ["Picture", "PictureRow", "Stage", "default_layers", "trace_picture"]

Strategies = Sequence[StrategyLike]
Transform = Callable[[Image.Image], Tensor]
_ALIKE = 1e-4


def default_layers(depth: int) -> tuple[int, ...]:
    """The last block of each quarter of the depth."""
    return tuple(sorted({max(0, depth * quarter // 4 - 1) for quarter in (1, 2, 3, 4)}))


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
    """Run strategies on one image and see what became of its patches.

    Who stands for a patch is said by the fusers' weights (`Trace.owners`): the token that has most
    of it. What attention mixes is not counted.

    Args:
        model: dense or reduced; of the latter the base is taken.
        image: a photograph, which gets the model's own preprocessing; or a tensor that has it,
            ``(3, H, W)`` or ``(1, 3, H, W)``.
        strategies: what `tokenred.analysis.parse_spec` takes.
        layers: blocks to look at, from 0; None for the last of each quarter.
        classes: names of the classes; None for the model's own, where they are known.
        transform: the preprocessing, where it is not the model's own.
        edges: note the token graph's edges between what is left and what is gone.

    Raises:
        ConfigError: for blocks that the model does not have, or no strategy.
        InputError: for an image of another kind or shape.
        TokenredError: as raised by `parse_spec` and `tokenred.wrap`.
    """
    base = base_of(model)
    if isinstance(strategies, StrategyLike) or not strategies:
        raise ConfigError(f"expected a list of strategies, got {strategies!r}.")
    specs = [parse_spec(given) for given in strategies]
    reduced = [wrap(base, spec) for spec in specs]
    depth = reduced[0].info.depth
    chosen = default_layers(depth) if layers is None else tuple(layers)
    _check_layers(chosen, depth)
    transform = transform or eval_transform(base)
    batch = _batch(image, transform)
    with measured(base, None) as place, torch.no_grad():
        weight = next(base.parameters())
        batch = batch.to(place, weight.dtype)
        rows = [
            _row(spec.label, own, batch, chosen, edges)
            for spec, own in zip(specs, reduced, strict=True)
        ]
        dense = PictureRow("dense", (), *_said(base, base(batch)))
    return Picture(
        pixels=shown_pixels(batch[0], transform),
        grid=reduced[0].backbone.grid_of(batch.shape[2], batch.shape[3]),
        depth=depth,
        dense=dense,
        rows=tuple(rows),
        classes=class_names(base) if classes is None else tuple(classes),
    )


def _check_layers(layers: tuple[int, ...], depth: int) -> None:
    wrong = [layer for layer in layers if type(layer) is not int or not 0 <= layer < depth]
    if wrong or not layers or list(layers) != sorted(set(layers)):
        raise ConfigError(
            f"expected blocks from 0 to {depth - 1}, ascending and each once, got "
            f"{', '.join(map(str, layers)) or 'none'}."
        )


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
    if edges and reduced.strategy.fuser.uses_graph:
        builder: Any = reduced.strategy.graph.built_for(reduced.info)
        graph = builder(embedded.x0, trace.grid)
    stages = tuple(_stage(reduced, trace, embedded.x, layer, graph) for layer in layers)
    return PictureRow(label, stages, *_said(base_of(reduced), logits))


def _stage(
    reduced: ReducedViT, trace: Trace, start: Tensor, layer: int, graph: Graph | None
) -> Stage:
    cut = trace.cut(layer)
    places = cut.index[0].cpu()
    alive = torch.zeros(trace.num_patches, dtype=torch.bool)
    alive[places[places >= 0]] = True
    owner = cut.owners()[0].cpu()
    # Where a token of no single patch owns it, the holder is −1 as well.
    holder = torch.where(owner >= 0, places[owner.clamp_min(0)], -1)
    pooled = ~alive & (owner >= 0) & (holder < 0)
    idle = _idle(reduced, trace, start, layer)
    shape = trace.grid

    def on_grid(values: Tensor) -> NDArray[Any]:
        array: NDArray[Any] = values.reshape(shape).numpy()
        return array

    return Stage(
        layer=layer,
        tokens=int((places >= 0).sum() + (owner[pooled]).unique().numel()),
        alive=on_grid(alive),
        idle=on_grid(idle),
        holder=on_grid(holder),
        pooled=on_grid(pooled),
        edges=_edges(graph, alive),
    )


def _idle(reduced: ReducedViT, trace: Trace, start: Tensor, layer: int) -> Tensor:
    """Which patches' tokens did not pass a block.

    The trace does not say so, but the features do: tokens that idle are all changed alike,
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
            f"block {layer} both idles and removes tokens; which of them idled cannot be told."
        )
    change = (after - before).float()
    still = change.abs().amax(dim=-1) == 0
    if not still.any():
        # Moved together, as by a token that stands for them all: the largest group that is.
        # Without the products of matrices, which cancel for vectors that are nearly equal.
        apart = torch.cdist(change, change, compute_mode="donot_use_mm_for_euclid_dist")
        alike = apart < _ALIKE * change.norm(dim=-1).mean()
        largest = alike[alike.sum(dim=-1).argmax()]
        still = largest & (largest.sum() > 1)
    out[index[still].cpu()] = True
    return out


def _edges(graph: Graph | None, alive: Tensor) -> NDArray[np.int64]:
    if graph is None:
        return np.zeros((0, 2), dtype=np.int64)
    weights = graph.dense()[0].cpu()
    between = (weights > 0) & alive[:, None] & ~alive[None, :]
    pairs: NDArray[np.int64] = between.nonzero().numpy()
    return pairs
