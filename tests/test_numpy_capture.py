"""What NumPy's captures hold: the calls of array code, replayed with other numbers."""

import copy
from functools import partial
from itertools import pairwise

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from polynet import get_backend
from polynet.backend import overwrite_count
from polynet_numpy.capture import Capture, Captured, Uncapturable
from polynet_numpy.pool import ALIGNED, Pool

NUMPY = get_backend("numpy")
LINALG = NUMPY.xp.linalg
RNG = np.random.default_rng(3)


@pytest.fixture
def capture():
    found = Capture(Pool(), NUMPY.xp)
    with found.on():
        yield found


def given(*arrays):
    return [Captured(a, None) for a in arrays]


FUNCTIONS = {
    "operators": lambda x, y: (x + y) * 2 - x / (y * y + 1),
    "out of range": lambda x, y: (x.astype(np.int8) != 300) + y,
    "comparisons": lambda x, y: (x > y) & ~(x <= 0),
    "product": lambda x, y: x @ y.T,
    "by place": lambda x, y: np.sum(x, 1) + np.max(y, 1) + np.clip(x, 0, 1)[:, 0],
    "powers": lambda x, y: x**2 + np.abs(y) ** 0.5 + y**3.0,
    "sums": lambda x, y: np.sum(x, axis=0) + y.mean(axis=0, keepdims=True) + np.max(x * y),
    "one number": lambda x, y: x[0, 1] * y + x[1][2],
    "by name": lambda x, y: np.sum(x, axis=0, where=x > y) + np.clip(x, a_min=None, a_max=y),
    "parts": lambda x, y: x[1:, ::2] + y[:-1, ::2],
    "chosen": lambda x, y: np.where(x > y, x, 0) + np.take(y, np.asarray([2, 0, 1]), axis=0),
    "masked": lambda x, y: x[np.asarray([True, False, True])],
    "reshaped, without numbers": lambda x, y: np.sum(x[:0].reshape(4, 0) + 1, axis=1) + y,
    "joined to no numbers": lambda x, y: np.concatenate(
        [x.reshape(3, 2, 2).T[:, :0], y.reshape(3, 2, 2).T], axis=1
    ),
    "joined": lambda x, y: np.concatenate([x, y], axis=1).reshape(2, -1).T,
    "cast": lambda x, y: (x > 0).astype(np.int64) + y.astype("int64"),
    "filled": lambda x, y: np.zeros_like(x) + np.ones_like(y) + np.full_like(x, 3),
    "several": lambda x, y: np.modf(x)[0] + np.modf(y)[1],
    "accumulated": lambda x, y: np.add.accumulate(x, axis=1) + np.cumsum(y, axis=0),
    "sorted": lambda x, y: np.sort(x, axis=1) + np.take_along_axis(y, np.argsort(x), axis=1),
    "solved": lambda x, y: LINALG.solve(LINALG.cholesky(x @ x.T + np.eye(3, dtype="f")), y[:, 0]),
    "factors": lambda x, y: LINALG.qr(x.T).R + LINALG.trace(y),
    "scaled": lambda x, y: np.linalg.norm(x) * np.float32(2) + 1j * np.abs(np.fft.fft(y)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_replay_computes_of_other_numbers_what_the_function_does(name, capture):
    x, y = RNG.normal(size=(2, 3, 4)).astype("float32")
    f = FUNCTIONS[name]
    result = f(*given(x, y))
    for _ in range(2):
        expected = f(np.array(x), np.array(y))
        assert result.array.dtype == expected.dtype
        assert result.array.strides == expected.strides  # so that sums over it have its order
        np.testing.assert_array_equal(result.array, expected)
        x[...], y[...] = RNG.normal(size=(2, 3, 4))
        for call in capture.calls:
            call()


def test_calls_write_their_results_in_place_and_have_their_numbers_as_arrays(capture):
    """As NumPy takes least time; what cannot be called so is called as it was."""
    x, n = given(np.ones((3, 4), np.float32), np.arange(4))
    results = [x + 1, x * 2.5, n - 3, np.sum(x, axis=0), np.add.reduce(x), n * 2.5, x + n]
    add, subtract, multiply = (f.__call__ for f in (np.add, np.subtract, np.multiply))
    functions = [add, multiply, subtract, np.sum, np.add.reduce, multiply, add]
    assert [call.func for call in capture.calls] == functions
    assert all(c.keywords["out"] is y.array for c, y in zip(capture.calls, results, strict=True))
    numbers = [call.args[1] for call in capture.calls[:3]]
    assert [(type(a), a.dtype, a) for a in numbers] == [
        (np.ndarray, np.float32, 1),
        (np.ndarray, np.float32, 2.5),
        (np.ndarray, np.int64, 3),
    ]
    assert type(capture.calls[5].args[1]) is float, "an integer would round it"


def test_what_is_known_of_an_array_is_no_call(capture):
    x, n = given(np.ones((3, 4), np.float32), np.arange(4))
    assert (np.shape(x), np.ndim(x), np.size(x, axis=1)) == ((3, 4), 2, 4)
    assert np.can_cast(x, np.float64, casting="safe")
    assert np.result_type(x, n) == np.float64
    assert x.__array_namespace__() is NUMPY.xp
    assert capture.calls == []


LAYOUTS = {
    "in order": (lambda a: a, True),
    "transposed": (lambda a: a.transpose(2, 0, 1), True),
    "columns": (np.asfortranarray, True),
    "one of an axis": (lambda a: a[1:2], True),
    "one of two axes": (lambda a: a[:1, :1], True),
    "none of an axis": (lambda a: a[:0], True),
    "with gaps": (lambda a: a[:, ::2], False),
    "part of the rows": (lambda a: a[:, :, :1], False),
    "backwards": (lambda a: a[::-1], False),
    "repeated": (lambda a: np.broadcast_to(a[:, :, :1], (3, 4, 5)), False),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_array_like_another_lies_as_that_does_where_it_has_no_gaps(name, capture):
    layout, kept = LAYOUTS[name]
    array = layout(np.ones((3, 4, 5), np.float32))
    like = capture.like(array).array
    assert (like.shape, like.dtype) == (array.shape, array.dtype)
    assert like.strides == (array if kept else np.empty(array.shape, np.float32)).strides


def test_einsum_adds_up_what_is_flipped_in_its_own_order(capture):
    """The capture sees ones, whose sum is the same in every order."""
    x = np.ones((8, 17), "float32")
    result = np.einsum("ab->a", given(x)[0][:, ::-1])
    x[...] = RNG.normal(size=x.shape)
    for call in capture.calls:
        call()
    np.testing.assert_array_equal(result.array, np.einsum("ab->a", x[:, ::-1]))


def test_what_is_written_in_place(capture):
    x, y = RNG.normal(size=(2, 3, 4)).astype("float32")
    a, b = given(x, y)
    z = a * 1
    z += b
    z[0, ...] = b[1, ...]
    np.copyto(z[2, ...], 5)
    np.add(z, 1, out=z)
    for _ in range(2):
        expected = x + y
        expected[0] = y[1]
        expected[2] = 5
        np.testing.assert_array_equal(z.array, expected + 1)
        x[...], y[...] = RNG.normal(size=(2, 3, 4))
        for call in capture.calls:
            call()


def writes(y):
    """What writes to arrays that were computed, by whichever way NumPy has."""
    np.clip(y, -1, 1, y)
    np.nan_to_num(y[0], copy=False)
    y[1].sort()
    np.fill_diagonal(y[:, :3], 7)
    np.put_along_axis(y, np.asarray([[0]]), 3, axis=1)
    np.add.at(y, np.asarray([0, 2, 0]), y[2])
    z = copy.copy(y)
    z += copy.deepcopy(y)
    return z + y


def constants(x):
    t = np.zeros(x.shape, x.dtype)
    y = np.where(x > 0, t, x)
    z = np.concatenate([x, t]) + np.concatenate((t, x)) + np.clip(x, t, a_max=t)[:1]
    t += 1
    return np.concatenate([z, y + t * x])


def methods(x):
    """Methods that take their arguments in several ways, copy, or write in place."""
    y = x * 2
    y[0].fill(3)
    y.sort(0)
    flat, twin, deep = y.flatten(), copy.copy(y), copy.deepcopy(y)
    for copied in (flat, twin, deep):
        copied += 1
    assert y.astype(y.dtype, copy=False) is y
    assert y.astype(y.dtype) is not y
    assert y.astype("float64", copy=False).dtype == "float64"
    assert y.copy("F").flags.f_contiguous
    assert y.T.copy().flags.c_contiguous
    assert len(y) == len(list(y)) == 3
    total = np.sum(y, axis=0, out=np.empty_like(y)[0])
    turned = [y.transpose(), y.transpose(1, 0), y.transpose((1, 0)), y.transpose(None)]
    turned.append(y[None].transpose(2, 1, 0)[..., 0])
    turned.append(y[None].transpose(1, 2, 0)[..., 0].T)
    shapes = [y.reshape(4, 3), y.reshape((4, 3)), y.reshape(4, 3, order="F"), y.conj().T]
    parts = [*turned, *shapes, flat.reshape(4, 3), y.flatten("F").reshape(4, 3), twin.T, deep.T]
    return np.stack([*parts, (y + sum(y) + total).T, y.view("int32").astype("float32").T])


ARRAY_CODE = {
    "written": lambda x: writes(x * 2),
    "constants": constants,
    "methods": methods,
    "looked up": lambda x: NUMPY.xp.take(np.arange(9.0), NUMPY.xp.argsort(x[0]), axis=0),
    "listed": lambda x: np.take(x, [1, 0, 3], axis=1) + np.ldexp(x, 2)[:, :3],
    "flat": lambda x: x.flatten() + x.conj().reshape(-1) + x.astype("float64", order="F").sum(),
}


@pytest.mark.parametrize("name", ARRAY_CODE)
def test_array_code_is_replayed_with_other_numbers(name, capture):
    x = RNG.normal(size=(3, 4)).astype("float32")
    result = ARRAY_CODE[name](*given(x))
    for _ in range(3):
        np.testing.assert_array_equal(result.array, ARRAY_CODE[name](np.array(x)))
        x[...] = RNG.normal(size=(3, 4))
        for call in capture.calls:
            call()


def test_a_replay_warns_as_little_as_the_step(capture):
    x = np.ones(3, np.float32)
    with np.errstate(divide="ignore"):
        y = np.log(*given(x))
    x[0] = 0
    with np.errstate(all="raise"):
        for call in capture.calls:
            call()
    assert y.array[0] == -np.inf
    with pytest.warns(RuntimeWarning, match="divide by zero") as told:
        np.log(*given(x))
    assert len(told) == 1, "though it is computed twice, to see whether that writes in place"


def over(capture, x, y, state):
    capture.repeat(lambda a, out: partial(np.copyto, out, a), (y, state), over=True)


def written(capture, x, y, state):
    capture.write(state.array, y)


def now(capture, x, y, state):
    capture.repeat(lambda a, out: partial(np.add, a, 1, out=out), (x, y))
    assert y.array.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("acts", "writes"),
    [([over], 1), ([written], 1), ([over, now, written, over], 1), ([now], 0)],
)
def test_what_writes_over_the_state_is_left_to_replays_and_announced_once(acts, writes, capture):
    state = np.zeros(3)
    x, first = given(np.ones(3), state)
    y = x + 1
    for act in acts:
        act(capture, x, y, first)
    assert not state.any()
    before = overwrite_count()
    for call in capture.calls:
        call()
        assert not state.any() or overwrite_count() == before + 1
    assert overwrite_count() == before + writes
    assert state.tolist() == [2 * writes] * 3


def test_elements_that_loops_could_take_are_counted(capture):
    x, y = given(np.ones(3), np.ones((2, 3)))
    capture.repeat(lambda rows, number: lambda: None, ([x, y], 2))
    assert capture.elements == 9
    capture.repeat(lambda rows, number: lambda: None, ([x, y], 2), by_loops=False)
    assert capture.elements == 9


READS = {
    "float": lambda x: float(x[0, 0]),
    "int": lambda x: int(x[0, 0]),
    "if": lambda x: bool(x[0, 0]),
    "asarray": np.asarray,
    "item": lambda x: x[0, 0].item(),
    "where": lambda x: np.where(x > 0),
    "unique": np.unique,
    "a mask": lambda x: x[x > 0],
    "equal": lambda x: np.array_equal(x, x),
    "a part of an array": lambda x: np.zeros(4).__setitem__(0, x[0, 0]),
    "into an array by a function": lambda x: np.sum(x, axis=0, out=np.zeros(4)),
    "into the state by a function": lambda x: np.sum(x[:1], axis=0, out=x[1]),
    "into the state by its name": lambda x: np.copyto(x, 0),
    "sorting the state": lambda x: x.sort(),
    "filling the state": lambda x: x.fill(0),
    "into an array": lambda x: np.add(x, 1, out=np.zeros((3, 4))),
    "into the state": lambda x: x.__iadd__(1),
    "into a part of the state": lambda x: x.__setitem__(0, 1),
    "into a constant": lambda x: np.add(1, 1, out=np.ones_like(x[0, 0])),
}


@pytest.mark.parametrize("name", READS)
def test_what_no_replay_could_repeat_is_refused(name, capture):
    with pytest.raises((Uncapturable, ValueError)) as caught:
        READS[name](*given(np.ones((3, 4))))
    error = caught.value
    assert isinstance(error, Uncapturable) or isinstance(error.__cause__, Uncapturable)


def test_an_array_that_outlives_its_capture_says_so():
    found = Capture(Pool(), NUMPY.xp)
    with found.on():
        y = given(np.ones(3))[0] + 1
    for use in (lambda: y + 1, y.__array_namespace__):
        with pytest.raises(Uncapturable, match="used after it"):
            use()


# The pool


@hypothesis.given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.integers(1, 600)),
            st.tuples(st.just("drop"), st.integers(0, 99)),
        )
    )
)
@hypothesis.settings(deadline=None)
def test_blocks_in_use_are_apart_and_free_ones_come_again(acts):
    """A free block is taken where one fits, the smallest; it is at most twice as large."""
    pool, blocks = Pool(), []
    for act, number in acts:
        if act == "drop":
            del blocks[number % len(blocks) if blocks else slice(0)]
            continue
        free = [b.nbytes for b in pool.free]
        fits = [n for n in free if number <= n <= 2 * number + ALIGNED]
        blocks.append(pool.take(number))
        size = blocks[-1].memory.nbytes
        assert size == min(fits, default=number)
        assert sorted([*(b.nbytes for b in pool.free), *([size] if fits else [])]) == sorted(free)
        places = sorted((b.memory.ctypes.data, b.memory.nbytes) for b in blocks)
        assert all(start % ALIGNED == 0 for start, _ in places)
        assert all(a + n <= b for (a, n), (b, _) in pairwise(places))


@pytest.mark.parametrize(
    ("free", "again"),
    [(99, False), (100, True), (2 * 100 + ALIGNED, True), (2 * 100 + ALIGNED + 1, False)],
)
def test_a_free_block_comes_again_where_it_fits(free, again):
    pool = Pool()
    pool.take(free)  # which nobody keeps
    block = pool.take(100)
    assert (block.memory.nbytes == free) == (pool.free == []) == again


def test_of_equal_blocks_the_one_used_last_comes_first():
    """It is the likeliest to be in the cache."""
    pool = Pool()
    first, second = pool.take(100), pool.take(100)
    place = first.memory.ctypes.data
    del second, first
    assert pool.take(100).memory.ctypes.data == place


def test_memory_comes_again_once_nobody_has_it(capture):
    first = capture.empty((64, 256), "float32")
    place = first.array.ctypes.data
    assert place % 64 == 0
    assert capture.empty((64, 256), "float32").array.ctypes.data != place
    del first
    assert capture.empty((64, 256), "float32").array.ctypes.data == place


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[3:],
        lambda a: a.T,
        lambda a: a.reshape(-1)[::2],
        lambda a: a.view("int32"),
        lambda a: [{"deep": a}],
        lambda a: lambda: a,
    ],
    ids=["part", "transpose", "view of a view", "as integers", "in a list", "closure"],
)
def test_memory_with_a_view_is_in_use(view, capture):
    kept = view(capture.empty((64, 256), "float32"))
    others = [capture.empty((64, 256), "float32") for _ in range(3)]
    places = {a.array.ctypes.data for a in others}
    assert len(places) == 3
    del kept
    assert capture.empty((64, 256), "float32").array.ctypes.data not in places
