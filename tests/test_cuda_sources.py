"""Checks without a GPU of the code of CuPy's plug-in that a GPU would run.

NVRTC, from NVIDIA's wheels, compiles every source for three generations of devices. The
descriptions of products are read back from cuBLASLt. And the plug-in must say why it cannot be
used.
"""

from __future__ import annotations

import ctypes
import io
import re
import subprocess
from contextlib import nullcontext
from functools import cache
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from polynet.backend import StaticRunner, get_backend, refresh, registry

cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
core = pytest.importorskip("cuda.core", reason="cuda-core is not installed")

import polynet_cupy
from polynet_cupy import (
    cublaslt,
    graph,
    launch,
    namespace,
    optimizers,
    products,
    windows,
    winograd,
)
from polynet_cupy.products import Operand, Product

BLOCKS = {
    **dict.fromkeys(("clip_scale", "cross_entropy_of_few"), launch.MOST_THREADS),
    **dict.fromkeys((k for k in launch.kernels() if "column_sum" in k), launch.LANES * launch.WARP),
}
"""The most threads of a block, for kernels whose blocks do not have the usual size."""
REGISTERS = 1 << 16
"""Registers of a multiprocessor. A block that needs more cannot start."""
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
REPORT = re.compile(
    r"entry function '(?P<kernel>\w+)'.*?(?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@cache
def cubin(source: str, real: str, arch: str) -> tuple[bytes, str]:
    """A source compiled as CuPy compiles it, and the report of the assembler."""
    log = io.StringIO()
    options = core.ProgramOptions(
        arch=arch, define_macro=f"REAL={launch.REALS[real]}", ptxas_options="-v", std="c++17",
        ftz=True,
    )  # fmt: skip
    text = launch.sources()[source]
    return core.Program(text, "c++", options).compile("cubin", logs=log).code, log.getvalue()


def report(source: str, real: str, arch: str) -> list[tuple[str, int, int]]:
    """For each kernel of a source: its name, its registers, and the bytes that it spills."""
    _, log = cubin(source, real, arch)
    return [
        (m["kernel"], int(m["registers"]), int(m["stores"]) + int(m["loads"]))
        for m in REPORT.finditer(log)
    ]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_source_compiles_and_no_kernel_spills(
    arch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints each kernel's registers in float32 and in float64, and the bytes that it spills."""
    found = {
        real: sorted(line for source in launch.sources() for line in report(source, real, arch))
        for real in launch.REALS
    }
    with capsys.disabled():
        print(f"\n{arch}: registers in float32, in float64; bytes spilled in each")
        for (kernel, single, spilled), (_, double, more) in zip(*found.values(), strict=True):
            print(f"  {kernel:24} {single:4} {double:4} {spilled:4} {more:4}")
    for lines in found.values():
        assert {kernel for kernel, _, _ in lines} == set(launch.kernels())
        assert [kernel for kernel, _, spilled in lines if spilled] == []
        for kernel, registers, _ in lines:
            assert registers * BLOCKS.get(kernel, launch.THREADS) <= REGISTERS, kernel


ONE, UNCHANGED, PACK, HALVES = "E", "E.CONSTANT", "E.128", "E.64"
"""Accesses of memory: one float32, one float32 that is constant, a pack, and a pack of bfloat16."""
MEMORY = {
    **dict.fromkeys(("relu_forward", "gelu_forward"), (PACK, 1, PACK, 1)),
    **dict.fromkeys(("relu_backward", "gelu_backward"), (PACK, 2, PACK, 1)),
    "to_bfloat16": (PACK, 1, HALVES, 1),
    "column_sum": (PACK, 4, PACK, 1),
    "column_sum_and_terms": (PACK, 8, PACK, 4),
    "column_sum_to_bfloat16": (PACK, 8, HALVES, 4),
    "cross_entropy_forward": (PACK, 4, ONE, 3),
    "cross_entropy_backward": (PACK, 1, PACK, 1),
    "gather_rows": (PACK, 1, PACK, 1),
    **dict.fromkeys(
        ("softmax_forward", "log_softmax_forward", "layer_norm_forward"), (ONE, 4, ONE, 4)
    ),
    **dict.fromkeys(("softmax_backward", "layer_norm_backward"), (ONE, 8, ONE, 4)),
    "log_softmax_backward": (ONE, 8, ONE, 4),
    "attention_forward": (ONE, 4, ONE, 4),
    "attention_backward": (ONE, 8, ONE, 4),
    "winograd_seen": (UNCHANGED, 16, ONE, 16),
    "winograd_of_places": (UNCHANGED, 4, ONE, 16),
    "winograd_places": (ONE, 16, ONE, 4),
}
"""For each kernel: the kind of its reads, how many a thread has under way together, and the kind
and number of its writes."""


@cache
def disassembler() -> str:
    """NVIDIA's disassembler, from its wheel."""
    name = "nvidia-cuda-nvdisasm"
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    (found,) = (f for f in files if f.stem == "nvdisasm")
    return str(found.locate())


def memory(source: str, arch: str, folder: Path) -> dict[str, list[str]]:
    """For each kernel in float32: its memory accesses in order, and the jumps between them."""
    (path := folder / f"{source}.cubin").write_bytes(cubin(source, "float32", arch)[0])
    command = [disassembler(), "-c", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, *parts = re.split(r"\.text\.(\w+):", text)
    found = re.compile(r"\b((?:LDG|STG|BRA)\b[.\w]*)")
    return {n: found.findall(body) for n, body in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_reads_are_under_way_together_and_packs_whole(arch: str, tmp_path: Path) -> None:
    """A compiler may split accesses that the source makes at once, and it has done so before."""
    done = {
        kernel: accesses
        for source in {launch.kernels()[kernel] for kernel in MEMORY}
        for kernel, accesses in memory(source, arch, tmp_path).items()
    }
    for kernel, (read, together, write, writes) in MEMORY.items():
        accesses = done[kernel]
        assert " ".join([f"LDG.{read}"] * together) in " ".join(accesses), (kernel, accesses)
        assert accesses.count(f"STG.{write}") >= writes, (kernel, accesses)


def test_the_structures_of_the_sources_are_those_of_the_host() -> None:
    """Field by field, without padding between; the arguments of a launch are at most 4 KiB."""
    structs = {
        "Table": optimizers.TABLE, "Axes": windows.AXES, "Window": windows.WINDOW,
        "Numbers": namespace.NUMBERS, "Tiles": winograd.TILES,
    }  # fmt: skip
    for struct, dtype in structs.items():
        (text,) = (t for t in launch.sources().values() if f"struct {struct}" in t)
        body = re.search(rf"struct {struct} {{(.*?)}};", text, re.DOTALL)[1]
        names = re.findall(r"(\w+)(?:\[MOST\w*\])?[,;]", body)
        assert names == list(dtype.names)
        kinds = {"int": np.int32, "integer": np.int64, "Axes": windows.AXES}
        for kind, declared in re.findall(r"\b(int|integer|Axes) ([^;]+);", body):
            for name in re.findall(r"\w+", declared.replace("[MOST]", "")):
                assert dtype[name].base == kinds[kind]
        assert dtype.itemsize <= 4096 - 128
    for source, module, name in (
        ("optimizers", optimizers, "MOST"),
        ("optimizers", optimizers, "CHUNK"),
        ("indexing", namespace, "MOST_NUMBERS"),
        ("elementwise", launch, "LANES"),
        ("products", products, "TILE"),
    ):
        text = launch.sources()[source]
        assert int(re.search(rf"#define {name} (\d+)", text)[1]) == getattr(module, name)


# cuBLASLt: the descriptions it was given, read back from its own descriptors


def attribute(kind: str, descriptor: Any, number: int, ctype: Any) -> int:
    value, written = ctype(), ctypes.c_size_t()
    cublaslt.call(
        f"cublasLt{kind}GetAttribute", descriptor, number, ctypes.byref(value),
        ctypes.c_size_t(ctypes.sizeof(value)), ctypes.byref(written),
    )  # fmt: skip
    return int(value.value)


def layout(descriptor: Any) -> tuple[int, ...]:
    """Type, rows, columns, distance between columns, count, distance between matrices."""
    kinds = (
        *((0, ctypes.c_uint32), (2, ctypes.c_uint64), (3, ctypes.c_uint64), (4, ctypes.c_int64)),
        *((5, ctypes.c_int32), (6, ctypes.c_int64)),
    )
    return tuple(attribute("MatrixLayout", descriptor, *kind) for kind in kinds)


@pytest.fixture
def _cublaslt() -> None:
    try:
        cublaslt.library()
    except Exception as error:
        pytest.skip(f"cuBLASLt is not installed: {error}")


@pytest.mark.usefixtures("_cublaslt")
def test_a_product_is_described_to_cublaslt_as_it_lies() -> None:
    """7 products (3, 5) × (5, 4) with a bias; the second matrix is transposed, with lines of 9."""
    left, right = Operand(False, 5, 15, 256), Operand(True, 9, 36, 16)
    d = cublaslt.Descriptors(Product("float64", 7, 3, 4, 5, left, right, bias=True))
    assert layout(d.a) == (cublaslt.R_64F, 5, 4, 9, 7, 36)
    assert layout(d.b) == (cublaslt.R_64F, 5, 3, 5, 7, 15)
    assert layout(d.d) == (cublaslt.R_64F, 4, 3, 4, 7, 12)
    of_matmul = {"compute": 0, "scale": 1, "a": 3, "b": 4, "epilogue": 7}
    found = {n: attribute("MatmulDesc", d.matmul, i, ctypes.c_int32) for n, i in of_matmul.items()}
    assert found == {
        "compute": cublaslt.COMPUTE_64F, "scale": cublaslt.R_64F, "a": 1, "b": 0,
        "epilogue": cublaslt.EPILOGUE_BIAS,
    }  # fmt: skip
    cut = cublaslt.Descriptors(Product("float64", 7, 3, 4, 5, left, right, bias=True, relu=True))
    epilogue = attribute("MatmulDesc", cut.matmul, of_matmul["epilogue"], ctypes.c_int32)
    assert epilogue == cublaslt.EPILOGUE_RELU_BIAS
    of_preference = {1: (ctypes.c_uint64, cublaslt.WORKSPACE), 5: (ctypes.c_uint32, 16),
                     6: (ctypes.c_uint32, 256)}  # fmt: skip
    for number, (ctype, expected) in of_preference.items():
        assert attribute("MatmulPreference", d.preference, number, ctype) == expected


@pytest.mark.usefixtures("_cublaslt")
@pytest.mark.parametrize(
    ("precision", "kinds"),
    [
        ("float64", (cublaslt.R_64F, cublaslt.COMPUTE_64F, cublaslt.R_64F)),
        ("float32", (cublaslt.R_32F, cublaslt.COMPUTE_32F, cublaslt.R_32F)),
        ("tf32", (cublaslt.R_32F, cublaslt.COMPUTE_32F_FAST_TF32, cublaslt.R_32F)),
        ("bfloat16", (cublaslt.R_16BF, cublaslt.COMPUTE_32F, cublaslt.R_32F)),
    ],
)
def test_what_products_are_computed_in(precision: str, kinds: tuple[int, ...]) -> None:
    """The types of the operands, the sums, and the result."""
    d = cublaslt.Descriptors(
        Product(precision, 1, 2, 2, 2, *[Operand(False, 2, 0, 256)] * 2, bias=False)
    )
    operands, compute, result = kinds
    assert [layout(which)[0] for which in (d.a, d.b, d.d)] == [operands, operands, result]
    found = [attribute("MatmulDesc", d.matmul, number, ctypes.c_int32) for number in (0, 1)]
    assert found == [compute, result]


@pytest.mark.parametrize(("setting", "precision"), [(None, "float32"), ("0", "float32"),
                                                    ("1", "tf32")])  # fmt: skip
def test_tf32_is_taken_where_cupy_s_setting_asks_for_it(
    setting: str | None, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUPY_TF32", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUPY_TF32", setting)
    backend = polynet_cupy.load()
    assert backend.xp.precision == precision
    assert backend.with_precision("bfloat16").xp.precision == "bfloat16"
    assert backend.xp.precision == precision


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown precision 'bf16'\. Did you mean 'bfloat16'"):
        polynet_cupy.load().with_precision("bf16")


@pytest.mark.usefixtures("_cublaslt")
def test_the_result_of_the_heuristic_has_its_size_in_the_header() -> None:
    assert ctypes.sizeof(cublaslt.Heuristic) == 8 * 8 + 8 + 4 + 4 + 4 * 4
    assert cublaslt.Heuristic.workspace.offset == 64
    assert cublaslt.Heuristic.state.offset == 72


@pytest.mark.usefixtures("_cublaslt")
def test_what_cublaslt_refuses_is_said_in_its_words() -> None:
    with pytest.raises(RuntimeError, match=r"cublasLtMatrixLayoutSetAttribute answered 7, "):
        cublaslt.call("cublasLtMatrixLayoutSetAttribute", None, 0, None, ctypes.c_size_t(0))


# Why it cannot be used

no_device = pytest.mark.skipif(cupy.is_available(), reason="there is a GPU")


@no_device
def test_without_a_driver_the_plug_in_says_so() -> None:
    refresh()
    status = registry.status("cupy")
    assert status.state == "no device"
    assert "there is no NVIDIA driver, or one too old" in status.reason
    assert "cudaErrorInsufficientDriver" in status.reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("cudaErrorNoDevice: no CUDA-capable device is detected", "the NVIDIA driver sees no GPU"),
        ("CuPy failed to load libnvrtc.so.13: OSError", "lacks its compiler, NVRTC; pip install"),
        ('Failure finding "libcublasLt.so"', "lacks cuBLASLt; pip install"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(words: str, reason: str) -> None:
    found = polynet_cupy.why_no_device(words)
    assert reason in found
    assert found.endswith(f"({words})")
    assert polynet_cupy.why_no_device("something else") == "something else"


def test_two_cupys_are_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cupy_cuda12x-14.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cupy-cuda12x\nVersion: 14.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [d.metadata["Name"] for d in metadata.distributions()]
    (other,) = {n for n in found if n.startswith("cupy")} - {"cupy-cuda12x"}
    with pytest.raises(RuntimeError, match=f"cupy-cuda12x and {other} are installed, and each"):
        polynet_cupy.check_alone()
    refresh()
    try:
        assert registry.status("cupy").state == "broken"
        assert "uninstall all of them" in registry.status("cupy").reason
    finally:
        monkeypatch.undo()
        refresh()


def test_steps_that_do_not_fit_say_what_to_lower() -> None:
    """CuPy's words say how much was asked for, and how much had been allocated."""
    with (
        pytest.raises(MemoryError, match=r"steps of 512 samples do not fit .* 4,096 bytes .*"
                      r"8,192 bytes.*smaller batch_size, or fit\(…, accumulate=2\)") as caught,
        graph.advising_on_memory(512),
    ):  # fmt: skip
        raise cupy.cuda.memory.OutOfMemoryError(4096, 8192)
    assert isinstance(caught.value.__cause__, cupy.cuda.memory.OutOfMemoryError)


class Stream:
    """A stand-in for CuPy's streams and graphs, which notes the calls during a capture."""

    def __init__(self, non_blocking: bool) -> None:
        self.told = ["blocking" if not non_blocking else "made"]

    def __enter__(self) -> None:
        self.told.append("current")

    def __exit__(self, *exception: object) -> None:
        self.told.append("left")

    def begin_capture(self) -> None:
        self.told.append("begun")

    def end_capture(self) -> Any:
        self.told.append("ended")
        return self

    def upload(self) -> None:
        self.told.append("uploaded")

    def launch(self) -> None:
        self.told.append("launched")


def capturer(memory: Any = None) -> graph.Capturer:
    limits: list[int] = []
    pool = SimpleNamespace(
        malloc=None, free_all_blocks=lambda: own._stream.told.append("freed"),
        set_limit=lambda size: limits.append(size), total_bytes=lambda: 100,
    )  # fmt: skip
    cuda = SimpleNamespace(
        Stream=Stream, MemoryPool=lambda memory: pool, using_allocator=lambda malloc: nullcontext(),
        Memory=memory, MemoryPointer=lambda memory, offset: (memory, offset),
        runtime=cupy.cuda.runtime, memory=cupy.cuda.memory,
    )  # fmt: skip
    own = graph.Capturer(SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool))
    assert limits == [0], "CuPy's own limit is not this pool's"
    return own


def test_the_captures_pool_never_hears_that_the_device_has_no_more() -> None:
    """CuPy's pool would free its idle memory, which captured graphs use."""
    answers: list[Any] = [graph.NO_MEMORY, "some"]

    def memory(size: int) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, int):
            raise cupy.cuda.runtime.CUDARuntimeError(answer)
        return answer

    own = capturer(memory)
    assert own._memory(7) == ("some", 0)
    assert own._stream.told[-1] == "freed", "the idle memory of CuPy's own pool"
    answers += [graph.NO_MEMORY] * 2
    with pytest.raises(MemoryError, match=r"allocating 7 bytes \(allocated so far: 100 bytes"):
        own._memory(7)
    answers += [700]
    with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        own._memory(7)


def test_a_step_is_captured_on_a_stream_of_its_own_and_runs_on_the_current_one() -> None:
    own = capturer()
    replay = own.capture(lambda: own._stream.told.append("run"))
    replay()
    order = ["made", "freed", "current", "begun", "run", "ended", "left", "uploaded", "launched"]
    assert own._stream.told == order


@pytest.mark.usefixtures("_cublaslt")
def test_a_step_that_cannot_be_captured_is_warned_of_by_its_line() -> None:
    """The line of the step, not of a function that it called; the steps go on one op at a time."""
    own = capturer()

    def step(state: Any, data: Any, rows: Any) -> Any:
        if own._stream.told[-1] == "begun":
            cublaslt.call("cublasLtMatrixLayoutSetAttribute", None, 0, None, ctypes.c_size_t(0))
        return {"x": state["x"] + 1}, state["x"][0] * 1

    run = StaticRunner(
        get_backend("numpy"), step, capture=own.capture, memory=id, inner=graph.INNER
    )
    state, rows = {"x": np.zeros(1)}, np.zeros((6, 1), np.int64)
    words = r"answered 7.* \(line \d+ of .*test_cuda_sources.py: cublaslt.call"
    with pytest.warns(RuntimeWarning, match=words) as warned:
        state, found = run(state, np.zeros(1), rows)
    assert len(warned) == 1
    assert own._stream.told[-2:] == ["ended", "left"]
    assert found.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("splits", "terms", "results", "chosen"),
    [
        ([264, 132, 4], 128, 1280, 2),  # 128 terms in 264 parts: the library's first, 52 µs for 5
        ([8, 1], 784, 32768, 0),
        ([4, 1], 31, 100, 1),
        ([6, 3], 8, 100, 1),
        ([2, 3, 1], 8192, 1 << 24, 2),
        ([2, 3], 8192, 1 << 24, 0),
    ],
)
def test_sums_are_split_as_far_as_it_helps(
    splits: list[int], terms: int, results: int, chosen: int
) -> None:
    assert cublaslt.choice(splits, terms, results) == chosen


@pytest.mark.parametrize(
    ("said", "workspace", "parts"),
    [(1, 0, 1), (4, 8 << 20, 4), (3, 4096, 3), (-1, 131, 1), (-1, 7_864_963, 2)],
)
def test_what_is_split_as_it_runs_wants_memory_for_parts(
    said: int, workspace: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers are those of algorithms on an H100."""

    def call(name: str, algorithm: Any, number: int, found: Any, *_: Any) -> None:
        assert (name, number) == ("cublasLtMatmulAlgoConfigGetAttribute", 2)
        found._obj.value = said

    monkeypatch.setattr(cublaslt, "call", call)
    algorithm = cublaslt.Heuristic()
    algorithm.workspace = workspace
    assert cublaslt.parts(algorithm) == parts
