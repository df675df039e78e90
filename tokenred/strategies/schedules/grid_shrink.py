"""Fewer rows and columns."""

from dataclasses import field
from typing import Annotated

from annotated_types import MinLen

from tokenred.core.errors import ConfigError, ScheduleError
from tokenred.core.values import Blocks, Count
from tokenred.strategies.schedule import Schedule, ScheduleContext, layers_of, schedules

Counts = Annotated[tuple[Count, ...], MinLen(1)]


@schedules.register("GridShrink")
class GridShrink(Schedule):
    """Remove whole rows and columns of the grid before some blocks (CubistMerge).

    Args:
        rows, columns: number removed in each of `layers`; or one number for all of them. At most
            half of the grid at once.
        layers: blocks, ascending; None for the quarters of the depth.
        fit: remove fewer, instead of refusing, if more than half would be removed. Meant for the
            defaults of recipes.
    """

    rows: Count | Counts = 1
    columns: Count | Counts = 1
    layers: Blocks | None = None
    fit: bool = field(default=False, compare=False)

    def scaled(self, share: float, context: ScheduleContext) -> tuple[int, ...]:
        raise ScheduleError(
            f"{self!r} cannot follow a budget, because it removes whole rows and columns. Choose "
            "their numbers with tokenred.gmacs instead."
        )

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        if context.grid is None:
            raise ScheduleError(f"{self!r} needs a model whose grid of patches is known.")
        (height, width), (rows, columns) = self.at(layer, context.depth, context.grid)
        return height * width - (height - rows) * (width - columns)

    def at(
        self, layer: int, depth: int, grid: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """The rectangle that enters a block, and the rows and columns removed there.

        Raises:
            ScheduleError: if more than half of the rows or columns would be removed at once.
        """
        layers = layers_of(self, self.layers, depth)
        for values in (self.rows, self.columns):
            if isinstance(values, tuple) and len(values) != len(layers):
                raise ConfigError(
                    f"GridShrink: {len(values)} numbers for the blocks {layers}; pass one for "
                    "each, or one for all."
                )
        height, width = grid
        for stage, block in enumerate(layers):
            rows, columns = (
                values[stage] if isinstance(values, tuple) else values
                for values in (self.rows, self.columns)
            )
            if block > layer:
                break
            if self.fit:
                rows, columns = min(rows, height // 2), min(columns, width // 2)
            if rows > height // 2 or columns > width // 2:
                raise ScheduleError(
                    f"{self!r}: {height}×{width} tokens enter block {block}; at most "
                    f"{height // 2} rows and {width // 2} columns can be removed, but {rows} and "
                    f"{columns} were requested."
                )
            if block == layer:
                return (height, width), (rows, columns)
            height, width = height - rows, width - columns
        return (height, width), (0, 0)
