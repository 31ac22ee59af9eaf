"""The page of a run's tiers, from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.core.errors import InputError
from autotune.policy import Policy, PolicySet
from autotune.report.tiers import tier_lines, tiers_document
from autotune.report.tiers_page import FILE, has_tiers, write_tiers_page
from autotune.results.tiers import FOLDER, MOST_SHOWN, POLICIES, keep_tier_pictures, read_tier_pictures
from tests.report.test_page_in_browser import Open, opened, serious_findings
from tests.support.browser import chromium
from tests.support.strategies import EXAMPLES

__all__ = ["chromium", "opened"]

# One with all records, and one that says nothing of its cost.
TIERS = {"high": EXAMPLES[1], "draft": Policy(steps=4)}
PROMPTS = [f"thing <{number}>" for number in range(MOST_SHOWN + 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PolicySet(tiers=TIERS).save(tmp_path / POLICIES)
    pictures = {
        name: torch.randint(0, 256, (len(PROMPTS), 3, 16, 16), dtype=torch.uint8) for name in ("full", "high", "draft")
    }
    keep_tier_pictures(tmp_path, "emoji-unet", "prompts", PROMPTS, pictures, {"draft": "25/report.html"})
    return tmp_path


def test_what_is_kept_is_read(folder: Path) -> None:
    kept = read_tier_pictures(folder)
    assert has_tiers(folder) and kept is not None
    assert [row.name for row in kept.rows] == ["full", "high", "draft"]
    assert kept.inputs == tuple(PROMPTS[:MOST_SHOWN])
    assert {file for row in kept.rows for file in row.files} == {path.name for path in (folder / FOLDER).glob("*.webp")}


def test_the_page_says_what_the_records_say(folder: Path) -> None:
    write_tiers_page(folder, folder / FILE)
    page = (folder / FILE).read_text()
    assert page.count("<img ") == 3 * MOST_SHOWN and "thing &lt;0&gt;" in page and "thing <0>" not in page
    assert '<a href="25/report.html">draft</a>' in page and "40.0%" in page and "0.500 (0.250..0.750)" in page


def test_what_is_not_known_is_a_dash_or_null() -> None:
    document = tiers_document(tier_lines(PolicySet(tiers=TIERS)))
    assert document["draft"]["flops_share"] is None and document["draft"]["loss"] is None
    assert document["full"]["flops_share"] == 1 and document["high"]["flops_share"] == 0.4
    assert document["high"]["loss"] == {"value": 0.5, "low": 0.25, "high": 0.75}


@pytest.mark.parametrize(("file", "words"), [(f"{FOLDER}/tiers.json", "delete it"), (f"{FOLDER}/high-0.webp", "read")])
def test_a_damaged_file_is_named(file: str, words: str, folder: Path) -> None:
    (folder / file).write_text("{")
    with pytest.raises(InputError, match=f"{Path(file).name}.*{words}"):
        write_tiers_page(folder, folder / FILE)
    assert not (folder / FILE).exists()


def test_a_folder_without_tiers_is_refused(tmp_path: Path) -> None:
    assert not has_tiers(tmp_path)
    with pytest.raises(InputError, match="holds no tiers; give the folder of a search with --tier"):
        write_tiers_page(tmp_path, tmp_path / FILE)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_read_by_everybody_and_rows_are_enlarged(folder: Path, opened: Open, width: int) -> None:
    write_tiers_page(folder, folder / FILE)
    with opened(folder / FILE, width, 800) as (page, complaints):
        assert serious_findings(page) == {}
        page.locator("button.picture").nth(MOST_SHOWN).click()
        dialog: Any = page.locator("dialog")
        assert dialog.locator("h2").inner_text() == "high" and dialog.locator("img").count() == MOST_SHOWN
        page.keyboard.press("Escape")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
