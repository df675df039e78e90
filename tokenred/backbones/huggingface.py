"""Vision towers of Hugging Face transformers: ViT, DeiT, DINOv2, CLIP, SigLIP.

transformers is an optional dependency. Models are recognised by the names of their classes, so
nothing here imports the library.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenred.backbones.base import Backbone, Embedded, PerToken, Tokens, check_batch, raster
from tokenred.backbones.huggingface_blocks import is_of, open_block
from tokenred.backbones.linear_cost import linear_macs
from tokenred.core.errors import BackboneError, InputError
from tokenred.core.info import ModelInfo
from tokenred.core.tensors import weighted_mean


@dataclass(frozen=True)
class _Form:
    """How a class of models is laid out.

    Attributes:
        tower: the child with the embeddings and the blocks; empty for the model itself.
        prefix: number of tokens before the patches, without registers.
        pool: ``"class"`` (the class token), ``"class norm"`` (CLIP's: the norm belongs to the
            pooling), ``"pooler"`` (a layer of the tower, on the class token), ``"mean"`` (of the
            image tokens), ``"class and mean"``, ``"teacher"`` (class and distillation token), or
            ``"attention"`` (SigLIP's).
        out: the model's linear layers after pooling. If there are several, each has its own token,
            and their outputs are averaged.
    """

    tower: str
    prefix: int
    pool: str
    out: tuple[str, ...] = ()


_CLASSIFIER, _TEACHER = ("classifier",), ("cls_classifier", "distillation_classifier")
_PROJECTION = ("visual_projection",)
_FORMS = {
    "ViTModel": _Form("", 1, "pooler"),
    "ViTForImageClassification": _Form("vit", 1, "class", _CLASSIFIER),
    "DeiTModel": _Form("", 2, "pooler"),
    "DeiTForImageClassification": _Form("deit", 2, "class", _CLASSIFIER),
    "DeiTForImageClassificationWithTeacher": _Form("deit", 2, "teacher", _TEACHER),
    "CLIPVisionModelWithProjection": _Form("vision_model", 1, "class norm", _PROJECTION),
}
for _name, _tower in (("Dinov2", "dinov2"), ("Dinov2WithRegisters", "dinov2_with_registers")):
    _FORMS[f"{_name}Model"] = _Form("", 1, "class")
    _FORMS[f"{_name}ForImageClassification"] = _Form(_tower, 1, "class and mean", _CLASSIFIER)
for _name, _prefix, _pool in (("CLIP", 1, "class norm"), ("Siglip", 0, "attention")):
    # The second is inside the first in transformers 4, and in models with text.
    _FORMS[f"{_name}VisionModel"] = _Form("vision_model", _prefix, _pool)
    _FORMS[f"{_name}VisionTransformer"] = _Form("", _prefix, _pool)
    _FORMS[f"{_name}ForImageClassification"] = _Form("vision_model", _prefix, "mean", _CLASSIFIER)
_WITH_TEXT = ("CLIPModel", "SiglipModel")

# For each set of layers after pooling: the output class, and its fields except hidden_states.
_OUTPUTS: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
    (): ("BaseModelOutputWithPooling", ("last_hidden_state", "pooler_output")),
    _PROJECTION: ("CLIPVisionModelOutput", ("image_embeds", "last_hidden_state")),
    _CLASSIFIER: ("ImageClassifierOutput", ("loss", "logits")),
    _TEACHER: (
        "DeiTForImageClassificationWithTeacherOutput",
        ("logits", "cls_logits", "distillation_logits"),
    ),
}


class HuggingFaceViT(Backbone):
    """Adapter of transformers' vision towers.

    ``forward_features`` returns what the model calls ``last_hidden_state``, with fewer tokens. The
    head returns one tensor: the logits of a classifier, the ``image_embeds`` of a tower with a
    projection, the ``pooler_output`` of any other, or the tokens if that would be None.
    """

    family = (
        "Hugging Face transformers' ViT, DeiT, DINOv2, CLIP and SigLIP "
        f"({', '.join(sorted(_FORMS))})"
    )

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        name = _known(type(model)).__name__
        if name in _WITH_TEXT:
            raise BackboneError(
                f"{name} reads text, too. Wrap its tower: tokenred.wrap(model.vision_model, …)"
            )
        self._form = _FORMS[name]
        # DeiT, DINOv2 and ViT 4; CLIP and SigLIP; ViT 5.
        stack = getattr(self._tower, "encoder", self._tower)
        blocks = stack.layer if hasattr(stack, "layer") else stack.layers
        self.blocks = [open_block(block) for block in blocks]

    @classmethod
    def knows(cls, model: nn.Module) -> bool:
        known = _known(type(model))
        # A subclass with the same forward is the same model.
        return known is not None and type(model).forward is known.forward

    @property
    def info(self) -> ModelInfo:
        block: Any = self.first_attending
        grid = self.grid_of(*self._image_size)
        down, across = self._patches.stride
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
            patch_size=(down, across),
            **self._head_macs(),
        )

    def check_images(self, images: Tensor, interpolate: bool = False) -> None:
        hint = " From the output of an image processor, pass ['pixel_values']."
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
        tower, size = self._tower, (images.shape[2], images.shape[3])
        other = not self._any_size and size != self._image_size
        x = tower.embeddings(images, **({"interpolate_pos_encoding": True} if other else {}))
        if hasattr(tower, "pre_layrnorm"):  # CLIP; transformers spells it this way
            x = tower.pre_layrnorm(x)
        grid = self.grid_of(*size)
        return Embedded(x, raster(x, grid), x[:, self._prefix :], grid)

    def norm(self, x: Tokens) -> Tokens:
        tower = self._tower
        if hasattr(tower, "layernorm"):
            return tower.layernorm(x)  # type: ignore[no-any-return]
        # CLIP normalises only its class token, when it pools.
        return x if hasattr(tower, "pre_layrnorm") else tower.post_layernorm(x)

    # ---------------------------------------------------------------- the last tokens

    @property
    def pooling(self) -> str:
        pool = self._form.pool
        attends = pool == "attention" and self._pool_layer is not None
        return "average" if attends or "mean" in pool else "token"

    def head(self, x: Tokens, pre_logits: bool = False, weight: PerToken | None = None) -> Any:
        pooled = self._pooled(x, weight)
        return pooled if pre_logits else self._logits(pooled)

    def _pooled(self, x: Tokens, weight: PerToken | None) -> Any:
        """The pooled features, or all tokens if the tower was built without pooling."""
        pool, layer, p = self._form.pool, self._pool_layer, self._prefix
        if pool == "class":
            return x[:, 0]
        if pool == "class norm":
            return self._tower.post_layernorm(x[:, 0])
        if pool == "teacher":
            return x[:, :2]
        if "mean" in pool:
            image = x[:, p:]
            if weight is None:
                mean = image.mean(dim=1)
            else:
                mean = weighted_mean(image, weight[:, p:]).squeeze(1)
            return mean if pool == "mean" else torch.cat((x[:, 0], mean), dim=1)
        if layer is None:
            return x
        return layer(x) if weight is None or pool == "pooler" else _attend(layer, x, weight)

    def _logits(self, pooled: Tensor) -> Any:
        each = self._each(pooled)
        if len(each) > 1:
            return torch.stack(each).mean(dim=0)
        return each[0] if each else pooled

    def _each(self, pooled: Tensor) -> list[Tensor]:
        """The output of each layer after pooling: of its own token, or of the pooled features."""
        maps = [getattr(self.model, name) for name in self._form.out]
        if len(maps) == 1:
            return [maps[0](pooled)]
        return [out(pooled[:, i]) for i, out in enumerate(maps)]

    def output(
        self,
        tokens: Tokens,
        pooled: Tensor,
        hidden_states: tuple[Tensor, ...] | None,
        labels: Tensor | None,
        loss_options: Mapping[str, Any],
    ) -> Any:
        """The model's own output object; ``pooled`` is ``tokens`` if the model does not pool."""
        model = self.model
        name, names = _OUTPUTS[self._form.out]
        # Taken from the model's own module, so that the library is not imported here.
        made = getattr(sys.modules[_known(type(model)).__module__], name)
        logits = self._logits(pooled)
        found: dict[str, Any] = {
            "last_hidden_state": tokens,
            "pooler_output": None if pooled is tokens else pooled,
            "logits": logits,
            "image_embeds": logits,
            "loss": None,
        }
        if len(self._form.out) > 1:
            found |= zip(("cls_logits", "distillation_logits"), self._each(pooled), strict=True)
        if labels is not None:
            found["loss"] = model.loss_function(labels, logits, model.config, **loss_options)
        return made(hidden_states=hidden_states, **{name: found[name] for name in names})

    def check_labels(self) -> None:
        """Raise an `InputError` for labels if the model has no loss."""
        if "loss" not in _OUTPUTS[self._form.out][1]:
            name = type(self.model).__name__
            raise InputError(f"{name} has no loss, so it takes no labels. Leave them out.")

    def _head_macs(self) -> dict[str, Any]:
        fixed = sum(linear_macs(getattr(self.model, name)) for name in self._form.out)
        layer = self._pool_layer
        if layer is None:
            return {"head_fixed": fixed}
        if self._form.pool == "pooler":
            return {"head_fixed": fixed + linear_macs(layer)}
        fixed += linear_macs(layer.mlp) + linear_macs(layer.attention.out_proj)
        # Keys and values of each token, and its pair with the single query, in both products.
        width = layer.attention.embed_dim
        return {"head_per_token": 2 * width**2 + 2 * width, "head_fixed": fixed + width**2}

    @property
    def _pool_layer(self) -> Any:
        """The tower's own pooling layer, or None."""
        name = {"pooler": "pooler", "attention": "head"}.get(self._form.pool, "")
        return getattr(self._tower, name, None)

    # ---------------------------------------------------------------- the model

    def stem_macs(self, image_size: tuple[int, int] | None = None) -> float:
        rows, columns = self.grid_of(*(image_size or self._image_size))
        return float(rows * columns * self._patches.weight.numel())

    @property
    def checkpoint_blocks(self) -> bool:
        return any(block.must_open(fewer=False) for block in self.blocks)

    @property
    def _tower(self) -> Any:
        name = self._form.tower
        return getattr(self.model, name) if hasattr(self.model, name) else self.model

    @property
    def _prefix(self) -> int:
        return self._form.prefix + int(getattr(self._tower.config, "num_register_tokens", 0))

    @property
    def _patches(self) -> Any:
        """The convolution that turns patches into tokens."""
        embeddings = self._tower.embeddings
        if hasattr(embeddings, "patch_embedding"):  # CLIP, SigLIP
            return embeddings.patch_embedding
        return embeddings.patch_embeddings.projection

    @property
    def _image_size(self) -> tuple[int, int]:
        size = self._tower.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    @property
    def _any_size(self) -> bool:
        """DINOv2 interpolates its positions to the image size; the others only on request."""
        return type(self._tower.embeddings).__name__.startswith("Dinov2")


def _known(kind: type) -> Any:
    """The known class of transformers that this class is or inherits from, or None."""
    return next((c for c in kind.__mro__ if is_of(c, (*_FORMS, *_WITH_TEXT))), None)


def _attend(layer: Any, x: Tokens, weight: PerToken) -> Any:
    """SigLIP's pooling, with ``log w`` on the keys.

    Raises:
        BackboneError: for learned weights, since a token of weight 0 would have no gradient.
    """
    if weight.requires_grad:
        raise BackboneError(
            "a tower that pools by attention cannot leave tokens out in training, which training "
            "with masked tokens needs. Inference works."
        )
    probe = layer.probe.expand(x.shape[0], -1, -1)
    seen = weight.log().to(x.dtype)
    pooled = layer.attention(probe, x, x, key_padding_mask=seen, need_weights=False)[0]
    return (pooled + layer.mlp(layer.layernorm(pooled)))[:, 0]
