"""The documentation site, as far as it can be checked without building it."""

import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import tokenred as tr
from tests.shared import ROOT, script
from tokenred.core.registry import KINDS

links = script("docs_links")


def navigation(entry: Any) -> list[str]:
    """The pages that an entry of the navigation names."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in navigation(part)]


CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
# Where each page stands in the repository; those in docs/ stand for themselves.
TEXTS = {f"docs/{path.name}": path.name for path in sorted((ROOT / "docs").glob("*.md"))}
TEXTS |= links.PAGES


# ---------------------------------------------------------------- pages


def test_every_page_is_in_the_navigation_once() -> None:
    named = navigation(CONFIG["nav"])
    assert len(named) == len(set(named))
    made = {*links.notebooks(ROOT).values(), "catalogue.md", "api/"}
    assert set(named) == {*TEXTS.values(), *made}


@pytest.mark.parametrize("source", TEXTS)
def test_links_lead_somewhere(source: str) -> None:
    wrong: list[str] = []
    pages = {**links.PAGES, **links.notebooks(ROOT)}
    text = (ROOT / source).read_text(encoding="utf-8")
    links.rewrite_links(text, source, TEXTS[source], pages, ROOT, wrong.append)
    assert wrong == []


@pytest.mark.parametrize("source", TEXTS)
def test_code_fits_beside_the_links(source: str) -> None:
    """At 1280 px, as the style sheet has it."""
    text = (ROOT / source).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w.*?^```", text, flags=re.MULTILINE | re.DOTALL)
    assert not [line for block in blocks for line in block.splitlines() if len(line) > 100]


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert CONFIG["theme"]["font"] is False
    assert not [name for name in CONFIG.get("extra_javascript", []) if "//" in name]
    assert not [name for name in CONFIG.get("extra_css", []) if "//" in name]
    drawing = (ROOT / "docs" / "images" / "flow.svg").read_text(encoding="utf-8")
    assert "http" not in drawing.replace("http://www.w3.org/2000/svg", "")


def test_links_become_those_of_the_site() -> None:
    def rewritten(text: str, source: str, page: str) -> str:
        pages = {**links.PAGES, "notebooks/a.ipynb": "notebooks/a.md"}
        return str(links.rewrite_links(text, source, page, pages, ROOT, wrong.append))

    wrong: list[str] = []
    front = "README.md", "index.md"
    assert rewritten("[p](docs/performance.md#cuda)", *front) == "[p](performance.md#cuda)"
    assert rewritten("![t](docs/images/speedup.png)", *front) == "![t](images/speedup.png)"
    assert rewritten("[n](NOTICE)", *front) == "n"
    assert rewritten("[b](../benchmarks/README.md)", "docs/x.md", "x.md") == "[b](benchmarks.md)"
    there = rewritten("[d](../docs/dense.md)", "notebooks/README.md", "notebooks/index.md")
    assert there == "[d](../dense.md)"
    for text in ("[x](https://example.org)", "[x](#here)", "`[x](y)`", "```python\na[0](b)\n```"):
        assert rewritten(text, *front) == text
    assert wrong == []
    rewritten("[x](docs/nowhere.md)", *front)
    assert len(wrong) == 1


# ---------------------------------------------------------------- what is generated


def test_the_catalogue_has_every_part() -> None:
    page = script("docs_catalogue").catalogue({})
    entries = [entry for registry in KINDS.values() for entry in registry]
    assert len(entries) > 40
    for entry in entries:
        assert f"### `{entry.name}` {{ #" in page
    for path in re.findall(r"\| file \| `([^`]+)` \|", page):
        assert path.startswith("tests/") or (ROOT / path).exists(), path
    # No cell of a table is torn apart by a bar in it.
    for line in page.splitlines():
        if line.startswith(("| defaults", "| composition")):
            assert len(re.findall(r"(?<!\\)\|", line)) == 3, line


def test_the_api_has_every_public_name() -> None:
    pages, places = script("docs_api").api_pages()
    text = "\n".join(pages.values())
    described = re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    assert len(described) == len(set(described))
    for name in tr.__all__:
        value = getattr(tr, name)
        full = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
        assert (
            full in described
            or f"| `{name}` |" in text
            or f"api/{name}.md" in pages
            or isinstance(value, ModuleType | str)
        ), name
    assert set(places) == set(described)


def test_a_notebook_with_its_outputs(tmp_path: Path) -> None:
    def cell(kind: str, source: str, **more: Any) -> dict[str, Any]:
        return {"cell_type": kind, "source": source.splitlines(keepends=True), **more}

    outputs = [
        {"output_type": "stream", "text": ["\x1b[1mone\x1b[0m\n", " 10%\r100%\n"]},
        {"output_type": "display_data", "data": {"image/png": "cG5n", "text/plain": "<Figure>"}},
        {"output_type": "execute_result",
         "data": {"text/html": "<style>x</style>\n<table>\n\n</table>", "text/plain": "frame"}},
        {"output_type": "execute_result", "data": {"text/plain": ["```"]}},
    ]  # fmt: skip
    cells = [cell("markdown", "# Title\n"), cell("code", "1 + 1", outputs=outputs)]
    path = tmp_path / "book.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    page, pictures = script("docs_notebooks").notebook_page(path)
    assert page.startswith("# Title\n\n```python\n1 + 1\n```\n")
    assert "```text\none\n100%\n```" in page
    assert list(pictures.values()) == [b"png"]
    assert f"]({next(iter(pictures))})" in page
    assert '<div class="output">\n<table>\n</table>\n</div>' in page
    assert "````text\n```\n````" in page


def test_the_methods_page_says_what_is_tested() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    counts: Counter[str] = Counter()
    for path in (ROOT / "tests" / "golden").glob("*.json"):
        cases = json.loads(path.read_text(encoding="utf-8"))
        counts["gtp"] += len(cases.get("gtp", ()))
        counts.update(case["method"] for case in cases.get("cases", cases.get("others")))
    assert f"{counts.pop('lvvit')} cases from the authors' code" in " ".join(text.split())
    names = {"evovit": "evo-vit", "trilevel": "tri-level"}
    rows = [
        row
        for row in text.splitlines()
        if row[:1] == "|" and re.search(r"(code|implementation): \d+ cases", row)
    ]
    assert len(rows) == len(counts)
    for method, count in counts.items():
        start = f"| `{names.get(method, method)}` |"
        assert any(row.startswith(start) and f": {count} cases" in row for row in rows)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"In {counts.total()} float64 test cases" in " ".join(readme.split())
    for name in tr.list_strategies():
        assert f"`{name}`" in text
