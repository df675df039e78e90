"""Pages as HTML: escaped, whole, and loading nothing."""

from __future__ import annotations

import base64
import hashlib
import math
import re

import pytest

from tests.analysis.reporting.pages import check_page
from tokenred.analysis.reporting.page import (
    Column,
    DataTable,
    Page,
    Picture,
    Row,
    Section,
    Value,
    number,
    render,
)

EVIL = "</td><script>alert(1)</script>&\"'"


def _page(text: str) -> Page:
    table = DataTable(
        "t", text, (Column(text, help=text), Column("n", numeric=True)),
        (
            Row((Value(text, mark="bad"), Value("1", 1.0)), "r1"),
            Row((Value(text), number(None, 2))),
        ),
    )  # fmt: skip
    section = Section(
        "s", text, (text,), ((text, text),),
        (Picture(text, text, "data:image/png;base64,AA==", text, text),), (table,),
        ((text, text),),
    )  # fmt: skip
    return Page(text, text, (section, Section("s2", "two")))


def test_everything_is_escaped() -> None:
    html = render(_page(EVIL))
    page = check_page(html)
    # The page's own script, and no other.
    assert page.names.count("script") == 1
    assert "<script>alert" not in html
    assert page.tables == [[[EVIL, "n"], [EVIL, "1"], [EVIL, ""]]]


def test_the_policy_allows_only_what_the_page_brings() -> None:
    html = render(_page("x"))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert "default-src &#39;none&#39;" in policy
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy
    assert "unsafe" not in policy
    assert " style=" not in html


def test_empty_parts_are_left_out() -> None:
    page = check_page(render(Page("t", "s", (Section("a", "A"),))))
    assert not {"table", "figure", "dl", "details", "nav"} & set(page.names)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.005, "1.00"), (-0.0001, "0.00"), (3, "3.00"), (None, ""), (math.nan, ""), ("x", "")],
)
def test_numbers(value: object, shown: str) -> None:
    found = number(value, 2)
    assert found.text == shown
    assert found.order == (value if shown else math.inf)


def test_signed_numbers() -> None:
    assert number(0.5, 1, signed=True).text == "+0.5"
    assert number(-0.04, 1, signed=True).text == "+0.0"
