"""The engine on a GPU: captured steps draw what uncaptured ones draw, and nothing waits between two looks."""

from __future__ import annotations

import copy

import pytest
import torch

from instructgpt_fast.generate import Engine, Request, SamplingConfig
from instructgpt_fast.ops import _library

from ..generate.tiny import EOS, prompts_of, talkative

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.skipif("invariant_linear" not in _library.CUDA_OPERATORS, reason="this build has no CUDA kernels"),
]
OPTIONS: list[dict] = [{}, {"repetition_penalty": 1.5}, {"temperature": 0.0}, {"top_p": 0.8}]


def requests_of(count: int) -> list[Request]:
    return [
        Request(prompt, SamplingConfig(max_new_tokens=4 + i, **OPTIONS[i % 4]), count=1 + i % 2, seeds=range(1 + i % 2))
        for i, prompt in enumerate(prompts_of(count))
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_captured_steps_draw_the_same(dtype: torch.dtype) -> None:
    model = talkative().to("cuda", dtype)
    captured, plain = (Engine(model, eos_id=EOS, max_rows=6) for _ in range(2))
    plain._steps._graphs = None
    for _ in range(2):  # captured in the first round, only replayed in the second
        assert captured.run(requests_of(15)) == plain.run(requests_of(15))
        captured.weights_changed()
        plain.weights_changed()


def test_greedy_answers_are_those_of_the_cpu() -> None:
    on_cpu = talkative()
    on_gpu = copy.deepcopy(on_cpu).cuda()
    requests = [Request(prompt, SamplingConfig(max_new_tokens=9, temperature=0.0)) for prompt in prompts_of(12)]
    first, second = (Engine(model, eos_id=EOS).run(requests) for model in (on_cpu, on_gpu))
    for (one,), (other,) in zip(first, second, strict=True):
        assert one.tokens == other.tokens
        # Two f32 routes to a log-probability over logits of size 10.
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_nothing_waits_between_two_looks() -> None:
    engine = Engine(talkative().cuda(), eos_id=10**6, max_rows=4, tokens_a_look=4)
    for request in requests_of(3):
        engine.submit(request)
    engine.step()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.inference_mode():
            engine._steps.enqueue(len(engine._active), 1)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
