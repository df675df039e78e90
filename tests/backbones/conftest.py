"""Models without a trivial parameter, and how they are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenred.attention import AttentionSpec, Engine, ScoreMod, attend
from tokenred.backbones import BlockAdapter
from tokenred.core.state import TokenState


class Untouched(ScoreMod):
    """Changes nothing, but opens every block."""

    def __call__(self, logits: Tensor, state: TokenState) -> Tensor:
        return logits


@pytest.fixture(scope="session")
def untouched() -> ScoreMod:
    return Untouched()


@pytest.fixture(scope="session")
def lively() -> Callable[[nn.Module], nn.Module]:
    """Gives every parameter and BatchNorm statistic a value that matters."""

    @torch.no_grad()
    def fill(model: nn.Module, seed: int = 0) -> nn.Module:
        draw = torch.Generator().manual_seed(seed)
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=draw)
            if p.ndim <= 1:
                # Scales (of norms and LayerScale) around 0.7, biases around 0.
                scale = name.endswith(("weight", "gamma", "gamma1", "gamma2", "gamma_1", "gamma_2"))
                p.copy_(noise * 0.2 + 0.7 if scale else noise * 0.2)
            elif p.ndim == 3:  # class token, registers, position embedding, latent
                p.copy_(noise * 0.5)
            else:
                p.copy_(noise / p[0].numel() ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=draw) * 0.1)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
        return model

    return fill


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    """Asserts that two results agree, relative to the largest value."""

    def check(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
        if not isinstance(expected, Tensor):
            assert type(got) is type(expected)
            for one, other in zip(got, expected, strict=True):
                check(one, other, tolerance)
            return
        largest = expected.abs().max().item()
        assert largest > 0
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * largest)

    return check


@pytest.fixture(scope="session")
def same_run(same: Callable[..., None]) -> Callable[..., None]:
    """Asserts that two models give the same features, logits and gradients from one seed."""

    def run(model: nn.Module, images: Tensor) -> tuple[Tensor, Any, dict[str, Tensor]]:
        torch.manual_seed(1)
        features = model.forward_features(images)
        torch.manual_seed(1)
        logits = model(images)
        flat = torch.cat([x.flatten() for x in (logits if isinstance(logits, tuple) else [logits])])
        weights = torch.linspace(-1, 2, flat.numel(), dtype=flat.dtype)
        names, parameters = zip(*model.named_parameters(), strict=True)
        grads = torch.autograd.grad((flat * weights).sum(), parameters, allow_unused=True)
        return features, logits, {n: g for n, g in zip(names, grads, strict=True) if g is not None}

    def check(ours: nn.Module, theirs: nn.Module, images: Tensor, tolerance: float = 1e-5) -> None:
        got, expected = run(ours, images), run(theirs, images)
        same(got[0], expected[0], tolerance)
        same(got[1], expected[1], tolerance)
        assert got[2].keys() == expected[2].keys()
        largest = max(g.abs().max().item() for g in expected[2].values())
        for name, grad in expected[2].items():
            # A gradient that is zero but for rounding is measured by the others.
            bound = tolerance * max(grad.abs().max().item(), 1e-2 * largest)
            worst = (got[2][name] - grad).abs().max().item()
            assert worst <= bound, f"gradient of {name}: off by {worst}, allowed {bound}"

    return check


@pytest.fixture(scope="session")
def by_hand() -> Callable[[BlockAdapter, Tensor, Engine, int], Tensor]:
    """A block run in its steps, with nothing done between them."""

    def run(block: BlockAdapter, x: Tensor, engine: Engine, num_prefix: int) -> Tensor:
        n = x.shape[1] - num_prefix
        index = torch.arange(n).expand(x.shape[0], n)
        state = TokenState(x=x, index=index, num_prefix=num_prefix, grid=(1, n))
        heads = block.heads(x)
        out, _ = attend(heads, AttentionSpec(), state, (engine,))
        return block.after_mlp(block.after_attention(x, out, heads))

    return run


@pytest.fixture
def build(lively: Any) -> Any:
    """A lively Hugging Face tower by the name of its form, in which every weight matters."""
    from tests.backbones.hf_models import FORMS, matter

    def made(form: str, **options: Any) -> Any:
        return matter(lively(FORMS[form](**options)))

    return made
