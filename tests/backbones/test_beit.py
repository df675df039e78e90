"""timm's Beit in its forms: nothing removed is nothing changed, and biases go with tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.beit import Beit, Block
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import tokenred as tr
from tests.backbones.steps import in_steps, removed_and_masked
from tokenred.attention import FusedEngine, PlainEngine
from tokenred.backbones.beit import bias_at
from tokenred.core.errors import BackboneError, InputError

TINY: dict[str, Any] = {
    "img_size": (24, 40),
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 4,
    "num_classes": 5,
}
DROPOUT = dict.fromkeys(
    ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"], 0.3
)
NOTHING = tr.strategy("gtp", P=0)
SOME = tr.strategy("gtp", P=2, M=3)
OWN, SHARED = {"use_rel_pos_bias": True}, {"use_shared_rel_pos_bias": True}
FORMS: dict[str, dict[str, Any]] = {
    "own bias": {**OWN, "init_values": 0.5},
    "shared bias": SHARED,
    "both": {**OWN, **SHARED, "use_abs_pos_emb": False},
    "no bias": {},
    "no bias of q and v": {**OWN, "qkv_bias": False},
    "SwiGLU": {**OWN, "swiglu_mlp": True, "scale_mlp": True},
    "token pooling": {**OWN, "global_pool": "token"},
    "no pooling": {**OWN, "global_pool": ""},
    "no classifier": {**SHARED, "num_classes": 0},
}


def _images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, 24, 40, generator=torch.Generator().manual_seed(5))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> dict[str, Any]:
    return TINY | FORMS[request.param]


# ---------------------------------------------------------------- nothing removed


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_nothing_removed(form: dict[str, Any], training: bool, lively: Any, same_run: Any) -> None:
    model = lively(Beit(**form | DROPOUT)).train(training)
    same_run(tr.wrap(model, NOTHING), model, _images())


def test_opened(
    form: dict[str, Any], lively: Any, untouched: Any, same: Any, same_run: Any
) -> None:
    model = lively(Beit(**form)).double()
    reduced = tr.wrap(model, tr.Strategy("Random", score_mods=(untouched,)))
    images = _images().double()
    same_run(reduced, model, images, tolerance=1e-12)
    with torch.no_grad():
        state, _ = reduced._start(images)
        for layer, block in enumerate(reduced.backbone.blocks):
            for engine in (PlainEngine(), FusedEngine()):
                got, expected = in_steps(block, state, layer, engine)
                same(got - state.x, expected - state.x, 1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resizing
def test_another_input_size(lively: Any, same_run: Any) -> None:
    model = lively(Beit(**TINY, **OWN, **SHARED)).eval()
    if not hasattr(model, "set_input_size"):
        pytest.skip("this version of timm cannot change the size")
    reduced = tr.wrap(model, NOTHING)
    model.set_input_size((48, 24))
    same_run(reduced, model, torch.randn(2, 3, 48, 24))
    with pytest.raises(InputError, match="48×24"):
        reduced(_images())


def test_gradient_checkpointing(lively: Any, same_run: Any) -> None:
    models = [lively(Beit(**TINY, **OWN, **DROPOUT)).train() for _ in range(2)]
    plain, saving = (tr.wrap(model, SOME) for model in models)
    saving.set_grad_checkpointing()
    same_run(saving, plain, _images())


# ---------------------------------------------------------------- biases go with tokens


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
def test_removed_is_masked(
    form: dict[str, Any], opened: bool, lively: Any, untouched: Any, same: Any
) -> None:
    model = lively(Beit(**form)).double().eval()
    shared = None if model.rel_pos_bias is None else model.rel_pos_bias().detach()

    def run(layer: int, x: Tensor, bias: Tensor) -> Tensor:
        # timm adds what it is given as the shared bias.
        full = bias.expand(-1, -1, x.shape[1], -1)
        return model.blocks[layer](x, shared_rel_pos_bias=full if shared is None else full + shared)

    score_mods = {"score_mods": (untouched,)} if opened else {}
    got, expected = removed_and_masked(model, _images().double(), run, **score_mods)
    same(got, expected, 1e-12)


def test_tokens_go(form: dict[str, Any], lively: Any) -> None:
    model = lively(Beit(**form)).train()
    logits, trace = tr.wrap(model, SOME).run_with_trace(_images())
    assert logits.isfinite().all()
    assert trace.grid == (3, 5)
    assert trace.tokens_per_layer == (13, 11, 9)
    logits.sum().backward()
    tables = [p for name, p in model.named_parameters() if name.endswith("bias_table")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tables)


@pytest.mark.parametrize("method", ["evit", "tome", "idlevit", "ats", "evo-vit", "gtp"])
@pytest.mark.parametrize("options", [OWN, SHARED], ids=["own", "shared"])
def test_methods(method: str, options: dict[str, Any], lively: Any) -> None:
    model = lively(Beit(**TINY, **options)).eval()
    with torch.no_grad():
        logits = tr.wrap(model, method)(_images())
        assert logits.isfinite().all()
        assert not torch.equal(logits, model(_images()))


def test_bias_of_places() -> None:
    bias = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([[4, 0, -1], [5, -1, 2]])
    taken = bias_at(bias, index)
    assert taken.shape == (2, 2, 4, 4)
    # The class token first; a token of no single patch is like it.
    for b, places in enumerate([[0, 5, 1, 0], [0, 6, 0, 3]]):
        for i, row in enumerate(places):
            for j, column in enumerate(places):
                assert torch.equal(taken[b, :, i, j], bias[:, row, column])


def test_engines_agree(lively: Any, same: Any) -> None:
    model = lively(Beit(**TINY, **OWN)).double().eval()
    strategy = SOME.replace(theta=0.6)
    with torch.no_grad():
        expected = tr.wrap(model, strategy, engine="plain")(_images().double())
        for engine in ("auto", "tiled", "two_calls"):
            same(tr.wrap(model, strategy, engine=engine)(_images().double()), expected, 1e-12)


# ---------------------------------------------------------------- about it


def test_one_graph(lively: Any, same: Any) -> None:
    reduced = tr.wrap(lively(Beit(**TINY | {"depth": 2}, **OWN, **SHARED)).eval(), SOME)
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled: Any = torch.compile(reduced, fullgraph=True, backend=graphs)
    with torch.no_grad():
        same(compiled(_images()), reduced(_images()))
    assert graphs.frame_count == 1
    torch._dynamo.reset()


def test_refused() -> None:
    class OwnHead(Beit):
        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
            return super().forward_head(x, pre_logits)

    class OwnBlock(Block):
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            return super().forward(*args, **kwargs)

    with pytest.raises(BackboneError, match=r"OwnHead.*Known: .*timm's Beit"):
        tr.wrap(OwnHead(**TINY), SOME)
    model = Beit(**TINY)
    model.blocks[0] = OwnBlock(32, 4)
    with pytest.raises(BackboneError, match=r"OwnBlock\.forward is not Block's"):
        tr.wrap(model, SOME)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_weights_of_tokens(pool: str, lively: Any) -> None:
    backbone = tr.backbones.adapt(lively(Beit(**TINY, global_pool=pool)).double().eval())
    x = torch.randn(1, 10, 32, generator=torch.Generator().manual_seed(1)).double()
    mask = torch.tensor([[1.0] * 5 + [0.0] * 5]).double()
    got = backbone.head(x, weight=mask)
    torch.testing.assert_close(got, backbone.head(x[:, :5]))
