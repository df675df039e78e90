"""Vision towers of Hugging Face transformers: ViT, DeiT, DINOv2, CLIP, SigLIP.

transformers is an optional dependency. A model is known by the names of its classes, so nothing
here imports the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tokenred.backbones.base import (
    Backbone,
    Embedded,
    PerToken,
    Tokens,
    check_batch,
    raster,
)
from tokenred.backbones.huggingface_blocks import is_of, open_block
from tokenred.backbones.huggingface_heads import Head
from tokenred.core.errors import BackboneError, InputError
from tokenred.core.info import ModelInfo

__all__ = ["HuggingFaceViT"]


@dataclass(frozen=True)
class _Form:
    """Where a model has its tower, how many tokens come before the patches, and what comes last."""

    tower: str
    prefix: int
    head: Head


def _forms() -> dict[str, _Form]:
    forms = {
        "ViTModel": _Form("", 1, Head("pooler")),
        "ViTForImageClassification": _Form("vit", 1, Head("class", ("classifier",))),
        "DeiTModel": _Form("", 2, Head("pooler")),
        "DeiTForImageClassification": _Form("deit", 2, Head("class", ("classifier",))),
        "DeiTForImageClassificationWithTeacher": _Form(
            "deit", 2, Head("teacher", ("cls_classifier", "distillation_classifier"))
        ),
    }
    for name, tower in (("Dinov2", "dinov2"), ("Dinov2WithRegisters", "dinov2_with_registers")):
        classifier = Head("class and mean", ("classifier",))
        forms[f"{name}Model"] = _Form("", 1, Head("class"))
        forms[f"{name}ForImageClassification"] = _Form(tower, 1, classifier)
    for name, prefix, head in (("CLIP", 1, Head("class norm")), ("Siglip", 0, Head("attention"))):
        classifier = Head("mean", ("classifier",))
        # The second one is what transformers 4 has in the first, and in models with text.
        forms[f"{name}VisionModel"] = _Form("vision_model", prefix, head)
        forms[f"{name}VisionTransformer"] = _Form("", prefix, head)
        forms[f"{name}ForImageClassification"] = _Form("vision_model", prefix, classifier)
    projected = Head("class norm", ("visual_projection",))
    return forms | {"CLIPVisionModelWithProjection": _Form("vision_model", 1, projected)}


_FORMS = _forms()
_WITH_TEXT = ("CLIPModel", "SiglipModel")


class HuggingFaceViT(Backbone):
    """Adapter of transformers' vision towers.

    ``forward_features`` gives what the model calls ``last_hidden_state``, with fewer tokens. The
    head gives one tensor: logits of a classifier, ``image_embeds`` of a tower with a projection,
    ``pooler_output`` of any other, and the tokens where that would be None.
    """

    family = f"Hugging Face transformers' {', '.join(sorted(_FORMS))}"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        name = _known(type(model)).__name__
        if name in _WITH_TEXT:
            raise BackboneError(
                f"{name} reads text, too. Wrap its tower: tokenred.wrap(model.vision_model, …)"
            )
        self._form = _FORMS[name]
        tower = self._tower
        # DeiT, DINOv2 and ViT 4; CLIP and SigLIP; ViT 5.
        stack = getattr(tower, "encoder", tower)
        blocks = stack.layer if hasattr(stack, "layer") else stack.layers
        self.blocks = [open_block(block) for block in blocks]
        if not self.blocks:
            raise BackboneError(f"{name} has no blocks to reduce tokens in.")

    @classmethod
    def knows(cls, model: nn.Module) -> bool:
        known = _known(type(model))
        # A subclass that leaves the forward alone is the same model.
        return known is not None and type(model).forward is known.forward

    @property
    def info(self) -> ModelInfo:
        block: Any = self.first_attending
        height, width = self._image_size
        grid = self.grid_of(height, width)
        patch = self._patches.stride
        return ModelInfo(
            name=getattr(self.model, "name_or_path", "") or type(self.model).__name__,
            width=self._tower.config.hidden_size,
            num_heads=block.num_heads,
            head_dim=block.head_dim,
            num_prefix=self._prefix,
            cls_index=0 if self._prefix else None,
            grid=grid,
            num_patches=grid[0] * grid[1],
            blocks=tuple(block.info() for block in self.blocks),
            channels=self._patches.in_channels,
            patch_size=(patch[0], patch[1]),
            **self._form.head.macs(self.model, self._tower),
        )

    def check_images(self, images: Tensor, interpolate: bool = False) -> None:
        hint = " Of what an image processor returns, pass ['pixel_values']."
        check_batch(images, self._patches.in_channels, self._patches.weight, hint)
        self.check_size(images.shape[2], images.shape[3], interpolate)

    def check_size(self, height: int, width: int, interpolate: bool = False) -> None:
        size, patch = self._image_size, self._patches.stride
        if not (self._any_size or interpolate) and (height, width) != size:
            raise InputError(
                f"images must be {size[0]}×{size[1]}, got {height}×{width}. Resize them, or pass "
                "interpolate_pos_encoding=True."
            )
        if height < patch[0] or width < patch[1]:
            raise InputError(
                f"images must be at least one patch, {patch[0]}×{patch[1]}, got {height}×{width}."
            )

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        down, across = self._patches.stride
        return height // int(down), width // int(across)

    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        tower, grid = self._tower, self.grid_of(images.shape[2], images.shape[3])
        other = not self._any_size and (images.shape[2], images.shape[3]) != self._image_size
        x = tower.embeddings(images, **({"interpolate_pos_encoding": True} if other else {}))
        if hasattr(tower, "pre_layrnorm"):  # CLIP's, which transformers spells so
            x = tower.pre_layrnorm(x)
        return Embedded(x, raster(x, grid), x[:, self._prefix :], grid)

    def norm(self, x: Tokens) -> Tokens:
        tower = self._tower
        if hasattr(tower, "layernorm"):
            return tower.layernorm(x)  # type: ignore[no-any-return]
        # CLIP norms its class token only, and does so when it pools.
        return x if hasattr(tower, "pre_layrnorm") else tower.post_layernorm(x)

    @property
    def pooling(self) -> str:
        return self._form.head.pooling(self._tower)

    def head(self, x: Tokens, pre_logits: bool = False, weight: PerToken | None = None) -> Any:
        pooled = self._form.head.pooled(self._tower, x, self._prefix, weight)
        return pooled if pre_logits else self._form.head.logits(self.model, pooled)

    def output(self, tokens: Tokens, pooled: Tensor, **more: Any) -> Any:
        """The model's own output object, see `Head.output`."""
        kind = _known(type(self.model))
        return self._form.head.output(self.model, kind, tokens, pooled, **more)

    def check_labels(self) -> None:
        """Refuse labels where the model has no loss.

        Raises:
            InputError: then.
        """
        if not self._form.head.has_loss:
            name = type(self.model).__name__
            raise InputError(f"{name} has no loss, so it takes no labels. Leave them out.")

    def stem_macs(self, image_size: tuple[int, int] | None = None) -> float:
        rows, columns = self.grid_of(*(image_size or self._image_size))
        return float(rows * columns * self._patches.weight.numel())

    @property
    def checkpoint_blocks(self) -> bool:
        return any(getattr(block, "saves_memory", False) for block in self.blocks)

    @property
    def _tower(self) -> Any:
        """What has the embeddings and the blocks: the model itself, or a child of it."""
        name = self._form.tower
        return getattr(self.model, name) if hasattr(self.model, name) else self.model

    @property
    def _prefix(self) -> int:
        return self._form.prefix + int(getattr(self._tower.config, "num_register_tokens", 0))

    @property
    def _patches(self) -> nn.Conv2d:
        """The convolution that makes tokens of patches."""
        embeddings = self._tower.embeddings
        if hasattr(embeddings, "patch_embedding"):  # CLIP, SigLIP
            return embeddings.patch_embedding  # type: ignore[no-any-return]
        return embeddings.patch_embeddings.projection  # type: ignore[no-any-return]

    @property
    def _image_size(self) -> tuple[int, int]:
        size = self._tower.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    @property
    def _any_size(self) -> bool:
        """DINOv2 fits its positions to the image; the others do so on request only."""
        return type(self._tower.embeddings).__name__.startswith("Dinov2")


def _known(kind: type) -> Any:
    """The class of transformers' that a model is of, or None."""
    return next((c for c in kind.__mro__ if is_of(c, (*_FORMS, *_WITH_TEXT))), None)
