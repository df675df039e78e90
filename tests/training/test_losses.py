"""What each method's fine-tuning minimises, on models that run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tokenred.core.errors import ConfigError, InputError, UnknownNameError
from tokenred.models.lvvit import LVViT
from tokenred.training import losses
from tokenred.training.losses import CRITERIA, Criterion, make_criterion

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")

TARGETS = torch.tensor([1, 4, 0])


def model(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
    made = VisionTransformer(**sizes, num_classes=5, **options)
    for p in made.parameters():
        nn.init.normal_(p, std=0.2 if p.ndim > 1 else 0.5)
    return made


def batch() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


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


def test_cross_entropy_alone() -> None:
    logits, aux, teacher, features = run("gtp")
    total, parts = make_criterion("ce")(logits, TARGETS, aux, teacher, features)
    torch.testing.assert_close(total, nn.functional.cross_entropy(logits, TARGETS))
    assert parts.keys() == {"ce"}
    smooth, _ = make_criterion("ce", label_smoothing=0.1)(logits, TARGETS, aux)
    assert smooth != total


def test_dynamicvit() -> None:
    logits, aux, teacher, features = run("dynamicvit")
    total, parts = make_criterion("dynamicvit")(logits, TARGETS, aux, teacher, features)
    kept = aux["mask"][:, 1:] > 0
    expected = {
        "ce": nn.functional.cross_entropy(logits, TARGETS),
        "distill": losses.distillation_kl(logits, teacher, "student"),
        "kept_tokens": (aux["features"][:, 1:] - features[:, 1:])[kept].square().mean(),
        "ratio": (aux["kept_share"] - torch.tensor([0.7, 0.49, 0.343])).square().mean(),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value.detach())
        assert not parts[name].requires_grad
    sums = {"ce": 1, "distill": 0.5, "kept_tokens": 0.5, "ratio": 2}
    torch.testing.assert_close(total, sum(w * expected[n] for n, w in sums.items()))
    other = make_criterion("dynamicvit", shares=[0.6, 0.4, 0.3], reference=True)
    _, parts = other(logits, TARGETS, aux, teacher, features)
    ratios = (aux["kept_share"] - torch.tensor([0.6, 0.4, 0.3])).square().mean()
    torch.testing.assert_close(parts["ratio"], ratios.detach())
    released = losses.distillation_kl(logits, teacher, "teacher")
    torch.testing.assert_close(parts["distill"], released.detach())


def lvvit(method: str) -> tuple[Tensor, dict[str, Tensor], LVViT, Tensor]:
    torch.manual_seed(0)
    made = LVViT(img_size=64, embed_dim=24, depth=4, num_heads=3, num_classes=5).eval()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = made.forward_features(images)
        for p in made.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    return *tr.wrap(made, method).train().forward_train(images), made.eval(), features


def test_the_released_losses_of_lvvit() -> None:
    logits, aux, made, features = lvvit("dynamicvit")
    with torch.no_grad():
        apart = made.forward_head(features, return_tokens=True)
    criterion = make_criterion("dynamicvit", reference=True)
    _, parts = criterion(logits, TARGETS, aux, apart, features)
    ours = made.forward_head(aux["features"], return_tokens=True)
    torch.testing.assert_close(aux["cls_logits"], ours[0])
    kept = aux["mask"][:, 1:] > 0
    expected = {
        "ce": nn.functional.cross_entropy(ours[0], TARGETS),
        "distill": losses.distillation_kl(ours[0], apart[0], "teacher"),
        "kept_tokens": losses.distillation_kl(ours[1][kept], apart[1][kept], "teacher"),
    }
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value.detach())
    with pytest.raises(InputError, match="return_tokens=True"):
        criterion(logits, TARGETS, aux, apart[0], features)
    with pytest.raises(InputError, match="got a pair"):
        make_criterion("dynamicvit")(logits, TARGETS, aux, apart, features)
    # Without a teacher, and by the paper, the model is what it is in inference.
    torch.testing.assert_close(
        criterion(logits, TARGETS, aux)[1]["ce"], nn.functional.cross_entropy(logits, TARGETS)
    )


def test_the_released_token_cut_counts_every_second_block() -> None:
    logits, aux, _, _ = run("idlevit")
    cut = aux["token_cut"]
    assert cut.shape == (3, 3)
    _, parts = make_criterion("idlevit", reference=True)(logits, TARGETS, aux)
    torch.testing.assert_close(parts["token_cut"], (cut[:, 0] + cut[:, 2]).mean().detach() / 3)


def test_dynamicvit_without_cls() -> None:
    logits, aux, teacher, features = run("dynamicvit", class_token=False, global_pool="avg")
    _, parts = make_criterion("dynamicvit")(logits, TARGETS, aux, teacher, features)
    kept = aux["mask"] > 0
    expected = (aux["features"] - features)[kept].square().mean()
    torch.testing.assert_close(parts["kept_tokens"], expected.detach())


def test_idlevit() -> None:
    logits, aux, teacher, features = run("idlevit")
    total, parts = make_criterion("idlevit")(logits, TARGETS, aux, teacher, features)
    cls, dense = (nn.functional.normalize(t[:, 0], dim=-1) for t in (aux["features"], features))
    expected = {
        "ce": nn.functional.cross_entropy(logits, TARGETS),
        "distill": losses.distillation_kl(logits, teacher, "teacher"),
        "cls_feature": (cls - dense).square().mean(),
        "token_cut": aux["token_cut"].mean(),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value.detach())
    sums = {"ce": 1, "distill": 5, "cls_feature": 500, "token_cut": 20}
    torch.testing.assert_close(total, sum(w * expected[n] for n, w in sums.items()))


def test_evit_distils_where_there_is_a_teacher() -> None:
    logits, aux, teacher, features = run("evit")
    criterion = make_criterion("evit")
    alone, parts = criterion(logits, TARGETS, aux)
    assert parts.keys() == {"ce"}
    total, parts = criterion(logits, TARGETS, aux, teacher, features)
    assert parts.keys() == {"ce", "distill"}
    torch.testing.assert_close(total, alone + 0.5 * parts["distill"])
    # A method that gathers can be held to its teacher's patches as well.
    _, parts = make_criterion("evit", kept_tokens=1.0)(logits, TARGETS, aux, teacher, features)
    image = aux["features"][:, 1:]
    here = aux["index"] >= 0
    patches = features[:, 1:].gather(1, aux["index"].clamp_min(0)[..., None].expand_as(image))
    torch.testing.assert_close(
        parts["kept_tokens"], (image - patches)[here].square().mean().detach()
    )


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_trains_all_that_its_method_has(name: str) -> None:
    reduced = tr.wrap(model(), name if name != "ce" else "gtp")
    reduced.train()
    teacher = model().eval()
    with torch.no_grad():
        features = teacher.forward_features(batch())
        given = (teacher.forward_head(features), features)
    mixed = torch.full((3, 5), 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        logits, aux = reduced.forward_train(batch())
        total, _ = make_criterion(name)(logits, mixed, aux, *given)
    assert total.dtype == torch.float32
    assert total.shape == ()
    total.backward()
    for key, p in reduced.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key


def test_a_few_steps_of_dynamicvit_meet_the_ratio() -> None:
    torch.manual_seed(3)
    reduced = tr.wrap(model(), tr.strategy("dynamicvit", keep_rate=0.9))
    reduced.train()
    criterion = make_criterion("dynamicvit", ratio=20.0)
    optimiser = torch.optim.Adam(reduced.parts.parameters(), lr=0.01)
    history = []
    for _ in range(40):
        logits, aux = reduced.forward_train(batch())
        loss, parts = criterion(logits, TARGETS, aux)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(parts["ratio"].item())
    assert sum(history[-10:]) < 0.3 * sum(history[:10])


# ---------------------------------------------------------------- refusals


def test_what_a_term_reads_must_be_there() -> None:
    logits, aux, teacher, features = run("gtp")
    with pytest.raises(InputError, match=r"needs 'kept_share', but aux has .*training mode"):
        make_criterion("dynamicvit")(logits, TARGETS, aux)
    with pytest.raises(InputError, match="needs 'token_cut'"):
        make_criterion("idlevit")(logits, TARGETS, aux)
    make_criterion("idlevit", token_cut=0)(logits, TARGETS, aux)
    with pytest.raises(InputError, match="the teacher's features must be"):
        make_criterion("evit", kept_tokens=1)(logits, TARGETS, aux, teacher, features[..., :3])
    with pytest.raises(InputError, match=r"got tuple\. A distilled model"):
        make_criterion("ce")((logits, logits), TARGETS, aux)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected 3 shares, .* got 2"):
        make_criterion("dynamicvit", shares=(0.7, 0.5))(*_dynamic())


def _dynamic() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    logits, aux, _, _ = run("dynamicvit")
    return logits, TARGETS, aux


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
