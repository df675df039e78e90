"""Accuracy counts the right images, names the unreadable ones, and leaves the model alone."""

from __future__ import annotations

from pathlib import Path

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
from tokenred.core.errors import ConfigError, DataError, InputError
from tokenred.data import make_loader, open_dataset


class Fixed(nn.Module):
    """Gives its input as logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def _loader(logits: Tensor, labels: list[int]) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(logits, torch.tensor(labels)), batch_size=2)


def test_digits(digits: nn.Module) -> None:
    found = evaluate(digits, "digits", limit=60, progress=False)
    assert found.count == 60
    assert found.top1 > 90
    assert found.top5 is not None
    assert found.top5 >= found.top1
    assert found.correct.mean() * 100 == pytest.approx(found.top1)
    assert (found.prediction == found.label).tolist() == found.correct.tolist()
    # Balanced over the classes, and by their place in the whole dataset.
    assert np.bincount(found.label).tolist() == [6] * 10
    labels = open_dataset("digits").labels
    assert [labels[i] for i in found.index] == found.label.tolist()
    assert found.skipped == ()
    assert "count=60" in repr(found)


def test_a_reduced_model_and_batch_size_do_not_matter(digits: nn.Module) -> None:
    same = tr.wrap(digits, tr.strategy("gtp", P=0))
    a = evaluate(digits, "digits", limit=40, progress=False)
    b = evaluate(same, open_dataset("digits"), limit=40, batch_size=7, progress=False)
    assert a.prediction.tolist() == b.prediction.tolist()
    assert a.index.tolist() == b.index.tolist()


def test_together_equals_alone(digits: nn.Module) -> None:
    fast = tr.wrap(digits, tr.strategy("evit", keep_rate=0.5))
    dataset = open_dataset("digits", transform=tr.data.eval_transform(digits))
    both = evaluate_together({"dense": digits, "evit": fast}, dataset, limit=40, progress=False)
    alone = evaluate(fast, dataset, limit=40, progress=False)
    assert both["evit"].rank.tolist() == alone.rank.tolist()
    assert list(both) == ["dense", "evit"]


def test_topk_by_hand() -> None:
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [1, 1, 1], [1, 1, 1]])
    found = evaluate(Fixed(), _loader(logits, [0, 2, 0, 1]), progress=False)
    # Of equal logits the first class goes first.
    assert found.rank.tolist() == [0, 2, 0, 1]
    assert found.top1 == 50
    assert found.topk(2) == 75
    assert found.topk(3) == 100
    assert found.top5 is None
    assert found.index.tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="between 1 and 3"):
        found.topk(4)


def test_limit_of_a_loader_takes_the_first() -> None:
    found = evaluate(Fixed(), _loader(torch.eye(5), [0, 1, 0, 0, 0]), limit=3, progress=False)
    assert found.correct.tolist() == [True, True, False]


def test_evaluated_models_can_still_be_trained(digits: nn.Module) -> None:
    fast = tr.wrap(digits, tr.strategy("gtp", P=4))
    evaluate(fast, "digits", limit=10, progress=False)
    fast(torch.randn(1, 3, 32, 32)).sum().backward()
    digits.zero_grad()


def _folder(root: Path, broken: bool) -> Path:
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        Image.new("RGB", (32, 32), (20 * label,) * 3).save(root / str(label) / "a.png")
    if broken:
        (root / "3" / "torn.png").write_bytes(b"\x89PNG but no more")
    return root


def test_a_corrupt_image_is_counted_and_named(digits: nn.Module, tmp_path: Path) -> None:
    found = evaluate(digits, _folder(tmp_path / "images", True), batch_size=4, progress=False)
    assert found.count == 10
    ((name, reason),) = found.skipped
    assert name.endswith("torn.png")
    assert "UnidentifiedImageError" in reason
    loader = make_loader(
        open_dataset(tmp_path / "images", transform=tr.data.eval_transform(digits)), 4
    )
    assert evaluate(digits, loader, progress=False).skipped[0][0] == name


def test_refused_data(digits: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        evaluate(digits, tmp_path, progress=False)
    with pytest.raises(DataError, match="Did you mean 'digits'"):
        evaluate(digits, "digitz", progress=False)
    (tmp_path / "one").mkdir()
    _folder(tmp_path / "ten", False)
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "x.png")
    (tmp_path / "ten" / "zebra").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "ten" / "zebra" / "x.png")
    with pytest.raises(DataError, match="expected 10 classes"):
        evaluate(digits, tmp_path / "ten", progress=False)
    with pytest.raises(DataError, match="labels below 10"):
        evaluate(digits, tmp_path / "ten", class_map="folders", progress=False)
    with pytest.raises(DataError, match="got none"):
        evaluate(Fixed(), _loader(torch.eye(2), [-1, -1]), progress=False)
    with pytest.raises(DataError, match="got none, and 0"):
        evaluate(Fixed(), _loader(torch.zeros(0, 3), []), progress=False)
    with pytest.raises(DataError, match="labels from 0 to 1"):
        evaluate(Fixed(), _loader(torch.eye(2), [0, 2]), progress=False)


def test_data_of_other_classes_than_the_model() -> None:
    model = tr.models.digits_vit(pretrained=False)
    model.reset_classifier(7)
    with pytest.raises(DataError, match="7 classes"):
        evaluate(model, "digits", progress=False)


def test_refused_outputs_and_numbers(digits: nn.Module) -> None:
    with pytest.raises(InputError, match="NaN"):
        evaluate(Fixed(), _loader(torch.full((2, 3), torch.nan), [0, 1]), progress=False)
    with pytest.raises(InputError, match="expected logits"):
        evaluate(Fixed(), _loader(torch.zeros(2, 3, 4), [0, 1]), progress=False)
    with pytest.raises(ConfigError, match="batch_size"):
        evaluate(digits, "digits", batch_size=0, progress=False)
    with pytest.raises(ConfigError, match="limit"):
        evaluate(Fixed(), _loader(torch.eye(2), [0, 1]), limit=0, progress=False)
    with pytest.raises(ConfigError, match="device"):
        evaluate(digits, "digits", device="no-such", progress=False)
    with pytest.raises(ConfigError, match="bfloat16"):
        evaluate(digits, "digits", amp=torch.float64, progress=False)


def test_mixed_precision(digits: nn.Module) -> None:
    found = evaluate(digits, "digits", limit=20, amp=torch.bfloat16, progress=False)
    assert found.top1 > 80


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
        found = evaluate(digits, "digits", limit=60, channels_last=True, progress=False)
    finally:
        handle.remove()
    assert seen == [True]
    assert (weight.data_ptr(), weight.stride()) == (place, strides)
    expected = evaluate(digits, "digits", limit=60, progress=False)
    assert found.prediction.tolist() == expected.prediction.tolist()


def test_no_model_at_all() -> None:
    with pytest.raises(ConfigError, match="at least one model"):
        evaluate_together({}, _loader(torch.eye(2), [0, 1]), progress=False)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 9999))
def test_ranks_are_those_of_a_stable_sort(images: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few levels, so that many are equal.
    logits = torch.randint(0, 3, (images, classes), generator=generator).float()
    labels = torch.randint(0, classes, (images,), generator=generator)
    found = evaluate(Fixed(), _loader(logits, labels.tolist()), progress=False)
    order = logits.sort(dim=1, descending=True, stable=True).indices
    assert found.label.tolist() == labels.tolist()
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
    for k in (0, 7):
        with pytest.raises(ConfigError, match="between 1 and 6"):
            found.topk(k)
