"""mkdocs' configuration beyond ``mkdocs.yml``: pages made at build time, links, a last check.

Pages that are elsewhere in the repository (the README is the first page) are taken from there, so
that nothing is written twice. Notebooks are shown with the outputs of the executed copies in the
folder ``TOKENRED_NOTEBOOKS``, or without outputs if it is not set.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from docs_api import api_pages
from docs_catalogue import catalogue
from docs_links import PAGES, notebooks, rewrite_links
from docs_notebooks import notebook_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Warnings of mkdocs' own loggers count under --strict.
LOG = logging.getLogger("mkdocs.hooks.tokenred")
NOTEBOOKS = notebooks(ROOT)
SITE = {**PAGES, **NOTEBOOKS}
# Pictures drawn by notebooks, by the path that they would have in the repository.
PICTURES: dict[str, str] = {}
SOURCES = {page: source for source, page in SITE.items()}
_LOADED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')
_INLINE = re.compile(r"<code>[^<]*</code>")
_OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
_ALLOWED = re.compile(r'rel="(?:canonical|prev|next)"')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the API to the navigation."""
    api, _ = api_pages()
    for entry in config.nav or []:
        if entry.get("API") == "api/":
            entry["API"] = [{_title(text): page} for page, text in api.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in ``docs/``."""
    api, places = api_pages()
    made: dict[str, str | bytes] = {**api, "catalogue.md": catalogue(places)}
    for source, page in PAGES.items():
        made[page] = (ROOT / source).read_text(encoding="utf-8")
    executed = os.environ.get("TOKENRED_NOTEBOOKS")
    for source, page in NOTEBOOKS.items():
        path = Path(executed, Path(source).name) if executed else ROOT / source
        text, pictures = notebook_page(path)
        made[page] = text if executed else f"{text}\n*Built without running the notebook.*\n"
        drawn = {f"notebooks/{name}": picture for name, picture in pictures.items()}
        PICTURES.update({place: place for place in drawn})
        made |= drawn
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links of the repository into links of the site."""
    place = page.file.src_uri
    inside = ROOT / "docs" / place
    source = SOURCES.get(place) or (f"docs/{place}" if inside.exists() else None)
    if source is None:
        return markdown
    known = {**SITE, **PICTURES}
    return rewrite_links(markdown, source, place, known, ROOT, LOG.warning)


def on_page_content(html: str, **_: Any) -> str:
    """Keep the browser from breaking an option in a line of text after its hyphens."""
    return _INLINE.sub(lambda code: _OPTION.sub(r"<span>\g<0></span>", code[0]), html)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Warn about anything that a browser would load from another site."""
    for tag in _LOADED.findall(output):
        if not _ALLOWED.search(tag):
            LOG.warning("%s loads something from another site: %s", page.file.src_uri, tag)
    return output


def _title(text: str) -> str:
    return text.split("\n", 1)[0].removeprefix("# ")
