"""timm's VisionTransformer and its subclasses."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from timm.layers import AttentionPoolLatent
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn

from tokenred.backbones.base import Backbone, Embedded, PerToken, Tokens, check_batch, raster
from tokenred.backbones.hooks import difference, has_hooks
from tokenred.backbones.linear_cost import linear_macs, measured_macs
from tokenred.backbones.vit_blocks import VIT_BLOCKS, Openers, head_shape, open_known
from tokenred.core.errors import BackboneError, InputError
from tokenred.core.info import ModelInfo
from tokenred.core.tensors import at_least_fp32, weighted_mean


class TimmViT(Backbone):
    """Adapter of ``timm.models.VisionTransformer`` and distilled DeiT.

    Attributes:
        kinds: the classes of models.
        opened_by: the classes of blocks, each with its adapter.
        attentions: the classes of attentions in these blocks.
    """

    family = "timm's VisionTransformer and VisionTransformerDistilled (DeiT)"
    kinds: ClassVar[Sequence[type[nn.Module]]] = (VisionTransformerDistilled, VisionTransformer)
    opened_by: ClassVar[Openers] = VIT_BLOCKS
    attentions: ClassVar[Sequence[type[nn.Module]]] = (Attention,)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        known = (self.opened_by, self.attentions, self.family.partition(" (")[0])
        self.blocks = [open_known(block, *known) for block in self.model.blocks]

    @classmethod
    def knows(cls, model: nn.Module) -> bool:
        return cls.is_one_of(type(model), cls.kinds)

    @staticmethod
    def is_one_of(kind: type, known: Sequence[type]) -> bool:
        """Whether a class is one of these or a subclass with the same forward."""
        base = next((base for base in known if issubclass(kind, base)), None)
        names = ("forward_features", "forward_head", "_pos_embed", "forward", "pool")
        return base is not None and all(
            getattr(kind, name, None) is getattr(base, name, None) for name in names
        )

    @property
    def info(self) -> ModelInfo:
        m = self.model
        num_heads, head_dim = head_shape(self.first_attending.block)
        embed, config = m.patch_embed, getattr(m, "pretrained_cfg", None)
        name = config.get("architecture") if isinstance(config, dict) else None
        grid = embed.grid_size
        pixels = embed.feat_ratio(as_scalar=False) if hasattr(embed, "feat_ratio") else None
        return ModelInfo(
            name=str(name or type(m).__name__),
            width=m.embed_dim,
            num_heads=num_heads,
            head_dim=head_dim,
            num_prefix=getattr(m, "num_prefix_tokens", 0),
            cls_index=0 if getattr(m, "cls_token", None) is not None else None,
            grid=None if grid is None else (int(grid[0]), int(grid[1])),
            num_patches=embed.num_patches,
            blocks=tuple(block.info() for block in self.blocks),
            channels=self._channels,
            patch_size=None if pixels is None else (int(pixels[0]), int(pixels[1])),
            **self._head_macs(),
        )

    def check_images(self, images: Tensor) -> None:
        check_batch(images, self._channels, next(self.model.parameters()))
        self.check_size(images.shape[2], images.shape[3])

    def check_size(self, height: int, width: int) -> None:
        m, given = self.model, (height, width)
        size = m.patch_embed.img_size
        if size is not None and not self._dynamic and given != tuple(size):
            raise InputError(
                f"images must be {size[0]}×{size[1]}, got {height}×{width}. Resize them, or "
                "create the model with dynamic_img_size=True or img_size=…"
            )
        unit = self._side_unit
        if self._dynamic and (height % unit[0] or width % unit[1]):
            raise InputError(
                f"images must have sides in multiples of the patch {unit[0]}×{unit[1]}, got "
                f"{height}×{width}. Resize or pad them, or use dynamic_img_pad=True."
            )

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        m = self.model
        if not self._dynamic and m.patch_embed.grid_size is not None:
            rows, columns = m.patch_embed.grid_size
        else:
            rows, columns = m.patch_embed.dynamic_feat_size((height, width))
        return int(rows), int(columns)

    def embed(self, images: Float[Tensor, "b ch H W"]) -> Embedded:
        m = self.model
        grid = self.grid_of(images.shape[2], images.shape[3])
        x = m._pos_embed(m.patch_embed(images))
        p = m.num_prefix_tokens
        if not isinstance(m.patch_drop, nn.Identity) and m.training:
            full, (x, index) = x, _dropped(m.patch_drop, x, p)
            return Embedded(m.norm_pre(x), index, m.norm_pre(full)[:, p:], grid)
        x = m.norm_pre(x)
        return Embedded(x, raster(x, grid), x[:, p:], grid)

    def norm(self, x: Tokens) -> Tokens:
        return self.model.norm(x)  # type: ignore[no-any-return]

    @property
    def pooling(self) -> str:
        m = self.model
        pool = getattr(m, "attn_pool", None)
        if pool is not None:
            return "average" if isinstance(pool, AttentionPoolLatent) else "unknown"
        kinds = {"avg": "average", "avgmax": "average", "max": "maximum"}
        return kinds.get(m.global_pool, "token")

    def head(self, x: Tokens, pre_logits: bool = False, weight: PerToken | None = None) -> Any:
        m = self.model
        if weight is None:
            return m.forward_head(x, pre_logits=pre_logits)
        pool = getattr(m, "attn_pool", None)
        # Before timm 1.0.16, and in Eva, attention pooling includes the prefix.
        with_prefix = getattr(m, "pool_include_prefix", pool is not None)
        front = 0 if with_prefix else m.num_prefix_tokens
        tokens, weight = x[:, front:], weight[:, front:]
        if pool is not None:
            self._check_pool(pool)
            pooled = m.head_drop(m.fc_norm(_attend_latent(pool, tokens, weight)))
            return pooled if pre_logits else m.head(pooled)
        mean, most = weighted_mean(tokens, weight), stand_in(tokens, weight)
        if m.global_pool == "max":
            tokens = most
        elif m.global_pool == "avgmax":
            tokens = (mean + most.amax(dim=1, keepdim=True)) / 2
        else:
            tokens = mean  # pooling a single token changes nothing
        return m.forward_head(torch.cat((x[:, :front], tokens), dim=1), pre_logits=pre_logits)

    def _check_pool(self, pool: nn.Module) -> None:
        """Refuse to replace a pooling layer that was changed or has hooks."""
        changed = difference(pool, AttentionPoolLatent) or (
            "it has hooks" if has_hooks(pool) else ""
        )
        if "forward_head" in vars(self.model):
            changed = "the model's forward_head was set on the instance"
        if changed:
            raise BackboneError(
                f"attn_pool ({type(pool).__name__}): {changed}, but this strategy needs pooling "
                "with token weights. Undo that, or use a strategy without sizes and padding."
            )

    def stem_macs(self, image_size: tuple[int, int] | None = None) -> float:
        m = self.model
        height, width = image_size or m.patch_embed.img_size
        proj = getattr(m.patch_embed, "proj", None)
        if isinstance(proj, nn.Conv2d) and not hasattr(m.patch_embed, "backbone"):
            rows, columns = self.grid_of(height, width)
            return float(rows * columns * proj.weight.numel())
        weight = next(m.parameters())
        example = torch.zeros(
            1, self._channels, height, width, dtype=weight.dtype, device=weight.device
        )
        return measured_macs(m.patch_embed, example)

    @property
    def checkpoint_blocks(self) -> bool:
        return bool(self.model.grad_checkpointing)

    @property
    def _channels(self) -> int:
        # From the first convolution, whoever put it there; without one, from timm.
        for weight in self.model.patch_embed.parameters():
            if weight.ndim == 4:
                return int(weight.shape[1])
        return int(self.model.in_chans)

    @property
    def _dynamic(self) -> bool:
        return bool(getattr(self.model, "dynamic_img_size", False))

    @property
    def _side_unit(self) -> tuple[int, int]:
        """What the sides of an image must be multiples of, if sizes are dynamic."""
        embed = self.model.patch_embed
        if not getattr(embed, "dynamic_img_pad", False):
            rows, columns = embed.feat_ratio(as_scalar=False)
        else:
            # A convolutional stem pads its features, not the image.
            rows, columns = getattr(embed, "feature_ratio", (1, 1))
        return int(rows), int(columns)

    def _head_macs(self) -> dict[str, Any]:
        m = self.model
        pool = getattr(m, "attn_pool", None)
        classifier = sum(linear_macs(getattr(m, n)) for n in ("head", "head_dist") if hasattr(m, n))
        if not isinstance(pool, AttentionPoolLatent):
            # timm's other pooling is attention without weights, over all tokens.
            pair = 0 if pool is None else 2 * m.embed_dim
            return {"head_per_pair": pair, "head_fixed": classifier}
        keys_values = linear_macs(pool.kv)
        latent = linear_macs(pool) - keys_values
        per_token = keys_values + 2 * pool.num_heads * pool.head_dim
        # Without the attribute, timm is older than 1.0.16 and pools them all.
        unseen = 0 if getattr(m, "pool_include_prefix", True) else m.num_prefix_tokens
        return {"head_per_token": per_token, "head_fixed": classifier + latent - unseen * per_token}


def stand_in(x: Float[Tensor, "b n c"], weight: PerToken) -> Float[Tensor, "b n c"]:
    """Replace tokens of weight 0 by copies of another token, which changes no maximum."""
    first = weight.argmax(dim=1)
    one = x[torch.arange(x.shape[0], device=x.device), first][:, None]
    return torch.where(weight[..., None] > 0, x, one)


def _attend_latent(pool: Any, x: Float[Tensor, "b n c"], weight: PerToken) -> Tensor:
    """``AttentionPoolLatent`` of timm with weighted tokens.

    ``Σ_j w_j e^{s_j} v_j / Σ_j w_j e^{s_j}``: a token of weight 2 counts like two equal tokens.
    """
    b, _, c = x.shape
    if pool.pos_embed is not None:
        x = x + pool.pos_embed.unsqueeze(0).to(x.dtype)
    heads = pool.num_heads, pool.head_dim
    q = pool.q(pool.latent.expand(b, -1, -1)).unflatten(-1, heads).transpose(1, 2)
    k, v = pool.kv(x).unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (pool.q_norm(q) * pool.scale) @ pool.k_norm(k).transpose(-2, -1)
    scores = scores.to(at_least_fp32(scores.dtype))
    # If no token is left, all count alike.
    weight = torch.where(weight.sum(dim=1, keepdim=True) > 0, weight, 1)[:, None, None]
    highest = scores.masked_fill(weight <= 0, -torch.inf).amax(dim=-1, keepdim=True)
    # A token that is left out may have a much larger logit than the rest.
    share = (scores - highest).clamp_max(0).exp() * weight
    share = share / share.sum(dim=-1, keepdim=True)
    x = pool.proj_drop(pool.proj((share.to(v.dtype) @ v).transpose(1, 2).reshape(b, -1, c)))
    if pool.mlp is not None:
        x = x + pool.mlp(pool.norm(x))
    if pool.pool == "token":
        return x[:, 0]
    return x.mean(dim=1) if pool.pool == "avg" else x


def _dropped(
    drop: Any, x: Tokens, num_prefix: int
) -> tuple[Float[Tensor, "b k c"], Int[Tensor, "b k"]]:
    """Patch dropout, and which positions it kept.

    timm's layer returns only tokens, so each carries its position in two extra channels below 256,
    which every floating type represents exactly.
    """
    b, n, _ = x.shape
    at = (torch.arange(n, device=x.device) - num_prefix).clamp_min(0)
    tag = torch.stack((at // 256, at % 256), dim=-1).to(x.dtype)
    tagged = drop(torch.cat((x, tag.expand(b, n, 2)), dim=-1))
    kept = tagged[:, num_prefix:, -2:].detach().round().long()
    return tagged[..., :-2], kept[..., 0] * 256 + kept[..., 1]
