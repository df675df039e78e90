"""Thresholds from images without labels."""

import pytest
import torch

import tokenred as tr
from tests.strategies.recipes.checks import images, model


def test_the_mean_cost_is_about_the_share() -> None:
    base, batch = model("cls"), images("cls", b=24)
    found = tr.calibrate(base, "dtome", batch, share=0.8, batch_size=8)
    assert tr.Strategy.from_toml(found.to_toml()) == found
    with torch.no_grad():
        _, trace = tr.wrap(base, found).run_with_trace(batch)
    mean = torch.stack(trace.alive_per_layer).double().mean(dim=1)
    # 2.3 tokens a block of 16 are a cost of 0.8.
    assert 0.5 < (16 - mean[-1]) / (4 * 2.3) < 1.5


def test_batches_are_gone_through_once_a_pass() -> None:
    base, batch = model("cls"), images("cls", b=4)
    whole = tr.calibrate(base, "adamerge:r_max=4", batch, batch_size=4)
    parts = tr.calibrate(base, "adamerge:r_max=4", [batch[:1], batch[1:]])
    assert whole.selector.mean == pytest.approx(parts.selector.mean)
    assert whole.selector.std == pytest.approx(parts.selector.std)


def test_a_budget_says_how_to_calibrate() -> None:
    with pytest.raises(tr.errors.ScheduleError, match=r"tokenred\.calibrate"):
        tr.wrap(model("cls"), "dtome@0.8")


def test_the_model_is_left_as_it_was() -> None:
    base = model("cls").train()
    tr.calibrate(base, "dtome", images("cls"))
    assert base.training


@pytest.mark.parametrize(
    ("strategy", "batch", "options", "message"),
    [
        ("tome:r=2", images(), {}, "no thresholds to calibrate"),
        ("dtome", images(), {"share": 0.8, "r": 2}, "share or r, not both"),
        ("dtome", images(), {"share": 0.01}, "out of reach"),
        ("dtome", images()[:0], {}, "got none"),
        ("dtome", images()[0], {}, r"\(n, channels, height, width\), got \(3, 32, 32\)"),
        ("dtome", ["a.png"], {}, "got str"),
    ],
)
def test_refused(strategy: str, batch: object, options: dict[str, float], message: str) -> None:
    with pytest.raises(tr.errors.TokenredError, match=message):
        tr.calibrate(model("cls"), strategy, batch, **options)  # type: ignore[arg-type]
