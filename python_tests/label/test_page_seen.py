"""The labelling page as different people meet it: screen readers, phones, zoom, high contrast, other keyboards."""

from __future__ import annotations

import re
from typing import Any

import pytest

from instructgpt_fast.label import form
from python_tests.label.labelled import Running
from python_tests.label.paged import Desk, desk

# (key, code, shift, what it is taken for)
KEYBOARDS = (
    ("=", "Digit0", True, "="),  # German
    ("?", "Minus", True, "?"), ("y", "KeyZ", False, "y"), ("z", "KeyY", False, "z"),
    ("&", "Digit1", False, "1"), ("a", "KeyQ", False, "a"), (",", "KeyM", False, ","),  # French
    ("\u0444", "KeyA", False, "a"),  # Russian
    ("'", "KeyW", False, "w"), ("/", "KeyQ", False, "q"),  # Hebrew, which has signs on these two
    (",", "KeyW", False, ","), (".", "KeyE", False, "."),  # Dvorak
)

# Of every text that is seen: its colour against the nearest ground, as WCAG 2.2 counts it (1.4.3); the lowest ones.
CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3) return colour;
    }
    return [255, 255, 255];
  };
  const light = (colour) => colour.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (one, pseudo) => {
    const style = getComputedStyle(one, pseudo);
    const [low, high] = [light(numbers(style.color)), light(ground(one))].sort((a, b) => a - b);
    return style.opacity * (high + 0.05) / (low + 0.05);
  };
  const texts = [...document.querySelectorAll("main *, header *")].filter((one) => one.checkVisibility()
    && !one.closest(":disabled, .unseen") && [...one.childNodes].some((c) => c.nodeType === 3 && c.data.trim()));
  const found = texts.map((one) => [ratio(one), one.tagName + "." + one.className, one.textContent.slice(0, 30)]);
  for (const field of document.querySelectorAll("textarea")) {
    if (field.checkVisibility()) found.push([ratio(field, "::placeholder"), "placeholder", field.id]);
  }
  return found.filter(([value]) => !(value >= 4.5)).sort();
}"""


def test_a_screen_reader_finds_its_way(ada: Desk) -> None:
    """Names and roles of everything that can be used; what is done is said."""
    page = ada.page
    assert page.locator("[role=status]").count() == 1
    ada.press("a", "Shift+ArrowUp", "b", "Shift+ArrowUp")
    assert page.text_content("#told") == "B: rank 2 of 2"
    ada.press("=")
    assert page.text_content("#told") == "B: rank 1 of 1, tied with A"
    page.get_by_role("button", name="B: rank 1 of 1, tied with A").wait_for()
    page.get_by_role("group", name="Move answer B").wait_for()
    page.get_by_role("group", name="How good is it overall?").get_by_role("radio", name="1, very bad").wait_for()
    for field in form.FIELDS:
        assert page.get_by_role("group", name=field.question).get_by_role("radio").count() == 2
    unnamed = page.evaluate("""[...document.querySelectorAll("button, input, textarea, progress")].filter((one) =>
      !(one.textContent.trim() || one.labels?.length || one.getAttribute("aria-label") ||
        one.getAttribute("aria-labelledby"))).map((one) => one.outerHTML)""")
    assert unnamed == []
    seen = set()
    for _ in range(60):
        ada.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"open-help", "beside", "card", "note", "skip", "undo"} <= seen
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_it_fits_a_phone_and_follows_its_colours(chromium: Any, server: Running, scheme: str) -> None:
    options = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "color_scheme": scheme}
    with desk(chromium, server.url, **options) as ada:
        page = ada.page
        for letter in "ab":
            page.locator(".answer .letter").nth("ab".index(letter)).tap()
            box, rating = page.locator(".answer.chosen").bounding_box(), page.locator("#rating").bounding_box()
            assert abs(box["y"] + box["height"] - rating["y"]) < 30, "the rating follows the answer that it is about"
            page.locator("#rating .scale .choice").nth(5).tap()
            page.tap("#rest-no")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert "6 of 7" in page.locator(".answer .summary").nth(1).text_content()
        red = int(re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[0])
        assert (red < 60) == (scheme == "dark")


def test_every_text_can_be_read_in_both_schemes(ada: Desk) -> None:
    ada.rate("a", 6, "k")
    ada.press("Shift+ArrowUp", "b", "Shift+ArrowUp", "=", "c")
    for scheme in ("light", "dark"):
        ada.page.emulate_media(color_scheme=scheme)
        assert ada.page.evaluate(CONTRASTS) == []
    ada.press("y")
    ada.page.wait_for_selector("#writing:visible")
    assert ada.page.evaluate(CONTRASTS) == []


def test_what_is_still_to_do_is_not_hidden_by_what_was_done(chromium: Any, server: Running) -> None:
    """On the narrowest phone, where the list of what is left takes two lines."""
    with desk(chromium, server.url, viewport={"width": 320, "height": 640}) as ada:
        ada.press("a", "5")
        left, told = ada.page.locator("#left").bounding_box(), ada.page.locator("#told").bounding_box()
        assert told["y"] + told["height"] <= left["y"]


def test_keys_are_told_where_there_may_be_a_keyboard(chromium: Any, server: Running) -> None:
    """A wide page at 200 % is as narrow as a tablet and has no less of a keyboard."""
    with desk(chromium, server.url, viewport={"width": 640, "height": 400}) as zoomed:
        assert zoomed.page.locator(".field kbd").first.is_visible()
        assert zoomed.page.locator("#open-help").is_visible()
        assert zoomed.page.evaluate("document.documentElement.scrollWidth") <= 640
        zoomed.press("?")
        assert zoomed.page.locator("#help-title").is_visible()
        assert zoomed.page.evaluate("document.querySelector('#help').scrollTop") == 0, "it begins at its beginning"
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    with desk(chromium, server.url, **phone) as held:
        assert held.page.locator(".field kbd").first.is_hidden()


def test_high_contrast_shows_where_a_card_will_fall(ada: Desk) -> None:
    """Forced colours take every ground away; these two say something."""
    page = ada.page
    ada.press("a", "Shift+ArrowUp")
    page.emulate_media(forced_colors="active")
    seen = "(one) => getComputedStyle(document.querySelector(one), '::before').backgroundColor"
    page.evaluate("showTarget({ at: 0 })")
    line, paper = page.evaluate(seen, ".rank.insert"), page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert line != paper
    assert page.evaluate("getComputedStyle(document.querySelector('progress')).forcedColorAdjust") == "none"


def test_keyboards_of_other_countries(ada: Desk) -> None:
    named = "([key, code, shiftKey]) => nameOfKey(new KeyboardEvent('keydown', { key, code, shiftKey }))"
    assert [ada.page.evaluate(named, list(row[:3])) for row in KEYBOARDS] == [row[3] for row in KEYBOARDS]
