"""The words that training stages are written in: open a run, resume it, step, log, save, finish.

A stage owns its loop and calls these; nothing here calls a stage:

    with open_run("sft", config) as run:
        training = Training(model, tokenizer, "dialogue", {"model": model}, {"model": optimizer})
        first = run.resume(training)
        for step in run.steps(first, total):
            ...
            run.worked(tokens, flops)
            run.log(step, {"loss": loss}, total)
            run.save_if_due(step, total, training)
        return run.finish(total, training, metrics)

Ctrl-C (or SIGTERM) lets the step end, saves a checkpoint and raises KeyboardInterrupt; a second one stops at once.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from instructgpt_fast import checkpoint
from instructgpt_fast.checkpoint import random_state
from instructgpt_fast.config import to_dict, to_toml
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.diagnosis import FINDINGS_FILE, Watch, write_findings
from instructgpt_fast.errors import CheckpointError, ConfigError, InstructGPTError
from instructgpt_fast.files import atomic_write, reporting_write_errors
from instructgpt_fast.tokenizer import PromptFormat, Tokenizer
from instructgpt_fast.train.account import Account
from instructgpt_fast.train.calibration import CALIBRATION_FILE
from instructgpt_fast.train.guard import stop_unless_weights_finite
from instructgpt_fast.train.metrics import METRICS_FILE, MetricsLog, read_metrics
from instructgpt_fast.train.options import RunOptions
from instructgpt_fast.train.progress import Progress
from instructgpt_fast.train.records import RUN_FILE, SAMPLES_FILE, SamplesLog

RESOLVED_FILE = "resolved.toml"
PREPARED = "prepared"  # folder of a run for what it made of its text: tokenizer and token shards
SMALLEST_FREE = 16 * 2**20  # bytes: below this not even a tiny run's logs and tokenizer are safe

# Options that may differ between a run and its continuation without changing what is computed.
FREE_TO_CHANGE = frozenset({
    "output_dir", "logging_steps", "save_steps", "save_total_limit", "report_to", "resume_from_checkpoint",
    "overwrite_output_dir", "progress", "preset", "per_device_eval_batch_size", "diagnose", "record_samples",
})


@dataclass(frozen=True)
class TrainResult:
    """What a stage returns: the checkpoint to use next, the run's directory and its last metrics."""

    checkpoint: Path
    run_dir: Path
    metrics: dict[str, float]


@dataclass
class Training:
    """Everything that a checkpoint of a run holds; `counters` is plain JSON and belongs to the stage.

    averaged: gives the weights to publish in place of the model's own (a moving average); None publishes the model's.
    """

    model: Any
    tokenizer: Tokenizer
    prompt_format: PromptFormat
    modules: dict[str, nn.Module]
    optimizers: dict[str, Any]
    counters: dict[str, Any] = field(default_factory=dict)
    averaged: Callable[[], Mapping[str, Tensor]] | None = None


class Run:
    """One open run; made by `open_run`."""

    def __init__(self, stage: str, config: RunOptions, *, unit: str = "tokens") -> None:
        """Prepare directory, device, seeds and logs. Raises ConfigError, CheckpointError or BackendError."""
        self.stage, self.config = stage, config
        self.progress = Progress(stage, enabled=config.progress, unit=unit)
        self.device, reason = choose_device(config.device)
        self.dtype = torch_dtype(config.dtype)
        self.directory = prepare_directory(config)
        self.metrics = MetricsLog(self.directory, config.report_to)
        self.samples = SamplesLog(self.directory)
        self.unit = unit
        self._account = Account(stage, unit, self.directory, self.device, self.dtype)
        self._watch = Watch(stage, to_dict(config), self.progress.say) if config.diagnose else None
        self.interrupted = False
        self._work = 0.0
        self._saved: dict[int, Path] = {}
        seed_everything(config.seed)
        atomic_write(self.directory / RESOLVED_FILE, to_toml(config), error=CheckpointError)
        self.progress.say(f"device {self.device} ({reason}), {config.dtype}, run directory {self.directory}")

    def say(self, message: str) -> None:
        """Print a line that stays above the progress bar."""
        self.progress.say(message)

    def resume(self, training: Training) -> int:
        """Load the checkpoint that the config names into `training`; return the step that it was saved at, else 0.

        Restores modules, optimizers, random states and `training.counters`. Options that changed are said out loud.
        """
        path = self._resume_path()
        self._account.describe(training.modules)
        if path is None:
            self._keep_until(0)
            return 0
        stored = checkpoint.load_trainer(path, training.modules, training.optimizers)
        step = int(stored.pop("step"))
        self._tell_changes(stored.pop("options", {}))
        training.counters.clear()
        training.counters.update(stored)
        if path.parent.resolve() == self.directory.resolve():
            self._saved[step] = path
        self._keep_until(step)
        self.progress.say(f"continuing from {path} (step {step})")
        return step

    def steps(self, first: int, total: int) -> Iterator[int]:
        """Yield first + 1 .. total; after the body of an interrupted step raise KeyboardInterrupt."""
        self.progress.start(first, total)
        if first < total:
            self._account.begin()
        for step in range(first + 1, total + 1):
            self._work = 0.0
            yield step
            self.progress.advance(self._work)
            if self.interrupted:
                raise KeyboardInterrupt

    def worked(self, amount: float, flops: float) -> None:
        """Count the work of this step, in the run's unit, and the FLOPs that the stage's method needs for it."""
        self._work += amount
        self._account.add(amount, flops)

    def due(self, every: int, step: int, total: int) -> bool:
        """Whether something that happens every `every` steps, and after the last one, happens at `step`."""
        return step % every == 0 or step == total

    def log(self, step: int, metrics: Mapping[str, float | int | str], total: int) -> None:
        """Show metrics, and write them when step is a multiple of logging_steps, the first or the last."""
        if step == 1 or self.due(self.config.logging_steps, step, total):
            rate = {f"{self.unit}_per_second": self.progress.rate(self._work)}
            self.record(step, {**metrics, **rate})
        else:
            self.progress.show(metrics)

    def record(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """Show, write and diagnose metrics whatever the step: evaluations."""
        self.progress.show(metrics)
        self.metrics.write(step, metrics)
        if self._watch is not None:
            self._watch.feed({"step": step, **metrics})

    @contextlib.contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Training goes on as it would without what is done inside, whether it draws random numbers or fails.

        what: in words, for the line that tells of a failure: a full disk, no memory, logits that are no numbers.
        """
        states = random_state.capture()
        try:
            yield
        except (InstructGPTError, torch.OutOfMemoryError) as cause:
            self.say(f"{what} could not be kept, training goes on: {cause}")
        finally:
            random_state.restore(states)

    def save_if_due(self, step: int, total: int, training: Training) -> bool:
        """Save every save_steps and when interrupted, and say whether; the last step is left to `finish`."""
        due = self.interrupted or (step % self.config.save_steps == 0 and step != total)
        if due:
            self.save(step, training)
        return due

    def save(self, step: int, training: Training) -> Path:
        """Write <run>/checkpoint-<step> whole, then drop what save_total_limit does not keep.

        Raises TrainingError when a weight is not finite, CheckpointError when the disk refuses.
        """
        stop_unless_weights_finite(self.directory, step, training.modules)
        target = self.directory / f"checkpoint-{step:06d}"
        counters = {**training.counters, "step": step, "options": to_dict(self.config)}
        state = checkpoint.TrainerState(
            modules=training.modules, optimizers=training.optimizers, counters=counters, config=to_dict(self.config)
        )
        checkpoint.save_checkpoint(
            target, model=training.model, tokenizer=training.tokenizer, prompt_format=training.prompt_format,
            stage=self.stage, trainer=state,
            weights=None if training.averaged is None else training.averaged(),
        )
        self._saved[step] = target
        if self.config.save_total_limit is not None:
            checkpoint.keep_last(self.directory, self.config.save_total_limit)
        return target

    def finish(
        self, total: int, training: Training, metrics: Mapping[str, float], chosen: Path | None = None
    ) -> TrainResult:
        """Save the last step unless it is saved already, write result.json and return the result.

        chosen: the checkpoint that is the result, when it is not the last one. Whoever loads a model from the run's
        directory gets the result.
        """
        last = self._saved.get(total) or self.save(total, training)
        path = last if chosen is None else chosen
        checkpoint.write_result(self.directory, path, metrics)
        with self.aside("the device's ceiling"):
            self._account.measure_ceiling()
        return TrainResult(checkpoint=path, run_dir=self.directory, metrics=dict(metrics))

    def conclude(self) -> None:
        """Write run.json and findings.json; a disk that refuses them is told, and hides nothing that matters more."""
        with self.aside("the run's record"):
            self._account.end()
        if self._watch is not None:
            found = self._watch.conclude()
            with self.aside("the findings"):
                write_findings(self.directory, found)

    def close(self) -> None:
        """Close logs and progress."""
        self.progress.stop()
        self.metrics.close()

    def _keep_until(self, step: int) -> None:
        self.metrics.keep_until(step)
        self.samples.keep_until(step)
        if self._watch is not None:
            self._watch.replay(read_metrics(self.directory))

    def _resume_path(self) -> Path | None:
        wanted = self.config.resume_from_checkpoint
        if wanted is None:
            return None
        if wanted != "latest":
            return Path(checkpoint.resolve(wanted))
        if not checkpoint.checkpoints_of(self.directory):
            self.progress.say(f"no checkpoint in {self.directory} to resume from: starting")
            return None
        return Path(checkpoint.resolve(self.directory))

    def _tell_changes(self, before: Mapping[str, Any]) -> None:
        now = to_dict(self.config)
        for name, value in before.items():
            if name not in FREE_TO_CHANGE and name in now and now[name] != value:
                self.progress.say(f"option {name} changed since the checkpoint: {value!r} -> {now[name]!r}")


@contextlib.contextmanager
def open_run(stage: str, config: RunOptions, *, unit: str = "tokens") -> Iterator[Run]:
    """Open the run of a stage: unwritable directories, absent devices and bad options fail here, before any work.

    unit: what `Run.worked` counts, shown as a rate.
    """
    run = Run(stage, config, unit=unit)
    try:
        with _interrupts(run):
            yield run
    finally:
        # What the metrics say is wanted most when a run breaks.
        try:
            run.conclude()
        finally:
            run.close()


def prepare_directory(config: RunOptions) -> Path:
    """Make output_dir and prove that it can be written.

    Raises ConfigError when it already holds a run and neither resume_from_checkpoint nor overwrite_output_dir is
    given; CheckpointError when it cannot be written or the disk is full.
    """
    directory = Path(config.output_dir)
    with reporting_write_errors(directory, CheckpointError):
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
    atomic_write(directory / ".writable", b"", error=CheckpointError)
    (directory / ".writable").unlink()
    check_space(directory, 0, free=free)
    if config.resume_from_checkpoint is None:
        if checkpoint.checkpoints_of(directory) and not config.overwrite_output_dir:
            raise ConfigError(
                f"output_dir: {directory} must be a new directory, got one that holds checkpoints; pass "
                "resume_from_checkpoint='latest' to continue, overwrite_output_dir=True to start over, or another path."
            )
        _clear(directory)
    # What a run has to give, and what is wrong with it, is known when it is finished; until then its newest checkpoint
    # stands for it, and findings of its first part would be taken for those of all.
    for name in (checkpoint.RESULT, FINDINGS_FILE):
        (directory / name).unlink(missing_ok=True)
    return directory


def _clear(directory: Path) -> None:
    """Remove what an earlier run left, and nothing else that the directory may hold."""
    if not (directory / RESOLVED_FILE).exists():
        return
    with reporting_write_errors(directory, CheckpointError):
        for path in [*checkpoint.checkpoints_of(directory), *directory.glob("best-*"), directory / PREPARED]:
            if path.is_dir():
                shutil.rmtree(path)
        for name in (METRICS_FILE, SAMPLES_FILE, RUN_FILE, FINDINGS_FILE, CALIBRATION_FILE):
            (directory / name).unlink(missing_ok=True)


def check_space(directory: Path, checkpoint_bytes: int, *, free: int | None = None) -> None:
    """Raise CheckpointError when `directory` has no room for a checkpoint of so many bytes beside the last one."""
    room = shutil.disk_usage(directory).free if free is None else free
    needed = max(checkpoint_bytes, SMALLEST_FREE)
    if room < needed:
        raise CheckpointError(
            f"output_dir: {directory} must have {needed / 2**20:.0f} MiB free for a checkpoint, got "
            f"{room / 2**20:.0f} MiB; free some space or choose another disk."
        )


def training_bytes(modules: Mapping[str, nn.Module]) -> int:
    """Bytes that a checkpoint of `modules` takes at most: weights, float32 masters, two moments and the EMA."""
    return sum(p.numel() * (p.element_size() + 16) for module in modules.values() for p in module.parameters())


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and random."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextlib.contextmanager
def _interrupts(run: Run) -> Iterator[None]:
    # Python delivers signals to the main thread only; elsewhere the caller's own handling stays.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if run.interrupted:
            raise KeyboardInterrupt
        run.interrupted = True
        run.progress.say("interrupted: saving a checkpoint after this step (again to stop at once)")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
