"""A capture gives arrays the memory order that NumPy gives them, since sums follow that order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from polynet import get_backend
from polynet_numpy.capture import Capture, Captured
from polynet_numpy.pool import Pool

XP = get_backend("numpy").xp


def part(x, rng):
    """What an index selects along an axis, perhaps nothing."""
    cut = (slice(0, 0), slice(1, 3), slice(None, None, 2), slice(None, None, -1))[rng.integers(4)]
    return x[(*[slice(None)] * axis(rng), cut)]


def joined(x, rng):
    """The array between its own first part, which may be empty, and its mirror image."""
    a = axis(rng)
    first = x[(*[slice(None)] * a, slice(0, rng.integers(2)))]
    return np.concatenate([first, x, np.flip(x, a)], axis=a)


def axis(rng):
    return int(rng.integers(3))


STEPS = {
    "part": part,
    "joined": joined,
    "permuted": lambda x, rng: np.permute_dims(x, rng.permutation(3)),
    "flipped": lambda x, rng: np.flip(x, axis(rng)),
    "scaled": lambda x, rng: x * 1.5,
    "chosen": lambda x, rng: XP.where(x > 0, x, 0.1 * x),
    "summed": lambda x, rng: np.sum(x, axis=axis(rng), keepdims=True),
    "added up": lambda x, rng: np.cumsum(x, axis=axis(rng)),
    "spread": lambda x, rng: x + np.sum(x, axis=axis(rng), keepdims=True),
    "sorted": lambda x, rng: XP.sort(x, axis=axis(rng)),
    "rows": lambda x, rng: x.reshape(1, x.shape[0] * x.shape[1], x.shape[2]),
    "product": lambda x, rng: np.matmul(x, np.ones((x.shape[2], 2))),
}
PROGRAMS = st.lists(
    st.tuples(st.sampled_from(list(STEPS)), st.integers(0, 20)), min_size=1, max_size=7
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(PROGRAMS)
def test_captured_arrays_have_numpys_numbers_and_memory_order(program):
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    capture, pairs = Capture(Pool(), XP), [(Captured(x, None), x)]
    with capture.on():
        for name, seed in program:
            found, expected = (STEPS[name](a, np.random.default_rng(seed)) for a in pairs[-1])
            pairs.append((found, expected))
    for call in capture.calls:
        call()
    assert pairs[-1][0].array.tobytes() == pairs[-1][1].tobytes()
    assert [a.array.strides for a, _ in pairs] == [a.strides for _, a in pairs]
