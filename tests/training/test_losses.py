"""Each term by its definition, in half precision, and what each method's fine-tuning minimises."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tokenred.core.errors import ConfigError, InputError, UnknownNameError
from tokenred.models.lvvit import LVViT
from tokenred.training.losses import (
    CRITERIA,
    Criterion,
    cross_entropy,
    distillation_kl,
    kept_token_mse,
    make_criterion,
    ratio_loss,
    unit_feature_mse,
)

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
close = torch.testing.assert_close


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# What the teacher says, in numbers that half precision has.
LOGITS, TEACHER = randn(4, 6), randn(4, 6, seed=1).bfloat16().double()
FEATURES, DENSE = randn(4, 2 + 3, 5), randn(4, 2 + 7, 5, seed=1).bfloat16().double()
INDEX = torch.tensor([[0, 2, 6], [1, 3, -1], [4, 5, 6], [6, 0, -1]])
MASK = torch.tensor([[1, 1, 1, 0, 1], [1, 1, 0, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).double()
SHARES, TARGETS = torch.rand(4, 3).double(), torch.tensor([0.7, 0.49, 0.343])
CLASSES = torch.tensor([3, 0, 5, 5])


# ---------------------------------------------------------------- terms


def probabilities(x: Tensor) -> np.ndarray:
    exp = np.exp(x.numpy())
    return exp / exp.sum(axis=1, keepdims=True)


def test_cross_entropy_of_classes_and_of_probabilities() -> None:
    log = np.log(probabilities(LOGITS))
    expected = -np.mean([log[i, k] for i, k in enumerate(CLASSES)])
    assert cross_entropy(LOGITS, CLASSES).item() == pytest.approx(expected)
    mixed = torch.from_numpy(probabilities(TEACHER))
    expected = -np.mean((mixed.numpy() * log).sum(axis=1))
    assert cross_entropy(LOGITS, mixed.float()).item() == pytest.approx(expected)
    smooth = 0.9 * nn.functional.one_hot(CLASSES, 6) + 0.1 / 6
    close(cross_entropy(LOGITS, CLASSES, 0.1), cross_entropy(LOGITS, smooth))


@pytest.mark.parametrize("over", ["student", "teacher"])
def test_kl(over: str) -> None:
    student, teacher = probabilities(LOGITS), probabilities(TEACHER)
    p, q = (student, teacher) if over == "student" else (teacher, student)
    expected = np.mean((p * np.log(p / q)).sum(axis=1))
    assert distillation_kl(LOGITS, TEACHER, over).item() == pytest.approx(expected)
    assert distillation_kl(LOGITS, LOGITS + 3, over).item() == pytest.approx(0, abs=1e-12)
    # A teacher that rules a class out breaks neither direction.
    ruled = TEACHER.clone()
    ruled[:, 0] = -1e4
    assert distillation_kl(LOGITS, ruled, over).isfinite()


def test_kept_tokens_are_compared_with_their_own_patches() -> None:
    errors = [
        (FEATURES[b, 2 + place] - DENSE[b, 2 + patch]).square().mean().item()
        for b, row in enumerate(INDEX.tolist())
        for place, patch in enumerate(row)
        if patch >= 0 and MASK[b, 2 + place]
    ]
    assert len(errors) == 5
    assert kept_token_mse(FEATURES, DENSE, INDEX, MASK).item() == pytest.approx(np.mean(errors))
    everyone = kept_token_mse(FEATURES, DENSE, INDEX, torch.ones_like(MASK))
    close(kept_token_mse(FEATURES, DENSE, INDEX), everyone)
    assert kept_token_mse(FEATURES, DENSE, INDEX, MASK * 0).item() == 0
    # No overflow in half precision.
    large = torch.full((2, 9, 5), 200.0, dtype=torch.float16)
    assert kept_token_mse(large, -large, torch.arange(8).expand(2, 8)).item() == 160000


def test_unit_features_and_ratio() -> None:
    def unit(x: Tensor) -> np.ndarray:
        return x.numpy() / np.linalg.norm(x.numpy(), axis=-1, keepdims=True)

    expected = ((unit(FEATURES) - unit(DENSE[:, :5])) ** 2).mean()
    assert unit_feature_mse(FEATURES, DENSE[:, :5]).item() == pytest.approx(expected)
    assert unit_feature_mse(FEATURES, FEATURES * 7).item() == pytest.approx(0, abs=1e-12)
    expected = ((SHARES.numpy() - TARGETS.numpy()) ** 2).mean()
    assert ratio_loss(SHARES, TARGETS).item() == pytest.approx(expected)
    assert ratio_loss(SHARES, TARGETS.expand(4, 3)).item() == pytest.approx(expected)
    # Each image by itself: errors of opposite sign do not cancel.
    assert ratio_loss(torch.tensor([[0.6], [0.8]]), torch.tensor([0.7])) > 0.009


TERMS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "ce": (lambda x: cross_entropy(x, CLASSES, 0.1), LOGITS),
    "soft ce": (lambda x: cross_entropy(x, TEACHER.softmax(-1)), LOGITS),
    "kl student": (lambda x: distillation_kl(x, TEACHER.to(x.dtype)), LOGITS),
    "kl teacher": (lambda x: distillation_kl(x, TEACHER.to(x.dtype), "teacher"), LOGITS),
    "kept tokens": (lambda x: kept_token_mse(x, DENSE.to(x.dtype), INDEX, MASK), FEATURES),
    "unit features": (lambda x: unit_feature_mse(x, DENSE[:, :5].to(x.dtype)), FEATURES),
    "ratio": (lambda x: ratio_loss(x, TARGETS), SHARES),
}


@pytest.mark.parametrize("name", TERMS)
def test_gradients_and_half_precision(name: str) -> None:
    term, x = TERMS[name]
    assert torch.autograd.gradcheck(term, x.clone().requires_grad_())
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        low = x.to(dtype)
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                got = term(low)
            assert got.dtype == torch.float32
            close(got.double(), term(low.double()), rtol=1e-5, atol=1e-7)


def test_teacher_and_mask_are_constants() -> None:
    logits, dense, mask = (t.clone().requires_grad_() for t in (TEACHER, DENSE, MASK))
    x, features = LOGITS.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    total = distillation_kl(x, logits) + distillation_kl(x, logits, "teacher")
    total = total + kept_token_mse(features, dense, INDEX, mask)
    total = total + unit_feature_mse(features, dense[:, :5])
    total.backward()
    assert None not in (x.grad, features.grad)
    assert logits.grad is dense.grad is mask.grad is None


def test_what_a_term_refuses() -> None:
    with pytest.raises(InputError, match=r"targets must be \(4,\) integers or \(4, 6\) prob"):
        cross_entropy(LOGITS, torch.zeros(4, 5))
    with pytest.raises(InputError, match=r"got \(4,\) of torch.float32"):
        cross_entropy(LOGITS, torch.zeros(4))
    with pytest.raises(InputError, match="a teacher with the same classes"):
        distillation_kl(LOGITS, TEACHER[:, :5])
    with pytest.raises(ConfigError, match="over must be one of 'teacher', 'student'"):
        distillation_kl(LOGITS, TEACHER, "both")
    with pytest.raises(InputError, match=r"\(4, at least 5, 5\).*got \(4, 9, 4\)"):
        kept_token_mse(FEATURES, DENSE[..., :4], INDEX)
    with pytest.raises(InputError, match=r"got \(4, 4, 5\)"):
        unit_feature_mse(FEATURES, DENSE[:, :4])


# ---------------------------------------------------------------- methods

LABELS = torch.tensor([1, 4, 0])
SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4}


def model(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    made = VisionTransformer(**SIZES, num_heads=3, num_classes=5, **options)
    for p in made.parameters():
        nn.init.normal_(p, std=0.2 if p.ndim > 1 else 0.5)
    return made


def batch(side: int = 32) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def run(method: str, **options: Any) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    """Logits and aux of a model in training, logits and features of its dense teacher."""
    reduced = tr.wrap(model(**options), method)
    reduced.train()
    torch.manual_seed(2)
    logits, aux = reduced.forward_train(batch())
    teacher = model(**options).eval()
    with torch.no_grad():
        features = teacher.forward_features(batch())
        return logits, aux, teacher.forward_head(features), features


def check(
    parts: dict[str, Tensor], expected: dict[str, Tensor], total: Any, **weights: Any
) -> None:
    """That the terms are the expected ones, and the total their weighted sum."""
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        close(parts[name], value.detach())
        assert not parts[name].requires_grad
    close(total, sum(weights.get(name, 1) * value for name, value in expected.items()))


@pytest.mark.parametrize("cls", [True, False])
def test_dynamicvit(cls: bool) -> None:
    options: dict[str, Any] = {} if cls else {"class_token": False, "global_pool": "avg"}
    logits, aux, teacher, features = run("dynamicvit", **options)
    total, parts = make_criterion("dynamicvit")(logits, LABELS, aux, teacher, features)
    kept = aux["mask"][:, int(cls) :] > 0
    expected = {
        "ce": nn.functional.cross_entropy(logits, LABELS),
        "distill": distillation_kl(logits, teacher, "student"),
        "kept_tokens": (aux["features"] - features)[:, int(cls) :][kept].square().mean(),
        "ratio": (aux["kept_share"] - torch.tensor([0.7, 0.49, 0.343])).square().mean(),
    }
    check(parts, expected, total, distill=0.5, kept_tokens=0.5, ratio=2)
    other = make_criterion("dynamicvit", shares=[0.6, 0.4, 0.3], reference=True)
    _, parts = other(logits, LABELS, aux, teacher, features)
    ratios = (aux["kept_share"] - torch.tensor([0.6, 0.4, 0.3])).square().mean()
    close(parts["ratio"], ratios.detach())
    close(parts["distill"], distillation_kl(logits, teacher, "teacher").detach())


def test_the_released_losses_of_lvvit() -> None:
    torch.manual_seed(0)
    made = LVViT(img_size=64, embed_dim=24, depth=4, num_heads=3, num_classes=5).eval()
    with torch.no_grad():
        features = made.forward_features(batch(64))
        for p in made.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    logits, aux = tr.wrap(made, "dynamicvit").train().forward_train(batch(64))
    with torch.no_grad():
        apart = made.eval().forward_head(features, return_tokens=True)
    criterion = make_criterion("dynamicvit", reference=True)
    _, parts = criterion(logits, LABELS, aux, apart, features)
    ours = made.forward_head(aux["features"], return_tokens=True)
    close(aux["cls_logits"], ours[0])
    kept = aux["mask"][:, 1:] > 0
    for name, value in {
        "ce": nn.functional.cross_entropy(ours[0], LABELS),
        "distill": distillation_kl(ours[0], apart[0], "teacher"),
        "kept_tokens": distillation_kl(ours[1][kept], apart[1][kept], "teacher"),
    }.items():
        close(parts[name], value.detach())
    with pytest.raises(InputError, match="return_tokens=True"):
        criterion(logits, LABELS, aux, apart[0], features)
    with pytest.raises(InputError, match="got a pair"):
        make_criterion("dynamicvit")(logits, LABELS, aux, apart, features)
    # Without a teacher the model is trained as it is used.
    plain = nn.functional.cross_entropy(logits, LABELS)
    close(criterion(logits, LABELS, aux)[1]["ce"], plain)


def test_evit_distils_if_there_is_a_teacher() -> None:
    logits, aux, teacher, features = run("evit")
    criterion = make_criterion("evit")
    alone, parts = criterion(logits, LABELS, aux)
    assert parts.keys() == {"ce"}
    total, parts = criterion(logits, LABELS, aux, teacher, features)
    assert parts.keys() == {"ce", "distill"}
    close(total, alone + 0.5 * parts["distill"])
    # A method that gathers can be compared with its teacher's patches as well.
    _, parts = make_criterion("evit", kept_tokens=1.0)(logits, LABELS, aux, teacher, features)
    image, here = aux["features"][:, 1:], aux["index"] >= 0
    patches = features[:, 1:].gather(1, aux["index"].clamp_min(0)[..., None].expand_as(image))
    close(parts["kept_tokens"], (image - patches)[here].square().mean().detach())


@pytest.mark.parametrize("cls", [True, False])
def test_a_second_pass_is_to_agree_where_the_first_is_sure(cls: bool) -> None:
    features, second = randn(4, 5, 3), randn(4, 4, 3, seed=1).requires_grad_()
    aux = {"features": features.requires_grad_(), "index": torch.zeros(4, 5 - cls)}
    again = randn(4, 6, seed=2), {"features": second, "index": torch.zeros(4, 4 - cls)}
    likely = LOGITS.softmax(dim=-1)[range(4), CLASSES]
    sure = likely > likely.median()
    criterion = make_criterion("mctf", confident=float(likely[sure].min()) - 1e-6)
    total, parts = criterion(LOGITS, CLASSES, aux, again=again)
    ours, theirs = (x[:, 0] if cls else x.mean(dim=1) for x in (features, second))
    expected = (ours - theirs).square().mean(dim=-1)[sure].mean()
    close(parts["consistency"], expected.detach())
    close(parts["second"], cross_entropy(again[0], CLASSES))
    close(total, parts["ce"] + parts["second"] + 3 * expected)
    total.backward()
    assert features.grad is not None
    assert second.grad is None
    # Mixed and smoothed targets: the classes that are in the image.
    mixed = torch.full((4, 6), 0.1 / 6).double().scatter(1, CLASSES[:, None], 0.9 + 0.1 / 6)
    _, smoothed = criterion(LOGITS, mixed, aux, again=again)
    close(smoothed["consistency"], parts["consistency"])
    assert criterion(LOGITS, CLASSES, aux)[1].keys() == {"ce"}
    nobody = make_criterion("mctf", confident=1.0)
    assert nobody(LOGITS, CLASSES, aux, again=again)[1]["consistency"] == 0


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_trains_all_that_its_method_has(name: str) -> None:
    reduced = tr.wrap(model(), name if name != "ce" else "gtp")
    reduced.train()
    teacher = model().eval()
    with torch.no_grad():
        features = teacher.forward_features(batch())
        given = (teacher.forward_head(features), features)
    with torch.autocast("cpu", torch.bfloat16):
        logits, aux = reduced.forward_train(batch())
        total, _ = make_criterion(name)(logits, torch.full((3, 5), 0.2), aux, *given)
    assert total.dtype == torch.float32
    total.backward()
    for key, p in reduced.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key


def _trained(reduced: tr.ReducedViT) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    logits, aux = reduced.forward_train(batch())
    return logits, LABELS, aux


# ---------------------------------------------------------------- refusals


def test_what_a_term_reads_must_be_there() -> None:
    logits, aux, teacher, features = run("gtp")
    with pytest.raises(InputError, match=r"needs 'kept_share', but aux has .*training mode"):
        make_criterion("dynamicvit")(logits, LABELS, aux)
    with pytest.raises(InputError, match="needs 'token_cut'"):
        make_criterion("idlevit")(logits, LABELS, aux)
    make_criterion("idlevit", token_cut=0)(logits, LABELS, aux)
    with pytest.raises(InputError, match="the teacher's features must be"):
        make_criterion("evit", kept_tokens=1)(logits, LABELS, aux, teacher, features[..., :3])
    with pytest.raises(InputError, match=r"got tuple\. A distilled model"):
        make_criterion("ce")((logits, logits), LABELS, aux)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected 3 shares, .* got 2"):
        make_criterion("dynamicvit", shares=(0.7, 0.5))(
            *_trained(tr.wrap(model(), "dynamicvit").train())
        )


def test_names_and_weights() -> None:
    with pytest.raises(UnknownNameError, match=r"criterion 'dynamicvitt'\. Did you mean 'dyn"):
        make_criterion("dynamicvitt")
    with pytest.raises(UnknownNameError, match="Did you mean 'ratio'"):
        make_criterion("dynamicvit", ratios=2)
    with pytest.raises(ConfigError, match="distill must be a finite number"):
        make_criterion("evit", distill=-1)
    with pytest.raises(ConfigError, match="over must be one of"):
        Criterion(over="both")
    assert make_criterion("dynamicvit", ratio=3) == make_criterion("dynamicvit", ratio=3.0)
    assert make_criterion("ce") == Criterion()
