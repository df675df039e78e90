"""What the block loop needs from a model; an adapter provides it for one family."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenred.attention import QKV
from tokenred.backbones.hooks import has_hooks, unwrapped
from tokenred.core.errors import BackboneError, InputError
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.core.state import TokenState
from tokenred.core.tensors import as_map

Tokens: TypeAlias = Float[Tensor, "b N c"]
PerHead: TypeAlias = Float[Tensor, "b h N d"]
PerToken: TypeAlias = Float[Tensor, "b N"]


@dataclass(frozen=True, eq=False)
class Embedded:
    """The tokens as they enter the first block.

    Attributes:
        x: tokens, prefix first.
        index: positions of the image tokens (fewer than N0 after patch dropout).
        x0: all image tokens, before patch dropout.
        positions: what the blocks need to know about positions, see `TokenState`.
    """

    x: Tokens
    index: Int[Tensor, "b n"]
    x0: Float[Tensor, "b N0 c"]
    grid: tuple[int, int]
    positions: Any = None


def raster(x: Tensor, grid: tuple[int, int]) -> Int[Tensor, "b N0"]:
    """The positions of all patches, one row per image of ``x``."""
    return torch.arange(grid[0] * grid[1], device=x.device).expand(x.shape[0], -1)


class BlockAdapter(ABC):
    """One block, opened at the attention. Holds the block's module and has no weights of its own.

    Calling ``block`` itself must equal ``heads`` → attention → ``after_attention`` →
    ``after_mlp``; a block that is always `closed` does without them. Where positions enter the
    attention, `run` and `qkv_of` use those of the remaining tokens, and must agree in the same way.

    Attributes:
        block: the block.
        whole: what is called when the block runs whole: the block itself, or its wrapper.
        closed: why the block may only run whole, as a module; empty if it can be opened.
        checkpointed: whether its wrapper runs it again in the backward pass.
        passed_by: modules that are not called when the block is opened, so their hooks do not run.
        attends: whether the block has an attention at all.
    """

    attends = True

    def __init__(self, block: nn.Module) -> None:
        self.block: Any
        self.whole = block
        self.block, self.closed, self.checkpointed = unwrapped(block)
        self.passed_by: Sequence[nn.Module] = () if self.block is block else (block,)

    @property
    def attentions(self) -> Sequence[nn.Module]:
        """The modules that an engine replaces when the block is opened; their hooks still run."""
        attn = getattr(self.block, "attn", None)
        return () if attn is None else (attn,)

    @property
    def dropouts(self) -> Sequence[nn.Module]:
        """The modules that drop entries of the attention map."""
        found = (getattr(m, "attn_drop", None) for m in (self.block, *self.attentions))
        return [m for m in found if isinstance(m, nn.Module)]

    def must_open(self, fewer: bool) -> bool:
        """Whether `run` returns None, given all tokens or ``fewer``."""
        return False

    def check_open(self, model: nn.Module) -> None:
        """Raise a `BackboneError` if opening the block would bypass changes made to it."""
        why = self.closed
        if not why and (heard := next(filter(has_hooks, self.passed_by), None)) is not None:
            why = f"hooks on its {type(heard).__name__} would not be called"
        if why:
            at = next((n for n, m in model.named_modules() if m is self.whole), "a block")
            raise BackboneError(
                f"{at} ({type(self.whole).__name__}): {why}, and this strategy works inside the "
                "block. Undo that, or use a strategy that leaves this block alone (layers=…, "
                "where='before_block'). Attention maps: run_with_trace(images, attention='mean')."
            )

    @property
    def hooked(self) -> bool:
        """Whether the block or its attention has hooks."""
        return any(map(has_hooks, (self.whole, self.block, *self.attentions)))

    def run(self, state: TokenState) -> Tokens | None:
        """Run the model's own block; None if it cannot take these tokens and must be opened."""
        return self.whole(state.x)  # type: ignore[no-any-return]

    def heads(self, x: Tokens) -> QKV:
        """Queries, keys and values of the block's input."""
        raise BackboneError(f"{self.closed}.")

    def qkv_of(self, state: TokenState, wants: str = "qkv", quiet: bool = False) -> QKV:
        """The same as `heads`, with the positions of the tokens in ``state``.

        Of ``"qkv"`` only what is in ``wants`` (``"qk"`` or ``"v"``) will be read: an adapter may
        compute less and return any tensors of the right shape for the others. ``quiet`` leaves out
        the hooks of the attention, for a look before the block runs.
        """
        return self.heads(state.x)

    def after_attention(self, x: Tokens, out: PerHead, qkv: QKV) -> Tokens:
        """The tokens after the attention residual; after the whole block if it is parallel."""
        raise BackboneError(f"{self.closed}.")

    def after_mlp(self, x: Tokens) -> Tokens:
        """The tokens after the MLP residual."""
        raise BackboneError(f"{self.closed}.")

    @abstractmethod
    def info(self) -> BlockInfo:
        """The block's cost."""


class Empty(BlockAdapter):
    """``nn.Identity`` in place of a block: tokens pass unchanged, and there is no attention."""

    attends = False

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.closed = "an nn.Identity has no attention"

    def info(self) -> BlockInfo:
        return BlockInfo(0, 0, 0)


class Backbone(ABC):
    """A family of models: embedding, blocks, head. One instance adapts one model.

    Attributes:
        family: the models that the adapter knows, for error messages.
        checkpoint_blocks: whether the user asked for gradient checkpointing.
    """

    family: str

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.blocks: Sequence[BlockAdapter] = ()
        if patched := [n for n in ("forward", "forward_features") if n in vars(model)]:
            raise BackboneError(
                f"{', '.join(patched)} of this {type(model).__name__} was set on the instance, and "
                "a reduced model runs the blocks itself, without it. Remove it "
                f"(del model.{patched[0]}), or set it on the reduced model."
            )

    @property
    def checkpoint_blocks(self) -> bool:
        return False

    @property
    def first_attending(self) -> BlockAdapter:
        """The first block with an attention; its heads count as those of all blocks."""
        if found := [block for block in self.blocks if block.attends]:
            return found[0]
        raise BackboneError(f"no block of this {type(self.model).__name__} has an attention.")

    @classmethod
    @abstractmethod
    def knows(cls, model: nn.Module) -> bool:
        """Whether the model is of this family."""

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """The facts about the model that parts and schedules read."""

    @abstractmethod
    def check_images(self, images: Tensor) -> None:
        """Raise an `InputError` for images of the wrong shape or type, naming the right one."""

    @abstractmethod
    def check_size(self, height: int, width: int) -> None:
        """Raise an `InputError` for an image size that this model cannot take."""

    @abstractmethod
    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """The grid of patches, ``(gh, gw)``, of images of this size in pixels."""

    @abstractmethod
    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        """Everything before the first block."""

    @abstractmethod
    def norm(self, x: Tokens) -> Tokens:
        """The norm after the last block."""

    @property
    def neck(self) -> nn.Module | None:
        """The module between the last tokens, as a map, and the head; None if there is none."""
        return None

    def features(self, x: Tokens, grid: tuple[int, int] | None) -> Any:
        """What the model's ``forward_features`` returns, from tokens after `norm`."""
        neck = self.neck
        return x if neck is None or grid is None else neck(as_map(x, grid))

    @abstractmethod
    def head(self, x: Tokens, pre_logits: bool = False, weight: PerToken | None = None) -> Any:
        """Pooling and classifier, over whatever tokens remain.

        Args:
            x: what `features` returns.
            pre_logits: the pooled features instead of logits.
            weight: how often each token counts when the head pools: once for each patch that it
                stands for, 0 to leave it out. Given only if `pooling` says that it matters.
        """

    @property
    def pooling(self) -> str:
        """How the head uses the weights of tokens.

        ``"token"``: not at all, since it reads prefix tokens or does not pool; ``"average"``: in a
        weighted mean; ``"maximum"``: only a weight of 0 matters; ``"unknown"``: it accepts none,
        and methods that have to leave tokens out are refused.
        """
        return "unknown"

    def logits_apart(self, x: Tokens) -> tuple[Tensor, Tensor] | None:
        """Logits of CLS and of each image token, if the model has a classifier for both."""
        return None

    @abstractmethod
    def stem_macs(self, image_size: tuple[int, int] | None = None) -> float:
        """Multiply-accumulates of the embedding of one image."""


def check_batch(images: Tensor, channels: int, weight: Tensor, hint: str = "") -> None:
    """Check that images are ``(b, channels, H, W)`` and have the weights' type.

    Args:
        images: the batch.
        channels: the number that the model expects.
        weight: a weight of the model, for its type.
        hint: added to the message about a wrong shape.

    Raises:
        InputError: for another shape or type.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != channels:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"images must be a tensor (batch, {channels}, height, width), got {got}.{hint}"
        )
    # Autocast is looked up only if the types differ: some devices (meta) do not support it.
    fits = images.dtype == weight.dtype or torch.is_autocast_enabled(images.device.type)
    if not images.is_floating_point() or not fits:
        raise InputError(
            f"images must be {weight.dtype} like the weights, got {images.dtype}. Convert "
            "them (`images.to(dtype)`, integers scaled and normalised), or run under autocast."
        )
