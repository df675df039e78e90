"""Turn links between files of the repository into links of the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["PAGES", "notebooks", "rewrite_links"]

# Pages that are outside docs/ in the repository, and their path on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/tokenred-example/README.md": "example.md",
    "notebooks/README.md": "notebooks/index.md",
}
# Code is matched first, since nothing in it is a link.
_PIECES = re.compile(
    r"(?P<fence>^(?P<marks>```+|~~~+).*?^(?P=marks)\s*$)"
    r"|(?P<link>!?\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\))"
    r"|(?P<code>`+[^`]*`+)",
    re.DOTALL | re.MULTILINE,
)
_ELSEWHERE = re.compile(r"[a-z]+:|#")


def notebooks(root: Path) -> dict[str, str]:
    """The notebooks of the repository, and their pages."""
    found = sorted((root / "notebooks").glob("*.ipynb"))
    return {f"notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in found}


def rewrite_links(
    text: str,
    source: str,
    page: str,
    pages: Mapping[str, str],
    root: Path,
    warn: Callable[[str], None],
) -> str:
    """Rewrite the links of a page for the site.

    A link to a file that is not a page of the site becomes plain text, because the site does not
    know the repository's address.

    Args:
        text: Markdown.
        source: path in the repository.
        page: path on the site.
        pages: pages of the site by path in the repository; those in ``docs/`` may be left out.
        root: the repository.
        warn: called with a message about a broken link.
    """

    def one(found: re.Match[str]) -> str:
        target = found["target"]
        if target is None or _ELSEWHERE.match(target):
            return found[0]
        path, mark, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if place not in pages and not (root / place).exists():
            warn(f"{source} links to {target}, which does not exist")
            return found[0]
        if place in pages:
            there = pages[place]
        elif place.startswith("docs/"):
            there = place.removeprefix("docs/")
        else:
            return found["text"]
        relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return found[0].replace(f"]({target})", f"]({relative}{mark}{anchor})")

    return _PIECES.sub(one, text)
