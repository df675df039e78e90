"""Accuracy counts the right images, names the unreadable ones, and leaves the model alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import tokenred as tr
from tokenred.analysis import Evaluation, evaluate, evaluate_together
from tokenred.core.errors import ConfigError, DataError, InputError, PartError
from tokenred.data import make_loader, open_dataset

QUIET: dict[str, Any] = {"progress": False}


class Fixed(nn.Module):
    """Gives its input as logits; holds so many images at once."""

    room = 99

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return x


def _loader(logits: Tensor, labels: list[int], batch: int = 2) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(logits, torch.tensor(labels)), batch_size=batch)


def test_digits(digits: nn.Module) -> None:
    found = evaluate(digits, "digits", limit=60, **QUIET)
    assert found.count == 60
    assert found.top1 > 90
    assert found.top5 is not None
    assert found.top5 >= found.top1
    assert (found.prediction == found.label).tolist() == found.correct.tolist()
    # Balanced over the classes, and by their place in the whole dataset.
    assert np.bincount(found.label).tolist() == [6] * 10
    labels = open_dataset("digits").labels
    assert [labels[i] for i in found.index] == found.label.tolist()


def test_together_equals_alone_at_any_batch_size(digits: nn.Module) -> None:
    models = {"same": tr.wrap(digits, "gtp:P=0"), "evit": tr.wrap(digits, "evit:keep_rate=0.5")}
    evaluate(models["evit"], "digits", limit=10, amp=torch.bfloat16, **QUIET)
    models["evit"](torch.randn(1, 3, 32, 32)).sum().backward()  # can still be trained
    digits.zero_grad()
    dataset = open_dataset("digits", transform=tr.data.eval_transform(digits))
    both = evaluate_together(models, dataset, limit=40, batch_size=7, **QUIET)
    assert list(both) == ["same", "evit"]
    for name, model in (("same", digits), ("evit", models["evit"])):
        alone = evaluate(model, "digits", limit=40, **QUIET)
        assert both[name].rank.tolist() == alone.rank.tolist()
        assert both[name].index.tolist() == alone.index.tolist()
    with pytest.raises(ConfigError, match="at least one model"):
        evaluate_together({}, dataset)
    with pytest.raises(ConfigError, match="expected a model, got 'digits'"):
        evaluate("digits", dataset)  # type: ignore[arg-type]


def test_scores_that_are_nan_are_refused(digits: nn.Module) -> None:
    class LogOfNothing(tr.Scorer):
        def __call__(self, state: Any, attention: Any) -> Tensor:
            return (state.image.mean(dim=-1) * 0 - 1).log()

    fast = tr.wrap(digits, tr.Strategy(LogOfNothing(), schedule=2))
    with pytest.raises(PartError, match="LogOfNothing gave scores that are NaN"):
        evaluate(fast, "digits", limit=10, **QUIET)
    assert not fast.check


def test_what_does_not_fit_into_memory_is_repeated_in_halves() -> None:
    model, logits, labels = Fixed(), torch.randn(9, 5), [0, 1, 2, 3, 4, 0, 1, 2, 3]
    expected = evaluate(model, _loader(logits, labels, 9), **QUIET)
    model.room = 5
    with pytest.warns(UserWarning, match="out of memory"):
        found = evaluate(model, _loader(logits, labels, 9), **QUIET)
    assert found.rank.tolist() == expected.rank.tolist()
    assert found.index.tolist() == expected.index.tolist()


def _folder(root: Path) -> Path:
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        Image.new("RGB", (32, 32), (20 * label,) * 3).save(root / str(label) / "a.png")
    return root


def test_a_corrupt_image_is_counted_and_named(digits: nn.Module, tmp_path: Path) -> None:
    (_folder(tmp_path) / "3" / "torn.png").write_bytes(b"\x89PNG but no more")
    loader = make_loader(open_dataset(tmp_path, transform=tr.data.eval_transform(digits)), 4)
    for data in (tmp_path, loader):
        found = evaluate(digits, data, batch_size=4, **QUIET)
        assert found.count == 10
        ((name, reason),) = found.skipped
        assert name.endswith("torn.png")
        assert "UnidentifiedImageError" in reason


def test_refused_data(digits: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        evaluate(digits, tmp_path)
    with pytest.raises(DataError, match="Did you mean 'digits'"):
        evaluate(digits, "digitz")
    (_folder(tmp_path) / "zebra").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "zebra" / "x.png")
    with pytest.raises(DataError, match="expected 10 classes"):
        evaluate(digits, tmp_path)
    with pytest.raises(DataError, match="labels below 10"):
        evaluate(digits, tmp_path, class_map="folders")
    other = tr.models.load_model("digits", pretrained=False)
    other.reset_classifier(7)
    with pytest.raises(DataError, match="7 classes"):
        evaluate(other, "digits")


@pytest.mark.parametrize(
    ("logits", "labels", "error", "said"),
    [
        (torch.eye(2), [-1, -1], DataError, "got none, and 2"),
        (torch.zeros(0, 3), [], DataError, "got none, and 0"),
        (torch.eye(2), [0, 2], DataError, "labels from 0 to 1"),
        (torch.full((2, 3), torch.nan), [0, 1], InputError, "NaN"),
        (torch.zeros(2, 3, 4), [0, 1], InputError, "expected logits"),
    ],
)
def test_refused_outputs(
    logits: Tensor, labels: list[int], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        evaluate(Fixed(), _loader(logits, labels), **QUIET)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"limit": 0}, {"device": "no-such"}, {"amp": torch.float64}]
)
def test_refused_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        evaluate(Fixed(), _loader(torch.eye(2), [0, 1]), **wrong)


def test_channels_last_gives_the_same_and_leaves_the_weights(digits: nn.Module) -> None:
    weight = digits.patch_embed.proj.weight
    place, strides = weight.data_ptr(), weight.stride()
    seen: list[bool] = []
    handle = digits.patch_embed.proj.register_forward_pre_hook(
        lambda conv, args: seen.append(
            args[0].is_contiguous(memory_format=torch.channels_last)
            and conv.weight.is_contiguous(memory_format=torch.channels_last)
        )
    )
    try:
        found = evaluate(digits, "digits", limit=30, channels_last=True, **QUIET)
    finally:
        handle.remove()
    assert seen == [True]
    assert (weight.data_ptr(), weight.stride()) == (place, strides)
    assert found.top1 > 90


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(2, 6), st.integers(1, 8), st.integers(0, 9999))
def test_ranks_are_those_of_a_stable_sort(images: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few levels, so that many are equal.
    logits = torch.randint(0, 3, (images, classes), generator=generator).float()
    labels = torch.randint(0, classes, (images,), generator=generator)
    found = evaluate(Fixed(), _loader(logits, labels.tolist()), limit=images - 1, **QUIET)
    order = logits.sort(dim=1, descending=True, stable=True).indices
    assert found.label.tolist() == labels.tolist()[:-1]
    assert found.index.tolist() == list(range(images - 1))
    for i, rank in enumerate(found.rank):
        assert order[i, rank] == labels[i]
        assert found.prediction[i] == order[i, 0]


def test_shares_and_what_is_printed() -> None:
    arrays = torch.tensor([[3, 0, 0, 0], [1, 2, 0, 4], [7, 1, 1, 0], [8, 4, 0, 1]]).T.numpy()
    found = Evaluation(*arrays, 6, (("torn.png", "torn"),), 1.25)
    assert found.correct.tolist() == [True, False, True, False]
    assert (found.count, found.top1, found.topk(2), found.top5) == (4, 50, 75, 100)
    assert repr(found) == "Evaluation(top1=50.00, top5=100.00, count=4, skipped=1, seconds=1.2)"
    assert Evaluation(*arrays, 4, (), 0.0).top5 is None
    share = np.arange(400) >= 255
    exact = Evaluation(share, share, share, share * 1, 4, (), 0.0)
    assert exact.top1 == 63.75
    for k in (0, 7):
        with pytest.raises(ConfigError, match="between 1 and 6"):
            found.topk(k)
