"""The attention of frequency-aware reduction."""

from typing import Annotated

import torch
from annotated_types import MinLen
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.attention import ScoreMod, score_mods
from tokenred.core.errors import ConfigError
from tokenred.core.info import ModelInfo
from tokenred.core.state import TokenState
from tokenred.core.values import Blocks
from tokenred.strategies.schedule import quarters

Omega = float | Annotated[tuple[float, ...], MinLen(1)]


@score_mods.register("Frequency")
class Frequency(ScoreMod):
    """Amplify high frequencies and means separately (Lee et al., NeurIPS 2025, arXiv 2511.21477).

    ``Â = 1/T + (1 + ω₁)(A − 1/T) + (1 + ω₂) A_DC`` after the first reduction, where A_DC has only
    the columns of the regions' means. Since the rows of A sum to 1, that is A times other values:
    ``(1 + ω₁ + (1 + ω₂)·[j is a mean]) v_j − ω₁·mean(v)``.

    Args:
        omega1, omega2: ω₁ and ω₂; one number, or one for each head. With 0 and −1 attention is
            unchanged.
        layers: the blocks that reduce; None for the quarters of the depth.
        learned: ω₁ and ω₂ of each head in each block are weights, which start at these values.
    """

    omega1: Omega = 0.0
    omega2: Omega = -1.0
    layers: Blocks | None = None
    learned: bool = False

    changes_values = True

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        for name, values in (("omega1", self.omega1), ("omega2", self.omega2)):
            if isinstance(values, tuple) and len(values) != info.num_heads:
                raise ConfigError(
                    f"Frequency: {len(values)} values in {name} for {info.num_heads} heads; pass "
                    "one number, or one for each."
                )

    def build(self, info: ModelInfo) -> ScoreMod | nn.Module:
        count = sum(self.active(layer, info.depth) for layer in range(info.depth))
        return _Omegas(self, count, info.num_heads) if self.learned else self

    def active(self, layer: int, depth: int) -> bool:
        first = (quarters(depth) if self.layers is None else self.layers)[0]
        return layer > first and (self.learned or (self.omega1, self.omega2) != (0, -1))

    def values(self, v: Float[Tensor, "b h N d"], state: TokenState) -> Float[Tensor, "b h N d"]:
        first = torch.zeros_like(state.index[:, :1]).expand(-1, state.num_prefix)
        is_mean = (torch.cat((first, state.index), dim=1) < 0)[:, None, :, None].to(v.dtype)
        omegas = (self.omega1, self.omega2)
        if isinstance(self.network, _Omegas):
            omegas = self.network(state.layer - state.depth)
        one, two = (_per_head(omega, v) for omega in omegas)
        return v * (1 + one + (1 + two) * is_mean) - one * v.mean(dim=2, keepdim=True)


class _Omegas(nn.Module):
    """ω₁ and ω₂ for the last ``count`` blocks; vectors, which weight decay leaves alone."""

    def __init__(self, start: Frequency, count: int, heads: int) -> None:
        super().__init__()
        one, two = (torch.tensor(x).expand(heads) for x in (start.omega1, start.omega2))
        self.omega1 = nn.ParameterList(one.clone() for _ in range(count))
        self.omega2 = nn.ParameterList(two.clone() for _ in range(count))

    def forward(self, layer: int) -> tuple[Tensor, Tensor]:
        """Those of a block, counted from the end of the model."""
        return self.omega1[layer], self.omega2[layer]


def _per_head(omega: Omega | Tensor, v: Float[Tensor, "b h N d"]) -> Tensor:
    return torch.as_tensor(omega, dtype=v.dtype, device=v.device).reshape(1, -1, 1, 1)
