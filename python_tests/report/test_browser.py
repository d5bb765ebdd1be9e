"""The report in a real Chromium: quiet, readable on a phone and in the dark, printed; the switch needs no script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import instructgpt_fast as igf

playwright_api = pytest.importorskip("playwright.sync_api", reason="the page is driven by the package playwright")

from python_tests.serve.chromium import launched  # noqa: E402
from python_tests.train.broken_runs import FAULTS, BrokenRuns  # noqa: E402

from . import runs  # noqa: E402


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as started:
        yield started


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a folder with a run of each stage."""
    folder = tmp_path_factory.mktemp("runs")
    runs.write_language_model(folder / "base")
    runs.write_reward(folder / "rm")
    runs.write_ppo(folder / "ppo", findings=[runs.FINDING])
    return igf.report(folder)


@contextmanager
def opened(chromium: Any, path: Path, width: int = 1280, **options: Any) -> Iterator[Any]:
    """The page in a window of its own; when it is left, the console was silent and nothing but the file was read."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
    try:
        page = context.new_page()
        trouble: list[str] = []
        requests: list[str] = []
        page.on("console", lambda told: trouble.append(told.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        yield page
        assert trouble == []
        assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()}
    finally:
        context.close()


def background(page: Any, selector: str) -> list[str]:
    script = "(found) => found.map((node) => getComputedStyle(node).backgroundColor)"
    return list(page.locator(selector).evaluate_all(script))


def test_a_phone_scrolls_in_one_direction_only_in_its_colours(chromium: Any, written: Path) -> None:
    with opened(chromium, written, width=360) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.locator("details").evaluate_all("(nodes) => nodes.forEach((node) => { node.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        smallest = page.evaluate("""() => Math.min(...[...document.querySelectorAll("svg text")].map((text) =>
            parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getBoundingClientRect().width / 320))""")
        assert smallest >= 9.5, "labels keep a size that can be read"
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            red = int(re.findall(r"\d+", background(page, "body")[0])[0])
            assert (red < 60) == (scheme == "dark")


def test_the_switch_recolours_tokens_without_a_script(chromium: Any, written: Path) -> None:
    with opened(chromium, written, java_script_enabled=True) as page:
        by: dict[str, list[str]] = {}
        for name in ("KL", "Advantage", "Value"):
            page.locator("label", has_text=name).click()
            by[name] = background(page, ".answer .t")
            assert len(set(by[name])) > 4
            assert page.locator("[class^=legend-]:visible").count() == 1
        assert by["KL"] != by["Advantage"] != by["Value"]
        page.keyboard.press("ArrowLeft")
        assert background(page, ".answer .t") == by["Advantage"], "the arrow keys switch too"
        token = page.locator(".answer .t").first
        token.click()
        told = token.evaluate("(node) => getComputedStyle(node, '::after').content")
        assert told.strip('"').replace("\\", "") == token.get_attribute("title").replace("\\", "")


def test_it_works_where_scripts_are_switched_off(chromium: Any, written: Path) -> None:
    with opened(chromium, written, java_script_enabled=False) as page:
        page.locator("label", has_text="Value").click()
        assert page.locator(".legend-v").is_visible()
        page.locator("figure summary").first.click()
        assert page.locator("figure table").first.is_visible()


def test_it_prints(chromium: Any, written: Path) -> None:
    with opened(chromium, written) as page:
        printed = page.pdf(prefer_css_page_size=True)
        sheets = [tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox \[([^\]]*)\]", printed)]
        assert printed.startswith(b"%PDF")
        assert len(sheets) >= 3, "a sheet for each run at least"
        assert all(box[2:] == pytest.approx((595, 842), abs=2) for box in sheets), "A4"
        page.emulate_media(media="print", color_scheme="dark")
        assert background(page, "body") == ["rgb(255, 255, 255)"]
        assert page.locator("figure details").first.is_hidden()


def test_high_contrast_keeps_the_colours_that_say_something(chromium: Any, written: Path) -> None:
    with opened(chromium, written, forced_colors="active") as page:
        assert len(set(background(page, ".answer .t"))) > 4
        chosen, other = page.locator(".samples > label").evaluate_all(
            "(found) => found.slice(0, 2).map((one) => getComputedStyle(one).outlineStyle)"
        )
        assert (chosen, other) == ("solid", "none")


def test_the_table_of_runs_fits_a_sheet_and_long_names(chromium: Any, tmp_path: Path) -> None:
    for name in ("a" * 120, "base"):
        runs.write_language_model(tmp_path / name)
    runs.write_ppo(tmp_path / "ppo", samples=0)
    with opened(chromium, igf.report(tmp_path), width=695) as page:  # a sheet of A4 less its margins
        table = page.locator(".overview table")
        assert page.locator(".overview tbody th").first.bounding_box()["width"] < 330
        page.emulate_media(media="print")
        assert table.bounding_box()["width"] <= 695


@pytest.mark.slow
def test_each_broken_run_is_named_and_the_healthy_one_is_not(chromium: Any, tmp_path: Path) -> None:
    """Real PPO runs with KL coefficient 0, a reward that is the length, and a learning rate times 100."""
    made = BrokenRuns(tmp_path)
    for name, fault in FAULTS.items():
        with opened(chromium, igf.report(made.run(name)), width=360) as page:
            told = page.locator("article.finding").all_text_contents()
            if fault.finding is None:
                assert told == []
                assert "Nothing found" in page.locator(".verdict").text_content()
            else:
                assert fault.finding in told[0]
                assert page.locator("article.finding").first.is_visible()
            assert page.locator("figure").count() >= 15
            assert page.locator(".samples article").count() == 4
            assert page.evaluate("document.documentElement.scrollWidth") == 360
