"""What `prepare` does and with which numbers."""

from __future__ import annotations

from typing import ClassVar, Literal

from instructgpt_fast.config import Options, options_class

Kind = Literal["text", "prompt", "demonstration", "comparison", "few_shot"]


@options_class()
class PrepareConfig(Options):
    """What to read, what to remove, and where the splits go."""

    stage: ClassVar[str] = "prepare"

    data: tuple[str, ...]
    """.txt and .jsonl files and folders of them, read in this order."""
    output_dir: str
    """Folder for train.jsonl, valid.jsonl, test.jsonl, removed.jsonl and report.json."""
    kind: Literal["auto", "text", "prompt", "demonstration", "comparison", "few_shot"] = "auto"
    """What a record is; "auto" takes what the first record looks like, and every other must be the same."""
    text_unit: Literal["file", "paragraph", "line"] = "file"
    """What a record of a .txt file is: the whole file, what stands between empty lines, or a line."""
    user_field: str = "user"
    """Field that names who wrote a record; a record without it is a user of its own."""
    max_per_user: int | None = 200
    """Examples of one user at most, the first that are left [P]; None keeps all."""
    compare_by: Literal["prompt", "record"] = "prompt"
    """Duplicates are records with the same prompt [P], or with the same prompt and answers."""
    prefix_characters: int | None = 128
    """Records whose compared texts agree in this many first characters are one; None: no such rule [O]."""
    near_duplicates: float | None = 0.8
    """Records that share this part of their word n-grams (Jaccard) are one; None: no such rule [O]."""
    near_duplicate_words: int = 5
    """Words of such an n-gram [A: Lee et al. 2022]."""
    near_duplicate_check: Literal["estimate", "exact"] = "estimate"
    """A pair is judged by the shared part of its 128 MinHash values, or by the n-grams themselves."""
    pii: Literal["remove", "mask", "off"] = "remove"
    """What becomes of a record of the training split that holds private data [P: removed]."""
    pii_regions: tuple[str, ...] = ()
    """ISO 3166 codes of the countries whose national phone numbers count too; international ones always do."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of the languages to keep, "und" for texts too short to tell; none keeps all."""
    min_characters: int = 1
    """Shorter records are removed."""
    max_characters: int | None = None
    """Longer records are removed; None: no limit."""
    quality: Literal["basic", "gopher", "off"] = "basic"
    """Remove what is no text in any language [O], or what Rae et al. 2021 do not take for English prose [A]."""
    valid_fraction: float = 0.05
    """Part of the users whose records go to valid.jsonl [O]."""
    test_fraction: float = 0.05
    """Part of the users whose records go to test.jsonl [O]."""
    contamination: tuple[str, ...] = ()
    """Evaluation files (.txt, .jsonl, folders): training records that share 13 words in a row with one are removed."""
    few_shot_format: Literal["raw", "dialogue"] = "raw"
    """A few-shot instruction becomes one text, or messages of the system, the user and the assistant."""
    seed: int = 0
    """Decides which user goes to which split."""
    on_bad_line: Literal["error", "skip"] = "error"
    """A line that cannot be read stops with its place, or is removed and counted."""
    resume: bool = True
    """Go on with what an interrupted run left in output_dir; False begins it again."""
    processes: int | None = None
    """Processes that work at the same time; None takes the cores; little data is done by one."""
    progress: bool = True
    """Tell on standard error how far the run has come."""

    def check(self) -> None:
        """Refuse numbers outside their range and splits that leave nothing to train on."""
        self.require("data must name at least one file or folder", bool(self.data), data=self.data)
        for name in ("max_per_user", "prefix_characters", "max_characters", "processes"):
            value = getattr(self, name)
            self.require(f"{name} must be at least 1", value is None or value >= 1, **{name: value})
        self.require("min_characters must be at least 0", self.min_characters >= 0, min_characters=self.min_characters)
        self.require(
            "max_characters must not be below min_characters",
            self.max_characters is None or self.max_characters >= self.min_characters,
            min_characters=self.min_characters, max_characters=self.max_characters,
        )
        words = self.near_duplicate_words
        self.require("near_duplicate_words must be 1 to 50", 1 <= words <= 50, near_duplicate_words=words)
        share = self.near_duplicates
        self.require("near_duplicates must be above 0 and at most 1", share is None or 0 < share <= 1,
                     near_duplicates=share)
        fractions = {"valid_fraction": self.valid_fraction, "test_fraction": self.test_fraction}
        fit = min(fractions.values()) >= 0 and sum(fractions.values()) < 1
        self.require("the fractions must not be negative and leave a part for training", fit, **fractions)
