"""The authors' programs, method by method: logits, choices and losses of tiny models in float64.

``tests/golden/{method}.json`` says in ``about`` what its cases hold; the weights beside it have
timm's names.
"""

import hashlib
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tokenred.models.lvvit import LVViT
from tokenred.models.rebuild import weightless
from tokenred.strategies.routers import SlowFast
from tokenred.training.losses import make_criterion

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")

FOLDER = Path(__file__).parent / "golden"
FILES = ("ats", "dynamicvit", "evit_grid", "evovit", "idlevit_train", "lvvit", "topk", "trilevel")
GOLDEN = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in FILES}

Case = dict[str, Any]


@cache
def _arrays(file: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{GOLDEN[file].get('weights', file)}.npz") as archive:
        return {name: torch.from_numpy(array).double() for name, array in archive.items()}


def _weights(file: str, model: str) -> dict[str, Tensor]:
    like = GOLDEN[file]["models"][model].get("like")
    own = {} if like is None else _weights(file, like)
    start = f"model/{model}/"
    return own | {k.removeprefix(start): v for k, v in _arrays(file).items() if k.startswith(start)}


@cache
def _model(file: str, name: str, pool: str = "token") -> Any:
    about, weights = GOLDEN[file], _weights(file, name)
    shape = about["models"][name]
    options = {
        "embed_dim": shape["width"],
        "depth": shape["depth"],
        "num_heads": shape["heads"],
        "num_classes": about["num_classes"],
    }
    if file == "lvvit":
        model: Any = LVViT(img_size=16 * shape["grid"], **options)
    else:
        model = VisionTransformer(
            img_size=about["patch"] * shape["grid"],
            patch_size=about["patch"],
            mlp_ratio=about["mlp_ratio"],
            norm_layer=partial(nn.LayerNorm, eps=about["norm_eps"]),
            global_pool=pool,
            fc_norm=pool == "avg",
            **options,
        )
    if pool == "avg":
        weights = {
            k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v
            for k, v in weights.items()
        }
    missing, left = model.double().load_state_dict(weights, strict=False)
    assert not missing
    assert all(name.startswith("score_predictor.") for name in left)
    return model.eval()


def _images(file: str, case: Case) -> Tensor:
    images = _arrays(file)[f"images/{case['model']}"]
    return images[case["images"]] if "images" in case else images


def _close(got: Tensor, wanted: Any) -> None:
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(got.detach().double(), wanted, atol=1e-6, rtol=1e-6)


def _reduced(file: str, case: Case, strategy: tr.Strategy, pool: str = "token") -> tr.ReducedViT:
    reduced = tr.wrap(_model(file, case["model"], pool), strategy).eval()
    if "selector" in getattr(reduced, "parts", {}):
        learned = {
            k.removeprefix("score_predictor.")
            .replace("in_conv", "embed")
            .replace("out_conv", "decide"): v
            for k, v in _weights(file, case["model"]).items()
            if k.startswith("score_predictor.")
        }
        stages = reduced.parts["selector"].stages
        stages.load_state_dict({k: v for k, v in learned.items() if int(k[0]) < len(stages)})
    return reduced


@torch.no_grad()
def _run(file: str, case: Case, reduced: tr.ReducedViT) -> tr.Trace:
    """Logits to 1e-6, and what was kept in each of the layers."""
    logits, trace = reduced.run_with_trace(_images(file, case))
    _close(logits, case["logits"])
    if "layers" in case and "kept" in case:
        for layer, kept in zip(case["layers"], case["kept"], strict=True):
            index = trace.index_per_layer[layer]
            assert [[i for i in row if i >= 0] for row in index.tolist()] == kept
    return trace


# ---------------------------------------------------------------- methods


def ats(file: str, case: Case) -> None:
    _run(file, case, _reduced(file, case, tr.strategy("ats", layers=case["layers"])))


def evit_grid(file: str, case: Case) -> None:
    strategy = tr.strategy(
        "evit", layers=case["layers"], keep_rate=case["keep_rate"], fuse=case["fuse"]
    )
    trace = _run(file, case, _reduced(file, case, strategy))
    assert list(trace.tokens_per_layer) == case["tokens"]
    if case["kept_first"] is not None:
        first = trace.index_per_layer[trace.steps[0].layer]
        assert [[i for i in row if i >= 0] for row in first.tolist()] == case["kept_first"]


def topk(file: str, case: Case) -> None:
    rate = case["keep_rate"]
    strategy = tr.strategy(
        "topk", layers=case["layers"], keep_rate=rate[0] if len(rate) == 1 else rate, reference=True
    )
    _run(file, case, _reduced(file, case, strategy))


def trilevel(file: str, case: Case) -> None:
    strategy = tr.strategy(
        "tri-level",
        layers=case["layers"],
        keep_rate=case["keep_rate"],
        attention_rate=case["attention_rate"],
        reference=True,
        epsilon=0.0 if "eps" in case["edits"] else None,
    )
    _run(file, case, _reduced(file, case, strategy))


def evovit(file: str, case: Case) -> None:
    names = ("keep_rate", "t", "stagewise", "representative")
    strategy = tr.strategy("evo-vit", **{name: case[name] for name in names})
    reduced = _reduced(file, case, strategy, case["pool"])
    assert reduced.strategy.router.active(4, 12, reduced.info.num_patches) == case[
        "informative"
    ] + int(case["representative"])
    chosen: list[Any] = []
    split = SlowFast.split

    def noting(self: SlowFast, *given: Any) -> Any:
        active, resting = split(self, *given)
        chosen.append((resting["slow"][:, 1:] - 1).tolist())
        return active, resting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlowFast, "split", noting)
        reduced.train(case["form"] == "train")
        _run(file, case, reduced)
        reduced.eval()
    if "kept" in case:
        assert chosen == case["kept"]


def idlevit_train(file: str, case: Case) -> None:
    strategy = tr.strategy(
        "idlevit", layers=case["layers"], keep_ratios=case["keep_ratios"], cut=case["cut"]
    )
    reduced = _reduced(file, case, strategy)
    images, labels = _images(file, case), torch.tensor(case["labels"])
    if "logits_eval" in case:
        _close(reduced(images), case["logits_eval"])
    logits, aux = _train_form(reduced, images)
    if "logits" in case:
        _close(logits, case["logits"])
        _close(aux["token_cut"].mean(dim=0), case["token_cut"])
    criterion = make_criterion("idlevit", reference=case["form"] == "released loss")
    total, parts = criterion(logits, labels, aux, *_taught(reduced.base, images))
    losses = case["losses"]
    found = {"ce": "ce", "cut": "token_cut", "kl": "distill", "feature": "cls_feature"}
    for theirs, ours in found.items():
        _close(parts[ours], losses[theirs])
    _check_total(reduced, total, losses, losses.get("grads", {}))


def dynamicvit(file: str, case: Case) -> None:
    strategy = tr.strategy(
        "dynamicvit",
        layers=case["layers"],
        keep_rate=case["keep_rate"],
        epsilon=case.get("epsilon", 1e-6),
    )
    reduced = _reduced(file, case, strategy)
    if case["form"] == "eval":
        _run(file, case, reduced)
        return
    draws = iter(_arrays(file)[case["noise"]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            F, "gumbel_softmax", lambda x, tau=1: ((x + next(draws)) / tau).softmax(dim=-1)
        )
        logits, aux = _train_form(reduced, _images(file, case))
    masks = torch.tensor(case["masks"], dtype=torch.float64)
    _close(aux["kept_share"].T, masks.mean(dim=-1))
    _close(aux["mask"][:, 1:], masks[-1])
    _close(logits, case["logits"])
    _close(aux["features"][:, 1:].mean(dim=1), case["features_mean"])
    criterion = make_criterion("dynamicvit", reference=True, ratio=case["ratio_weight"])
    labels = torch.tensor(case["labels"])
    total, parts = criterion(logits, labels, aux, *_taught(reduced.base, _images(file, case)))
    losses = case["losses"]
    found = {"ce": "ce", "ratio": "ratio", "kl": "distill", "tokens": "kept_tokens"}
    for theirs, ours in found.items():
        _close(parts[ours], losses[theirs])
    grads = {
        k.replace("score_predictor", "parts.selector.stages").replace("out_conv", "decide"): v
        for k, v in case["grads"].items()
    }
    _check_total(reduced, total, losses, grads)


def lvvit(file: str, case: Case) -> None:
    if case["method"] == "dynamicvit":
        dynamicvit(file, case)
    elif case["method"] == "idlevit":
        idlevit_train(file, case)
    elif case["form"] == "names":
        with weightless():
            model = timm.create_model(case["name"])
        shapes = sorted((k, list(v.shape)) for k, v in model.state_dict().items())
        digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
        assert (len(shapes), digest) == (case["entries"], case["sha256"])
        assert sum(p.numel() for p in model.parameters()) == case["parameters"]
        for key, value in case["preprocessing"].items():
            told = model.pretrained_cfg[key]
            assert told == (tuple(value) if isinstance(value, list) else value)
    else:
        model = _model(file, case["model"])
        with torch.no_grad():
            tokens = model.forward_features(_images(file, case))
        _close(model.forward_head(tokens), case["logits"])
        _close(tokens.sum(dim=1), case["tokens_sum"])


def _train_form(reduced: tr.ReducedViT, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    reduced.zero_grad()
    reduced.train()
    for module in reduced.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    logits, aux = reduced.forward_train(images)
    reduced.eval()
    return logits, aux


@torch.no_grad()
def _taught(teacher: Any, images: Tensor) -> tuple[Any, Tensor]:
    features = teacher.forward_features(images)
    return teacher.forward_head(features), features


def _check_total(reduced: tr.ReducedViT, total: Tensor, losses: Any, grads: Any) -> None:
    _close(total, losses["total"])
    total.backward()
    found = dict(reduced.named_parameters())
    for name, values in grads.items():
        wanted = torch.tensor(values).double().flatten()
        assert found[name].grad is not None
        _close(found[name].grad.flatten()[: len(wanted)], wanted)


CASES = [
    pytest.param(file, case, id=f"{file}-{i}")
    for file in FILES
    for i, case in enumerate(GOLDEN[file]["cases"])
]


@pytest.mark.parametrize(("file", "case"), CASES)
def test_the_authors_program(file: str, case: Case) -> None:
    globals()[file](file, case)
