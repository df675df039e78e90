"""On photographs and trained weights, the fast engine picks the tokens that the plain one picks."""

import pytest
import torch

import tokenred as tr
from tests.shared import shared_path
from tokenred.analysis.measure.inputs import open_for
from tokenred.data import make_loader
from tokenred.models import load_model
from tokenred.reduced.trace import Trace

SPECS = {"gtp": {"P": 5}, "gtp θ": {"P": 5, "theta": 0.6}}


def _kept(trace: Trace) -> torch.Tensor:
    """For each image and block, which of the patches are alive."""
    alive = [
        torch.zeros(index.shape[0], trace.num_patches + 1, dtype=torch.bool)
        .scatter(1, index + 1, True)[:, 1:]
        for index in trace.index_per_layer
    ]  # fmt: skip
    return torch.stack(alive, dim=1)


@pytest.mark.parametrize("name", SPECS)
def test_same_tokens_and_same_logits(name: str) -> None:
    model = load_model(shared_path("models", "vit_cifar10_patch4.safetensors"))
    data = open_for(model, shared_path("data", "cifar10-test.zip"))
    images, *_ = next(iter(make_loader(data, 64, limit=64)))
    strategy = tr.strategy(name.split()[0], **SPECS[name])
    with torch.inference_mode():
        logits, trace = tr.wrap(model, strategy).run_with_trace(images)
        expected, plain = tr.wrap(model, strategy, engine="plain").run_with_trace(images)
    same = _kept(trace) == _kept(plain)
    assert same.float().mean() >= 0.999
    unmoved = same.flatten(1).all(dim=1)
    # An entry at θ's threshold may fall on either side of it.
    loose = 1e-3 if strategy.theta < 1 else 1e-4
    torch.testing.assert_close(logits[unmoved], expected[unmoved], rtol=loose, atol=loose)
    for fast, slow in zip(trace.steps[:1], plain.steps[:1], strict=True):
        if fast.selection.score is not None and slow.selection.score is not None:
            torch.testing.assert_close(
                fast.selection.score, slow.selection.score, rtol=1e-5, atol=1e-7
            )
