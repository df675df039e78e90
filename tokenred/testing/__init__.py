"""Property suites that check a part, yours as well as ours, against its contract.

One call runs them all and names the broken promise, with the smallest example::

    from tokenred.testing import check_scorer

    def test_my_scorer():
        check_scorer(NormAttn())

`draw` has the hypothesis strategies that the suites use. Needs hypothesis:
``pip install 'tokenred[testing]'``.
"""

from tokenred.core.errors import MissingExtraError

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        "tokenred.testing draws its examples with hypothesis, which is not installed. "
        "Run: pip install 'tokenred[testing]'"
    ) from error

from tokenred.testing import draw
from tokenred.testing.fuser_suite import check_fuser
from tokenred.testing.graph_suite import check_graph
from tokenred.testing.sample import Sample
from tokenred.testing.schedule_suite import check_schedule
from tokenred.testing.scorer_suite import check_scorer
from tokenred.testing.selector_suite import check_selector

__all__ = [
    "Sample", "check_fuser", "check_graph", "check_schedule", "check_scorer", "check_selector",
    "draw",
]  # fmt: skip
