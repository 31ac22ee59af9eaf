"""The report in a real browser: seen, clicked, read by keyboard, printed, checked for accessibility."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from autotune.report.page import write_report
from autotune.report.run import read_run
from autotune.workflows.tune import TuneResult
from tests.support.browser import chromium

__all__ = ["chromium"]

WIDTHS = [(1280, 900), (390, 844)]
# All of them, and those that are folded away at first.
PLOTS, FOLDED = 6, 2


@pytest.fixture(scope="session")
def page_file(large: Path) -> Path:
    # Processor time of this process, so that a busy machine does not fail the tests.
    started = time.process_time()
    write_report(read_run(large), large / "report.html")
    seconds = time.process_time() - started
    assert seconds < 5, f"built in {seconds:.1f} s"
    assert (large / "report.html").stat().st_size < 15e6
    return large / "report.html"


Open = Callable[..., AbstractContextManager[tuple[Any, list[str]]]]


@pytest.fixture
def opened(chromium: Any) -> Open:
    """Opens a page; yields it, and what it complains of or asks a network for."""

    @contextmanager
    def open_(file: Path, width: int, height: int, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
        with chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        ) as context:
            page = context.new_page()
            complaints: list[str] = []
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "request",
                lambda asked: None if asked.url[:5] in ("file:", "data:", "blob:") else complaints.append(asked.url),
            )
            page.goto(file.as_uri())
            yield page, complaints

    return open_


def serious_findings(page: Any) -> dict[str, list[str]]:
    """What axe-core finds that keeps people from reading the page."""
    from axe_playwright_python.sync_playwright import Axe

    return {
        finding["id"]: [node["html"][:200] for node in finding["nodes"][:3]]
        for finding in Axe().run(page).response["violations"]
        if finding["impact"] in ("moderate", "serious", "critical")
    }


def all_drawn(page: Any) -> None:
    from playwright.sync_api import expect

    drawn = page.locator(".chart:has(.main-svg)")
    expect(drawn).to_have_count(PLOTS - FOLDED, timeout=30_000)
    for folded in page.locator("details summary").all():
        folded.click()
    expect(drawn).to_have_count(PLOTS, timeout=30_000)


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_everything_is_there_and_nothing_complains(opened: Open, page_file: Path, width: int, height: int) -> None:
    with opened(page_file, width, height) as (page, complaints):
        all_drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        sizes = page.locator(".picture img").evaluate_all("all => all.map(i => [i.naturalWidth, i.width, i.height])")
        assert len(sizes) >= 9 and all(natural == 640 and min(shown) > 50 for natural, *shown in sizes)
        assert page.locator("svg.plan rect.cell").count() > 50
        folded = page.locator("#cost details .chart")
        assert folded.evaluate_all("all => Math.min(...all.map(each => each.clientWidth))") > width / 4
        assert folded.evaluate_all(
            "all => all.every(each => each.querySelector('.main-svg').clientWidth <= each.clientWidth)"
        )
        assert not complaints


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_a_sentence_and_pictures_come_first(opened: Open, page_file: Path, width: int, height: int) -> None:
    with opened(page_file, width, height) as (page, _):
        pictures = page.locator(".picture img").first.bounding_box()
        assert page.locator(".lead").bounding_box()["y"] < pictures["y"] < height
        assert page.locator(".card").first.bounding_box()["y"] > height


def test_it_opens_in_two_seconds(opened: Open, page_file: Path) -> None:
    with opened(page_file, 1280, 900) as (page, _):
        # The first page also waits for the browser, and any for what else the machine does.
        loaded = []
        for _ in range(3):
            page.reload()
            loaded.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        assert 0 < min(loaded) < 2000


def test_plots_answer_to_the_pointer(opened: Open, page_file: Path) -> None:
    from playwright.sync_api import expect

    with opened(page_file, 1280, 900) as (page, complaints):
        all_drawn(page)
        chart = page.locator("#plot-by-step")
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.7)
        expect(chart.locator(".hoverlayer")).to_contain_text("of a full call")

        before = page.evaluate("document.getElementById('plot-frontier').layout.xaxis.range")
        drag = page.locator("#plot-frontier .nsewdrag").first
        drag.scroll_into_view_if_needed()
        box = drag.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.8, steps=5)
        page.mouse.up()
        page.wait_for_timeout(500)
        assert page.evaluate("document.getElementById('plot-frontier').layout.xaxis.range") != before
        assert not complaints


def test_pictures_are_enlarged_by_keyboard(opened: Open, page_file: Path) -> None:
    from playwright.sync_api import expect

    with opened(page_file, 390, 844) as (page, complaints):
        row = page.locator(".prompt").nth(1)
        row.locator("button").first.focus()
        page.keyboard.press("Enter")
        dialog = page.locator("dialog")
        expect(dialog).to_be_visible()
        expect(dialog.locator("h2")).to_have_text(row.locator("strong").inner_text())
        expect(dialog.locator("img")).to_have_count(3)
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert not complaints


def test_the_snippet_is_copied(opened: Open, page_file: Path) -> None:
    from playwright.sync_api import expect

    with opened(page_file, 1280, 900) as (page, _):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("#copy").click()
        expect(page.locator("#copied")).not_to_be_empty()
        if page.locator("#copied").inner_text() == "Copied":
            assert "policy.json" in page.evaluate("navigator.clipboard.readText()")
        else:
            assert "policy.json" in page.evaluate("getSelection().toString()")


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [
        (1280, 900, "light"),
        (390, 844, "dark"),
        pytest.param(1280, 900, "dark", marks=pytest.mark.exhaustive),
        pytest.param(390, 844, "light", marks=pytest.mark.exhaustive),
    ],
)
def test_no_serious_findings_of_accessibility(
    opened: Open, page_file: Path, width: int, height: int, scheme: str
) -> None:
    with opened(page_file, width, height, scheme) as (page, _):
        all_drawn(page)
        assert not serious_findings(page)


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_the_question_and_its_answer(
    opened: Open, explained: TuneResult, tmp_path: Path, width: int, height: int
) -> None:
    write_report(read_run(explained.run_dir), tmp_path / "report.html")
    with opened(tmp_path / "report.html", width, height) as (page, complaints):
        section = page.locator("#tradeoff")
        section.scroll_into_view_if_needed()
        section.locator(".chart:has(.main-svg)").nth(1).wait_for(timeout=30_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not complaints
        assert not serious_findings(page)


def test_dark_follows_the_reader_and_print_is_light(opened: Open, page_file: Path) -> None:
    with opened(page_file, 1280, 900, "dark") as (page, _):
        all_drawn(page)
        ink = "document.getElementById('plot-by-step').layout.font.color"
        dark = page.evaluate(ink)
        page.emulate_media(color_scheme="light")
        page.wait_for_timeout(1000)
        light = page.evaluate(ink)
        assert dark != light
        page.emulate_media(color_scheme="dark")
        page.wait_for_timeout(1000)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(ink) == light
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(ink) == dark
        assert page.pdf().startswith(b"%PDF")


def test_an_unfinished_run_reloads_unless_told_not_to(opened: Open, unfinished: Path) -> None:
    write_report(read_run(unfinished), unfinished / "still.html")
    write_report(read_run(unfinished), unfinished / "report.html", reload_seconds=1)
    with opened(unfinished / "report.html", 1280, 900) as (page, complaints):
        assert page.locator("h1").inner_text().endswith("the search is not finished")
        page.locator("#reload").uncheck()
        page.evaluate("window.mark = 1")
        page.wait_for_timeout(1500)
        assert page.evaluate("window.mark") == 1
        with page.expect_navigation(timeout=10_000):
            page.locator("#reload").check()
        assert not complaints
        page.goto((unfinished / "still.html").as_uri())
        assert page.locator("#reload").count() == 0
