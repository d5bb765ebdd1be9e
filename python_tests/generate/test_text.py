"""Text in, text out, from a checkpoint on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from instructgpt_fast.checkpoint import Loaded, export_hugging_face, load_model, save_checkpoint
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.generate import (
    Completion,
    Engine,
    FewShot,
    SamplingConfig,
    beam_search,
    complete,
    default_seeds,
    generate,
    sample,
    stream,
)
from instructgpt_fast.generate.text import engine_for
from instructgpt_fast.model import GPT, PAGE_SIZE, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer

PAIRS = [("fox", "quick"), ("dog", "lazy")]
SHOWN = [
    {"role": role, "content": text} for pair in PAIRS for role, text in zip(("user", "assistant"), pair, strict=True)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.train(["the quick brown fox jumps over the lazy dog, 狐狸 🦊"] * 4, 300)
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, n_positions=64, n_layer=2, n_head=2, d_model=16))
    return save_checkpoint(
        tmp_path_factory.mktemp("run") / "checkpoint-1", model=model, tokenizer=tokenizer, prompt_format="dialogue",
        stage="sft",
    )


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> Loaded:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def raw(loaded: Loaded) -> Loaded:
    return dataclasses.replace(loaded, prompt_format="raw")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines that are made from here on."""
    made: list[Engine] = []
    init = Engine.__init__

    def recording(self: Engine, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(Engine, "__init__", recording)
    return made


def drawn(loaded: Loaded, prompt: Any, **options: Any) -> Completion:
    """The same by token ids."""
    assert isinstance(loaded.model, GPT)
    tokens = loaded.tokenizer.encode_prompt(prompt, loaded.prompt_format)
    return sample(
        loaded.model, [tokens], SamplingConfig(**options), eos_id=loaded.tokenizer.eos_id, tokenizer=loaded.tokenizer
    )[0]


def test_generate_is_sample_in_words(checkpoint: Path, loaded: Loaded) -> None:
    completion = drawn(loaded, "the fox", max_new_tokens=20, seed=3)
    text = generate(checkpoint, "the fox", max_new_tokens=20, seed=3)
    assert text == loaded.tokenizer.decode(completion.tokens, skip_special_tokens=True) == completion.text
    assert generate(checkpoint.parent, "the fox", max_new_tokens=20, seed=3) == text
    assert generate(loaded, [{"role": "user", "content": "the fox"}], max_new_tokens=20, seed=3) == text
    assert complete(loaded, "the fox", max_new_tokens=20, seed=3) == completion


def test_a_list_gives_a_list_and_n_gives_lists(loaded: Loaded) -> None:
    prompts = ["the fox", "a dog"]
    several = generate(loaded, prompts, max_new_tokens=8, seed=5)
    assert [type(text) for text in several] == [str, str]
    assert generate(loaded, [], max_new_tokens=8) == []
    assert generate(loaded, prompts[:1], max_new_tokens=8, seed=5) == several[:1]
    three = generate(loaded, prompts, n=3, max_new_tokens=8, seed=5)
    assert [len(texts) for texts in three] == [3, 3]
    assert len({text for texts in three for text in texts}) == 6
    assert generate(loaded, prompts[0], n=3, max_new_tokens=8, seed=5) == three[0]
    assert isinstance(loaded.model, GPT)
    encoded = [loaded.tokenizer.encode_prompt(prompt, "dialogue") for prompt in prompts for _ in range(3)]
    alone = sample(
        loaded.model, encoded, SamplingConfig(max_new_tokens=8), eos_id=loaded.tokenizer.eos_id,
        seeds=default_seeds(5, 6), tokenizer=loaded.tokenizer, batch_size=2,
    )
    assert [text for texts in three for text in texts] == [completion.text for completion in alone]


def test_completions_tell_everything(loaded: Loaded) -> None:
    (one, two), _ = complete(loaded, ["the fox", "a dog"], n=2, top_logprobs=3, max_new_tokens=8)
    for found in (one, two):
        assert len(found.tokens) == len(found.logprobs) == len(found.alternatives)
        assert found.finish_reason == ("eos" if loaded.tokenizer.eos_id in found.tokens else "length")
        for token, logprob, likeliest in zip(found.tokens, found.logprobs, found.alternatives, strict=True):
            assert len(likeliest) == 3
            assert [p for _, p in likeliest] == sorted((p for _, p in likeliest), reverse=True)
            assert dict(likeliest).get(token, logprob) == pytest.approx(logprob, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_streamed_pieces_join_to_the_text(loaded: Loaded, seed: int) -> None:
    """A random model draws byte tokens that are parts of characters, and ends in their middle."""
    options: dict[str, Any] = {"max_new_tokens": 30, "seed": seed}
    pieces = list(stream(loaded, "the fox", **options))
    assert len(pieces) > 3
    whole = generate(loaded, "the fox", **options)
    assert "".join(pieces) == whole
    stop = whole[len(whole) // 2 :][:2]
    cut = whole[: whole.index(stop)]
    assert "".join(stream(loaded, "the fox", stop=stop, **options)) == cut
    stopped = complete(loaded, "the fox", stop=[stop, "never seen"], **options)
    assert (stopped.text, stopped.finish_reason) == (cut, "stop")
    assert stopped.tokens == drawn(loaded, "the fox", **options).tokens[: len(stopped.tokens)]


def test_a_token_can_end_an_answer(loaded: Loaded) -> None:
    free = complete(loaded, "the fox", max_new_tokens=20)
    token = free.tokens[7]
    found = complete(loaded, "the fox", max_new_tokens=20, stop_ids=token)
    length = free.tokens.index(token) + 1
    assert (found.tokens, found.finish_reason) == (free.tokens[:length], "eos")
    assert found.text == loaded.tokenizer.decode(free.tokens[: length - 1], skip_special_tokens=True)


def test_a_stream_can_be_left(loaded: Loaded, engines: list[Engine]) -> None:
    pieces = stream(loaded, "the fox", max_new_tokens=30)
    assert isinstance(next(pieces), str)
    (engine,) = engines
    assert engine.busy
    assert isinstance(pieces, Iterator)
    pieces.close()  # type: ignore[attr-defined]
    assert not engine.busy
    stats = engine.stats()
    assert stats.active == 0
    assert stats.free_pages + stats.cached_pages == stats.pages


def test_examples_come_before_the_prompt(loaded: Loaded, raw: Loaded) -> None:
    said = generate(loaded, "the", examples=PAIRS, max_new_tokens=9)
    assert said == generate(loaded, [*SHOWN, {"role": "user", "content": "the"}], max_new_tokens=9)
    assert "".join(stream(loaded, "the", examples=PAIRS, max_new_tokens=9)) == said
    written = "fox\nquick\n\ndog\nlazy\n\nthe\n"
    plain = generate(raw, ["the"], examples=PAIRS, max_new_tokens=20)
    assert plain == generate(raw, [written], stop="\n\n", max_new_tokens=20)


def test_plain_text_stops_where_the_next_example_would_begin(raw: Loaded) -> None:
    """Unless the caller says where to stop."""
    reasons = set()
    for letter in "abcdefghij":
        few = FewShot(PAIRS, separator=letter)
        written = few.prompt("the", "raw")
        stopped = complete(raw, "the", examples=few, max_new_tokens=30)
        assert stopped == complete(raw, written, stop=letter, max_new_tokens=30)
        assert complete(raw, "the", examples=few, stop=(), max_new_tokens=30) == drawn(raw, written, max_new_tokens=30)
        reasons.add(stopped.finish_reason)
    assert "stop" in reasons


def test_prompts_share_the_pages_of_their_examples(raw: Loaded, engines: list[Engine]) -> None:
    few = FewShot(PAIRS, instruction="a fox jumps over a dog")
    generate(raw, [str(place) for place in range(6)], examples=few, max_new_tokens=2, batch_size=6)
    stats = engines[0].stats()
    same = raw.tokenizer.encode("a fox jumps over a dog\n\nfox\nquick\n\ndog\nlazy\n\n")
    full = len(same) // PAGE_SIZE * PAGE_SIZE
    assert full > 0
    assert stats.shared_prompt_tokens == 5 * full


def test_beams_by_the_same_call(loaded: Loaded) -> None:
    options: dict[str, Any] = {"num_beams": 3, "temperature": 0.0, "max_new_tokens": 12, "length_penalty": 0.5}
    best = complete(loaded, ["the fox", "a dog"], n=2, **options)
    assert isinstance(loaded.model, GPT)
    encoded = [loaded.tokenizer.encode_prompt(prompt, "dialogue") for prompt in ("the fox", "a dog")]
    expected = beam_search(
        loaded.model, encoded, SamplingConfig(**options), eos_id=loaded.tokenizer.eos_id, tokenizer=loaded.tokenizer,
        count=2,
    )
    assert best == expected
    assert generate(loaded, "the fox", **options) == best[0][0].text
    scores = [sum(found.logprobs) / len(found.tokens) ** 0.5 for found in best[0]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_hugging_face_folder_answers_as_in_transformers(raw: Loaded, tmp_path: Path, beams: int) -> None:
    folder = export_hugging_face(raw, tmp_path / "exported")
    judge = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = tokenizer("the fox", return_tensors="pt")
    row = judge.generate(**asked, max_new_tokens=40, do_sample=False, num_beams=beams)[0, asked["input_ids"].shape[1] :]
    found = complete(folder, "the fox", max_new_tokens=40, temperature=0, num_beams=beams)
    assert found.tokens == row.tolist()
    assert found.text == tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"temprature": 1.0}, ConfigError, "unknown option 'temprature', did you mean 'temperature'"),
    ({"top_p": 2.0}, ConfigError, "top_p must be in"),
    ({"n": 0}, ConfigError, "n must be a number of at least 1, got 0"),
    ({"n": "2"}, ConfigError, "n must be a number of at least 1, got '2'"),
    ({"batch_size": 0}, ConfigError, "batch_size must be a number of at least 1, got 0"),
    ({"num_beams": 2}, ConfigError, "so temperature must be 0.0, got 1.0"),
    ({"num_beams": 2, "temperature": 0, "n": 3}, ConfigError, r"n must be in 1..num_beams, got n=3"),
    ({"num_beams": 2, "temperature": 0, "top_logprobs": 1}, ConfigError, "top_logprobs must be 0 beside num_beams"),
    ({"examples": [("a",)]}, DataError, r"pair of texts \(x, y\)"),
    ({"top_logprobs": "2"}, ConfigError, "top_logprobs must be a number of at least 0, got '2'"),
    ({"top_logprobs": -1}, ConfigError, "top_logprobs must be a number of at least 0, got -1"),
    ({"prompt": "z " * 200}, DataError, "generate: a prompt must be shorter than the context of 64"),
    ({"prompt": ["x", "z " * 200], "n": 3}, DataError, "in prompt 1"),
    ({"prompt": 5}, DataError, "text, a list of messages, or a list of these, got int"),
])
def test_errors(loaded: Loaded, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        complete(loaded, options.pop("prompt", "x"), **options)


def test_no_checkpoint_and_no_beams_in_a_stream(loaded: Loaded, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        generate(tmp_path / "absent", "x")
    with pytest.raises(ConfigError, match="must be a path or what load_model returned, got GPT"):
        generate(loaded.model, "x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="stream: num_beams must be 1"):
        next(stream(loaded, "x", num_beams=2, temperature=0))
    with pytest.raises(DataError, match="stream: a prompt must be shorter than the context of 64"):
        next(stream(loaded, "z " * 200))


def test_a_stream_needs_an_engine_of_its_own(loaded: Loaded, raw: Loaded) -> None:
    """Another model would answer in the place of the one asked, and tokens of other requests would be mixed in."""
    other = engine_for(dataclasses.replace(loaded, model=GPT(loaded.model.config)))
    with pytest.raises(ConfigError, match="got one with another model or tokenizer"):
        next(stream(loaded, "x", engine=other))
    engine = engine_for(loaded)
    first = stream(loaded, "x", engine=engine)
    next(first)
    with pytest.raises(ConfigError, match="got one with requests under way"):
        next(stream(loaded, "x", engine=engine))
    first.close()
    assert "".join(stream(loaded, "x", engine=engine, max_new_tokens=9)) == generate(loaded, "x", max_new_tokens=9)


def test_a_reward_model_does_not_talk(loaded: Loaded, tmp_path: Path) -> None:
    scorer = save_checkpoint(
        tmp_path / "rm", model=ScalarModel(loaded.model.config), tokenizer=loaded.tokenizer,
        prompt_format="dialogue", stage="reward",
    )
    with pytest.raises(CheckpointError, match="must hold a language model, got the scalar model of stage 'reward'"):
        generate(scorer, "x")
