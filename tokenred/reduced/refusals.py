"""Parts that cannot be combined in a strategy, refused with what to use instead."""

import sys
from collections.abc import Sequence
from traceback import extract_tb

from tokenred.attention import AttentionStat
from tokenred.core.errors import ConfigError, PartError, TokenredError
from tokenred.core.info import ModelInfo
from tokenred.core.state import TokenState
from tokenred.graphs.graph import Graph
from tokenred.strategies.base import Reader, Selector, selectors
from tokenred.strategies.step import Step
from tokenred.strategies.strategy import Strategy

AHEAD = ("before_attention", "inside_attention")
"""Where a block's own attention judges before it is applied."""


def check_steps(strategy: Strategy) -> None:
    """Refuse steps that cannot be combined in a strategy."""
    for step in strategy.steps:
        if step.where == "inside_attention" and not step.fuser.tells_transport:
            raise ConfigError(
                f"{step.fuser!r} does not describe its transport, which is needed to merge a map. "
                "Use where='before_attention', or another fuser."
            )
        if step.selector.masks and len(strategy.steps) > 1:
            raise ConfigError(f"{step.scorer!r} masks tokens in training, so it is the only step.")


def check_padding(strategy: Strategy, acting: Sequence[Sequence[int]]) -> None:
    """Refuse what cannot run on batches whose images keep different numbers of tokens."""
    depth, padded = len(acting), None
    for layer, numbers in enumerate(acting):
        for step in (strategy.steps[number] for number in numbers):
            if step.adaptive(layer, depth):
                padded = step.selector
                if step.where == "inside_attention":
                    raise ConfigError(
                        f"{padded!r} keeps a number of tokens that depends on the image, and a map "
                        "is merged by one number for all. Use where='before_attention'."
                    )
            elif padded is not None:
                raise ConfigError(
                    f"{padded!r} keeps a number of tokens that depends on the image, but "
                    f"{step.scorer!r} in block {layer}, after it, needs the same number for all."
                )
            if padded is not None and not step.fuser.pads:
                raise ConfigError(
                    f"{padded!r} keeps a number of tokens that depends on the image, but "
                    f"{step.fuser!r} needs the same number for all. Use fuser='prune' or 'merge'."
                )


def check_looking_back(strategy: Strategy, layer: int, stats: Sequence[AttentionStat]) -> None:
    """Refuse to read an attention before the first block."""
    if stats and layer == 0:
        readers = [s for s in strategy.steps if s.where == "before_block"]
        raise ConfigError(
            f"{readers[0].selector!r} with {readers[0].fuser!r} reads "
            f"{', '.join(stat.kind for stat in stats)} from the attention of the block before, "
            "and there is none before block 0. Reduce later, or use where='after_attention'."
        )


def check_block(strategy: Strategy, layer: int, acting: Sequence[int], active: int | None) -> None:
    """Refuse parts that cannot be combined in a block."""
    steps = [strategy.steps[number] for number in acting]
    if (ahead := sum(step.where in AHEAD for step in steps)) > 1:
        raise ConfigError(
            f"block {layer} has {ahead} steps that judge by its own attention before it is "
            "applied; it can have one."
        )
    if active is None:
        return
    if steps:
        raise ConfigError(
            f"block {layer} would both idle and remove tokens: {strategy.router!r} lets {active} "
            f"pass, {steps[0].schedule!r} removes some. Use separate blocks."
        )
    if follower := next((mod for mod in strategy.score_mods if mod.follows), None):
        raise ConfigError(
            f"{follower!r} follows the tokens from block to block, but {strategy.router!r} sets "
            f"some of them aside in block {layer}. Use one of the two."
        )


def check_handed_on(step: Step, again: Sequence[AttentionStat]) -> None:
    """Refuse a step that adds tokens if a later one reads the same attention."""
    if again and (step.fuser.extra or step.fuser.replaces):
        raise ConfigError(
            f"{step.fuser!r} adds tokens, of which the attention that a later step reads "
            f"({', '.join(stat.kind for stat in again)}) knows nothing. Reduce in other blocks."
        )


def check_grid(strategy: Strategy, info: ModelInfo, fits: bool) -> None:
    """Refuse what breaks the rectangle that the blocks take, or works inside them."""
    if fits:
        return
    keep = ", ".join(
        e.name
        for e in selectors
        if hasattr(e.make, "grid_after") and e.make.grid_after is not Selector.grid_after
    )
    raise ConfigError(
        f"the blocks of {info.name} take rectangles of tokens and run whole, which "
        f"{strategy!r} does not respect. Use the recipe cubistmerge, or a selector that keeps a "
        f"rectangle ({keep}), with where='before_block' or 'after_mlp'; without a router, score "
        "mods, theta and proportional attention."
    )


def explain(part: Reader, error: Exception, state: TokenState) -> None:
    """Raise what the failure of a part means, if it is known; otherwise note where it happened."""
    if isinstance(error, TokenredError):
        return
    if isinstance(error, AttributeError) and (missed := _missed_graph(part, error)):
        raise missed from error
    if sys.version_info >= (3, 11):
        error.add_note(
            f"In {part!r}, block {state.layer}: {state.num_tokens} of {state.num_patches} image "
            "tokens are left; state.index says which."
        )


def _missed_graph(part: Reader, error: AttributeError) -> PartError | None:
    """What to say if a part failed because it reads a graph that is not there; None otherwise."""
    line = extract_tb(error.__traceback__)[-1].line or ""
    named = error.name in {*dir(Graph), *Graph.__dataclass_fields__}
    if error.obj is not None or not (named or f"graph.{error.name}" in line):
        return None
    if part.uses_graph:
        return PartError(
            f"{part!r} reads graph.{error.name}, and there is no graph. Choose one "
            "(graph='mixed'); a fuser may also look for None, and give "
            "Transport(selection.keep, selection.drop), which removes the tokens."
        )
    return PartError(
        f"{part!r} reads graph.{error.name} but does not declare it, so no graph was built. Write "
        f"uses_graph = True into {type(part).__name__}."
    )
