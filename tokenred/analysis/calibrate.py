"""Calibrate thresholds on images without labels."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from tokenred.attention import AttentionStats
from tokenred.core.capture import replace
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.progress import progress_bar
from tokenred.core.state import Selection, TokenState
from tokenred.core.values import Magnitude, PartOf, Size, checked
from tokenred.graphs.graph import Graph
from tokenred.reduced.cost import strategy_cost
from tokenred.reduced.model import ReducedViT, resolved
from tokenred.reduced.recorder import Recorder, Taken
from tokenred.reduced.wrap import wrap
from tokenred.strategies.base import Selector
from tokenred.strategies.fusers.merge import Merge
from tokenred.strategies.specs import StrategyLike
from tokenred.strategies.strategy import Strategy


@checked
def calibrate(
    model: nn.Module,
    strategy: StrategyLike,
    images: Tensor | Iterable[Tensor],
    *,
    share: PartOf | None = None,
    r: Magnitude | None = None,
    batch_size: Size = 32,
    progress: bool = True,
) -> Strategy:
    """Find the thresholds of a method whose token counts depend on the image.

    A few hundred images are enough. The result contains the numbers, so it can be compared, saved
    and written as TOML like any other strategy.

    Args:
        model: the model that the strategy is for.
        strategy: such as ``"dtome"`` or ``"adamerge"``.
        images: ``(n, channels, height, width)``, or an iterable of batches, which is iterated once
            per pass.
        share: approximate average cost of an image, as a share of the dense model's GMACs.
        r: alternatively, the average number of tokens to remove in each block.
        batch_size: for images given as one tensor.
        progress: show progress on standard error.

    Raises:
        ConfigError: if the strategy has nothing to calibrate, or for both ``share`` and ``r``.
        InputError: if there are no images.
    """
    base = model.base if isinstance(model, ReducedViT) else model
    asked = resolved(base, strategy)
    if len(asked.steps) > 1:
        raise ConfigError(
            f"calibrate takes a strategy with one step, got one with {len(asked.steps)}."
        )
    if not asked.selector.calibration_passes:
        raise ConfigError(
            f"{asked.selector!r} has no thresholds to calibrate. Set its counts with a schedule, "
            "or a share as in 'tome@0.65'."
        )
    if share is not None and r is not None:
        raise ConfigError("calibrate takes share or r, not both.")
    removed = _removed(base, asked, share) if share is not None else r
    selector = asked.selector
    for number in range(selector.calibration_passes):
        probe = selector.probing(removed)
        found = _found(base, asked, probe, _batches(images, batch_size), number, progress)
        # A probe of another kind returns the selector's own numbers.
        taught = probe if isinstance(probe, type(selector)) else selector
        selector = taught.calibrated(found)
    return asked.replace(scorer=selector)


def _found(
    base: nn.Module,
    strategy: Strategy,
    probe: Selector,
    batches: Iterator[Tensor],
    number: int,
    progress: bool,
) -> list[list[Tensor]]:
    """What the probe measures in each block, batch by batch."""
    fuser = strategy.fuser
    if strategy.reference and type(fuser) is Merge:
        fuser = _Released(epsilon=1e-4)
    reduced = wrap(base, strategy.replace(scorer=probe, fuser=fuser))
    weight, training = next(base.parameters()), base.training
    found: list[list[Tensor]] = [[] for _ in reduced.backbone.blocks]
    base.eval()
    try:
        with torch.no_grad():
            for batch in progress_bar(
                None, f"pass {number + 1}", "batches", progress, iterable=batches, leave=False
            ):
                on_device = batch.to(weight.device, weight.dtype)
                reduced._run(on_device, _Measures(probe, found))
    finally:
        base.train(training)
    if not found[0] and not any(found):
        raise InputError("calibrate needs images, got none.")
    return found


class _Released(Merge):
    """As in DyMU's calibration, and only there: every mean, the prefix's too, is a bit small."""

    linear = False

    def __call__(
        self,
        state: TokenState,
        selection: Selection,
        graph: Graph | None,
        attention: AttentionStats,
    ) -> TokenState:
        after = super().__call__(state, selection, graph, attention)
        short = torch.cat((after.prefix / (1 + self.epsilon), after.image), dim=1)
        return replace(after, x=short)


class _Measures(Recorder):
    def __init__(self, probe: Selector, found: list[list[Tensor]]) -> None:
        self.probe, self.found = probe, found

    def reduction(self, taken: Taken) -> None:
        measured = self.probe.measure(taken.before, taken.attention)
        self.found[taken.before.layer].append(measured.cpu())


def _batches(images: Tensor | Iterable[Tensor], size: int) -> Iterator[Tensor]:
    batches = images.split(size) if isinstance(images, Tensor) else iter(images)
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.dim() != 4:
            what = tuple(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
            raise InputError(
                f"calibrate needs batches of images (n, channels, height, width), got {what}."
            )
        if len(batch):
            yield batch


def _removed(base: nn.Module, strategy: Strategy, share: float) -> float:
    """Tokens to remove in each block for a share of the dense cost; not necessarily whole."""
    info, stem = wrap(base, Strategy.dense()).info, 0.0
    most = info.num_patches // info.depth

    def cost(count: int) -> float:
        return -strategy_cost(strategy, info, [(count,) * info.depth], stem).gmacs

    wanted = share * cost(0)
    above = bisect_left(range(most), wanted, key=cost)
    if above == 0 or cost(max(0, most - 1)) < wanted:
        raise ConfigError(
            f"share={share} is out of reach of {strategy.selector!r}, which can cost "
            f"{cost(max(0, most - 1)) / cost(0):.2f} to 1 of the dense model."
        )
    low, high = cost(above - 1), cost(above)
    return above - 1 + (wanted - low) / (high - low)
