"""What the block loop asks of a model; an adapter answers for one family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenred.attention import Heads
from tokenred.core.errors import BackboneError
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.core.state import TokenState

__all__ = ["Backbone", "BlockAnatomy", "Embedded"]


@dataclass(frozen=True, eq=False)
class Embedded:
    """The tokens as they enter the first block.

    Attributes:
        x: ``(b, N, c)``, prefix first.
        index: ``(b, n)`` positions of the image tokens (fewer than N0 after patch dropout).
        x0: ``(b, N0, c)`` all image tokens, before patch dropout.
        grid: ``(gh, gw)``.
        positions: what the blocks have to know of the grid, see `TokenState`.
    """

    x: Float[Tensor, "b N c"]
    index: Int[Tensor, "b n"]
    x0: Float[Tensor, "b N0 c"]
    grid: tuple[int, int]
    positions: Any = None


class BlockAnatomy(ABC):
    """One block, opened at the attention. Holds the block's module, none of its own weights.

    Calling ``block`` itself must equal ``heads`` → attention → ``after_attention`` →
    ``after_mlp``. Where positions enter the attention, `run` and `heads_of` put in those of the
    tokens that are left, and must agree in the same way.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    @property
    def parallel(self) -> bool:
        """Attention and MLP read the same input: `after_attention` does both."""
        return False

    def run(self, state: TokenState) -> Float[Tensor, "b N c"] | None:
        """The model's own block; None where it cannot take these tokens and has to be opened."""
        return self.block(state.x)  # type: ignore[no-any-return]

    @abstractmethod
    def heads(self, x: Float[Tensor, "b N c"]) -> Heads:
        """Queries, keys and values of the block's input."""

    def heads_of(self, state: TokenState) -> Heads:
        """The same, with the positions of the tokens in ``state``."""
        return self.heads(state.x)

    @abstractmethod
    def after_attention(
        self, x: Float[Tensor, "b N c"], out: Float[Tensor, "b h N d"], heads: Heads
    ) -> Float[Tensor, "b N c"]:
        """The tokens after the attention residual."""

    @abstractmethod
    def after_mlp(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        """The tokens after the MLP residual."""

    @abstractmethod
    def info(self) -> BlockInfo:
        """The block's arithmetic."""


class Backbone(ABC):
    """A family of models: embedding, blocks, head. Made anew for each model it adapts."""

    family: str
    """What the adapter knows, for the message that refuses everything else."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.blocks: Sequence[BlockAnatomy] = ()

    @classmethod
    @abstractmethod
    def knows(cls, model: nn.Module) -> bool:
        """Whether the model is of this family."""

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """The model as parts and schedules see it."""

    @abstractmethod
    def check_images(self, images: Tensor) -> None:
        """Refuse images of a wrong shape or type.

        Raises:
            InputError: with the shape and type expected.
        """

    @abstractmethod
    def check_size(self, height: int, width: int) -> None:
        """Refuse a size that images of this model cannot have.

        Raises:
            InputError: with the size expected.
        """

    @abstractmethod
    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """The grid of patches of images of this size."""

    @abstractmethod
    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        """Everything before the first block."""

    @abstractmethod
    def norm(self, x: Float[Tensor, "b N c"]) -> Float[Tensor, "b N c"]:
        """The norm after the last block."""

    @abstractmethod
    def head(
        self,
        x: Float[Tensor, "b N c"],
        pre_logits: bool = False,
        weight: Float[Tensor, "b N"] | None = None,
    ) -> Any:
        """Pooling and classifier, over whatever tokens remain.

        Args:
            x: tokens after the final norm.
            pre_logits: the pooled features instead of logits.
            weight: how often each token counts where the head pools them: the number of patches
                it stands for, and 0 for one that is to be left out. Given only where `pooling`
                says that it matters.
        """

    @property
    def pooling(self) -> str:
        """What weights of tokens do to the head.

        ``"token"``: nothing, it reads prefix tokens or all as they are; ``"average"``: it
        averages over tokens; ``"maximum"``: only a weight of 0 matters; ``"unknown"``: `head`
        takes no weights, and methods that have to leave tokens out are refused.
        """
        return "unknown"

    def logits_apart(self, x: Float[Tensor, "b N c"]) -> tuple[Tensor, Tensor] | None:
        """Logits of CLS and of every image token, where the model has a classifier for both."""
        return None

    @abstractmethod
    def stem_macs(self, image_size: tuple[int, int] | None = None) -> float:
        """Multiply-accumulates of the embedding of one image."""

    @property
    def checkpoint_blocks(self) -> bool:
        """Whether the user asked for gradient checkpointing."""
        return False


def open_known(
    block: nn.Module,
    anatomies: Mapping[type[nn.Module], type[BlockAnatomy]],
    attentions: Sequence[type[nn.Module]],
    family: str,
) -> BlockAnatomy:
    """The anatomy of a block.

    Exact classes only: a subclass may have changed its forward, and a guess would be wrong
    without a word.

    Args:
        block: one of a model's blocks.
        anatomies: by class of block.
        attentions: classes that may be called ``attn`` in it.
        family: of the models, for messages.

    Raises:
        BackboneError: for a block or an attention that is not known.
    """
    anatomy = anatomies.get(type(block))
    if anatomy is None:
        raise BackboneError(
            f"the block {type(block).__name__} is not known; known blocks of {family}: "
            f"{_names(anatomies)}."
        )
    for name, module in block.named_modules():
        if name.split(".")[-1] == "attn" and type(module) not in attentions:
            raise BackboneError(
                f"the attention {type(module).__name__} in {type(block).__name__} is not known "
                "(differential attention subtracts two maps, which have no single row of "
                f"statistics); known: timm's {_names(attentions)}."
            )
    return anatomy(block)


def _names(classes: Iterable[type[nn.Module]]) -> str:
    return ", ".join(sorted(known.__name__ for known in classes))


def leaves_alone(kind: type, base: type, names: Iterable[str]) -> bool:
    """Whether a subclass has the base's own methods: then it is the same model."""
    return all(getattr(kind, name, None) is getattr(base, name, None) for name in names)


def linear_macs(module: nn.Module) -> int:
    """Multiply-accumulates of a module's linear layers, for one token."""
    return sum(
        layer.in_features * layer.out_features
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
    )


def measured_macs(module: nn.Module, example: Tensor) -> float:
    """Multiply-accumulates of a forward, counted by PyTorch; for stems without a closed form."""
    from torch.utils.flop_counter import FlopCounterMode

    training = module.training
    counter = FlopCounterMode(display=False)
    try:
        module.eval()
        with torch.no_grad(), counter:
            module(example)
    finally:
        module.train(training)
    return counter.get_total_flops() / 2
