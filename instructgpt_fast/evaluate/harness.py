r"""EleutherAI's lm-eval harness driving our checkpoints (Gao et al., github.com/EleutherAI/lm-evaluation-harness).

    lm = HarnessModel("runs/sft");  lm_eval.simple_evaluate(model=lm, tasks=["arc_easy"])
    python -m instructgpt_fast.evaluate.harness run --model instructgpt_fast --model_args checkpoint=runs/sft \
        --tasks arc_easy

Importing this module registers the model under the name "instructgpt_fast"; lm-eval 0.4 finds no plugins by itself, so
its own `lm_eval` command does not know the name, and the second form is that command with this module imported.
Scores follow lm-eval's own conventions: how context and continuation are parted, windows of long documents, nothing in
front of a context but EOS in front of an empty one.
Not covered: several processes, sequence-to-sequence tasks, images. Text is data: a special token's name in it is
encoded as its letters, where transformers makes it that token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.evaluate.likelihood import loglikelihoods, rolling_loglikelihoods
from instructgpt_fast.generate import Engine, Request, SamplingConfig
from instructgpt_fast.model import GPT
from instructgpt_fast.tokenizer import ROLES, as_messages

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import simple_parse_args_string
except ModuleNotFoundError as _missing:
    raise ConfigError(
        f"harness: lm-eval must be installed, got no module {_missing.name!r}; run "
        "pip install 'instructgpt_fast[harness]'."
    ) from _missing

# Stands before a special token's name in a templated dialogue. Unicode keeps it out of text, and we out of messages:
# nothing that a message says can become a special token.
_MARK = "\ufdd0"
_SAMPLED = {"temperature": float, "top_k": int, "top_p": float, "min_p": float}
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval's order of precedence
_ROWS = 32


@register_model("instructgpt_fast")
class HarnessModel(TemplateLM):
    """A checkpoint as lm-eval sees a model."""

    def __init__(
        self,
        checkpoint: Any,
        *,
        device: str = "auto",
        dtype: str = "fp32",
        batch_size: int | str = 8,
        max_batch_size: int | None = None,
        max_gen_toks: int = 256,
    ) -> None:
        """Load a language model.

        checkpoint: a path, a run's result, or what `load_model` returned (device and dtype are then its own).
        batch_size: sequences of full context length in one forward, and completions decoded at a time; "auto" is 8.
        max_batch_size: lm-eval passes it on; packed batches need none. max_gen_toks: where a task does not say.
        Raises CheckpointError for a reward model, ConfigError and BackendError for bad options.
        """
        super().__init__()
        if hasattr(checkpoint, "tokenizer"):
            self.loaded = checkpoint
        else:
            chosen, _ = choose_device(str(device))
            path = getattr(checkpoint, "checkpoint", checkpoint)
            self.loaded = load_model(path, dtype=torch_dtype(dtype), device=chosen)
        if not isinstance(self.loaded.model, GPT):
            raise CheckpointError(
                f"harness: {self.loaded.path} must hold a language model, got a reward model; name another."
            )
        self.model, self.tokenizer = self.loaded.model, self.loaded.tokenizer
        self.batch_size = _batch_size(batch_size)
        self.max_gen_toks = int(max_gen_toks)
        self._device = self.model.lm_weight.device
        self._specials = {
            self.tokenizer.eos_token: self.tokenizer.eos_id,
            **{f"<|{role}|>": self.tokenizer.role_ids[role] for role in ROLES},
        }
        names = "|".join(re.escape(name) for name in self._specials)
        self._marked = re.compile(f"{_MARK}({names})")
        self._engine: Engine | None = None

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> HarnessModel:
        """Make one from the options of --model_args and those that lm-eval adds: batch_size, max_batch_size, device."""
        added = {name: value for name, value in (additional_config or {}).items() if value is not None}
        if added.get("device") == "cuda:0":
            added["device"] = "auto"  # lm-eval's command line says cuda:0 where nobody named a device and none may be
        return cls(**{**added, **arg_dict})

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> HarnessModel:
        """The same from "checkpoint=...,dtype=..."."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token, which also stands before what has no context."""
        return self.tokenizer.eos_id

    @property
    def max_length(self) -> int:
        """Tokens of the model's context."""
        return self.model.config.n_positions

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's caches tell tokenizers apart by."""
        return f"instructgpt_fast-{self.tokenizer.fingerprint[:16]}"

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside its results."""
        return {
            "checkpoint": str(self.loaded.path), "model_stage": self.loaded.stage,
            "model_num_parameters": self.model.config.num_parameters,
            "model_dtype": str(self.model.lm_weight.dtype), "prompt_format": self.loaded.prompt_format,
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; nothing is added in front, whatever add_special_tokens says: the models know no BOS."""
        pieces = self._marked.split(string)
        texts = iter(self.tokenizer.encode_batch(pieces[::2]))
        tokens = list(next(texts))
        for name, text in zip(pieces[1::2], texts, strict=True):
            tokens += [self._specials[name], *text]
        return tokens

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """How a dialogue is written, told in the results; None for a checkpoint of plain text."""
        if self.loaded.prompt_format != "dialogue" or not chat_template:
            return None
        return "<|role|> content, the assistant's followed by EOS (instructgpt_fast dialogue)"

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Text that `tok_encode` turns into the tokens of the dialogue.

        add_generation_prompt: end with the assistant's role token; otherwise the last turn is left open to go on with.
        Raises ConfigError for a checkpoint of plain text, DataError for turns out of order.
        """
        if self.loaded.prompt_format != "dialogue":
            raise ConfigError(
                "harness: apply_chat_template needs a checkpoint of the dialogue format, got one of plain text; leave "
                "the option out."
            )
        messages = as_messages([dict(message) for message in chat_history])
        text = ""
        for place, (role, content) in enumerate(messages):
            if _MARK in content:
                raise DataError(f"harness: a message must not hold the noncharacter U+FDD0, got it in message {place}")
            open_end = not add_generation_prompt and place == len(messages) - 1
            closing = f"{_MARK}{self.tokenizer.eos_token}" if role == "assistant" and not open_end else ""
            text += f"{_MARK}<|{role}|>{content}{closing}"
        return f"{text}{_MARK}<|assistant|>" if add_generation_prompt else text

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        for (context, continuation), _before, after in requests:
            if not after:
                raise DataError(
                    "harness: a continuation must have a token that its context has not, got none for "
                    f"{continuation[:60]!r} after {context[-60:]!r}; begin the choice with its blank "
                    "(target_delimiter)"
                )
        found = loglikelihoods(
            self.model, self.tokenizer, [(before, after) for _, before, after in requests], batch_size=self.batch_size
        )
        answers = [(one.logprob, one.greedy) for one in found]
        for (strings, _before, _after), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", strings, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each whole text, every token judged once, the first from EOS; nats."""
        texts = [request.args[0] for request in requests]
        found = rolling_loglikelihoods(
            self.model, self.tokenizer, [self.tok_encode(text) for text in texts], batch_size=self.batch_size
        )
        for text, one in zip(texts, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), one.logprob)
        return [one.logprob for one in found]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Complete each context until a stop string, EOS or max_gen_toks; greedy unless do_sample says otherwise.

        A context too long for the model and max_gen_toks loses its left end, as with lm-eval's own models.
        """
        if self._engine is None:
            self._engine = Engine(
                self.model, eos_id=self.tokenizer.eos_id, tokenizer=self.tokenizer,
                max_rows=min(_ROWS, self.batch_size),
            )
        asked = []
        for number, request in enumerate(requests):
            context, options = request.args
            sampling = sampling_of(options, self.max_gen_toks, seed=number)
            room = self.max_length - sampling.max_new_tokens
            if room < 1:
                raise ConfigError(
                    f"harness: max_gen_toks must be below the model's context of {self.max_length} tokens, got "
                    f"{sampling.max_new_tokens}; lower it with gen_kwargs max_gen_toks."
                )
            tokens = self.tok_encode(context)[-room:] or [self.tokenizer.eos_id]
            asked.append(Request(tokens, sampling))
        texts = [several[0].text for several in self._engine.run(asked)]
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts


def sampling_of(options: Mapping[str, Any], max_gen_toks: int, seed: int = 0) -> SamplingConfig:
    """Sampling from lm-eval's generation_kwargs; do_sample=False, and a temperature of 0 or none, mean greedy.

    max_gen_toks: when the options have none. seed: of this request, used when it samples.
    Raises ConfigError for an option that the engine has not.
    """
    given = {name: value for name, value in options.items() if value is not None}
    until = given.pop("until", [])
    lengths = [given.pop(name) for name in _LENGTHS if name in given]
    sampled = given.pop("do_sample", float(given.get("temperature", 0.0)) > 0.0)
    chosen = {name: kind(given.pop(name)) for name, kind in _SAMPLED.items() if name in given}
    penalty = float(given.pop("repetition_penalty", 1.0))
    if given:
        raise ConfigError(
            f"harness: generation_kwargs must be among until, {', '.join(_LENGTHS)}, do_sample, {', '.join(_SAMPLED)} "
            f"and repetition_penalty, got {', '.join(sorted(given))}; leave it out."
        )
    stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    drawn = {"temperature": 1.0, **chosen, "seed": seed} if sampled else {"temperature": 0.0}
    return SamplingConfig(
        max_new_tokens=int(lengths[0]) if lengths else max_gen_toks, stop=stop, repetition_penalty=penalty, **drawn
    )


def _batch_size(value: int | str) -> int:
    text = str(value)
    if text.split(":")[0] == "auto":
        return 8
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"harness: batch_size must be a number of at least 1, or auto, got {value!r}; correct it.")
    return int(text)


def main() -> None:
    """Run lm-eval's command line with the model registered."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
