"""Every path, page and log line that the documentation names exists."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Decisions are not rewritten, so they may name files that were moved since.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Folders in the tree of docs/architecture.md: indented by four, then by two for each level.
TREE_LINE = re.compile(r"^ {4}((?: {2})*)([\w.]+)/ ", re.MULTILINE)

#: A part that stands for any name, as in `tests/ROOM/test_MODULE.py`.
PLACEHOLDER = re.compile(r"/(?:\w+_)?[A-Z]+\b(?!\.md)")


@cache
def tracked() -> frozenset[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return frozenset(listed.split("\0")) - {""}


@cache
def folders() -> frozenset[str]:
    return frozenset(str(parent) for name in tracked() for parent in Path(name).parents) - {"."}


def exists(path: str) -> bool:
    return path in tracked() or path.rstrip("/") in folders()


def named_paths(text: str) -> Iterator[str]:
    """Yield the words of a page that begin with a folder of the root, such as `tests/house`."""
    roots = "|".join(re.escape(name) for name in folders() if "/" not in name)
    for found in re.finditer(rf"(?<![\w./:@-])(?:{roots})/[\w./-]*", text):
        if not PLACEHOLDER.search(found[0]):
            yield found[0].rstrip(".-")


def tree() -> Iterator[str]:
    """Yield the folders of the tree in docs/architecture.md, as paths of the repository."""
    block = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("\n## The tree\n")[2].partition("\n## ")[0]
    parts: list[str] = []
    for indent, name in TREE_LINE.findall(block):
        parts[len(indent) // 2 :] = [name]
        room, *inner = parts
        portion = [room, "headrace", room] if f"{room}/headrace" in folders() else [room]
        yield "/".join([*portion, *inner])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    assert sorted({path for path in named_paths(page.read_text("utf-8")) if not exists(path)}) == []


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "docs" / "decisions").glob("*.md"))], ids=lambda page: page.name
)
def test_every_page_and_heading_that_a_page_links_to_exists(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"\w+://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert exists(str(target.relative_to(ROOT))), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_folder_in_the_tree_exists() -> None:
    named = list(tree())
    assert "workers/headrace/workers/batching" in named
    assert [path for path in named if path not in folders()] == []


def test_every_room_is_in_the_tree() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/headrace")}
    assert sorted(rooms - {path.split("/")[0] for path in tree()}) == []


def test_every_log_line_that_troubleshooting_explains_is_in_the_code() -> None:
    source = " ".join((ROOT / name).read_text("utf-8") for name in tracked() if re.match(r"\w+/headrace/.*\.py$", name))
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    logs = page.partition("\n## The worker's log\n")[2].partition("\n## The broker refuses\n")[0]
    lines = [line for row in re.findall(r"^\| (`.*?) \|", logs, re.MULTILINE) for line in re.findall("`(.*?)`", row)]
    assert len(lines) > 30
    assert [line for line in lines if line not in source] == []


def test_every_import_that_a_page_shows_exists() -> None:
    shown = [
        (page.name, module, name.strip())
        for page in PAGES
        for module, names in re.findall(r"^ *from (headrace[\w.]*) import (.+)$", page.read_text("utf-8"), re.MULTILINE)
        for name in names.split(",")
    ]
    assert len(shown) > 10
    assert [each for each in shown if not is_importable(each[1], each[2])] == []


def is_importable(module: str, name: str) -> bool:
    """Return whether a module or package of the repository exists and mentions a name."""
    _, room, *parts = module.split(".")
    path = ROOT.joinpath(room, "headrace", room, *parts)
    source = path.with_suffix(".py") if parts and path.with_suffix(".py").is_file() else path / "__init__.py"
    return source.is_file() and re.search(rf"\b{name}\b", source.read_text("utf-8")) is not None
