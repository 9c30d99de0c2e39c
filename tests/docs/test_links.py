"""Every link from one page to another leads to a page and a heading that are there."""

import re
from pathlib import Path

import pytest

from tests.support import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *(REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md"))])
_CODE = re.compile(r"^(?:```.*?^```|    .*?)$", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NAMED = re.compile(r"docs/[\w-]+\.md")


def links(page: Path) -> list[str]:
    """Return where a page leads, other sites left out."""
    plain = _QUOTED.sub("", _CODE.sub("", page.read_text()))
    return [link for link in _LINK.findall(plain) if "://" not in link]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", one) is not None for one in found)
        found.add(f"{name}-{count}" if count else name)
    return found


def broken(page: Path, link: str) -> bool:
    """Say whether a link leads nowhere."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    return not target.exists() or bool(anchor and (target.suffix != ".md" or anchor not in anchors(target)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path):
    assert [link for link in links(page) if broken(page, link)] == []


def test_a_link_to_no_page_or_to_no_heading_is_found():
    page = DOCS / "install.md"
    assert links(page)
    assert broken(page, "nowhere.md")
    assert broken(page, "nodes.md#no-such-heading")
    assert broken(page, "#no-such-heading")
    assert not broken(page, "#upgrade")


def test_the_index_has_every_page():
    index = DOCS / "README.md"
    assert {link.partition("#")[0] for link in links(index)} >= {page.name for page in DOCS.glob("*.md")} - {index.name}


def test_pages_that_are_named_in_files_exist():
    files = [REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "bench/README.md")]
    files += [path for path in (REPOSITORY / "charts").rglob("*") if path.suffix in {".yaml", ".txt", ".tpl", ".json"}]
    files += [path for part in ("webhook", "proxy", "certs") for path in (REPOSITORY / part).rglob("*.py")]
    named = {name for path in files for name in _NAMED.findall(path.read_text())}
    assert len(named) >= len({"install", "values", "operating"})
    assert {name for name in named if not (REPOSITORY / name).exists()} == set()
