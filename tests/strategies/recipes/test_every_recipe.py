"""Every recipe on models of every form: batches, trace, training, files."""

import copy
from pathlib import Path

import pytest
import torch

import tokenred as tr
from tests.strategies.recipes.checks import (
    FORMS,
    WITH_CLS,
    check_a_batch_is_its_images,
    images,
    wrapped,
)

pytestmark = pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")


def forms_of(name: str) -> tuple[str, ...]:
    needs = any(part.traits.needs_cls for part in tr.strategy(name).parts.values())
    return WITH_CLS if needs else tuple(FORMS)


# One form each by default, a different one from recipe to recipe; LV-ViT's stem takes long.
ALL = [(name, form) for name in tr.list_strategies() for form in forms_of(name)]
QUICK = [
    (name, forms_of(name)[at % len(forms_of(name))]) for at, name in enumerate(tr.list_strategies())
]
# Of those with the same mechanisms one is trained.
TRAINED = ("ats", "dynamicvit", "evo-vit", "gtp", "idlevit", "mstm", "tome")
EVERY = [pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow) for one in ALL]


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_a_batch_is_its_images(name: str, form: str) -> None:
    if (name, form) == ("dpcknn", "lvvit"):
        # Weights that are exponentials of large features make cluster means equal but for
        # rounding, which then decides which of them is the denser.
        check_a_batch_is_its_images(tr.strategy(name, equal_weights=True), form)
    else:
        check_a_batch_is_its_images(name, form)


# Thresholds at which the images of a batch keep different numbers of tokens.
ADAPTIVE = {
    "adamerge": {"r_max": 6, "mean": [0.2] * 4, "std": [0.02] * 4},
    "algm": {},
    "ats": {},
    "dtome": {"thresholds": 0.95},
}


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in ADAPTIVE for form in forms_of(name)]
)
def test_padding_changes_no_image(name: str, form: str) -> None:
    strategy = tr.strategy(name, **ADAPTIVE[name])
    counts = wrapped(strategy, form).alive_counts(images(form, b=4))
    assert (counts.amin(dim=0) < counts.amax(dim=0)).any()
    check_a_batch_is_its_images(strategy, form)


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_features_come_back_to_the_whole_grid(name: str, form: str) -> None:
    reduced, batch = wrapped(name, form), images(form)
    with torch.no_grad():
        logits, trace = reduced.run_with_trace(batch)
        torch.testing.assert_close(logits, reduced(batch))
    owners, places = trace.owners(), trace.index
    assert owners.shape == (3, 16)
    for image in range(3):
        living = places[image][places[image] >= 0]
        assert len(living.unique()) == len(living) <= trace.alive_per_layer[-1][image]
        # Each living token owns its own patch; in AdaMerge one of salience 0 is in no mean.
        own = owners[image][living]
        assert name == "adamerge" or (own >= 0).all()
        assert torch.equal(places[image][own][own >= 0], living[own >= 0])
    for fill in ("last", "nearest", "zero"):
        full = trace.unreduce(trace.features[-1], fill=fill)
        assert full.shape == (3, 16, 32)
        assert full.isfinite().all()
        assert (full[owners >= 0].abs().sum(dim=-1) > 0).all()
    middle = reduced.forward_intermediates(batch, indices=[2], intermediates_only=True)
    assert middle[0].shape == (3, 32, 4, 4)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(*one, marks=() if one in QUICK and one[0] in TRAINED else pytest.mark.slow)
        for one in ALL
    ],
)
def test_training_with_checkpointed_blocks_and_in_several_types(name: str, form: str) -> None:
    reduced = wrapped(name, form).train()
    found = []
    for checkpointed in (False, True):
        reduced.set_grad_checkpointing(checkpointed)
        reduced.zero_grad()
        torch.manual_seed(5)
        logits, _ = reduced.forward_train(images(form, b=2))
        logits.square().sum().backward()
        named = reduced.named_parameters()
        found.append({n: p.grad.clone() for n, p in named if p.grad is not None})
    assert all(grad.isfinite().all() for grad in found[0].values())
    assert {"blocks.0.attn.qkv.weight", "blocks.3.mlp.fc2.weight"} <= found[0].keys()
    for key, grad in found[0].items():
        torch.testing.assert_close(found[1][key], grad, msg=key)
    low = copy.deepcopy(reduced).eval().bfloat16()
    assert low(images(form, b=2).bfloat16()).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert reduced.float()(images(form, b=2).float()).isfinite().all()


@pytest.mark.parametrize("name", tr.list_strategies())
def test_saved_and_loaded_as_a_model_and_as_a_file(name: str, tmp_path: Path) -> None:
    reduced, batch = wrapped(name), images()
    loaded = tr.load(tr.save(reduced, tmp_path / "m.safetensors"))
    assert loaded.strategy == reduced.strategy
    assert hash(loaded.strategy) == hash(reduced.strategy)
    assert torch.equal(loaded(batch), reduced(batch))
