"""sample_token: frequencies by chi-square, what each cut keeps, independence of neighbours, and what every op shows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import ops, simt
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.accuracy import same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage

ALL_CUTS = {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.4}


def rows(new: New, batch: int, vocab: int, *, history: int | None = None, scale: float = 3.0) -> Inputs:
    inputs = {"logits": new(batch, vocab, scale=scale), "seeds": new.ints(-(2**62), 2**62, batch),
              "positions": new.ints(0, 2**40, batch)}
    if history is not None:
        inputs["history"] = new.ints(-1, vocab, batch, history)
    return inputs


def per_row(new: New, batch: int, vocab: int) -> Inputs:
    """A parameter of its own for each row, greedy ones among them."""
    return {**rows(new, batch, vocab, history=5), "temperature": new.ints(0, 4, batch) * 0.5,
            "top_k": new.ints(0, 30, batch), "top_p": new.ints(1, 21, batch) / 20.0,
            "min_p": new.ints(0, 5, batch) / 50.0, "repetition_penalty": 1 + new.ints(0, 5, batch) / 10.0}


def yardstick(logits: torch.Tensor, *arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain PyTorch in float32, in which the op computes whatever the logits' dtype."""
    return ops.sample_token_oracle(logits.float(), *arguments, **options)


class TestSampleToken(OpSuite):
    name = "sample_token"
    op = staticmethod(ops.sample_token)
    oracle = staticmethod(ops.sample_token_oracle)
    yardstick = staticmethod(yardstick)
    cases = (
        # 300 tokens are four tiles of 64 and a part; the cuts keep few of them, or (top_p alone) many.
        Case("all", lambda new: rows(new, 8, 300)),
        Case("cool", lambda new: rows(new, 8, 300), {"temperature": 0.7}),
        Case("greedy", lambda new: rows(new, 8, 300), {"temperature": 0.0, "top_k": 5}),
        Case("top-k", lambda new: rows(new, 8, 300), {"top_k": 12}),
        Case("top-k beyond the tiles", lambda new: rows(new, 8, 300), {"top_k": 100}),
        Case("top-p", lambda new: rows(new, 8, 300), {"top_p": 0.7}),
        Case("top-p of a flat row", lambda new: rows(new, 8, 300, scale=0.1), {"top_p": 0.7}),
        Case("min-p", lambda new: rows(new, 8, 300), {"min_p": 0.05}),
        Case("penalty", lambda new: rows(new, 8, 300, history=90), {"repetition_penalty": 1.4}),
        Case("all cuts", lambda new: rows(new, 8, 300, history=20), ALL_CUTS),
        Case("a row's own parameters", lambda new: per_row(new, 33, 200)),
        Case("one token", lambda new: rows(new, 3, 1), {"top_k": 1, "top_p": 0.5, "min_p": 0.5}),
        Case("no history", lambda new: rows(new, 3, 70, history=0), {"repetition_penalty": 1.4}),
        Case("no rows", lambda new: rows(new, 0, 70)),
        # Kernels share these rows among several blocks, where nothing is cut away; the longer ones in f32 do not fit
        # into the shared memory that the emulator tells of, and what top-p leaves of the flat one fits no list.
        Case("long", lambda new: rows(new, 1, 5003)),
        Case("long and greedy", lambda new: rows(new, 2, 5003, history=30), {"temperature": 0.0,
                                                                               "repetition_penalty": 1.4}),
        Case("long and cut", lambda new: rows(new, 1, 5003), {"top_k": 600, "top_p": 0.9}),
        Case("very long", lambda new: rows(new, 1, 9001)),
        Case("very long and cut", lambda new: rows(new, 1, 9001, scale=0.3), {"top_k": 8000, "top_p": 0.8}),
        Case("very long by mass", lambda new: rows(new, 1, 9001, scale=0.3), {"top_p": 0.8, "temperature": 1.1}),
    )
    sabotages = (
        Sabotage("seeds of the neighbours", lambda i: {**i, "seeds": i["seeds"].roll(1)}),
        Sabotage("position one on", lambda i: {**i, "positions": i["positions"] + 1}),
        Sabotage("logits one to the left", lambda i: {**i, "logits": i["logits"].roll(-1, 1)}),
        Sabotage("history lost", lambda i: {**i, "history": None}),
    )
    bad_calls = (
        BadCall("dtype", lambda i: {**i, "logits": i["logits"].double()}, TypeError, "float16, got float64"),
        BadCall("flat", lambda i: {**i, "logits": i["logits"][0]}, ValueError, "2 dimensions"),
        BadCall("no vocabulary", lambda i: {**i, "logits": i["logits"][:, :0]}, ValueError, "at least one token"),
        BadCall("seeds", lambda i: {**i, "seeds": i["seeds"][1:]}, ValueError, r"seeds must have shape \(8,\)"),
        BadCall("seed dtype", lambda i: {**i, "seeds": i["seeds"].int()}, TypeError, "int64, got int32"),
        BadCall("history", lambda i: {**i, "history": i["seeds"][1:, None]}, ValueError, r"\(8, 1\).*\(7, 1\)"),
        BadCall("temperature", lambda i: {**i, "temperature": -1.0}, ValueError, "finite and >= 0, got -1.0"),
        BadCall("top_k", lambda i: {**i, "top_k": -1}, ValueError, "top_k must be finite and >= 0, got -1"),
        BadCall("top_p", lambda i: {**i, "top_p": 1.5}, ValueError, r"top_p must be in \[0, 1\], got 1.5"),
        BadCall("min_p", lambda i: {**i, "min_p": math.nan}, ValueError, r"min_p must be in \[0, 1\], got nan"),
        BadCall("penalty", lambda i: {**i, "repetition_penalty": 0.0}, ValueError, "above 0, got 0.0"),
        BadCall("parameter shape", lambda i: {**i, "top_p": torch.ones(3)}, ValueError, r"top_p.*\(8,\).*\(3,\)"),
        BadCall("grad", lambda i: {**i, "logits": i["logits"].requires_grad_()}, ValueError, "detach"),
    )


DRAWS = 40_000


def draw_many(logits: list[float], **options: Any) -> torch.Tensor:
    """How often each token comes in DRAWS draws, each with another seed or another position."""
    vocab = len(logits)
    each = torch.arange(DRAWS)
    seeds, positions = each // 200, each % 200
    tokens, _ = ops.sample_token(torch.tensor(logits).expand(DRAWS, vocab), seeds, positions, **options)
    return torch.bincount(tokens, minlength=vocab)


def require_frequencies(counts: torch.Tensor, probabilities: list[float]) -> None:
    """Chi-square against the probabilities; tokens of probability 0 must never come.

    With n kept tokens the statistic has mean n - 1 and variance 2 (n - 1). A correct op passes five standard deviations
    above the mean less than once in 10^3 (n = 3) or 10^5 (n = 70) choices of seeds; the seeds here are fixed.
    """
    expected = torch.tensor(probabilities, dtype=torch.float64) * DRAWS
    assert int(counts[expected == 0].sum()) == 0, "a token that was cut has been drawn"
    kept = expected > 0
    statistic = float(((counts[kept] - expected[kept]).square() / expected[kept]).sum())
    freedom = int(kept.sum()) - 1
    assert statistic <= freedom + 5 * math.sqrt(2 * freedom), f"chi-square {statistic:.1f} with {freedom} degrees"


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(x) for x in logits]
    return [w / sum(weights) for w in weights]


def cut_by_hand(
    logits: list[float], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
    repetition_penalty: float = 1.0, seen: tuple[int, ...] = (),
) -> list[float]:
    """The distribution to draw from, by Python lists: rank, walk down the ranking, drop, divide by what is left."""
    scores = [(x / repetition_penalty if x > 0 else x * repetition_penalty) if v in seen else x
              for v, x in enumerate(logits)]
    probabilities = softmax([x / temperature for x in scores])
    ranking = sorted(range(len(logits)), key=lambda v: -probabilities[v])
    if 0 < top_k < len(logits):
        ranking = ranking[:top_k]
    mass, nucleus = 0.0, []
    for v in ranking:
        if nucleus and mass >= top_p * sum(probabilities[u] for u in ranking):
            break
        nucleus.append(v)
        mass += probabilities[v]
    kept = [v for v in nucleus if probabilities[v] >= min_p * probabilities[nucleus[0]]]
    total = sum(probabilities[v] for v in kept)
    return [probabilities[v] / total if v in kept else 0.0 for v in range(len(logits))]


@pytest.mark.parametrize("options", [
    {}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.2},
    {"repetition_penalty": 1.5},
    {"temperature": 1.5, "top_k": 60, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3},
], ids=str)
def test_frequencies_match_the_cut_softmax(options: dict[str, Any]) -> None:
    """70 tokens, so that two tiles take part; the penalty falls on the likeliest token (twice) and a negative one."""
    torch.manual_seed(11)
    logits = (torch.randn(70) * 1.5).tolist()
    seen = (max(range(70), key=lambda v: logits[v]), min(range(70), key=lambda v: logits[v]))
    history = torch.tensor([[seen[0], -1, seen[1], seen[0]]]).expand(DRAWS, 4)
    require_frequencies(draw_many(logits, **options, history=history), cut_by_hand(logits, **options, seen=seen))


def test_the_frequency_test_can_fail() -> None:
    """One probability off by a tenth of itself, and a token that should have been cut, are both found."""
    probabilities = softmax([2.0, 1.0, 0.0, 0.5])
    counts = draw_many([2.0, 1.0, 0.0, 0.5])
    require_frequencies(counts, probabilities)
    tenth = probabilities[0] * 0.1
    with pytest.raises(AssertionError, match="chi-square"):
        require_frequencies(counts, [probabilities[0] - tenth, probabilities[1] + tenth, *probabilities[2:]])
    with pytest.raises(AssertionError, match="cut"):
        require_frequencies(counts, [*probabilities[:2], 0.0, probabilities[3]])


def test_rare_tokens_come_as_rarely_as_they_should() -> None:
    """The exponential keeps its precision near 0: 63 tokens of probability 1e-3 each, against one of 0.937."""
    require_frequencies(draw_many([math.log(0.937 / 1e-3)] + [0.0] * 63), [0.937] + [1e-3] * 63)


def draw(logits: list[float], draws: int = 500, **options: Any) -> set[int]:
    """The tokens that come in `draws` draws."""
    seeds = torch.arange(draws)
    return set(ops.sample_token(torch.tensor([logits]).expand(draws, -1), seeds, seeds, **options)[0].tolist())


def test_ties_at_a_threshold_are_all_kept() -> None:
    tied = [3.0, 2.0, 2.0, 2.0, -1.0]
    assert draw(tied, top_k=2) == {0, 1, 2, 3}
    # The best token has 0.47 of the mass; the next is needed for 0.5, and its equals come along.
    assert draw(tied, top_p=0.5) == {0, 1, 2, 3}
    assert draw(tied, top_p=0.4) == {0}
    assert draw([2.0, 2.0, 0.0], top_p=0.0) == {0, 1}
    assert draw([2.0, 2.0, 0.0], min_p=1.0) == {0, 1}
    assert draw([2.0, 2.0, 2.0], temperature=0.0) == {0}


def test_top_p_reads_what_top_k_left() -> None:
    """Probabilities 0.4, 0.3, 0.2, 0.1. top-k 2 leaves 4/7 and 3/7, and 0.5 of that is reached by the first alone.

    On the whole row top-p 0.5 needs two: so the order of the cuts shows.
    """
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert draw(logits, top_p=0.5) == {0, 1}
    assert draw(logits, top_k=2, top_p=0.5) == {0}


def test_the_penalty_comes_before_the_temperature_and_once() -> None:
    """Logits 2 and -2 with penalty 2 become 1 and -4, also when the history names them twice, and then are halved."""
    logits = torch.tensor([[2.0, -2.0, 0.0]])
    zero = torch.zeros(1, dtype=torch.int64)
    _, logprob = ops.sample_token(logits, zero, zero, temperature=2.0, top_k=1, repetition_penalty=2.0,
                                  history=torch.tensor([[0, 1, 0, -1, 1]]))
    # softmax of (0.5, -2, 0) at its largest; float32 log-softmax errs by a few parts in 10^7.
    assert float(logprob) == pytest.approx(math.log(softmax([0.5, -2.0, 0.0])[0]), abs=1e-6)


def test_logprob_is_that_of_the_whole_row_at_the_temperature() -> None:
    """So that it equals what training computes for the token, whatever was cut away; greedy takes temperature 1."""
    torch.manual_seed(12)
    logits, seeds = torch.randn(8, 300), torch.arange(8)
    cool = {"temperature": 0.6, "top_k": 5, "top_p": 0.5, "min_p": 0.1}
    for options, heat in ((cool, 0.6), ({"temperature": 0.0}, 1.0)):
        tokens, logprobs = ops.sample_token(logits, seeds, seeds, **options)
        expected = torch.log_softmax(logits.double() / heat, -1).gather(1, tokens[:, None])[:, 0]
        # Numbers below 8 in float32: half a unit in the last place is 2.4e-7, and the division adds as much.
        torch.testing.assert_close(logprobs.double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(tokens, logits.argmax(-1))


def test_a_draw_depends_on_its_row_alone() -> None:
    """The same alone, among others, in any place, and with any number of threads."""
    inputs = rows(New(torch.float32), 24, 3000, history=9)
    options = {"temperature": 1.1, "top_p": 0.95, "repetition_penalty": 1.2}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [ops.sample_token(**{k: v[i:i + 1] for k, v in inputs.items()}, **options) for i in range(24)]
        torch.set_num_threads(2)
        together = ops.sample_token(**inputs, **options)
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
        shuffled = ops.sample_token(**{k: v[order] for k, v in inputs.items()}, **options)
    finally:
        torch.set_num_threads(before)
    for which in (0, 1):
        assert same_bits(torch.cat([result[which] for result in alone]), together[which])
        assert same_bits(shuffled[which], together[which][order])


def test_what_has_no_meaning_gives_minus_one_and_nan() -> None:
    """Each kind in a row of its own, the neighbours untouched."""
    inf, nan = math.inf, math.nan
    logits = torch.zeros(10, 5)
    logits[1, 2], logits[2, 0], logits[3] = nan, inf, -inf
    one = torch.ones(10)
    parameters = {"temperature": one.clone(), "top_k": torch.zeros(10), "top_p": one.clone(), "min_p": one * 0,
                  "repetition_penalty": one.clone()}
    wrong = {"temperature": -1.0, "top_k": -1.0, "top_p": 1.1, "min_p": nan, "repetition_penalty": 0.0}
    for row, (name, value) in enumerate(wrong.items(), start=4):
        parameters[name][row] = value
    history = torch.full((10, 2), -1)
    history[9] = 5
    seeds = torch.arange(10)
    for function in (ops.sample_token, ops.sample_token_oracle):
        tokens, logprobs = function(logits, seeds, seeds, **parameters, history=history)
        assert 0 <= int(tokens[0]) < 5 and float(logprobs[0]) == pytest.approx(-math.log(5), abs=1e-6)
        assert tokens[1:].tolist() == [-1] * 9
        assert bool(logprobs[1:].isnan().all())


def test_minus_infinity_is_never_drawn() -> None:
    inf = math.inf
    assert draw([-inf, 1.0, -inf, 0.0]) == {1, 3}
    assert draw([-inf, 1.0, -inf, 0.0], top_k=3) == {1, 3}
    assert draw([-inf, 1.0, -inf, 0.0], top_p=0.999) == {1, 3}
    assert draw([-inf, -5.0]) == {1}


def awkward_rows() -> tuple[Inputs, int]:
    """Rows on which a choice hangs on a last bit, or on what few rows have; and how many of them have no meaning."""
    torch.manual_seed(21)
    vocab, inf = 200, math.inf
    logits = torch.randn(16, vocab)
    logits[0] = 1.0  # all equal: every threshold is a tie
    logits[1] = torch.arange(vocab) % 3 * 0.5
    logits[2] = -inf
    logits[2, 7] = -1e30
    logits[3, 20:] = -inf
    logits[4] *= 1e-39  # subnormal
    logits[5] = torch.finfo(torch.float32).min
    logits[6] = torch.where(torch.arange(vocab) % 2 == 0, 0.0, -0.0)
    logits[7] *= 1e30
    logits[8] = 5.0 + torch.arange(vocab) * 2.0**-21  # neighbours among floats
    logits[9] *= 20.0
    logits[10, 3], logits[11, 4], logits[12] = math.nan, inf, -inf
    logits[13] = -100.0 - torch.arange(vocab)
    seeds = torch.arange(16) * 7919
    return {"logits": logits, "seeds": seeds, "positions": seeds + 3}, 3


@pytest.mark.parametrize("options", [
    {}, {"temperature": 0.0}, {"temperature": 0.013}, {"temperature": 1e30}, {"top_k": 50}, {"top_k": 199},
    {"top_p": 0.5}, {"top_p": 1 - 2**-24}, {"top_p": 0.0}, {"min_p": 0.3}, {"top_k": 100, "top_p": 0.37, "min_p": 1e-6},
], ids=str)
def test_kernels_draw_what_the_cpu_draws(options: dict[str, Any]) -> None:
    """The same tokens, also where scores tie, neighbour each other, overflow or are subnormal."""
    TestSampleToken().require_kernels()
    inputs, meaningless = awkward_rows()
    expected, logprobs = ops.sample_token(**inputs, **options)
    assert int((expected == -1).sum()) >= meaningless
    with simt.executing(multiprocessors=1):
        tokens, emulated = ops.sample_token(**inputs, **options)
    assert torch.equal(tokens, expected)
    assert torch.equal(emulated.isnan(), logprobs.isnan())
    # One more rounding of the sum than on the CPU, at most: 200 terms.
    torch.testing.assert_close(emulated, logprobs, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernels_draw_what_the_cpu_draws_from_whole_vocabularies(dtype: torch.dtype) -> None:
    """GPT-2's 50,257 tokens: rows that start on no vector's boundary, in shared memory whole or piece by piece."""
    TestSampleToken().require_kernels()
    inputs = rows(New(dtype), 2, 50257, history=40)
    for options in ({"repetition_penalty": 1.2}, {"temperature": 0.8, "top_k": 50}, {"top_p": 0.9}):
        expected = ops.sample_token(**inputs, **options)[0]
        with simt.executing():
            assert torch.equal(ops.sample_token(**inputs, **options)[0], expected)


def test_a_row_without_meaning_is_found_by_the_kernels() -> None:
    """Parameters out of range and a history beyond the vocabulary, a row each, and the neighbours untouched."""
    TestSampleToken().require_kernels()
    one, seeds = torch.ones(6), torch.arange(6)
    options = {"temperature": one.clone(), "top_k": one * 0, "top_p": one.clone(), "min_p": one * 0,
               "repetition_penalty": one.clone(), "history": torch.full((6, 2), -1)}
    options["temperature"][1], options["top_k"][2], options["top_p"][3] = -1.0, math.nan, 1.5
    options["min_p"][4], options["history"][5, 1] = -0.1, 5
    with simt.executing():
        tokens, logprobs = ops.sample_token(torch.zeros(6, 5), seeds, seeds, **options)
    assert tokens[1:].tolist() == [-1] * 5 and bool(logprobs[1:].isnan().all())
    assert 0 <= int(tokens[0]) < 5 and float(logprobs[0]) == pytest.approx(-math.log(5), abs=1e-6)


def test_a_vocabulary_too_large_to_mark_is_refused() -> None:
    TestSampleToken().require_kernels()
    seeds = torch.zeros(1, dtype=torch.int64)
    with simt.executing(), pytest.raises(RuntimeError, match="at most 262144 columns on a GPU"):
        ops.sample_token(torch.zeros(1, 2**18 + 1), seeds, seeds, history=seeds[:, None])


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        logits = torch.empty(4, 100, device="cuda", dtype=torch.bfloat16)
        seeds = torch.empty(4, device="cuda", dtype=torch.int64)
        history = torch.empty(4, 1, device="cuda", dtype=torch.int64)
        if "sample_token" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="sample_token: has no CUDA kernel"):
                ops.sample_token(logits, seeds, seeds)
            return
        tokens, logprobs = ops.sample_token(logits, seeds, seeds, top_k=5, history=history)
        assert (tokens.device.type, tokens.dtype, tuple(tokens.shape)) == ("cuda", torch.int64, (4,))
        assert (logprobs.device.type, logprobs.dtype, tuple(logprobs.shape)) == ("cuda", torch.float32, (4,))


def test_position_and_seed_both_matter() -> None:
    """Each changes the draw, also in their upper halves: among 5000 equal tokens, 3 of 64 pairs agree once in 10^6."""
    logits, seeds, positions = torch.zeros(64, 5000), torch.arange(64), torch.full((64,), 7)
    first = ops.sample_token(logits, seeds, positions)[0]
    for other in ((seeds + 2**33, positions), (seeds, positions + 2**33), (seeds, positions + 1)):
        assert int((first == ops.sample_token(logits, *other)[0]).sum()) <= 2


def test_draws_stay_inside_what_transformers_keeps() -> None:
    """The five steps against transformers' own processors in their order, where transformers is installed."""
    process = pytest.importorskip("transformers.generation.logits_process")
    new = New(torch.float32)
    history = new.ints(0, 2000, 8, 12)
    scores = new(8, 2000, scale=3.0)
    for top_k, top_p, min_p in ((2000, 0.9, 0.0), (50, 1.0, 0.0), (300, 0.8, 0.05)):
        steps = (process.RepetitionPenaltyLogitsProcessor(1.3), process.TemperatureLogitsWarper(0.8),
                 process.TopKLogitsWarper(top_k), process.TopPLogitsWarper(top_p), process.MinPLogitsWarper(min_p))
        kept = scores
        for step in steps:
            kept = step(history, kept)
        for seed in range(100):
            tokens, _ = ops.sample_token(
                scores, torch.full((8,), seed), torch.arange(8), temperature=0.8, top_k=top_k, top_p=top_p, min_p=min_p,
                repetition_penalty=1.3, history=history)
            assert bool(kept.gather(1, tokens[:, None]).isfinite().all())
