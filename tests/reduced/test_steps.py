"""Several reductions in a block."""

import pytest
import torch
from torch import Tensor

import tokenred as tr
from tests.backbones.forms import vit
from tokenred.core.errors import ConfigError, ScheduleError
from tokenred.reduced.plan import plan_layers
from tokenred.strategies.specs import Spec
from tokenred.strategies.step import Place

SIZES = {"img_size": 32, "patch_size": 4, "depth": 6}


def step(
    scorer: str,
    fuser: str | tr.Fuser = "prune",
    schedule: int | tr.Schedule = 0,
    where: Place = "after_attention",
    layers: tuple[int, ...] | None = None,
) -> tr.Step:
    return tr.Step(scorer, fuser=fuser, schedule=schedule, where=where, layers=layers)


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return vit(**SIZES).double().eval()


def counted(counts: tuple[int, ...]) -> tr.Schedule:
    return tr.PerLayer(counts)


# What several steps do, and one that must do the same.
SAME = {
    "in different blocks": (
        (step("MixedAttn", "merge", 3, layers=(1, 4)), step("MixedAttn", "merge", 5, layers=(2,))),
        step("MixedAttn", "merge", counted((0, 3, 5, 0, 3, 0))),
    ),
    "twice at one place": (
        (step("CLSAttn", "prune", 2), step("CLSAttn", "prune", 3)),
        step("CLSAttn", "prune", 5),
    ),
    "twice by what was received": (
        (step("MixedAttn", "prune", 2), step("MixedAttn", "prune", 3)),
        step("MixedAttn", "prune", 5),
    ),
    "in the attention and after": (
        (step("CLSAttn", "prune", 3, "after_attention"), step("CLSAttn", "prune", 2, "after_mlp")),
        step("CLSAttn", "prune", 5),
    ),
    "looking back over one that took some": (
        (
            step("CLSAttn", "prune", counted((0, 2, 0, 0, 0, 0))),
            step("CLSAttn", "prune", counted((0, 0, 3, 0, 0, 0)), "before_block"),
        ),
        step("CLSAttn", "prune", counted((0, 5, 0, 0, 0, 0))),
    ),
    "twice before a block": (
        (
            step("CLSAttn", "prune", counted((0, 0, 2, 0, 0, 0)), "before_block"),
            step("CLSAttn", "prune", counted((0, 0, 3, 0, 0, 0)), "before_block"),
        ),
        step("CLSAttn", "prune", counted((0, 5, 0, 0, 0, 0))),
    ),
}


@pytest.mark.parametrize("engine", ["plain", "auto"])
@pytest.mark.parametrize("case", SAME)
def test_several_steps_are_one(case: str, engine: str) -> None:
    steps, one = SAME[case]
    base = model()
    several = tr.wrap(base, tr.Strategy(steps=steps), engine=engine)
    single = tr.wrap(base, tr.Strategy(steps=(one,)), engine=engine)
    torch.testing.assert_close(several(images()), single(images()), rtol=0, atol=1e-12)


def test_they_run_in_the_order_of_a_block() -> None:
    steps = (step("CLSAttn", "prune", 2, "after_mlp"), step("MixedAttn", "merge", 3))
    fast = tr.wrap(model(), tr.Strategy(steps=steps))
    layers = plan_layers(fast.strategy, fast.info).layers
    places = [[step.where for step in layer.steps] for layer in layers]
    assert places == [["after_attention", "after_mlp"]] * 6
    swapped = fast.with_strategy(fast.strategy.replace(steps=steps[::-1]))
    assert torch.equal(fast(images()), swapped(images()))


def test_trace_and_costs_know_them() -> None:
    steps = (step("MixedAttn", "merge", 3, layers=(1, 3)), step("CosSim", "prune", 2))
    fast = tr.wrap(model(), tr.Strategy(steps=steps))
    logits, trace = fast.run_with_trace(images())
    assert torch.equal(logits, fast(images()))
    assert trace.tokens_per_layer == (62, 57, 55, 50, 48, 46)
    assert [x.tokens_out for x in fast.cost().layers] == list(trace.tokens_per_layer)
    assert [step.layer for step in trace.steps] == [0, 1, 1, 2, 3, 3, 4, 5]
    kept = fast.kept_tokens(images(), owners=True, norm=False)
    assert kept.owner is not None
    assert torch.equal(kept.owner, trace.owners())
    full = trace.unreduce(trace.states[-1].x)
    torch.testing.assert_close(kept.unreduce(), full)


def test_costs_are_those_of_the_tokens_that_run() -> None:
    base = model()
    for case in ("in different blocks", "twice at one place", "twice before a block"):
        steps, one = SAME[case]
        several, single = tr.Strategy(steps=steps), tr.Strategy(steps=(one,))
        if case == "twice before a block":
            single = tr.Strategy("Random", schedule=counted((0, 0, 5)), where="before_block")
        assert tr.gmacs(tr.wrap(base, several)) == tr.gmacs(tr.wrap(base, single))


def test_a_budget_scales_all_steps() -> None:
    steps = (step("MixedAttn", "merge", 4), step("CLSAttn", "prune", tr.KeepRatio(0.8)))
    base = model()
    fast = tr.wrap(base, Spec("two", "two", tr.Strategy(steps=steps), 0.7))
    assert 0.66 * tr.gmacs(base) < tr.gmacs(fast) <= 0.7 * tr.gmacs(base)
    layers = plan_layers(fast.strategy, fast.info).layers
    assert all(layer.at("after_attention") for layer in layers)
    few = (step("Random", schedule=tr.Budget(0.001)), step("Random", schedule=tr.Budget(0.002)))
    with pytest.raises(ScheduleError, match="share one budget"):
        tr.wrap(base, tr.Strategy(steps=few))


def test_learned_parts_of_further_steps() -> None:
    steps = tuple(
        tr.strategy("patchmerger", keep=keep, layers=(at,)).steps[0]
        for at, keep in ((1, 0.7), (3, 0.4))
    )
    with pytest.warns(tr.errors.UntrainedPartWarning):
        fast = tr.wrap(model(), tr.Strategy(steps=steps))
    names = {name.split(".")[1] for name in fast.state_dict() if name.startswith("parts.")}
    assert names == {"fuser", "fuser_1"}
    fast(images()).sum().backward()
    assert all(p.grad is not None for p in fast.parts.parameters())


REFUSED = {
    "reads the attention after new tokens": (
        (step("CLSAttn", tr.strategy("evit", fuse=True).fuser, 3), step("CLSAttn", "prune", 2)),
        "adds tokens",
    ),
    "two that look ahead": (
        (
            step("MixedAttn", "merge", 3, "before_attention"),
            step("MixedAttn", "merge", 3, "inside_attention"),
        ),
        "it can have one",
    ),
    "one number for all after one for each": (
        (tr.strategy("dtome").steps[0], step("Random", "prune", 2, "after_mlp")),
        "needs the same number for all",
    ),
    "a map merged by a number of its own": (
        (tr.strategy("dtome").steps[0].replace(where="inside_attention"),),
        "before_attention",
    ),
    "a mask in training": (
        (tr.strategy("dynamicvit").steps[0], step("Random", "prune", 2)),
        "only step",
    ),
    "blocks that are not there": ((step("Random", "prune", 2, layers=(6,)),), "0 to 5"),
}


@pytest.mark.filterwarnings("ignore::tokenred.core.errors.UntrainedPartWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_steps_that_do_not_go_together(case: str) -> None:
    steps, words = REFUSED[case]
    with pytest.raises(ConfigError, match=words):
        tr.wrap(model(), tr.Strategy(steps=steps))


def test_adaptive_steps_after_static_ones() -> None:
    """A batch is its images, and one costs what it runs."""
    dtome = tr.strategy("dtome").steps[0]
    dtome = dtome.replace(scorer=dtome.scorer.replace(thresholds=0.2), layers=(2, 4))
    fast = tr.wrap(model(), tr.Strategy(steps=(dtome, step("CosSim", "prune", 4, layers=(0, 1)))))
    batch = images(4)
    whole = fast(batch)
    alone = torch.cat([fast(batch[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)
    for row in fast.alive_counts(batch).tolist():
        assert [x.tokens_out for x in fast.cost(alive=row).layers] == row[1:]


def test_gradients_through_checkpointed_blocks() -> None:
    strategy = tr.Strategy(steps=SAME["twice by what was received"][0])
    found = []
    for saving in (False, True):
        base = model().train()
        base.set_grad_checkpointing(saving)
        fast = tr.wrap(base, strategy)
        logits, trace = fast.run_with_trace(images())
        logits.sum().backward()
        assert len(trace.steps) == 12
        found.append([p.grad.clone() for p in base.parameters()])
    for plain, saved in zip(*found, strict=True):
        torch.testing.assert_close(plain, saved)


def test_export_with_a_free_batch() -> None:
    strategy = tr.Strategy(steps=SAME["looking back over one that took some"][0])
    fast = tr.wrap(model(), strategy)
    free = {"images": {0: torch.export.Dim("batch", min=1, max=8)}}
    program = torch.export.export(fast, (images(2),), dynamic_shapes=free)
    torch.testing.assert_close(program.module()(images(3)), fast(images(3)))
