"""What nvcc made of each word of device/ptx.cuh: the micro-kernels' machine code has the instruction that was meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.ledger import resources
from instructgpt_fast.doctor import build_info
from instructgpt_fast.ops import _library

# Kernel -> instructions it must have. Names of the ISA of sm_80 and sm_90.
SINCE_80 = {
    "load_matrix<1, false>": {"LDSM.16.M88"},
    "load_matrix<2, false>": {"LDSM.16.M88.2"},
    "load_matrix<4, false>": {"LDSM.16.M88.4"},
    "load_matrix<1, true>": {"LDSM.16.MT88"},
    "load_matrix<2, true>": {"LDSM.16.MT88.2"},
    "load_matrix<4, true>": {"LDSM.16.MT88.4"},
    "multiply_registers<bfloat16>": {"HMMA.16816.F32.BF16"},
    "multiply_registers<half>": {"HMMA.16816.F32"},
    "multiply_tiles<bfloat16>": {"HMMA.16816.F32.BF16", "LDSM.16.M88.4", "LDSM.16.MT88.2"},
    "copy<1, 0>": {"LDGSTS.E", "LDGDEPBAR", "DEPBAR.LE"},
    "copy<2, 0>": {"LDGSTS.E.64"},
    "copy<4, 0>": {"LDGSTS.E.128"},
    "copy<4, 1>": {"LDGSTS.E.BYPASS.128"},
    "copy_zero_fill<1>": {"LDGSTS.E.ZFILL"},
    "copy_zero_fill<2>": {"LDGSTS.E.64.ZFILL"},
    "copy_zero_fill<4>": {"LDGSTS.E.BYPASS.128.ZFILL"},
    "named_barrier": {"BAR.ARV", "BAR.SYNC.DEFER_BLOCKING"},
    "publish": {"STG.E.STRONG.GPU", "LDG.E.STRONG.GPU"},
    "approximate_exp2": {"MUFU.EX2"},
    "approximate_tanh": {"MUFU.TANH"},
    "approximate_rsqrt": {"MUFU.RSQ"},
}
SINCE_90 = {
    "store_matrix<1, false>": {"STSM.16.M88"},
    "store_matrix<2, false>": {"STSM.16.M88.2"},
    "store_matrix<4, false>": {"STSM.16.M88.4"},
    "store_matrix<1, true>": {"STSM.16.MT88"},
    "store_matrix<2, true>": {"STSM.16.MT88.2"},
    "store_matrix<4, true>": {"STSM.16.MT88.4"},
    "load_box<2, 512>": {"UTMALDG.2D", "UTMACCTL.PF", "SYNCS.EXCH.64", "SYNCS.ARRIVE.TRANS64"},
    "load_box<4, 64>": {"UTMALDG.4D", "SYNCS.PHASECHK.TRANS64.TRYWAIT"},
    "store_box<false>": {"UTMASTG.2D", "UTMACMDFLUSH", "FENCE.VIEW.ASYNC.S"},
    "store_box<true>": {"UTMAREDG.2D.ADD"},
    "runs": {"UBLKCP.S.G", "UBLKRED.G.S.ADD.F32.RN", "REDG.E.ADD.F32x4.FTZ.RN.STRONG.GPU"},
    "phases": {"SYNCS.ARRIVE.TRANS64.A1T0"},
    "budget": {"USETMAXREG.DEALLOC.CTAPOOL", "USETMAXREG.TRY_ALLOC.CTAPOOL"},
}
# Products by warpgroups: type, N, A (0: a tile, 1: one with M dense, 2: registers), whether B has N dense, whether it
# adds.
PRODUCTS = (
    "bfloat16, 64, 0, false, false", "bfloat16, 64, 1, true, false", "half, 64, 0, true, true",
    "half, 64, 1, false, true", "half, 64, 2, false, true", "bfloat16, 80, 0, false, true", "half, 80, 2, true, true",
    "half, 96, 0, false, true", "bfloat16, 96, 2, true, true", "bfloat16, 128, 0, false, true",
    "half, 128, 0, false, true", "bfloat16, 128, 2, true, true", "bfloat16, 128, 1, true, true",
)  # fmt: skip
ONLY_90A = {
    f"warpgroup_product<{form}>": {
        f"HGMMA.64x{form.split(', ')[1]}x16.F32{'.BF16' if form.startswith('bfloat16') else ''}",
        "WARPGROUP.ARRIVE", "WARPGROUP.DEPBAR.LE", "FENCE.VIEW.ASYNC.S",
    }
    for form in PRODUCTS
}  # fmt: skip
ON_90A = SINCE_80 | SINCE_90 | ONLY_90A


def built_library(arch: str) -> Path:
    """The library of this build, where it has code for this architecture and there is a tool that reads it."""
    cuda = build_info()["cuda"]
    if arch not in {built.removesuffix("+PTX") for built in cuda["archs"]}:
        pytest.skip(f"sm_{arch} is not in this build")
    if resources.cuobjdump() is None or shutil.which("c++filt") is None:
        pytest.skip("cuobjdump (of the wheel nvidia-cuda-cuobjdump) or c++filt is not installed")
    return _library.LIBRARY_DIR / "libigf_cuda.so"


@pytest.mark.parametrize("arch, expected", [("80", SINCE_80), ("90a", ON_90A)], ids=["sm_80", "sm_90a"])
def test_each_word_is_its_instruction(arch: str, expected: dict[str, set[str]]) -> None:
    library = built_library(arch)
    found: dict[str, set[str]] = {}
    stems = ("matrices_cuda", "copies_cuda", "order_cuda", "numbers_cuda", "async_cuda", "wgmma_cuda")
    for source in stems:
        found |= resources.opcodes(library, arch, source)
    for kernel, instructions in expected.items():
        lacking = instructions - found[f"microkernels::{kernel}"]
        assert not lacking, f"{kernel} has no {lacking}, but {sorted(found[f'microkernels::{kernel}'])}"


# Source -> architecture, and what the instructions of each of its kernels for the tensor cores must begin with.
TENSOR_CORES = {
    "attention_mma_forward_cuda": ("80", {"HMMA", "LDSM", "LDGSTS"}),
    "attention_mma_backward_cuda": ("80", {"HMMA", "LDSM", "LDGSTS"}),
    "attention_hopper_forward_cuda": ("90a", {"HGMMA", "UTMALDG", "USETMAXREG"}),
    "attention_hopper_backward_cuda": ("90a", {"HGMMA", "UTMALDG", "USETMAXREG"}),
    "invariant_linear_cuda": ("80", {"HMMA", "LDSM", "LDGSTS"}),
}
ON_CUDA_CORES = ("_prepare", "_finish", "_general")  # kernels of these sources


@pytest.mark.parametrize("stem", TENSOR_CORES)
def test_products_are_computed_by_the_tensor_cores(stem: str) -> None:
    """Copies, products and the exchange of registers are there, and nothing in local memory."""
    arch, instructions = TENSOR_CORES[stem]
    found = resources.opcodes(built_library(arch), arch, stem)
    kernels = {name: words for name, words in found.items() if not any(part in name for part in ON_CUDA_CORES)}
    assert kernels
    for kernel, words in kernels.items():
        lacking = {start for start in instructions if not any(word.startswith(start) for word in words)}
        assert not lacking, f"{kernel} has no {lacking}, but {sorted(words)}"
        assert not [word for word in words if word.startswith(("LDL", "STL"))], f"{kernel} uses local memory"


def test_reading_instructions() -> None:
    text = """
        /*0040*/              @!P0 LDGSTS.E.64 [R5], [R2.64] ;   /* 0x1 */
        /*0050*/                   EXIT ;                        /* 0x2 */
    """
    assert resources.INSTRUCTION.findall(text) == ["LDGSTS.E.64", "EXIT"]


def test_names_keep_the_constants_of_templates() -> None:
    mangled = "_ZN3igf12microkernels12_GLOBAL__N_14copyILi4ELNS_6device3ptx5CacheE1EEEvNS0_9ArgumentsE"
    assert resources.readable([mangled]) == ["microkernels::copy<4, 1>"]
