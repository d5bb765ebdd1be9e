"""Whole tiny PPO runs: they learn, they resume to the byte, and their options do what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.errors import ConfigError, TrainingError
from instructgpt_fast.rlhf.kl import adapt_kl_coef
from instructgpt_fast.train import ppo, train
from instructgpt_fast.train.ppo import PpoConfig

from .ppo_runs import World, share_of_small_letters

TRL_NAMES = (
    "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
    "policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg", "loss/policy_avg", "loss/value_avg",
    "val/clipfrac_avg", "val/ratio", "val/ratio_var", "val/num_eos_tokens", "lr", "episode",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("ppo"))


def files_of(checkpoint: Path) -> dict[str, bytes]:
    """Every file that a resumed run must reproduce; options and time stamps are not among them."""
    return {
        str(path.relative_to(checkpoint)): path.read_bytes()
        for path in sorted(checkpoint.rglob("*.safetensors"))
    }


def test_ppo_raises_the_reward(world: World) -> None:
    world.run(
        "learn", reward_fn=share_of_small_letters, total_episodes=20 * 32, batch_size=32, mini_batch_size=16,
        per_device_train_batch_size=16, rollout_batch_size=32, learning_rate=1e-2, kl_coef=0.0,
        missing_eos_penalty=None, max_response_tokens=8,
    )
    scores = [row["objective/scores"] for row in world.metrics("learn")]
    # A batch of 32 random responses of 8 tokens has a standard error of 0.03: this is far beyond luck.
    assert sum(scores[-4:]) / 4 > sum(scores[:4]) / 4 + 0.2


def test_the_log_has_the_names_that_trl_users_know(world: World) -> None:
    result = world.run("names", ptx_data=str(world.text), ptx_length=16, ptx_ratio=0.5)
    rows = world.metrics("names")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert set(TRL_NAMES) <= row.keys()
        assert {"val/response_length", "val/eos_rate", "val/explained_variance", "loss/ptx"} <= row.keys()
        assert {"time/rollout", "time/score", "time/update"} <= row.keys()
    assert rows[0]["episode"] == 8
    assert abs(rows[0]["objective/kl"]) < 1e-4  # before any update policy and reference are equal to float32 rounding
    assert result.metrics["episode"] == 16


@pytest.mark.parametrize("more", [
    {},
    {"num_ppo_epochs": 2, "kl_target": 0.5, "whiten_rewards": True, "old_logprobs": "trainer"},
], ids=["plain", "everything"])
def test_a_resumed_run_equals_an_uninterrupted_one(world: World, more: dict[str, object]) -> None:
    name = "everything" if more else "plain"
    options = {**more, "ptx_data": str(world.text), "ptx_length": 16, "ptx_ratio": 0.5, "total_episodes": 32}
    whole = world.run(f"whole-{name}", **options)
    parted = f"parted-{name}"
    stop_after(world, parted, 2, **options)
    resumed = world.run(parted, resume_from_checkpoint="latest", **options)
    first, second = files_of(whole.checkpoint), files_of(resumed.checkpoint)
    assert first.keys() == second.keys()
    assert {"model.safetensors", "trainer/policy.safetensors", "trainer/value.safetensors",
            "trainer/optimizer-policy.safetensors", "trainer/optimizer-value.safetensors"} <= first.keys()
    assert [file for file in first if first[file] != second[file]] == []
    timeless = [{k: v for k, v in row.items() if not k.startswith("time/") and "per_second" not in k}
                for row in world.metrics(parted)]
    assert timeless == [{k: v for k, v in row.items() if not k.startswith("time/") and "per_second" not in k}
                        for row in world.metrics(f"whole-{name}")]


def stop_after(world: World, output: str, iterations: int, **options: object) -> None:
    """Run until Ctrl-C during an iteration, as a user would press it."""
    seen = 0
    update = ppo.update

    def interrupted_update(config, parts, experience, iteration, run_dir):  # type: ignore[no-untyped-def]
        nonlocal seen
        seen += 1
        if seen == iterations:
            import signal

            signal.raise_signal(signal.SIGINT)
        return update(config, parts, experience, iteration, run_dir)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo, "update", interrupted_update)
        with pytest.raises(KeyboardInterrupt):
            world.run(output, **options)


def test_the_seed_decides_everything(world: World) -> None:
    first, again, other = (
        files_of(world.run(name, seed=seed, total_episodes=8).checkpoint)
        for name, seed in (("seed-a", 1), ("seed-b", 1), ("seed-c", 2))
    )
    assert first == again
    assert first != other


def test_sizes_of_the_parts_do_not_change_the_update(world: World) -> None:
    """Gradient accumulation, rollout batch and scoring chunks are about memory, not about the result."""
    large = world.run("large", per_device_train_batch_size=8, max_scoring_tokens=10_000, total_episodes=8)
    small = world.run(
        "small", per_device_train_batch_size=1, max_scoring_tokens=20, rollout_batch_size=3, total_episodes=8
    )
    assert large.metrics["objective/scores"] == pytest.approx(small.metrics["objective/scores"], abs=1e-5)
    a, b = load_model(large.checkpoint).model.state_dict(), load_model(small.checkpoint).model.state_dict()
    before = load_model(world.policy).model.state_dict()
    for name, tensor in a.items():
        moved = (tensor - before[name]).abs().max()
        # Adam's first steps divide by the gradient's own size, so rounding of tiny gradients shows: 2 % of the move.
        assert (tensor - b[name]).abs().mean() <= 0.02 * moved + 1e-9, name


def test_beta_holds_the_policy_near_its_reference(world: World) -> None:
    common = {
        "reward_fn": share_of_small_letters, "total_episodes": 12 * 16, "batch_size": 16, "mini_batch_size": 16,
        "per_device_train_batch_size": 16, "learning_rate": 2e-2, "missing_eos_penalty": None, "max_response_tokens": 8,
    }
    ends = {}
    for beta in (0.0, 2.0):
        world.run(f"beta-{beta}", kl_coef=beta, **common)
        ends[beta] = sum(row["objective/kl"] for row in world.metrics(f"beta-{beta}")[-4:]) / 4
    assert ends[0.0] > 1.5
    assert ends[2.0] < 0.5 * ends[0.0]


def test_adaptive_kl_follows_its_formula_in_a_run(world: World) -> None:
    world.run("adaptive", kl_coef=0.1, kl_target=1.0, kl_gain=0.5, total_episodes=32)
    rows = world.metrics("adaptive")
    assert rows[0]["objective/kl_coef"] == 0.1
    for before, after in zip(rows, rows[1:], strict=False):
        expected = adapt_kl_coef(before["objective/kl_coef"], before["objective/kl"], 1.0, gain=0.5)
        assert after["objective/kl_coef"] == expected
    assert rows[-1]["objective/kl_coef"] != 0.1


def test_ptx_keeps_the_text_likely(world: World) -> None:
    common = {
        "reward_fn": share_of_small_letters, "total_episodes": 8 * 16, "batch_size": 16, "mini_batch_size": 16,
        "per_device_train_batch_size": 16, "learning_rate": 3e-3, "missing_eos_penalty": None, "max_response_tokens": 8,
        "ptx_data": str(world.text), "ptx_length": 24, "ptx_ratio": 1.0,
    }
    world.run("ptx", ptx_coef=27.8, **common)
    with_ptx = [row["loss/ptx"] for row in world.metrics("ptx")]
    world.run("almost-no-ptx", ptx_coef=1e-6, **common)
    without = [row["loss/ptx"] for row in world.metrics("almost-no-ptx")]
    assert with_ptx[0] == without[0]
    assert with_ptx[-1] < 0.9 * without[-1]


def test_the_checkpoint_shows_the_average_or_the_last_weights(world: World) -> None:
    average = world.run("ema", ema_decay=0.5)
    last = world.run("last", ema_decay=0.5, export_ema=False)
    shown = load_file(average.checkpoint / "model.safetensors")
    live = load_file(average.checkpoint / "trainer" / "policy.safetensors")
    optimizer = load_file(average.checkpoint / "trainer" / "optimizer-policy.safetensors")
    published = load_file(last.checkpoint / "model.safetensors")
    assert any(not torch.equal(shown[name], live[name]) for name in shown)
    for name, tensor in shown.items():
        assert torch.equal(tensor, optimizer[f"ema.{name}"])
        assert torch.equal(published[name], live[name])


def test_warm_up_is_linear_from_a_tenth(world: World) -> None:
    world.run("warmup", lr_warmup_iterations=2, total_episodes=24, learning_rate=1e-3)
    assert [row["lr"] for row in world.metrics("warmup")] == pytest.approx([1e-4, 5.5e-4, 1e-3], rel=1e-12)


def test_value_model_learns_with_its_own_rate(world: World) -> None:
    still = world.run("value-still", value_learning_rate=1e-12, total_episodes=8)
    moved = world.run("value-moved", value_learning_rate=1e-2, total_episodes=8)
    before = load_model(world.reward_model).model.state_dict()
    a = load_file(still.checkpoint / "trainer" / "value.safetensors")
    b = load_file(moved.checkpoint / "trainer" / "value.safetensors")
    assert all((a[name] - before[name]).abs().max() < 1e-6 for name in before)
    assert any((b[name] - before[name]).abs().max() > 1e-3 for name in before)


def test_eps_placements_differ(world: World) -> None:
    torch_eps = world.run("eps-torch", adam_epsilon=1e-3, total_episodes=8)
    tensorflow = world.run("eps-tf", adam_epsilon=1e-3, adam_eps_placement="tensorflow", total_episodes=8)
    assert files_of(torch_eps.checkpoint) != files_of(tensorflow.checkpoint)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_types_train_on_f32_masters(world: World, dtype: str) -> None:
    # 24 optimizer steps: more than enough for fp16's loss scale to fall from 2^16 to where gradients fit.
    result = world.run(dtype, dtype=dtype, total_episodes=96, batch_size=16, per_device_train_batch_size=4)
    assert abs(world.metrics(dtype)[0]["val/ratio"] - 1.0) < 0.05  # after one step of the first iteration
    state = load_file(result.checkpoint / "trainer" / "optimizer-policy.safetensors")
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    before = load_model(world.policy, dtype=half).model.state_dict()
    masters = {name.removeprefix("master."): t for name, t in state.items() if name.startswith("master.")}
    assert masters.keys() == before.keys()
    assert all(t.dtype == torch.float32 for t in masters.values())
    # Masters hold what half a type cannot: they moved, and not only in steps of its last place.
    assert all((masters[name] != before[name].float()).any() for name in before)
    assert any((masters[name] != masters[name].to(half).float()).any() for name in before)
    assert load_model(result.checkpoint).model.lm_weight.dtype == half


def test_gradient_checkpointing_changes_nothing(world: World) -> None:
    plain = world.run("kept", total_episodes=8)
    again = world.run("recomputed", total_episodes=8, gradient_checkpointing=True)
    assert files_of(plain.checkpoint) == files_of(again.checkpoint)


def test_a_broken_update_stops_and_keeps_the_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gather = ppo.gather

    def poisoned(config, parts, iteration, run_dir):  # type: ignore[no-untyped-def]
        rollout, experience, metrics = gather(config, parts, iteration, run_dir)
        advantages = experience.advantages.masked_fill(experience.loss_mask, float("nan"))
        return rollout, dataclasses.replace(experience, advantages=advantages), metrics

    monkeypatch.setattr(ppo, "gather", poisoned)
    with pytest.raises(TrainingError, match="must be finite"):
        world.run("nan", check_invariants=False, whiten_advantages=False)
    kept = list((world.folder / "nan").glob("nonfinite-*/batch.safetensors"))
    assert len(kept) == 1
    assert {"tokens", "cu_seqlens", "advantages", "old_logprobs"} <= load_file(kept[0]).keys()


def test_a_policy_that_cannot_answer_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy breaks between two iterations: sampling meets it before any loss does."""
    remember = ppo.PpoParts.remember

    def breaking(self, *rest):  # type: ignore[no-untyped-def]
        remember(self, *rest)
        with torch.no_grad():
            # Finite, and too large for the variance of the first layer norm.
            self.policy.wpe.weight.fill_(3e38)
            self.policy.wte.weight.fill_(3e38)

    monkeypatch.setattr(ppo.PpoParts, "remember", breaking)
    with pytest.raises(TrainingError, match=r"policy logits must be finite.*step 2.*activation policy\..*checkpoint-"):
        world.run("mute", save_steps=1, record_samples=0)
    kept = load_file(world.folder / "mute" / "nonfinite-000002" / "batch.safetensors")
    assert kept.keys() == {"tokens", "cu_seqlens"}


def test_a_broken_reward_model_is_named(world: World) -> None:
    from .ppo_runs import save_reward_model

    broken = save_reward_model(world.folder / "broken", world.tokenizer, shift=float("nan"))
    with pytest.raises(TrainingError, match=r"score must be finite.*buffer reward model\.bias_shift"):
        world.run("nan-score", reward_model=str(broken), value_model=str(world.reward_model))


def test_a_reward_function_through_the_api(world: World) -> None:
    config = PpoConfig(**world.options("direct", total_episodes=8))
    result = train(config, reward_fn=share_of_small_letters)
    assert result.checkpoint.name == "checkpoint-000001"
    loaded = load_model(result.checkpoint)
    assert loaded.stage == "ppo"
    assert loaded.prompt_format == "raw"
    with pytest.raises(ConfigError, match="reward_fn belongs to the stage ppo, got stage 'sft'"):
        train("sft", init="a", data="b", output_dir="c", reward_fn=share_of_small_letters)
