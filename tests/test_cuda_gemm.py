"""How CuPy's plug-in asks cuBLASLt for a product: when algorithms are timed, and what fails.

A class on the host takes the place of CuPy and cuBLASLt, and computes products from addresses.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from polynet_cupy import cublaslt, tuning
from polynet_cupy.products import Operand, Product


class OnDevice(np.ndarray):
    """An array whose memory has an address, as the arrays of CuPy have."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


def on_device(x: Any) -> OnDevice:
    return np.ascontiguousarray(x).view(OnDevice)


class Device:
    """The parts of CuPy and cuBLASLt that `Gemm` uses; products are computed from addresses.

    There are three algorithms, and the second one is the fastest. The first word of an algorithm
    holds its number.
    """

    TIMES = (3.0, 1.0, 2.0)

    def __init__(self, how: Product) -> None:
        self.how = how
        self.capturing, self.full, self.now = False, False, 0.0
        self.broken: set[int] = set()
        self.lose_nan: set[int] = set()
        self.allocators: list[str] = ["the user's"]
        self.bias: np.ndarray | None = None
        self.used: list[int] = []
        stream = SimpleNamespace(ptr=0, is_capturing=lambda: self.capturing)
        device = self

        class Event:
            def record(self) -> None:
                self.at = device.now

            def synchronize(self) -> None:
                pass

        self.cupy = SimpleNamespace(
            tile=lambda a, n: on_device(np.tile(a, n)), asarray=on_device,
            array_equal=np.array_equal, empty=lambda n, dtype: on_device(np.empty(n, dtype)),
            full=lambda *given, dtype: on_device(np.full(*given, dtype)), isnan=np.isnan,
            cuda=SimpleNamespace(
                runtime=SimpleNamespace(getDevice=lambda: 0, memGetInfo=self.memory),
                get_current_stream=lambda: stream, Event=Event,
                alloc=lambda size: SimpleNamespace(ptr=0),
                MemoryPool=lambda: SimpleNamespace(malloc="its own"),
                using_allocator=self.using_allocator,
                get_elapsed_time=lambda start, end: (end.at - start.at) / 1e3,
            ),
        )  # fmt: skip

    @contextmanager
    def using_allocator(self, allocator: str) -> Iterator[None]:
        self.allocators.append(allocator)
        yield
        self.allocators.pop()

    def memory(self) -> tuple[int, int]:
        if self.full:
            raise RuntimeError("cudaErrorMemoryAllocation: out of memory")
        return 1 << 40, 1 << 40

    def call(self, name: str, *args: Any) -> None:
        assert name == "cublasLtMatmul"
        y, x, out = (args[i].value for i in (3, 5, 8))
        number = args[-4]._obj[0]
        self.used.append(number)
        if number in self.broken:
            raise RuntimeError("cublasLtMatmul answered 13, CUBLAS_STATUS_EXECUTION_FAILED")
        self.now += self.TIMES[number]
        how, real = self.how, ctypes.c_float
        left, right = (
            np.ctypeslib.as_array((real * (rows * columns)).from_address(at)).reshape(rows, columns)
            for at, rows, columns in ((x, how.m, how.k), (y, how.k, how.n))
        )
        into = np.ctypeslib.as_array((real * (how.m * how.n)).from_address(out))
        found = left @ right + (0 if self.bias is None else self.bias)
        if args[1] == "with ReLU":
            found = np.fmax(found, 0) if number in self.lose_nan else np.maximum(found, 0)
        into[...] = found.reshape(-1)


M, K, N = 32, 8, 16


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    operands = Operand(False, K, M * K, aligned=256), Operand(False, N, K * N, aligned=256)
    how = Product("float32", 1, M, N, K, *operands, bias=True)
    device = Device(how)
    monkeypatch.setitem(sys.modules, "cupy", device.cupy)
    monkeypatch.setattr(cublaslt, "call", device.call)
    monkeypatch.setattr(cublaslt, "launch", lambda *args: None)
    monkeypatch.setattr(cublaslt, "_set_bias", lambda d, bias: setattr(device, "bias", bias))
    monkeypatch.setattr(tuning, "WORTH", M * K * N)
    return device


@pytest.fixture
def gemm(device: Device) -> cublaslt.Gemm:
    """A `Gemm` in which the product has a plan already, with the third algorithm chosen."""
    gemm = cublaslt.Gemm()
    algorithms = [cublaslt.Heuristic() for _ in range(3)]
    for number, algorithm in enumerate(algorithms):
        algorithm.algorithm[0] = number
    gemm._handles[0] = ctypes.c_void_p()
    for how, matmul in ((device.how, "plain"), (device.how._replace(relu=True), "with ReLU")):
        told = SimpleNamespace(matmul=matmul, a=None, b=None, d=None, number=ctypes.c_float)
        gemm._plans[0, how] = cublaslt.Plan(told, algorithms[2], algorithms)
    return gemm


def used(gemm: cublaslt.Gemm, device: Device, *, relu: bool = False) -> list[int]:
    """The algorithms that one call uses; its result must be right, whatever was tried before."""
    device.used = []
    rng = np.random.default_rng(len(device.used))
    x, y, bias = (on_device(rng.normal(size=s).astype("f4")) for s in ((M, K), (K, N), (N,)))
    out = on_device(np.zeros((M, N), np.float32))
    done = gemm(device.how._replace(relu=relu), 0, out, x, y, bias)
    expected = x @ y + bias
    expected = np.maximum(expected, 0) if done.relu else expected
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    device.with_relu = done.relu
    return device.used


def test_a_product_is_timed_when_it_comes_again(gemm: cublaslt.Gemm, device: Device) -> None:
    """It is timed at the third call; from then on the fastest algorithm is used."""
    assert [used(gemm, device) for _ in range(2)] == [[2], [2]]
    tried = used(gemm, device)
    assert set(tried) == {0, 1, 2}
    assert tried[-1] == 1
    assert used(gemm, device) == [1]


def test_the_clock_is_the_device_s(device: Device) -> None:
    def work() -> None:
        device.now += 3.0

    assert cublaslt.microseconds(work, 5) == pytest.approx(3.0)


def test_nothing_is_timed_during_a_capture(gemm: cublaslt.Gemm, device: Device) -> None:
    device.capturing = True
    assert [used(gemm, device) for _ in range(4)] == [[2]] * 4
    device.capturing = False
    assert len(used(gemm, device)) > 1
    assert used(gemm, device) == [1]


def test_what_the_library_cannot_run_is_passed_by(
    gemm: cublaslt.Gemm, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is found out once: later calls take an algorithm that runs. If none runs, an error."""
    monkeypatch.setattr(tuning, "TIMED_AT", 99)
    device.broken = {0, 2}
    assert used(gemm, device) == [2, 0, 1]
    assert used(gemm, device) == [1]
    device.broken = {0, 1, 2}
    with pytest.raises(RuntimeError, match="EXECUTION_FAILED"):
        used(gemm, device)
    assert device.used == [1, 0, 2]


def test_nothing_else_is_tried_during_a_capture(gemm: cublaslt.Gemm, device: Device) -> None:
    device.broken, device.capturing = {2}, True
    with pytest.raises(RuntimeError, match="EXECUTION_FAILED"):
        used(gemm, device)
    assert device.used == [2]


def test_numbers_to_try_are_from_memory_that_is_given_back(
    gemm: cublaslt.Gemm, device: Device
) -> None:
    """The user's pool may have a limit, and would keep the memory."""
    seen, plain = [], device.call

    def call(name: str, *args: Any) -> None:
        seen.append(device.allocators[-1])
        plain(name, *args)

    cublaslt.call = call  # the fixture takes it back
    for _ in range(3):
        used(gemm, device)
    assert seen[:2] + seen[-1:] == ["the user's"] * 3
    assert len(seen) > 5
    assert set(seen[2:-1]) == {"its own"}


def test_nothing_small_is_timed(
    gemm: cublaslt.Gemm, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "WORTH", M * K * N + 1)
    assert [used(gemm, device) for _ in range(4)] == [[2]] * 4
    monkeypatch.setattr(tuning, "WORTH", 1)
    monkeypatch.setattr(tuning, "RESULTS", M * N + 1)
    assert used(gemm, device) == [2]


def test_where_there_is_no_room_the_choice_stays(gemm: cublaslt.Gemm, device: Device) -> None:
    device.full = True
    assert [used(gemm, device) for _ in range(3)] == [[2]] * 3
    device.full = False
    assert used(gemm, device) == [2], "it was tried once"


def test_a_bias_of_zeros_hides_nothing(gemm: cublaslt.Gemm, device: Device) -> None:
    """Trials use a random bias. The product itself uses the caller's bias."""
    seen, plain = [], device.call

    def call(name: str, *args: Any) -> None:
        seen.append(np.asarray(device.bias).copy())
        plain(name, *args)

    cublaslt.call = call  # the fixture takes it back
    for _ in range(3):
        used(gemm, device)
    assert len(seen) > 5
    for bias in seen[2:-1]:
        assert len(set(bias.tolist())) == N
        assert not np.array_equal(bias, seen[-1])


# The library's own ReLU


def test_a_relu_is_tried_once_with_what_is_no_number(
    gemm: cublaslt.Gemm, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "TIMED_AT", 99)
    assert used(gemm, device, relu=True) == [2, 2]
    assert device.with_relu
    assert used(gemm, device, relu=True) == [2]
    assert device.with_relu


def test_a_relu_that_loses_nan_is_not_taken(
    gemm: cublaslt.Gemm, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on the product is computed without a ReLU, for which the algorithm may be used."""
    monkeypatch.setattr(tuning, "TIMED_AT", 99)
    device.lose_nan = {2}
    for launches in (2, 1):
        assert used(gemm, device, relu=True) == [2] * launches
        assert not device.with_relu


def test_a_relu_is_tried_again_with_the_algorithm_that_the_clock_takes(
    gemm: cublaslt.Gemm, device: Device
) -> None:
    """If only the earlier one leaves NaN, it is used again, so the bits stay what they were."""
    device.lose_nan = {1}
    for _ in range(4):
        last = used(gemm, device, relu=True)[-1]
        assert (last, device.with_relu) == (2, True)
    device.lose_nan = set()
    assert used(gemm, device, relu=True) == [2]


@pytest.mark.parametrize(("runs", "expected"), [(0, [-1, 2]), (1, [2, -1, 2])])
def test_a_relu_that_cannot_be_run_is_left_to_the_caller(
    runs: int,
    expected: list[int],
    gemm: cublaslt.Gemm,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the trial, and at a later call: no other algorithm has passed the trial."""
    monkeypatch.setattr(tuning, "TIMED_AT", 99)
    plain = device.call

    def call(name: str, *args: Any) -> None:
        if args[1] == "with ReLU" and len(device.used) >= runs:
            device.used.append(-1)
            raise RuntimeError("cublasLtMatmul answered 15, CUBLAS_STATUS_NOT_SUPPORTED")
        plain(name, *args)

    monkeypatch.setattr(cublaslt, "call", call)
    assert used(gemm, device, relu=True) == expected
    assert not device.with_relu
    assert used(gemm, device, relu=True) == [2]


def test_no_relu_is_tried_during_a_capture(gemm: cublaslt.Gemm, device: Device) -> None:
    device.capturing = True
    assert used(gemm, device, relu=True) == [2]
    assert not device.with_relu
    device.capturing = False
    assert used(gemm, device, relu=True) == [2, 2]
    device.capturing = True
    assert used(gemm, device, relu=True) == [2]
    assert device.with_relu


def test_simpler_products() -> None:
    """A ReLU needs a bias before it; a bias may come without a ReLU."""
    operands = Operand(False, K, M * K, aligned=256), Operand(False, N, K * N, aligned=256)
    plain = Product("float32", 1, M, N, K, *operands, bias=False)
    both = plain._replace(bias=True, relu=True)
    assert list(cublaslt._simpler(both)) == [both, both._replace(relu=False), plain]
    assert list(cublaslt._simpler(plain._replace(bias=True))) == [plain._replace(bias=True), plain]
    assert list(cublaslt._simpler(plain._replace(relu=True))) == [plain]
