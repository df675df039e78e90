"""Reading a page back: what is in its tables, what it would load, and whether it is well-formed."""

from html.parser import HTMLParser

# Elements without an end.
_VOID = {"meta", "img", "input", "br", "link", "wbr"}
_LOADING = {"src", "href", "action", "data", "srcset", "poster"}


class ReadPage(HTMLParser):
    """Tables as rows of texts, references, and the elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.references: list[str] = []
        self.pictures: list[dict[str, str]] = []
        self.ids: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.names.append(tag)
        assert not any(name.startswith("on") for name in told), told
        self.references += [value for name, value in told.items() if name in _LOADING]
        if "id" in told:
            self.ids.append(told["id"])
        if tag == "img":
            self.pictures.append(told)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and ("td" in self.open or "th" in self.open):
            self.tables[-1][-1][-1] += data


def check_page(text: str) -> ReadPage:
    """A page that is well-formed and loads nothing.

    Raises:
        AssertionError: where it is not.
    """
    page = ReadPage(text)
    assert text.startswith("<!DOCTYPE html>")
    outside = [r for r in page.references if not r.startswith(("#", "data:image/"))]
    assert not outside, outside
    assert "@import" not in text
    assert "url(" not in text
    assert len(page.ids) == len(set(page.ids))
    targets = {r[1:] for r in page.references if r.startswith("#")}
    assert targets <= set(page.ids), targets - set(page.ids)
    assert all(picture["alt"] for picture in page.pictures)
    # Every table has a caption and names its columns.
    assert page.names.count("caption") == page.names.count("table")
    assert page.names.count("thead") == page.names.count("table")
    return page
