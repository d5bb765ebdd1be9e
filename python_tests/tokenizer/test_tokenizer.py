"""Training, encoding and decoding: lossless on any text, repeatable, and as an independent BPE does it."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.quickstart.assets import corpus
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.tokenizer.byte_level import ALPHABET

CHAPTERS = [document.text for document in corpus("austen")[:12]]
TOKENIZER = Tokenizer.train(CHAPTERS, 700)

# Any character but a surrogate, which UTF-8 cannot hold; combining marks, emoji and controls made likely.
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from("\u0301\u200d\ufe0f\U0001f468\U0001f469\U0001f3fd\x00\x1b\x7f\x85\u2028\r\n\t  '’ſ"),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\u0301")
@example("\U0001f468\u200d\U0001f469\u200d\U0001f467 family <|endoftext|><|pad|><|user|>")
@example("\ufeffa\r\n\x00  \u3000 it's  I'LL\n\n\n")
@example("")
def test_text_comes_back_unchanged(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    assert TOKENIZER.decode(tokens) == text
    assert not TOKENIZER.special_ids.intersection(tokens)
    assert b"".join(TOKENIZER.bytes_of(token) for token in tokens) == text.encode("utf-8")
    stream = TOKENIZER.text_stream()
    assert "".join(map(stream.push, tokens)) + stream.finish() == text


def split_like_gpt2(text: str) -> list[str]:
    """GPT-2's pattern, from its description, without a regular expression."""
    words, at = [], 0

    def kind(character: str) -> str:
        category = unicodedata.category(character)[0]
        if character.isspace() and character not in "\x1c\x1d\x1e\x1f":
            return "space"
        return {"L": "letter", "N": "number"}.get(category, "other")

    while at < len(text):
        contraction = next((c for c in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d") if text.startswith(c, at)), None)
        start, end = at, at
        if contraction:
            end = at + len(contraction)
        elif kind(text[at]) != "space" or (text[at] == " " and at + 1 < len(text) and kind(text[at + 1]) != "space"):
            end = at + (text[at] == " ")
            run = kind(text[end])
            while end < len(text) and kind(text[end]) == run:
                end += 1
        else:
            while end < len(text) and kind(text[end]) == "space":
                end += 1
            if end < len(text) and end - start > 1:
                end -= 1  # the last blank belongs to the word behind it
        words.append(text[start:end])
        at = end
    return words


def join_pair(parts: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    joined, at = [], 0
    while at < len(parts):
        width = 2 if tuple(parts[at : at + 2]) == pair else 1
        joined.append(b"".join(parts[at : at + width]))
        at += width
    return joined


def merge_words(text: str, merges: dict[tuple[bytes, bytes], int]) -> list[bytes]:
    """Byte-pair encoding as Sennrich et al. 2016 describe it: join the best pair everywhere, again and again."""
    pieces: list[bytes] = []
    for word in split_like_gpt2(text):
        parts = [bytes([byte]) for byte in word.encode("utf-8")]
        while known := [pair for pair in pairwise(parts) if pair in merges]:
            parts = join_pair(parts, min(known, key=merges.__getitem__))
        pieces += parts
    return pieces


def test_encoding_is_that_of_an_independent_bpe() -> None:
    model = json.loads(TOKENIZER._backend.to_str())["model"]
    merges = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = (bytes(ALPHABET[character] for character in part) for part in pair)
        merges[left, right] = rank
    sample = CHAPTERS[3][:3000] + " It's 1815—or  \n\n 'tis so; naïve №7 ½ We'll see…\t\tJ'ai  "
    expected = merge_words(sample, merges)
    assert [TOKENIZER.bytes_of(token) for token in TOKENIZER.encode(sample)] == expected
    assert len(expected) < 0.6 * len(sample.encode("utf-8"))


def test_training_is_repeatable_and_takes_files(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(CHAPTERS), encoding="utf-8")
    first, again = Tokenizer.train([path], 700), Tokenizer.train(iter([path]), 700)
    assert first.fingerprint == again.fingerprint
    assert first.vocab_size == 700
    assert Tokenizer.train(["\n".join(CHAPTERS)], 700).fingerprint == first.fingerprint
    assert Tokenizer.train([path], 699).fingerprint != first.fingerprint


def test_specials_stand_at_the_end() -> None:
    assert TOKENIZER.vocab_size == 700
    ids = [TOKENIZER.eos_id, TOKENIZER.pad_id, *TOKENIZER.role_ids.values()]
    assert ids == list(range(695, 700))
    names = "<|endoftext|><|pad|><|system|><|user|><|assistant|>"
    assert TOKENIZER.decode(ids) == names
    assert TOKENIZER.decode([*ids, *TOKENIZER.encode("a")], skip_special_tokens=True) == "a"
    assert TOKENIZER.decode(TOKENIZER.encode(names), skip_special_tokens=True) == names


def test_a_small_corpus_gives_a_small_vocabulary() -> None:
    tokenizer = Tokenizer.train(["abab abab"], 1000)
    assert tokenizer.vocab_size < 300
    assert tokenizer.decode(tokenizer.encode("xyz é")) == "xyz é"


def test_stream_holds_back_half_a_character() -> None:
    stream = TOKENIZER.text_stream()
    euro = [next(i for i in range(700) if TOKENIZER.bytes_of(i) == bytes([byte])) for byte in "€".encode()]
    assert [stream.push(token) for token in euro] == ["", "", "€"]
    assert stream.push(TOKENIZER.eos_id) == ""
    assert stream.push(euro[0]) == "" and stream.finish() == "\ufffd"


@pytest.mark.parametrize("token", [-1, 700, 10**9])
def test_decode_refuses_unknown_ids(token: int) -> None:
    with pytest.raises(DataError, match=f"a token id must be in 0..699, got {token}"):
        TOKENIZER.decode([1, token])


def test_lone_surrogates_are_refused_with_their_place() -> None:
    with pytest.raises(DataError, match=r"text 1 must be valid Unicode, its character 2 is .* \(U\+D83D\)"):
        TOKENIZER.encode_batch(["fine", "ab\ud83d"])


def test_training_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"at least 261 \(256 bytes and 5 special tokens\), got 260"):
        Tokenizer.train(["text"], 260)
    for nothing in ([], ["", ""]):
        with pytest.raises(DataError, match="training needs text, got none"):
            Tokenizer.train(nothing, 300)
    with pytest.raises(DataError, match=r"none.txt: tokenizer: cannot read the file"):
        Tokenizer.train([tmp_path / "none.txt"], 300)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good\nb\xffd\n")
    with pytest.raises(DataError, match=r"bad.txt:2: tokenizer: the line must be UTF-8, its byte 1 is not"):
        Tokenizer.train([bad], 300)
