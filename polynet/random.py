"""Counter-based random numbers, bit-identical on every backend.

The generator is Threefry2x32-20 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
SC 2011), as in JAX. It consists of additions, exclusive ors and rotations of 32-bit integers that
wrap around, which every library has. A number is a function of a key and a counter; there is no
state. A key is made from a seed and names, so that every parameter, epoch and dropout layer has a
stream of its own.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import array_api_compat
import numpy as np

from polynet.backend import Array
from polynet.integers import integer
from polynet.tensor.composition import composition
from polynet.tensor.rules import told

__all__ = [
    "SampleStream",
    "bits",
    "draw_normal",
    "draw_uniform",
    "keep_mask",
    "key",
    "normal",
    "permutation",
    "threefry2x32",
    "uniform",
]

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
HALVES_PER_BLOCK = 4
"""A block of 64 random bits serves four elements of a dropout mask."""


@told
def key(seed: int, *names: str | int) -> np.ndarray:
    """The key, int32 of shape (2,), of the stream that belongs to `names` and `seed`.

    Raises TypeError for a seed that is not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"a seed is an integer; got {seed!r}")
    text = "/".join([str(int(seed)), *map(str, names)])
    digest = hashlib.sha256(text.encode()).digest()
    return np.frombuffer(digest[:8], dtype="<i4").astype(np.int32)


def threefry2x32(key: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Two words of random bits for each pair of counters; all int32, `key` of shape (2,).

    It is plain array code: `x0` and `x1` broadcast, on any backend.
    """
    k0, k1 = key[0:1], key[1:2]
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    x0 = x0 + k0
    x1 = x1 + k1
    for turn in range(5):
        for r in ROTATIONS[turn % 2]:
            x0 = x0 + x1
            x1 = ((x1 << r) | ((x1 >> (32 - r)) & ((1 << r) - 1))) ^ x0
        x0 = x0 + keys[(turn + 1) % 3]
        x1 = x1 + keys[(turn + 2) % 3] + (turn + 1)
    return x0, x1


@composition
def keep_mask(
    xp: Any, key: Array, step: Array, /, *, shape: tuple[int, ...], keep: float, first: int = 0
) -> Array:
    """A boolean mask that is true with probability `keep`, in steps of 2**-16.

    The first axis of `shape` counts samples. An element depends on `key`, `step` (int32 of shape
    (1,)), the sample's position in the step (`first` + its row) and the element's place within the
    sample. It depends on nothing else, so a batch may be split anywhere. A backend's kernel of this
    name returns the same bits.
    """
    rows, size = shape[0], math.prod(shape[1:])
    blocks = -(-size // HALVES_PER_BLOCK)
    low, high = _words(xp, key, step, rows, blocks, first)
    halves = xp.stack([low, low >> 16, high, high >> 16], axis=-1) & 0xFFFF
    flat = xp.reshape(halves, (rows, blocks * HALVES_PER_BLOCK))[:, :size]
    return xp.reshape(flat < round(keep * 65536), shape)


def draw_uniform(
    xp: Any, key: Array, step: Array, *, shape: tuple[int, ...], dtype: Any, first: int = 0
) -> Array:
    """Numbers in [0, 1), multiples of 2**-24, float32 or float64; the same on every backend.

    As with `keep_mask`, a number depends only on `key`, `step`, the sample's position in the step
    and the number's place in the sample.
    """
    return _side_by_side(xp, _uniform_pairs(xp, key, step, shape, dtype, first), shape)


def draw_normal(
    xp: Any, key: Array, step: Array, *, shape: tuple[int, ...], dtype: Any, first: int = 0
) -> Array:
    """Standard normal numbers, made from those of `draw_uniform` (Box and Muller, as in `normal`).

    On different backends they may differ in the last place, as the libraries' logarithms do.
    """
    u, v = _uniform_pairs(xp, key, step, shape, dtype, first)
    radius, angle = _polar(xp, u, v)
    return _side_by_side(xp, (radius * xp.cos(angle), radius * xp.sin(angle)), shape)


def _uniform_pairs(
    xp: Any, key: Array, step: Array, shape: tuple[int, ...], dtype: Any, first: int
) -> tuple[Array, Array]:
    """Two arrays of uniform numbers, which fill two places of a sample from each block of bits."""
    if dtype not in [getattr(xp, name) for name in ("float32", "float64") if hasattr(xp, name)]:
        raise TypeError(
            f"random numbers are float32 or float64; got {dtype}: draw one of these and convert it"
        )
    if not shape:
        raise ValueError("random numbers are drawn for samples, along the first axis; got shape ()")
    low, high = _words(xp, key, step, shape[0], -(-math.prod(shape[1:]) // 2), first)
    return _fractions(xp, low, dtype), _fractions(xp, high, dtype)


def _words(
    xp: Any, key: Array, step: Array, rows: int, blocks: int, first: int
) -> tuple[Array, Array]:
    """The two words of each block of random bits; each of `rows` samples has `blocks` blocks."""
    device = array_api_compat.device(step)
    counters = xp.arange(rows * blocks, dtype=xp.int32, device=device)
    if type(first) is not int:  # a traced int32, which has no truth value, and wraps around
        counters = counters + first * blocks
    elif first:
        counters = counters + ((first * blocks + 2**31) % 2**32 - 2**31)
    return threefry2x32(key, counters, step)


def _fractions(xp: Any, words: Array, dtype: Any) -> Array:
    """Words of random bits as numbers in [0, 1), multiples of 2**-24."""
    return xp.astype((words >> 8) & 0xFFFFFF, dtype) * 2.0**-24


def _polar(xp: Any, u: Array, v: Array) -> tuple[Array, Array]:
    """Radii and angles of pairs of normal numbers, from pairs of uniform ones (Box and Muller)."""
    return xp.sqrt(-2.0 * xp.log1p(-u)), v * (2.0 * math.pi)


def _side_by_side(xp: Any, pairs: tuple[Array, Array], shape: tuple[int, ...]) -> Array:
    """The two numbers of each block side by side, a row for each sample, reshaped to `shape`."""
    size = math.prod(shape[1:])
    rows = xp.reshape(xp.stack(list(pairs), axis=-1), (shape[0], size + size % 2))
    return xp.reshape(rows[:, :size], shape)


# On the host


def _counted(name: str, key: Any, count: Any) -> int:
    """How many numbers are to be drawn, once it and the key are known to be what they must be."""
    if getattr(key, "shape", None) != (2,) or key.dtype != np.int32:
        raise TypeError(
            f"random.{name}: a key is an int32 array of shape (2,), which random.key(seed) makes; "
            f"got {key!r}"
        )
    number = integer(count, least=0)
    if number is None:
        raise ValueError(
            f"random.{name}: count is an integer, at least 0; got {count!r}. For a shape, draw "
            f"that many and reshape them: random.{name}(key, 12).reshape(3, 4)"
        )
    return number


@told
def bits(key: np.ndarray, count: int) -> np.ndarray:
    """`count` words of 32 random bits, as int32.

    Raises TypeError for what is no key, ValueError for a `count` that is no integer from 0.
    """
    count = _counted("bits", key, count)
    blocks = np.arange(-(-count // 2), dtype=np.int32)
    pair = threefry2x32(key, blocks, np.zeros(1, dtype=np.int32))
    return np.stack(pair, axis=-1).reshape(-1)[:count]


@told
def uniform(key: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), multiples of 2**-24, as float64; errors as of `bits`."""
    return _doubles(bits(key, _counted("uniform", key, count)))


def _doubles(words: np.ndarray) -> np.ndarray:
    """`_fractions` as float64; np itself is a namespace with `astype` only from NumPy 2.1 on."""
    return _fractions(array_api_compat.array_namespace(words), words, np.float64)


@told
def normal(key: np.ndarray, count: int) -> np.ndarray:
    """`count` standard normal numbers, as float64; errors as of `bits`.

    Where a processor or system has another logarithm or cosine, they may differ in the last place,
    which rounding to float32 nearly always hides. All other numbers here are the same everywhere.

    Box and Muller, "A Note on the Generation of Random Normal Deviates" (1958).
    """
    count = _counted("normal", key, count)
    pairs = -(-count // 2)
    u = uniform(key, 2 * pairs)
    radius, angle = _polar(np, u[:pairs], u[pairs:])
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


@told
def permutation(key: np.ndarray, count: int) -> np.ndarray:
    """The numbers 0 to `count` - 1 in random order, as int64; errors as of `bits`."""
    count = _counted("permutation", key, count)
    words = bits(key, 2 * count).reshape(count, 2).astype(np.int64)
    return np.argsort((words[:, 0] << 32) ^ (words[:, 1] & 0xFFFFFFFF), kind="stable")


class SampleStream:
    """Random numbers for the samples of a batch, drawn as from a NumPy Generator.

    A sample's numbers depend on the key, on its index in the data set, and on how many numbers
    were drawn for it before. They do not depend on the batch, nor on the thread that draws.

    >>> both = SampleStream(key(0), np.asarray([4, 7])).random((2, 3))
    >>> alone = SampleStream(key(0), np.asarray([7])).random((1, 3))
    >>> bool((both[1] == alone[0]).all())
    True
    """

    def __init__(self, key: np.ndarray, samples: np.ndarray) -> None:
        self._key = key
        self._samples = samples.astype(np.int32)
        self._drawn = 0

    def random(self, size: int | tuple[int, ...]) -> np.ndarray:
        """Numbers in [0, 1), float64; the first axis of `size` counts the samples of the batch."""
        return self._uniform(size if isinstance(size, tuple) else (size,))

    def standard_normal(self, size: int | tuple[int, ...]) -> np.ndarray:
        """Standard normal numbers, float64, of shape `size` (Box and Muller, as in `normal`)."""
        shape = size if isinstance(size, tuple) else (size,)
        radius, angle = _polar(np, self._uniform(shape), self._uniform(shape))
        return radius * np.cos(angle)

    def _uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        if not shape or shape[0] != len(self._samples):
            raise ValueError(
                f"this stream draws for {len(self._samples)} samples, along the first axis; got "
                f"the size {shape}"
            )
        each = math.prod(shape[1:])
        blocks = np.arange(self._drawn, self._drawn + -(-each // 2), dtype=np.int32)
        self._drawn += len(blocks)
        pair = threefry2x32(self._key, self._samples[:, None], blocks[None, :])
        words = np.stack(pair, axis=-1).reshape(len(self._samples), -1)[:, :each]
        return _doubles(words).reshape(shape)
