"""Steps over more slots than there are rows, as captured steps are: idle slots do no harm, with the GPU's kernels."""

from __future__ import annotations

import pytest
from torch import Tensor

from instructgpt_fast import simt
from instructgpt_fast.generate import Engine, Request, SamplingConfig
from instructgpt_fast.generate.graphs import bucket_of
from instructgpt_fast.generate.steps import Steps

from .tiny import EOS, prompts_of, talkative


class Uncaptured:
    """In place of graphs: runs the step itself over the slots of the bucket, and notes how many these are."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.widths: list[int] = []

    def run(self, width: int, penalised: bool) -> tuple[Tensor, Tensor]:
        self.widths.append(width)
        return self._steps._step(width)


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")
def test_idle_slots_change_no_bit() -> None:
    """Rows come and go, one has a penalty, and the host looks seldom."""
    model = talkative()
    options = [{}, {"repetition_penalty": 1.5}, {"top_k": 9}, {}, {"temperature": 0.0}]
    requests = [
        Request(prompt, SamplingConfig(max_new_tokens=3 + i, **chosen), seeds=(i,))  # type: ignore[arg-type]
        for i, (prompt, chosen) in enumerate(zip(prompts_of(5, longest=9), options, strict=True))
    ]
    found = []
    for idle in (False, True):
        engine = Engine(model, eos_id=EOS, max_rows=6, tokens_a_look=4)
        padded = Uncaptured(engine._steps)
        if idle:
            engine._steps._graphs = padded  # type: ignore[assignment]
        with simt.executing(schedule="random", seed=3):
            found.append(engine.run(requests))
    assert found[0] == found[1]
    assert 6 in padded.widths, "five rows never fill six slots"


def test_buckets_are_few_and_large_enough() -> None:
    assert [bucket_of(count, 12) for count in range(1, 13)] == [1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]
