"""Each statistic against its definition; oversmoothing on the embedded model and data."""

from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader

import tokenred as tr
from tests.shared import shared_path
from tokenred.analysis import Oversmoothing, oversmoothing
from tokenred.analysis.measure.inputs import open_for
from tokenred.analysis.measure.oversmoothing import TOKEN_STATISTICS, lost_share, mean_cosine
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.state import Selection
from tokenred.reduced.trace import Reduction


@pytest.mark.parametrize(
    ("tokens", "expected"),  # cosine, effective rank, high frequency
    [
        (torch.ones(5, 4), (1, 1, 0)),
        (torch.eye(4), (0, 4, 3 / 4)),
        (torch.tensor([[1.0, 2.0], [-1.0, -2.0]]), (-1, 1, 1)),
        (torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), (1 / 3, 1, 1 / 3)),
        (torch.zeros(3, 2), (0, 0, 0)),
        # p = (3/4, 1/4), and the mean has half of the energy of 10.
        (torch.tensor([[3.0, 0.0], [0.0, 1.0]]), (0, 4 / 3**0.75, 1 / 2)),
    ],
    ids=["alike", "orthogonal", "opposite", "one zero", "zeros", "unequal"],
)
def test_known_cases(tokens: Tensor, expected: tuple[float, ...]) -> None:
    found = [statistic(tokens[None]).item() for statistic in TOKEN_STATISTICS.values()]
    assert found == pytest.approx(expected, abs=1e-3)  # ranks, of roots of rounding errors
    # Padding is like nothing.
    padded, alive = torch.cat((tokens, torch.ones_like(tokens))), torch.arange(2 * len(tokens))
    masked = mean_cosine(padded[None], alive[None] < len(tokens))
    assert masked.item() == pytest.approx(expected[0], abs=1e-6)


@pytest.mark.parametrize("name", TOKEN_STATISTICS)
def test_bfloat16_and_autocast_cost_no_precision(name: str) -> None:
    statistic = TOKEN_STATISTICS[name]
    # Off-centre, as real tokens are.
    x = (torch.randn(3, 40, 16) + torch.randn(3, 1, 16)).bfloat16()
    exact = statistic(x.double())
    assert exact.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, single = statistic(x), statistic(x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(single, found)


def test_lost_by_hand() -> None:
    def step(weights: list[list[float]], keep: list[int], drop: list[int]) -> Reduction:
        selection = Selection(torch.tensor([keep]), torch.tensor([drop], dtype=torch.long))
        matrix = torch.tensor([weights]).to_sparse()
        return Reduction(0, selection, matrix, torch.zeros(1, len(drop), 2), torch.tensor([drop]))

    # Of tokens 1, 3, 4 only 3 goes into a kept one; that its weight is negative is no loss.
    weights = [[1.0, 0, 0, -0.2, 0], [0, 0, 1.0, 0, 0]]
    assert lost_share(step(weights, [0, 2], [1, 3, 4])).item() == pytest.approx(2 / 3)
    assert lost_share(step([[1.0, 0], [0, 1.0]], [0, 1], [])).isnan().all()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("topk", 1), ("tome:r=5", 0), ("evit", 0), ("gtp:P=5,alpha=0", 1), ("gtp:P=5,graph=none", 1)],
)
def test_lost_by_method(digits: nn.Module, spec: str, expected: float) -> None:
    _, trace = tr.wrap(digits, spec).run_with_trace(torch.randn(2, 3, 32, 32))
    assert trace.steps
    for step in trace.steps:
        assert lost_share(step).tolist() == [expected] * 2


QUICK: dict[str, Any] = {"limit": 24, "batch_size": 10, "progress": False}
SPECS = ["gtp", "topk", "evit"]


@pytest.fixture(scope="module")
def result(digits: nn.Module) -> Oversmoothing:
    return oversmoothing(digits, "digits", SPECS, gmacs_share=0.75, name="digits ViT", **QUICK)


def test_rows(result: Oversmoothing, digits: nn.Module) -> None:
    frame = result.frame
    # Three statistics a block, and what is lost where tokens go: in all blocks, or in 2, 4, 6.
    counts = frame.groupby("strategy", sort=False).size().to_dict()
    assert counts == {"dense": 24, "gtp": 24 + 8, "topk": 24 + 3, "evit": 24 + 3}
    assert (frame["images"] == 24).all()
    assert (frame["low"] <= frame["mean"]).all()
    assert (frame["mean"] <= frame["high"]).all()
    shares = frame[frame["strategy"] != "dense"]["gmacs"] / tr.gmacs(digits)
    assert shares.between(0.73, 0.75).all()
    last = frame[(frame["strategy"] == "evit") & (frame["layer"] == 7)].iloc[0]
    assert (last["removed"], last["statistic"]) == (0, "cosine")


def test_the_figures_are_those_of_a_trace(result: Oversmoothing, digits: nn.Module) -> None:
    budget = tr.Budget(0.75 * tr.gmacs(digits))
    fast = tr.wrap(digits, tr.strategy("gtp").replace(schedule=budget))
    images = next(iter(tr.data.make_loader(open_for(digits, "digits"), 24, limit=24)))[0]
    with torch.no_grad():
        _, trace = fast.run_with_trace(images)
        _, plain = tr.wrap(digits, tr.Strategy.dense()).run_with_trace(images)
    own = result.frame[result.frame["strategy"] == "gtp"].set_index(["layer", "statistic"])
    for layer in (0, 7):
        row, lost = own.loc[layer, "cosine"], own.loc[layer, "lost"]
        alike = mean_cosine(trace.features[layer][:, 1:])
        assert row["mean"] == pytest.approx(alike.mean().item(), abs=1e-5)
        gap = alike - mean_cosine(plain.features[layer][:, 1:])
        assert row["difference"] == pytest.approx(gap.mean().item(), abs=1e-5)
        # As wide as an interval of the mean of paired gaps is.
        half = 1.96 * gap.std().item() / 24**0.5
        assert row["difference_high"] - row["difference_low"] == pytest.approx(2 * half, rel=0.25)
        assert lost["mean"] == pytest.approx(lost_share(trace.steps[layer]).mean().item())
        assert np.isnan(lost["difference"])


def test_each_image_keeps_as_many_tokens_as_it_needs(digits: nn.Module) -> None:
    images = next(iter(tr.data.make_loader(open_for(digits, "digits"), 6, limit=6)))[0]
    found = oversmoothing(digits, "digits", ["ats", "gtp"], limit=6, batch_size=4, progress=False)
    rows = found.frame[found.frame["strategy"] == "ats"].set_index(["layer", "statistic"])
    fast = tr.wrap(digits, "ats")
    counts = fast.alive_counts(images)
    assert len(set(counts[:, -1].tolist())) > 1
    alike = [fast.kept_tokens(image[None], norm=False).tokens for image in images]
    expected = torch.cat([mean_cosine(tokens) for tokens in alike]).mean().item()
    assert rows.loc[(7, "cosine"), "mean"] == pytest.approx(expected, abs=1e-5)
    assert rows.loc[(7, "cosine"), "tokens"] == counts[:, -1].double().mean().item()
    gone = (counts[:, 2] - counts[:, 3]).double().mean().item()
    assert rows.loc[(2, "lost"), ["mean", "removed"]].tolist() == pytest.approx([1, gone])
    gmacs = np.mean([fast.cost(alive=row.tolist()).gmacs for row in counts])
    assert rows["gmacs"].tolist() == pytest.approx([gmacs] * len(rows))


def test_printed(result: Oversmoothing) -> None:
    text = str(result)
    for words in ("last block: digits ViT on digits", "dense", "topk", "100.0", "24 images",
                  "95% bootstrap", "tokens that remain"):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) <= 140
    assert result.plot().axes


def test_refused(digits: nn.Module) -> None:
    for specs, options, said in (
        (["gtp"], {"level": 95}, "level"),
        (["gtp", "gtp"], {}, "a distinct name for each strategy"),
        (["gtp"], {"limit": 0}, "limit"),
    ):
        with pytest.raises(ConfigError, match=said):
            oversmoothing(digits, "digits", specs, **options)
    loader: DataLoader[Any] = DataLoader([(torch.full((3, 32, 32), torch.nan), 0)])
    with pytest.raises(InputError, match="dense: expected finite features"):
        oversmoothing(digits, loader, ["gtp"], progress=False)
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, dynamic_img_size=True
    ).eval()
    loader = DataLoader([(torch.zeros(3, 48, 48), 0)])
    with pytest.raises(InputError, match="own size"):
        oversmoothing(model, loader, ["gtp:P=2"], progress=False)


@pytest.mark.slow
def test_what_the_documentation_says_of_the_parts_of_gtp() -> None:
    model = tr.models.load_model(shared_path("models", "vit_cifar10_patch4.safetensors"))
    data = f"cifar10:{shared_path('data', 'cifar10-test.zip')}"
    specs = ["gtp", "gtp:fuser=prune", "topk"]
    found = oversmoothing(
        model, data, specs, gmacs_share=0.75, limit=120, batch_size=40, progress=False
    ).frame
    last = found[(found["layer"] == 7) & (found["statistic"] == "cosine")].set_index("strategy")
    assert last.loc["gtp:fuser=prune", "difference_high"] < 0
    assert last.loc["topk", "difference_low"] > 0
    # Propagation makes what the selection set apart more alike again.
    assert last.loc["gtp:fuser=prune", "mean"] < last.loc["gtp", "mean"]
    assert last.loc["gtp", "mean"] < last.loc["topk", "mean"]
