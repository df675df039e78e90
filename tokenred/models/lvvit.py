"""LV-ViT-S and -M, which timm lacks (Jiang et al., "All Tokens Matter", NeurIPS 2021).

timm's ``VisionTransformer`` with a convolutional stem, halved residuals and a second classifier
over the patches; parameters have the names of the released checkpoints. Importing this module
registers ``lvvit_s`` and ``lvvit_m`` with timm.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import PatchEmbed, to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from tokenred.core.errors import ConfigError, InputError, shown

PATCH = 16
_STEM_WIDTH = 64
_RATES = ("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate")
_OPTIONS = {"dynamic_img_size", "drop_path_rate", *_RATES}


class ConvStem(PatchEmbed):  # type: ignore[misc]
    """Four convolutions to patches of 16: 7×7 with stride 2, 3×3 twice, then 8×8 with stride 8.

    Shapes:
        images: ``(b, ch, H, W)``, both sides multiples of 16.
        returns: ``(b, n, c)``, or ``(b, gh, gw, c)`` if the model takes any size.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = PATCH,
        in_chans: int = 3,
        embed_dim: int = 384,
        bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, bias=bias, **options)
        del self.proj  # type: ignore[has-type]  # modules stand in the order in which they run
        w = _STEM_WIDTH
        self.conv1 = nn.Conv2d(in_chans, w, 7, stride=2, padding=3, bias=False)
        self.conv2 = nn.Conv2d(w, w, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(w, w, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(w) for _ in range(3))
        self.proj = nn.Conv2d(w, embed_dim, PATCH // 2, stride=PATCH // 2, bias=bias)

    def forward(self, images: Float[Tensor, "b ch H W"]) -> Any:
        given = (images.shape[2], images.shape[3])
        if self.strict_img_size and given != self.img_size:
            raise InputError(
                f"images must be {self.img_size[0]}×{self.img_size[1]}, got {given[0]}×{given[1]}. "
                "Resize them, or create the model with img_size=… or dynamic_img_size=True."
            )
        if given[0] % PATCH or given[1] % PATCH:
            raise InputError(
                f"images must have sides in multiples of {PATCH}, got {given[0]}×{given[1]}. "
                "Resize or pad them."
            )
        x = torch.relu(self.bn1(self.conv1(images)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        x = self.proj(x)
        return x.flatten(2).transpose(1, 2) if self.flatten else x.permute(0, 2, 3, 1)


class Halved(nn.Module):
    """A LayerScale of one half, without weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5


def _block(**options: Any) -> Block:
    """A block of timm with ``x += attn(norm1 x)/2; x += mlp(norm2 x)/2``."""
    block = Block(**options)
    block.ls1, block.ls2 = Halved(), Halved()
    return block


class LVViT(VisionTransformer):  # type: ignore[misc]
    """LV-ViT: ``head(x_CLS) + max over the patches of aux_head(x_patch) / 2``.

    The maximum is over the remaining tokens. Training returns the same single tensor; for token
    labelling, `forward_head` returns the logits of the tokens.

    Args:
        img_size: height and width, multiples of 16; so are all sizes with ``dynamic_img_size``.
        num_classes: number of classes; 0 for the CLS feature as output.
        global_pool: ``"token"``, or ``""`` for all tokens as output (only without classes).
        in_chans: this and all other arguments are timm's, among them ``dynamic_img_size`` and the
            rates of dropout.

    Raises:
        ConfigError: for a size or a pooling that the model cannot have.
        TypeError: for other arguments of timm's, which would make another model.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dim: int = 384,
        depth: int = 16,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        **options: Any,
    ) -> None:
        _check_size(img_size)
        _check_pool(global_pool, num_classes)
        if other := options.keys() - _OPTIONS:
            raise TypeError(f"LVViT has no argument {min(other)!r}.")
        super().__init__(
            img_size, PATCH, in_chans, num_classes, global_pool, embed_dim, depth, num_heads,
            mlp_ratio, qkv_bias=False, embed_layer=ConvStem, block_fn=_block,
            norm_layer=partial(nn.LayerNorm, eps=1e-5), **options,
        )  # fmt: skip
        self.in_chans = in_chans  # timm before 1.0.16 does not set it
        self.aux_head = self._classifier()
        self._init_weights(self.aux_head)

    def forward_head(
        self, x: Float[Tensor, "b N c"], pre_logits: bool = False, return_tokens: bool = False
    ) -> Any:
        """Apply the classifiers to the remaining tokens, CLS first, after the final norm.

        With ``pre_logits``, return the CLS feature ``(b, c)`` instead; with ``return_tokens``, the
        logits of CLS ``(b, classes)`` and of every patch ``(b, n, classes)`` separately.
        """
        if self.global_pool == "":
            return x
        x = self.head_drop(x)
        cls, patches = x[:, 0], x[:, self.num_prefix_tokens :]
        if pre_logits:
            return cls
        logits, of_tokens = self.head(cls), self.aux_head(patches)
        if return_tokens:
            return logits, of_tokens
        return logits + of_tokens.amax(dim=1) / 2 if self.num_classes else logits

    def get_classifier(self) -> tuple[nn.Module, nn.Module]:
        """Both classifiers."""
        return self.head, self.aux_head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give both classifiers another number of classes, with new weights."""
        _check_pool(self.global_pool if global_pool is None else global_pool, num_classes)
        super().reset_classifier(num_classes, global_pool)
        self.aux_head = self._classifier().to(self.cls_token).train(self.training)

    def set_input_size(
        self, img_size: tuple[int, int] | None = None, patch_size: tuple[int, int] | None = None
    ) -> None:
        """Change the image size."""
        if patch_size is not None and to_2tuple(patch_size) != (PATCH, PATCH):
            raise ConfigError(
                f"the patches of LV-ViT are always {PATCH}×{PATCH}, got {shown(patch_size)}. Leave "
                "patch_size out."
            )
        if img_size is not None:
            _check_size(img_size)
            super().set_input_size(img_size=to_2tuple(img_size))

    def _classifier(self) -> nn.Module:
        return nn.Linear(self.embed_dim, self.num_classes) if self.num_classes else nn.Identity()


def _check_size(img_size: int | tuple[int, int]) -> None:
    if any(side <= 0 or side % PATCH for side in to_2tuple(img_size)):
        raise ConfigError(
            f"LV-ViT takes images with sides in multiples of {PATCH}, got img_size={img_size!r}."
        )


def _check_pool(global_pool: str, num_classes: int) -> None:
    if global_pool not in ("token", "") or (global_pool == "" and num_classes):
        raise ConfigError(
            "LV-ViT has global_pool='token', or '' with num_classes=0 for all tokens, got "
            f"{global_pool!r} with {num_classes} classes."
        )


def _cfg(**options: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.conv1",
        "classifier": ("head", "aux_head"),
    } | options


# No weights are published for timm; those of the paper load by name from a file.
default_cfgs = generate_default_cfgs({"lvvit_s": _cfg(), "lvvit_m": _cfg(crop_pct=1.0)})


def _create(name: str, pretrained: bool, **options: Any) -> LVViT:
    features = {"out_indices": options.pop("out_indices", 3), "feature_cls": "getter"}
    adapt = {"pretrained_filter_fn": checkpoint_filter_fn, "feature_cfg": features}
    model: LVViT = build_model_with_cfg(LVViT, name, pretrained, **adapt, **options)
    return model


@register_model  # type: ignore[untyped-decorator]
def lvvit_s(pretrained: bool = False, **options: Any) -> LVViT:
    """LV-ViT-S: 26.2 M parameters, 6.55 GMACs, 83.3% top-1 on ImageNet in its paper."""
    shape = {"embed_dim": 384, "depth": 16, "num_heads": 6}
    return _create("lvvit_s", pretrained, **shape | options)


@register_model  # type: ignore[untyped-decorator]
def lvvit_m(pretrained: bool = False, **options: Any) -> LVViT:
    """LV-ViT-M: 55.8 M parameters, 12.68 GMACs, 84.0% top-1 on ImageNet in its paper."""
    shape = {"embed_dim": 512, "depth": 20, "num_heads": 8}
    return _create("lvvit_m", pretrained, **shape | options)
