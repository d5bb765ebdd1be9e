"""The tokenizer: byte-level BPE as GPT-2's (Radford et al. 2019, section 2.2), over the `tokenizers` library."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import models

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.files import atomic_write
from instructgpt_fast.tokenizer.byte_level import ALPHABET, read_merges, read_vocab, token_bytes
from instructgpt_fast.tokenizer.dialogue import ROLES, Encoded, Message, PromptFormat, Role, as_messages, only_text
from instructgpt_fast.tokenizer.folder import NAMES_FILE, read_backend, special_names
from instructgpt_fast.tokenizer.stream import TextStream
from instructgpt_fast.tokenizer.training import byte_level_backend, check_text, train_backend

__all__ = ["EOS", "PAD", "Tokenizer"]

EOS, PAD = "<|endoftext|>", "<|pad|>"
_ROLE_TOKENS: dict[Role, str] = {role: f"<|{role}|>" for role in ROLES}
_SPECIAL_TOKENS = (EOS, PAD, *_ROLE_TOKENS.values())
_LARGEST_VOCABULARY = 1 << 24  # more would only be room for tokens that are not there
# A text that a normalizer, an added space, or a missing byte would change on its way through the tokenizer.
_PROBE = "a  b\n\t e\u0301 ﬁ \N{GRINNING FACE} \x00" + EOS


class Tokenizer:
    """Turns text into token ids and back, without loss, and puts prompts and responses together.

    Text is data: a special token's name inside it ("<|endoftext|>") is encoded as its letters, never as that token.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_token: str = EOS,
        pad_token: str = PAD,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Take over a `tokenizers` tokenizer, adding EOS, PAD and the role tokens at the end where it lacks them.

        path: named in errors. Raises DataError when EOS equals PAD, or when the tokenizer cannot be lossless.
        """
        if eos_token == pad_token:
            raise DataError(
                f"tokenizer: EOS and PAD must be different tokens, got {eos_token!r} for both: a model trained so "
                f"never learns to stop; give another pad_token, such as {PAD!r}", path,
            )
        self.eos_token, self.pad_token = eos_token, pad_token
        known = backend.get_vocab(with_added_tokens=True).keys()
        backend.no_truncation()
        backend.no_padding()
        backend.add_special_tokens([eos_token, pad_token, *_ROLE_TOKENS.values()])
        backend.encode_special_tokens = True
        self._backend = backend
        vocab = backend.get_vocab(with_added_tokens=True)
        self._check_ids(vocab, path)
        self.vocab_size = max(vocab.values()) + 1
        # What a model that was trained with the tokenizer as it came has no embedding for.
        self.added_ids = frozenset(number for token, number in vocab.items() if token not in known)
        self.eos_id, self.pad_id = vocab[eos_token], vocab[pad_token]
        if self.eos_id == self.pad_id:
            raise DataError(f"tokenizer: EOS and PAD must have different ids, got {self.eos_id} for both", path)
        self.role_ids: dict[Role, int] = {role: vocab[name] for role, name in _ROLE_TOKENS.items()}
        self.special_ids = frozenset({self.eos_id, self.pad_id, *self.role_ids.values()})
        self._bytes = [b""] * self.vocab_size
        added = backend.get_added_tokens_decoder()  # their names are plain text, not the byte alphabet
        for token, number in vocab.items():
            self._bytes[number] = token.encode("utf-8") if number in added else token_bytes(token)
        self._check_lossless(path)

    @staticmethod
    def _check_ids(vocab: Mapping[str, int], path: str | os.PathLike[str] | None) -> None:
        largest = max(vocab.values())
        if largest >= _LARGEST_VOCABULARY:
            raise DataError(f"tokenizer: ids must be below {_LARGEST_VOCABULARY:,}, got {largest:,}", path)
        if len(set(vocab.values())) < len(vocab):
            # The library numbers added tokens by how many tokens there are, which ids with gaps make ambiguous.
            raise DataError(
                "tokenizer: every token must have an id of its own, but ids with gaps let the added special tokens "
                "fall on others; number the vocabulary without gaps", path,
            )

    def _check_lossless(self, path: str | os.PathLike[str] | None) -> None:
        kind = type(self._backend.model).__name__
        if kind != "BPE" or self._backend.model.dropout:
            raise DataError(f"tokenizer: the model must be BPE without dropout, got {kind}", path)
        missing = len(ALPHABET.keys() - self._backend.get_vocab(with_added_tokens=False).keys())
        if missing:
            raise DataError(
                f"tokenizer: the vocabulary must hold all 256 bytes to be lossless, {missing} are missing; "
                "use a byte-level BPE such as GPT-2's", path,
            )
        for added in self._backend.get_added_tokens_decoder().values():
            if not added.special and (added.lstrip or added.rstrip):
                raise DataError(
                    f"tokenizer: text must come back unchanged; the added token {added.content!r} swallows the blanks "
                    "beside it (lstrip, rstrip); use a tokenizer without", path,
                )
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise DataError(
                "tokenizer: text must come back unchanged; this tokenizer changes it (a normalizer, a prefix space or "
                "another pre-tokenizer than the byte-level one); use a byte-level BPE such as GPT-2's", path,
            )

    @classmethod
    def train(
        cls, texts: Iterable[str | os.PathLike[str]], vocab_size: int, *, min_frequency: int = 2
    ) -> Tokenizer:
        """Learn the merges that occur most often in `texts`, within words as GPT-2's pattern parts them.

        texts: documents as str, or UTF-8 files as Path, read line by line; taken once.
        vocab_size: tokens in all, counting the 256 bytes and the five special ones; fewer result when pairs that
        occur `min_frequency` times run out.
        Raises ConfigError for a vocabulary below 261, DataError for no text or a file that is not UTF-8.
        """
        return cls(train_backend(texts, vocab_size, len(_SPECIAL_TOKENS), min_frequency))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, eos_token: str | None = None, pad_token: str | None = None
    ) -> Tokenizer:
        """Load a tokenizer.json, or the one in a directory; there vocab.json and merges.txt serve too.

        eos_token, pad_token: their names; default to those in tokenizer_config.json or special_tokens_map.json beside
        it, then to `EOS`, `PAD`. Files that name EOS as PAD get the PAD of this package.
        Raises DataError for a file that is missing, damaged, not lossless, without EOS, or for EOS given as PAD.
        """
        backend, file = read_backend(Path(path))
        names = special_names(file.parent)
        eos, pad = eos_token or names.get("eos_token", EOS), pad_token or names.get("pad_token", PAD)
        if backend.token_to_id(eos) is None:
            raise DataError(
                f"tokenizer: the vocabulary has no end-of-text token {eos!r}; name the one it has with eos_token", file
            )
        return cls(backend, eos_token=eos, pad_token=pad, path=file)

    @classmethod
    def from_gpt2(cls, vocab: str | os.PathLike[str], merges: str | os.PathLike[str]) -> Tokenizer:
        """Load GPT-2's vocab.json and merges.txt; special tokens that it lacks (PAD, roles) follow its last id.

        Raises DataError with file and line for what cannot be read.
        """
        table = read_vocab(Path(vocab))
        backend = byte_level_backend(models.BPE(vocab=table, merges=read_merges(Path(merges), table)))
        return cls(backend, path=vocab)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write tokenizer.json (into `path` when that is a directory) and tokenizer_config.json beside it, atomically.

        Raises DataError when they cannot be written.
        """
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        names = {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": self.eos_token, "pad_token": self.pad_token,
        }
        atomic_write(file.parent / NAMES_FILE, json.dumps(names, indent=2) + "\n", error=DataError)
        return atomic_write(file, self._backend.to_str(), error=DataError)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`.

        Raises DataError for text that UTF-8 cannot hold (a lone surrogate), and where the pattern of a tokenizer.json
        gives a text up.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, encoded on all cores. Raises DataError as `encode`."""
        for place, text in enumerate(texts):
            check_text(text, place)
        try:
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        except BaseException as error:
            # A panic of the library, which is no Exception: a pattern such as (a+)+$ tries too many ways.
            if type(error).__name__ != "PanicException":
                raise
            raise DataError(
                f"tokenizer: the pattern of tokenizer.json must split every text, got: {error}; use another tokenizer"
            ) from error

    def decode(self, tokens: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of `tokens`; bytes that form no character become U+FFFD.

        skip_special_tokens: leave out EOS, PAD and role tokens instead of writing their names.
        Raises DataError for an id outside the vocabulary.
        """
        skipped = self.special_ids if skip_special_tokens else ()
        pieces = (self.bytes_of(token) for token in tokens if token not in skipped)
        return b"".join(pieces).decode("utf-8", "replace")

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of one token. Raises DataError for an id outside the vocabulary."""
        if not 0 <= token < self.vocab_size:
            raise DataError(f"tokenizer: a token id must be in 0..{self.vocab_size - 1}, got {token}")
        return self._bytes[token]

    def text_stream(self) -> TextStream:
        """Return a decoder for tokens that arrive one at a time; special tokens give no text."""
        return TextStream(lambda token: b"" if token in self.special_ids else self.bytes_of(token))

    def encode_prompt(self, prompt: str | Sequence[Message], prompt_format: PromptFormat) -> list[int]:
        """Return the tokens that a response follows.

        prompt: text, which is one user message; or messages of which the last is the user's.
        prompt_format: "raw" gives the text alone; "dialogue" gives each turn behind its role token, EOS after each of
        the assistant's, and the assistant's role token at the end.
        Raises DataError for messages out of order, and for more than one user message in the raw format.
        """
        if prompt_format == "raw":
            return self.encode(only_text(prompt))
        if prompt_format != "dialogue":
            raise ConfigError(f"tokenizer: prompt_format must be 'raw' or 'dialogue', got {prompt_format!r}")
        messages = (Message("user", prompt),) if isinstance(prompt, str) else as_messages(prompt)
        if messages[-1].role != "user":
            raise DataError(f"messages: a prompt must end with the user, got {messages[-1].role!r} last")
        return [*self._turns(messages).tokens, self.role_ids["assistant"]]

    def encode_example(
        self, prompt: str | Sequence[Message], response: str, prompt_format: PromptFormat
    ) -> Encoded:
        """Return prompt, response and EOS; `loss_mask` is True on the response and on EOS.

        Prompt and response are encoded apart, so that the prompt's tokens are those that generation begins with.
        """
        before, after = self.encode_prompt(prompt, prompt_format), [*self.encode(response), self.eos_id]
        return Encoded(before + after, [False] * len(before) + [True] * len(after))

    def encode_dialogue(self, messages: Sequence[Message], *, every_turn: bool = False) -> Encoded:
        """Return a dialogue that ends with the assistant; `loss_mask` is True on its last response and that one's EOS.

        every_turn: count all of the assistant's turns. Raises DataError for messages out of order.
        """
        turns = as_messages(messages)
        if turns[-1].role != "assistant":
            raise DataError(f"messages: a dialogue to learn from must end with the assistant, got {turns[-1].role!r}")
        if every_turn:
            return self._turns(turns)
        return self.encode_example(turns[:-1], turns[-1].content, "dialogue")

    def _turns(self, messages: Sequence[Message]) -> Encoded:
        tokens: list[int] = []
        mask: list[bool] = []
        contents = self.encode_batch([message.content for message in messages])
        for message, content in zip(messages, contents, strict=True):
            spoken = [*content, self.eos_id] if message.role == "assistant" else content
            tokens += [self.role_ids[message.role], *spoken]
            mask += [False, *[message.role == "assistant"] * len(spoken)]
        return Encoded(tokens, mask)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides ids: tokens, merges, EOS and PAD. Equal means the same encoding."""
        model = json.loads(self._backend.to_str())["model"]
        merges = [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in model["merges"]]
        tokens = [token.hex() for token in self._bytes]
        whole = json.dumps([tokens, merges, self.eos_id, self.pad_id, sorted(self.role_ids.items())])
        return hashlib.sha256(whole.encode("ascii")).hexdigest()
