"""The rules of hygiene written down plainly, in memory, one record after the other: what `prepare` must equal."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from datasketch import MinHash

from instructgpt_fast.data.hygiene import PrepareConfig
from instructgpt_fast.data.hygiene.grams import bands_of

MASK = (1 << 64) - 1
BASE = 0x9E3779B97F4A7C15


def splitmix(value: int) -> int:
    """Steele et al. 2014, the finalizer."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def gram_numbers(text: str, n: int) -> list[int]:
    """The numbers of the n-grams of a text, all words as one where they are fewer."""
    words = [zlib.crc32(word.encode()) for word in re.findall(r"\w+", text.lower())]
    n = min(n, len(words))
    if not n:
        return []
    return [
        splitmix(sum(word * pow(BASE, n - place, 1 << 64) for place, word in enumerate(words[at : at + n])) & MASK)
        for at in range(len(words) - n + 1)
    ]


def compared(record: dict[str, Any]) -> str:
    return " ".join(unicodedata.normalize("NFC", record["prompt"]).split())


@dataclass
class Reference:
    """What is left and what is removed, by number of the record."""

    left: list[int] = field(default_factory=list)
    removed: dict[int, tuple[str, int | None]] = field(default_factory=dict)


def first_of_each(keys: dict[int, Any], rule: str, found: Reference) -> None:
    seen: dict[Any, int] = {}
    for number, key in keys.items():
        if key in seen:
            found.removed[number] = (rule, seen[key])
        else:
            seen[key] = number


def similarity(one: list[int], other: list[int], mine: Any, theirs: Any, check: str) -> float:
    if check == "exact":
        return len(set(one) & set(other)) / len(set(one) | set(other))
    return float(mine.jaccard(theirs))


def near(numbers: list[int], texts: dict[int, str], config: PrepareConfig, found: Reference) -> None:
    assert config.near_duplicates is not None
    grams = {number: gram_numbers(texts[number], config.near_duplicate_words) for number in numbers}
    hashes: dict[int, Any] = {}
    for number in numbers:
        made = MinHash(num_perm=128, seed=1, hashfunc=lambda value: value, scheme="affine32")
        made.update_batch([gram >> 32 for gram in grams[number]])
        hashes[number] = made
    bands, rows = bands_of(config.near_duplicates)
    for band in range(bands):
        buckets: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number in numbers:
            if not grams[number]:
                continue
            key = tuple(hashes[number].hashvalues[band * rows : (band + 1) * rows].tolist())
            like = [
                kept for kept in buckets[key]
                if similarity(grams[number], grams[kept], hashes[number], hashes[kept], config.near_duplicate_check)
                >= config.near_duplicates
            ]
            if not like:
                buckets[key].append(number)
            elif number not in found.removed or like[0] < (found.removed[number][1] or 0):
                found.removed[number] = ("near_duplicate", like[0])


def reference(records: list[dict[str, Any]], config: PrepareConfig) -> Reference:
    """Apply the rules between records to prompts."""
    found = Reference()
    texts = {number: compared(record) for number, record in enumerate(records)}

    def left() -> list[int]:
        return [number for number in texts if number not in found.removed]

    first_of_each({number: texts[number] for number in left()}, "exact_duplicate", found)
    length = config.prefix_characters
    if length is not None:
        keys = {number: texts[number][:length] for number in left() if len(texts[number]) >= length}
        first_of_each(keys, "common_prefix", found)
    if config.near_duplicates is not None:
        near(left(), texts, config, found)
    counts: dict[str, int] = defaultdict(int)
    for number in left():
        user = records[number].get("user")
        if user is not None and config.max_per_user is not None:
            counts[str(user)] += 1
            if counts[str(user)] > config.max_per_user:
                found.removed[number] = ("user_limit", None)
    found.left = left()
    return found
