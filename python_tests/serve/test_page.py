"""The chat page in a real Chromium, against the real server: what a person does, sees and can ask of a token."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

playwright_api = pytest.importorskip("playwright.sync_api", reason="the page is driven by the package playwright")

from python_tests.serve.chromium import launched  # noqa: E402
from python_tests.serve.served import Running, running, save  # noqa: E402

ASSETS = Path(__file__).resolve().parents[2] / "instructgpt_fast" / "serve" / "assets"
LONG = 4000  # tokens: seconds of streaming, time enough to press a button in


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two models that talk and never end by themselves, one that ends soon, and one that only continues text."""
    folder = tmp_path_factory.mktemp("models")
    checkpoints = [
        save(folder, "left", seed=1, ends=False, context=2 * LONG), save(folder, "right", seed=2, ends=False),
        save(folder, "brief", seed=3, readable=False), save(folder, "base", seed=4, prompt_format="raw"),
    ]
    with running(*checkpoints) as served:
        yield served


class Visit:
    """The page as one visitor has it open; at the end nothing may have gone wrong unseen."""

    def __init__(self, context: Any, url: str) -> None:
        self.page, self.url = context.new_page(), url
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda told: told.type in ("error", "warning") and self.trouble.append(told.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def set(self, **settings: Any) -> None:
        """Type settings as a person does."""
        self.page.click("#open-settings")
        for name, value in settings.items():
            self.page.fill(f"#{name}", str(value))
        self.page.click("text=Done")

    def choose(self, side: int, model: str) -> None:
        self.page.select_option(f"#model-{side}", label=model)

    def ask(self, words: str) -> dict[str, Any]:
        """Type a message and send it; returns the first request that the page makes for it."""
        self.page.fill("#words", words)
        with self.page.expect_request(re.compile("/completions")) as asked:
            self.page.press("#words", "Enter")
        return dict(asked.value.post_data_json)

    def answered(self) -> None:
        """Wait until nothing streams."""
        self.page.wait_for_selector("#send", state="visible")

    def texts(self) -> list[str]:
        """The answers so far, in order, the left side first."""
        return list(self.page.locator(".answer .text").all_text_contents())

    def tokens(self, answer: int) -> list[dict[str, Any]]:
        """The tokens that the page holds for an answer."""
        script = "(body) => [...body.querySelectorAll('.token')].flatMap((span) => span.tokens)"
        return list(self.page.locator(".answer .text").nth(answer).evaluate(script))

    def remark(self, answer: int) -> str:
        return str(self.page.locator(".answer").nth(answer).locator(".told").text_content())


@pytest.fixture
def visit(chromium: Any, server: Running) -> Iterator[Visit]:
    with visiting(chromium, server.url) as opened:
        yield opened


@contextmanager
def visiting(chromium: Any, url: str, trouble: str | None = None, **options: Any) -> Iterator[Visit]:
    """Open the page; when it is left, check its console (but for what matches `trouble`) and where requests went."""
    context = chromium.new_context(**options)
    context.set_default_timeout(30_000)
    try:
        opened = Visit(context, url)
        opened.page.wait_for_selector("#model-0 option, #notice:not([hidden])", state="attached")
        yield opened
        unexpected = [told for told in opened.trouble if trouble is None or not re.search(trouble, told)]
        assert unexpected == []
        assert {other for other in opened.requests if not other.startswith((url, "data:"))} == set()
    finally:
        context.close()


def wait_for(page: Any, holds: Callable[[], bool]) -> None:
    """Wait on what the browser shows; its events are handled meanwhile."""
    for _ in range(3000):
        if holds():
            return
        page.wait_for_timeout(10)
    raise AssertionError("not shown within 30 s")


def test_the_document_is_whole_and_confined(server: Running) -> None:
    with urllib.request.urlopen(server.url) as response:
        document, headers = response.read().decode(), response.headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    for tag in ("script", "style"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", document, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', document) == []
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", document)


def test_an_answer_streams_and_can_be_stopped(visit: Visit, server: Running) -> None:
    """The text grows while it is watched; the button ends it, in the engine too; the talk goes on from there."""
    visit.set(max_tokens=LONG, temperature=1, seed=3, system="Be brief.")
    sent = visit.ask("Tell me")
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me"}]
    assert (sent["max_tokens"], sent["temperature"], sent["seed"], sent["top_p"]) == (LONG, 1, 3, 1)
    lengths = [0]
    while len(lengths) < 4:
        wait_for(visit.page, lambda: len(visit.texts()[0]) > lengths[-1])
        lengths.append(len(visit.texts()[0]))
    assert not server.idle()
    assert visit.page.get_attribute(".answer", "aria-busy") == "true"
    visit.page.click("#stop")
    visit.answered()
    server.wait_until_idle()
    (said,) = visit.texts()
    assert "stopped" in visit.remark(0)
    assert len(visit.tokens(0)) < LONG
    assert visit.page.get_attribute(".answer", "aria-busy") == "false"

    visit.set(max_tokens=3)
    sent = visit.ask("Go on")
    assert [turn["role"] for turn in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert sent["messages"][2]["content"] == said
    visit.answered()
    assert "cut off at the most tokens" in visit.remark(1)


def test_escape_stops_and_a_new_talk_forgets(visit: Visit, server: Running) -> None:
    visit.set(max_tokens=LONG)
    visit.ask("Tell me")
    wait_for(visit.page, lambda: len(visit.texts()[0]) > 20)
    visit.page.keyboard.press("Escape")
    visit.answered()
    server.wait_until_idle()
    visit.ask("Tell me more")
    wait_for(visit.page, lambda: len(visit.texts()[1]) > 20)
    visit.page.click("#new-talk")
    server.wait_until_idle()
    assert visit.texts() == []
    visit.set(max_tokens=3)
    assert [turn["content"] for turn in visit.ask("Hello")["messages"]] == ["Hello"]
    visit.answered()


@pytest.mark.parametrize("model", ["left", "brief", "base"])
def test_each_token_tells_the_probability_that_the_api_gives(visit: Visit, server: Running, model: str) -> None:
    """Also parts of characters (brief), the token that ends an answer, and the interface for plain text (base)."""
    visit.choose(0, model)
    visit.set(max_tokens=40, temperature=0.9, seed=11)
    visit.ask("The fox")
    visit.answered()
    options: dict[str, Any] = {"model": model, "max_tokens": 40, "temperature": 0.9, "top_p": 1.0, "seed": 11}
    client = server.client
    if model == "base":
        choice = client.completions.create(prompt="The fox", logprobs=5, **options).choices[0]
        text, told = choice.text, choice.logprobs
        drawn = list(zip(told.tokens, told.token_logprobs, strict=True))
        others = [sorted(top.items(), key=lambda item: -item[1]) for top in told.top_logprobs]
    else:
        asked = [{"role": "user", "content": "The fox"}]
        answer = client.chat.completions.create(messages=asked, logprobs=True, top_logprobs=5, **options).choices[0]  # type: ignore[arg-type]
        text, content = answer.message.content, answer.logprobs.content
        drawn = [(token.token, token.logprob) for token in content]
        others = [[(other.token, other.logprob) for other in token.top_logprobs] for token in content]
    assert visit.texts() == [text]
    shown = visit.tokens(0)
    assert [(token["name"], token["logprob"]) for token in shown] == drawn
    assert [[(other["name"], other["logprob"]) for other in token["alternatives"]] for token in shown] == others

    spans = visit.page.locator(".token")
    assert spans.count() <= len(drawn)
    spans.first.hover()
    visit.page.wait_for_selector("#card", state="visible")
    percent = 100 * math.exp(drawn[0][1])
    stated = visit.page.locator("#card .probability").first.text_content()
    assert float(stated.removesuffix(" %")) == pytest.approx(percent, rel=0.06)
    rows = visit.page.locator("#card .alternative")
    assert rows.count() >= 5
    # The keyboard reaches the same: one stop of the Tab key, then arrows.
    spans.first.focus()
    visit.page.keyboard.press("End")
    assert visit.page.evaluate("document.activeElement === [...document.querySelectorAll('.token')].at(-1)")
    assert visit.page.get_attribute(":focus", "aria-describedby") == "card"


def test_two_checkpoints_answer_side_by_side(visit: Visit, server: Running) -> None:
    visit.page.check("#compare")
    visit.choose(1, "right")
    visit.set(max_tokens=30, temperature=1, seed=5)
    visit.ask("The fox")
    visit.answered()
    assert visit.page.locator(".answer h3").all_text_contents() == ["left", "right"]
    given = visit.texts()
    for model, text in zip(("left", "right"), given, strict=True):
        answer = server.client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "The fox"}], max_tokens=30, temperature=1, seed=5
        )
        assert answer.choices[0].message.content == text != ""
    assert given[0] != given[1]
    boxes = [visit.page.locator(".answer").nth(side).bounding_box() for side in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    # Each side remembers what it said itself.
    visit.page.fill("#words", "And?")
    sent: list[dict[str, Any]] = []
    visit.page.on("request", lambda request: request.post_data and sent.append(request.post_data_json))
    visit.page.press("#words", "Enter")
    wait_for(visit.page, lambda: len(sent) == 2)
    assert {body["model"]: body["messages"][1]["content"] for body in sent} == {"left": given[0], "right": given[1]}
    visit.answered()


def test_a_key_is_asked_for_and_kept_for_this_tab_alone(
    chromium: Any, tmp_path: Path
) -> None:
    with (
        running(save(tmp_path, "guarded"), key="a-right-key") as guarded,
        visiting(chromium, guarded.url, trouble="status of 401") as visit,
    ):
        assert "asks for its API key, got none" in visit.page.text_content("#notice")
        assert visit.page.evaluate("document.activeElement.id") == "key"
        visit.page.keyboard.type("a-wrong-key")
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#notice:has-text('got a wrong one')")
        visit.page.fill("#key", "a-right-key")
        visit.page.click("text=Done")
        visit.page.wait_for_selector("#notice", state="hidden")
        visit.set(max_tokens=5, seed=1)
        visit.ask("Hello")
        visit.answered()
        assert visit.texts() != [""]
        # By getItem: "key" is also the name of a method, which hides the entry from other ways of looking.
        kept = "Array.from({length: STORE.length}, (_, i) => STORE.getItem(STORE.key(i)))"
        stores = ("sessionStorage", "localStorage")
        stored = {store: visit.page.evaluate(kept.replace("STORE", store)) for store in stores}
        assert stored["sessionStorage"] == ["a-right-key"]
        assert "a-right-key" not in stored["localStorage"]
        assert "5" in stored["localStorage"], "settings without secrets are remembered"


def test_what_the_server_refuses_is_said_where_the_answer_would_be(chromium: Any, server: Running) -> None:
    with visiting(chromium, server.url, trouble="status of 400") as visit:
        visit.choose(0, "brief")
        visit.set(max_tokens=5, seed=1)
        visit.ask("fox " * 400)
        visit.answered()
        assert "The context of 'brief' is 256 tokens" in visit.page.text_content(".answer .error")
        assert len(visit.ask("Hello")["messages"]) == 1, "a message that was refused is no part of the talk"
        visit.answered()


def test_a_setting_out_of_range_is_not_sent(visit: Visit) -> None:
    visit.page.click("#open-settings")
    visit.page.fill("#temperature", "-1")
    visit.page.keyboard.press("Escape")
    visit.page.fill("#words", "Hello")
    visit.page.press("#words", "Enter")
    assert visit.page.evaluate("document.activeElement.id") == "temperature"
    assert not [url for url in visit.requests if "completions" in url]
    assert visit.page.input_value("#words") == "Hello"


def answer_with(page: Any, drawn: list[tuple[str, bytes | None, str]], other: str = "other") -> None:
    """Have the browser see these tokens as the server's answer: name, bytes, the text that comes with it."""
    events = [
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None, "logprobs": {"content": [{
            "token": name, "bytes": None if data is None else list(data), "logprob": -0.5,
            "top_logprobs": [{"token": other, "bytes": None, "logprob": -0.1}],
        }]}}]}
        for name, data, text in drawn
    ]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}]})
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        body=stream, headers={"Content-Type": "text/event-stream"}
    ))


def test_text_finds_its_tokens(visit: Visit) -> None:
    """A character in two tokens, a role's name, which has no text, text that was held back, and the end."""
    answer_with(visit.page, [
        ("He", b"He", "He"), ("bytes:\\xf0\\x9f", b"\xf0\x9f", ""), ("bytes:\\x9a\\x80", b"\x9a\x80", "🚀"),
        ("<|user|>", None, ""), (" on", b" on", " on"), (" a", b" a", ""), (" b", b" b", " a b"),
        ("<|endoftext|>", None, ""),
    ])
    visit.ask("Hello")
    visit.answered()
    script = "(spans) => spans.map((span) => [span.textContent, ...span.tokens.map((token) => token.name)])"
    assert visit.page.locator(".token").evaluate_all(script) == [
        ["He", "He"], ["🚀", "bytes:\\xf0\\x9f", "bytes:\\x9a\\x80"], [" on", "<|user|>", " on"], [" a", " a"],
        [" b", " b"], ["", "<|endoftext|>"],
    ]
    visit.page.locator(".token").nth(1).hover()
    assert visit.page.locator("#card .drawn").count() == 2


def test_markup_stays_text(visit: Visit) -> None:
    """In what is asked and in what is answered, in tokens and in their alternatives."""
    markup = "<img src=x onerror=\"hacked=1\"><script>hacked=1</script>"
    pieces = [markup[i:i + 7] for i in range(0, len(markup), 7)]
    answer_with(visit.page, [(piece, piece.encode(), piece) for piece in pieces], other=markup)
    visit.ask(markup)
    visit.answered()
    assert visit.texts() == [markup]
    assert visit.page.text_content(".asked") == markup
    visit.page.locator(".token").first.hover()
    visit.page.wait_for_selector("#card .alternative")
    assert visit.page.text_content("#card .alternative span") == markup.replace(" ", "·")
    found = visit.page.evaluate("[document.images.length, document.scripts.length, typeof hacked]")
    assert found == [0, 1, "undefined"]


def test_keys_of_the_message_box(visit: Visit) -> None:
    visit.set(max_tokens=3)
    visit.page.fill("#words", "one")
    visit.page.press("#words", "Shift+Enter")
    visit.page.keyboard.type("two")
    assert visit.ask(visit.page.input_value("#words"))["messages"][0]["content"] == "one\ntwo"
    visit.answered()
    visit.page.press("#words", "ArrowUp")
    assert visit.page.input_value("#words") == "one\ntwo"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_its_colours(chromium: Any, server: Running, scheme: str) -> None:
    with visiting(
        chromium, server.url, viewport={"width": 360, "height": 640}, has_touch=True, color_scheme=scheme
    ) as visit:
        visit.page.check("#compare")
        visit.page.check("#tint")
        visit.set(max_tokens=30)
        visit.page.click("#starters button >> nth=0")
        visit.page.wait_for_selector(".told >> nth=1")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        boxes = [visit.page.locator(".answer").nth(side).bounding_box() for side in (0, 1)]
        assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"], "one above the other"
        visit.page.locator(".token").first.tap()
        card = visit.page.locator("#card").bounding_box()
        assert card["x"] >= 0
        assert card["x"] + card["width"] <= 360
        red = int(re.findall(r"\d+", visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))[0])
        assert (red < 60) == (scheme == "dark")
        tints = visit.page.locator(".token").evaluate_all(
            "(spans) => new Set(spans.map((span) => getComputedStyle(span).backgroundColor)).size"
        )
        assert tints > 5, "tokens of different probability have different colours"
