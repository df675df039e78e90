"""A method is composed of parts: its files are short, and the blocks stay the model's own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tokenred.strategies

FOLDER = Path(tokenred.strategies.__file__).parent
RECIPES = sorted((FOLDER / "recipes").glob("*.py"))
# What an attention or a block of one's own could not do without.
OF_A_BLOCK = {
    "attn", "attn_drop", "fc1", "fc2", "mlp", "norm1", "norm2", "proj", "qkv",
    "scaled_dot_product_attention",
}  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_short_and_only_composes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 120
    tree = ast.parse(text)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name and name.split(".")[0] in {"torch", "timm"}}


def test_no_part_runs_a_block_of_its_own() -> None:
    for path in FOLDER.rglob("*.py"):
        tree = ast.parse(path.read_text())
        read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not read & OF_A_BLOCK, path.name
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert "timm" not in ast.unparse(ast.Module(imports, [])), path.name  # type: ignore[arg-type]
