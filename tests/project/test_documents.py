"""What READMEs, CONTRIBUTING and CHANGELOG say of the repository is so: links, files, rooms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.readme import README, READMES, ROOT, block

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCUMENTS = {str(file.relative_to(ROOT)): file for file in (*READMES, CONTRIBUTING, ROOT / "CHANGELOG.md")}
ROOMS = {file.parent.name for file in (ROOT / "autotune").glob("*/__init__.py")}
# Names that the code had once and no reader should meet; keys of JSON documents stand in backquotes.
PRIVATE = r"\b(bench|podium|showcase|invitation|liveness|surroundings|racing|outline|rungs?|anew|harm|given up)\b"


@cache
def tokens(file: Path) -> list[Token]:
    """Everything in a document, block by block and within paragraphs."""
    parsed = MarkdownIt().enable("table").parse(file.read_text(encoding="utf-8"))
    return [token for each in parsed for token in (each, *(each.children or ()))]


def places(file: Path) -> Iterator[str]:
    """Where links and pictures of a document lead."""
    for token in tokens(file):
        place = token.attrGet("href" if token.type == "link_open" else "src")
        if token.type in ("link_open", "image") and place is not None:
            yield str(place)


def anchors(file: Path) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    names = set()
    for heading, text in zip(tokens(file), tokens(file)[1:], strict=False):
        if heading.type == "heading_open":
            slug = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", text.content).lower()).replace(" ", "-")
            names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
            found[slug] += 1
    return names


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    file = DOCUMENTS[name]
    for place in places(file):
        parts = urlsplit(place)
        if parts.scheme:
            assert parts.scheme == "https" and parts.netloc, place
            continue
        target = (file.parent / parts.path).resolve() if parts.path else file
        assert target.exists() and target.is_relative_to(ROOT), place
        if parts.fragment:
            assert parts.fragment in anchors(target), place


def test_the_readme_leads_to_every_other() -> None:
    def linked(file: Path) -> set[Path]:
        return {(file.parent / urlsplit(place).path).resolve() for place in places(file)}

    models = ROOT / "autotune" / "models" / "README.md"
    cards = {file for file in READMES if file.parents[1] == models.parent}
    assert {*READMES} - {README} - cards <= linked(README)
    assert cards and cards <= linked(models)


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 220


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str) -> None:
    for token in tokens(DOCUMENTS[name]):
        if token.type == "code_inline" and re.fullmatch(
            r"(autotune|search_spaces|studies|tests)/[\w./-]+", token.content
        ):
            path = token.content
            # For a file that somebody is about to write, or one for each model.
            found = ROOT.glob(re.sub("NAME|MODEL", "*", path))
            assert any(found), path


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_private_word_is_left(name: str) -> None:
    said = " ".join(token.content for token in tokens(DOCUMENTS[name]) if token.type == "text")
    assert not re.findall(PRIVATE, said, re.IGNORECASE)


def test_the_picture_shows_the_rooms_that_there_are() -> None:
    picture = block("flowchart ")
    drawn = re.findall(r'\b(\w+)\["(\w+)<br>', picture)
    assert all(node == label for node, label in drawn)
    assert sorted(node for node, _ in drawn) == sorted({*ROOMS, "search_spaces"})
    # Arrows lead from and to rooms only.
    _, *lines = re.sub(r'\["[^"]*"\]|-- \w+ -->|<?-->|-\.->', " ", picture).splitlines()
    assert {word for line in lines for word in line.split()} == {node for node, _ in drawn}


def test_every_room_has_a_line_in_the_house() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted([*(f"autotune/{room}" for room in ROOMS), "search_spaces", "studies", "tests"])


def test_no_change_takes_more_than_five_files() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    changes = re.findall(r"^### (.+?)\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in changes] == [
        *("A new metric", "A new technique", "A new option", "A new family", "A new document")
    ]
    for name, steps in changes:
        numbers = re.findall(r"^(\d)\. ", steps, re.MULTILINE)
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
        assert 3 <= len(numbers) <= (3 if name == "A new option" else 5), name
