"""Words, runs of words (n-grams) as 64-bit numbers, and MinHash signatures of them.

A word is a run of letters, digits and underscores, in lower case and Unicode NFC; an ideograph or a kana is a word of
its own, as no spaces part words there; all else separates. An n-gram's number is a polynomial of its words' CRC-32
modulo 2^64, mixed: two different n-grams share one with a chance of about 2^-64.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from instructgpt_fast.data.order import mixed
from instructgpt_fast.errors import ConfigError

SIGNATURE = 128  # values: the estimate of a Jaccard similarity of 0.8 then has a standard error of 0.035
MISSED = 0.02
_SLICE = 1 << 12  # n-grams permuted at a time: 2 MiB, whatever the length of the text
_WORD = re.compile(r"\w+")
_OWN = "\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WIDE_WORD = re.compile(rf"[{_OWN}]|[^\W{_OWN}]+")
_BASE = 0x9E3779B97F4A7C15
_WRAP = (1 << 64) - 1

Words = npt.NDArray[np.uint64]
Grams = npt.NDArray[np.uint64]


def words_of(text: str) -> Words:
    """The words of a text as numbers, in order."""
    lower = text.lower()
    words = _WORD if lower.isascii() else _WIDE_WORD
    found = words.findall(lower if words is _WORD else unicodedata.normalize("NFC", lower))
    return np.array([zlib.crc32(word.encode()) for word in found], dtype=np.uint64)


def grams_of(words: Words, n: int) -> Grams:
    """The numbers of all runs of n words, in order; none when there are fewer than n words."""
    count = len(words) - n + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    found = np.zeros(count, dtype=np.uint64)
    for place in range(n):
        found += words[place : place + count] * np.uint64(pow(_BASE, n - place, 1 << 64))
    return mixed(found)


def shingles(words: Words, n: int) -> Grams:
    """The set that two texts are compared by: their runs of n words, or all words as one run when they are fewer."""
    return grams_of(words, min(n, len(words))) if len(words) else np.empty(0, dtype=np.uint64)


def signature(grams: Grams) -> npt.NDArray[np.uint32]:
    """The MinHash signature [SIGNATURE] of a set of n-grams that is not empty."""
    made = _minhash().copy()
    for start in range(0, len(grams), _SLICE):
        made.update_batch((grams[start : start + _SLICE] >> np.uint64(32)).astype(np.uint32))
    return np.asarray(made.hashvalues, dtype=np.uint32)


@cache
def _minhash() -> Any:
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise ConfigError(
            "prepare: near duplicates need datasketch; run pip install 'instructgpt_fast[hygiene]', "
            "or set near_duplicates to none"
        ) from error
    return MinHash(num_perm=SIGNATURE, seed=1, hashfunc=_same, scheme="affine32")


def _same(value: Any) -> Any:
    return value


def jaccard(one: Grams, other: Grams) -> float:
    """The part of two sets of n-grams, sorted and each n-gram once, that they share; 0 when one is empty."""
    if not len(one) or not len(other):
        return 0.0
    places = np.minimum(np.searchsorted(one, other), len(one) - 1)
    shared = int(np.count_nonzero(one[places] == other))
    return shared / (len(one) + len(other) - shared)


@cache
def bands_of(threshold: float) -> tuple[int, int]:
    """How many bands of how many values make a pair of this similarity a candidate (Leskovec et al., section 3.4).

    Taken are the longest bands with which a pair just at the threshold is missed with a chance of at most `MISSED`: a
    candidate too many costs time, as it is looked at once more, but a pair that is missed stays.
    """
    for rows in range(SIGNATURE, 0, -1):
        bands = SIGNATURE // rows
        if (1 - threshold**rows) ** bands <= MISSED:
            return bands, rows
    return SIGNATURE, 1


def band_keys(signatures: npt.NDArray[np.uint32], bands: int, rows: int) -> npt.NDArray[np.uint64]:
    """The bucket of each signature [N, SIGNATURE] in each band: [N, bands]; bands have buckets of their own."""
    found = np.empty((len(signatures), bands), dtype=np.uint64)
    for band in range(bands):
        key = np.full(len(signatures), band, dtype=np.uint64)
        for row in range(rows):
            key = mixed(key * np.uint64(_BASE) + signatures[:, band * rows + row])
        found[:, band] = key
    return found


def chance(keys: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each key, drawn by the seed."""
    salt = mixed(np.array([seed & _WRAP], dtype=np.uint64) + np.uint64(_BASE))
    return (mixed(mixed(keys ^ salt)) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def unique_rows(values: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.bool_]:
    """Whether each row of columns that are sorted together differs from the row before it."""
    first = np.ones(len(values[0]), dtype=np.bool_)
    if len(first) > 1:
        first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in values])
    return first
