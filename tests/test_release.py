"""What a release needs besides its code: one version, a citation, issue forms, honest bounds."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tokenred
from tests.shared import ROOT, script

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_citation_has_what_github_needs() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cff["cff-version"] == "1.2.0"
    assert cff["message"]
    assert cff["title"].startswith("tokenred")
    assert all("name" in a or "family-names" in a for a in cff["authors"])
    assert str(cff["version"]) == tokenred.__version__
    assert cff["license"] == PROJECT["license"]
    (paper,) = cff["references"]
    assert paper["type"] == "conference-paper"
    assert paper["title"].startswith("GTP-ViT")
    assert paper["authors"][0]["family-names"] == "Xu"
    assert paper["year"] == 2024


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(dev|a|b|rc)\d+)?", tokenred.__version__)
    found = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tokenred").rglob("*.py")
        if re.search(r"^__version__\s*=", path.read_text("utf-8"), flags=re.MULTILINE)
    ]
    assert found == ["tokenred/_version.py"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms(path: Path) -> None:
    form = yaml.safe_load(path.read_text("utf-8"))
    if path.stem == "config":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert form["name"]
    assert form["description"]
    ids = [item["id"] for item in form["body"] if item["type"] != "markdown"]
    assert len(set(ids)) == len(ids)
    for item in form["body"]:
        assert item["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert item["attributes"]["label"]


def test_every_kind_of_issue_has_a_form() -> None:
    assert [path.stem for path in FORMS] == ["bug", "config", "method", "question"]
    assert "make test" in (ROOT / ".github" / "pull_request_template.md").read_text("utf-8")


def test_the_lowest_versions_are_those_declared() -> None:
    versions = script("versions")
    pins = versions.pins(PROJECT)
    assert "torch==2.6" in pins
    assert "timm==1.0.15" in pins
    assert "tomli==2; python_version < '3.11'" in pins
    assert len(pins) == len(PROJECT["dependencies"]) + 2
    assert all((ROOT / name.partition("::")[0]).exists() for name in versions.TESTS)
    with pytest.raises(ValueError, match="no lowest version: 'numpy'"):
        versions.pins({"dependencies": ["numpy"], "optional-dependencies": {"testing": []}})


def test_the_sources_that_must_travel_are_there() -> None:
    check = script("check_wheel")
    assert all((ROOT / name).is_file() for name in check.SOURCES)


def test_contributing_names_targets_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = set(re.findall(r"\bmake\s+([a-z]+)\b", text))
    assert {"setup", "test", "upgrade", "lowest"} <= named <= targets
    for folder in re.findall(r"`(tokenred/[a-z]+/)`", text):
        assert (ROOT / folder).is_dir()
