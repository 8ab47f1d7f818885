"""Splits, batches and random streams: properties that hold for every size and seed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polynet import data, nn, random
from polynet.data.order import varied

DRAWN = [[3189515, 9028243, 10968248, 5045675], [14637524, 2798547, 14397822, 1914908]]
PINNED = [
    "0x1.4fc4dc0000000p-1",
    "-0x1.c61b340000000p-2",
    "-0x1.aece400000000p-2",
    "-0x1.7af6420000000p-3",
]
SEEDS = st.integers(min_value=-(2**70), max_value=2**70)


@given(SEEDS, st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_a_permutation_holds_every_number_once(seed: int, count: int) -> None:
    order = random.permutation(random.key(seed, "p"), count)
    assert sorted(order.tolist()) == list(range(count))


@given(SEEDS, st.integers(1, 200), st.integers(1, 50), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_the_batches_of_an_epoch_hold_every_row_once(
    seed: int, count: int, size: int, epoch: int
) -> None:
    rows = list(data.batches(count, size, seed=seed, epoch=epoch))
    assert sorted(np.concatenate(rows).tolist()) == list(range(count))
    assert all(len(r) == size for r in rows[:-1])
    again = list(data.batches(count, size, seed=seed, epoch=epoch))
    assert all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))


def test_epochs_seeds_and_names_have_streams_of_their_own() -> None:
    keys = {tuple(random.key(s, n)) for s in range(20) for n in ("init", "shuffle", 0, "0/1")}
    assert len(keys) == 20 * 4
    first, second = (next(data.batches(100, 100, seed=0, epoch=e)) for e in (0, 1))
    assert not np.array_equal(first, second)


@given(SEEDS, st.lists(st.integers(2, 40), min_size=1, max_size=4), st.sampled_from([0.25, 0.5]))
@settings(max_examples=40, deadline=None)
def test_a_stratified_split_splits_every_class(
    seed: int, sizes: list[int], fraction: float
) -> None:
    y = np.repeat(np.arange(len(sizes)), sizes)
    x = np.arange(len(y))
    assume(round(len(y) * fraction))
    (kept, kept_y), (held, held_y) = data.split(x, y, fraction, seed=seed, stratify=True)
    assert sorted([*kept, *held]) == x.tolist()
    assert np.array_equal(y[kept], kept_y)
    assert np.array_equal(y[held], held_y)
    assert len(held) == round(len(y) * fraction)
    for k, n in enumerate(sizes):
        assert abs(np.sum(held_y == k) - n * fraction) < 1


def test_rows_of_targets_are_classes_too() -> None:
    labels = np.repeat(np.arange(3), [4, 8, 12])
    rows = np.eye(3)[labels]
    (_, kept), (_, held) = data.split(np.arange(24), rows, 0.25, stratify=True)
    assert (kept.sum(axis=0).tolist(), held.sum(axis=0).tolist()) == ([3, 6, 9], [1, 2, 3])


@pytest.mark.parametrize("fraction", [-0.2, 0.0, 1.0, 1.2])
def test_a_split_has_two_sides(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"held out is between 0 and 1; got {fraction}$"):
        data.split(np.arange(9), np.arange(9), fraction)
    with pytest.raises(ValueError, match=r"0\.2 of 2 samples leaves one side empty"):
        data.split(np.arange(2), np.arange(2), 0.2)


def test_a_split_is_not_the_last_rows() -> None:
    (_, _), (held, _) = data.split(np.arange(100), np.zeros(100), 0.2)
    assert not np.array_equal(np.sort(held), np.arange(80, 100))


@pytest.mark.parametrize(
    "targets", [np.asarray([5.0, 5.0, 1.0]), np.asarray([[5, 5], [5, 5], [1, 1]])], ids=str
)
def test_targets_that_are_no_labels_vary_as_they_come(targets: np.ndarray) -> None:
    assert varied(targets, 2).tolist() == [0, 1]
    assert varied({"y": targets, "label": np.asarray([3, 3, 0])}, 2).tolist() == [2, 0]


def test_uniform_numbers_are_uniform() -> None:
    u = random.uniform(random.key(1), 100_000)
    assert u.min() >= 0
    assert u.max() < 1
    counts, _ = np.histogram(u, bins=20, range=(0, 1))
    chi_square = ((counts - 5000) ** 2 / 5000).sum()
    assert chi_square < 43.8  # the 0.999 quantile of chi-square with 19 degrees of freedom


def test_normal_numbers_are_normal() -> None:
    z = random.normal(random.key(2), 100_001)
    assert abs(z.mean()) < 0.015
    assert abs(z.std() - 1) < 0.01
    assert abs((z**3).mean()) < 0.05
    assert abs((z**4).mean() - 3) < 0.1


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.8])
def test_masks_keep_their_share(keep: float) -> None:
    with np.errstate(over="ignore"):
        mask = random.keep_mask(
            random.key(3), np.zeros(1, dtype=np.int32), shape=(500, 200), keep=keep
        )
    assert mask.mean() == pytest.approx(keep, abs=5 * np.sqrt(keep * (1 - keep) / 1e5))


def test_a_mask_that_keeps_nothing_keeps_no_bit() -> None:
    with np.errstate(over="ignore"):
        mask = random.keep_mask(
            random.key(3), np.zeros(1, dtype=np.int32), shape=(1000, 1000), keep=0.0
        )
    assert not mask.any()


def test_keys_are_the_first_bytes_of_a_sha256() -> None:
    digest = hashlib.sha256(b"7/init/0.weight").digest()
    words = [int.from_bytes(digest[i : i + 4], "little", signed=True) for i in (0, 4)]
    assert random.key(7, "init", "0.weight").tolist() == words


def test_initial_weights_are_pinned() -> None:
    """Written down once: a seed must give these for ever, since saved runs depend on it."""
    weight = nn.Linear(2, 2).init(seed=0, backend="numpy").weight
    assert [w.hex() for w in weight.ravel().tolist()] == PINNED


def test_other_random_numbers_are_pinned() -> None:
    """As the weights: Box and Muller's on the host, and those of two samples, drawn twice."""
    with np.errstate(over="ignore"):
        z = random.normal(random.key(2), 3)
        stream = random.SampleStream(random.key(0), np.asarray([4, 7]))
        drawn = np.hstack([stream.random((2, 3)), stream.random((2, 1))]) * 2**24
    np.testing.assert_allclose(z, [-0.8518869053469, 1.887468477891, 0.9708151971132], rtol=1e-12)
    assert drawn.tolist() == DRAWN


def test_a_stream_draws_for_its_samples_alone() -> None:
    both = [random.SampleStream(random.key(0), np.asarray([4, 7])) for _ in range(2)]
    for draw in ("random", "standard_normal"):
        one, other = (getattr(stream, draw) for stream in both)
        np.testing.assert_array_equal(one(2), other((2,)))
        for size in ((), 3, (3, 2)):
            with pytest.raises(ValueError, match="draws for 2 samples, along the first axis"):
                one(size)


@pytest.mark.parametrize(
    ("initialiser", "spread"),
    [
        (nn.init.xavier_uniform(), np.sqrt(2 / 500)),
        (nn.init.xavier_normal(), np.sqrt(2 / 500)),
        (nn.init.kaiming_uniform(), np.sqrt(2 / 200)),
        (nn.init.kaiming_normal(), np.sqrt(2 / 200)),
        (nn.init.kaiming_normal(mode="fan_out"), np.sqrt(2 / 300)),
        (nn.init.kaiming_normal(gain=1.0), np.sqrt(1 / 200)),
        (nn.init.normal(0.0, 0.3), 0.3),
        (nn.init.uniform(-1.0, 1.0), np.sqrt(1 / 3)),
    ],
)
def test_initialisers_have_their_spread(initialiser: nn.init.Initialiser, spread: float) -> None:
    w = initialiser(random.key(4), (300, 200))
    assert w.shape == (300, 200)
    assert abs(w.mean()) < 4 * spread / np.sqrt(w.size)
    assert w.std() == pytest.approx(spread, rel=0.02)


@pytest.mark.parametrize("shape", [(8, 8), (12, 3), (3, 12), (6, 2, 3, 3), (40, 2, 3, 3), (1, 4)])
def test_an_orthogonal_weight_has_right_angles(shape: tuple[int, ...]) -> None:
    w = nn.init.orthogonal(gain=0.5)(random.key(4), shape)
    assert w.shape == shape
    flat = w.reshape(shape[0], -1)
    products = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(products, 0.25 * np.eye(len(products)), atol=1e-14)


def test_orthogonal_weights_are_spread_evenly() -> None:
    """Without the signs of R, the first column would lean to one side, as LAPACK's does."""
    drawn = [nn.init.orthogonal()(random.key(i), (3, 3)) for i in range(2000)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), np.zeros((3, 3)), atol=0.06)
    with pytest.raises(ValueError, match=r"orthogonal needs a weight of two axes .*\(3,\)"):
        nn.init.orthogonal()(random.key(0), (3,))


def test_constant_initialisers() -> None:
    assert nn.init.zeros(random.key(0), (2,)).tolist() == [0.0, 0.0]
    assert nn.init.ones(random.key(0), (2,)).tolist() == [1.0, 1.0]


def test_a_split_of_a_number_is_told_which_one() -> None:
    with pytest.raises(TypeError, match=r"^y is a float; expected an array with a row for each"):
        data.split(np.ones((4, 2)), 0.5, np.ones(4))
