"""Augmentations: each does what its formula says, a sample's own way, from the seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import random
from polynet.data import augment

IMAGES = np.random.default_rng(0).uniform(size=(40, 3, 6, 5)).astype(np.float32)
ALL = augment.Compose([
    augment.RandomHorizontalFlip(),
    augment.RandomCrop((6, np.int64(5)), padding=np.int32(2)),
    augment.ColorJitter(0.4, 0.3, 0.5),
])  # fmt: skip


def stream(rows: Any, epoch: int = 0) -> random.SampleStream:
    return random.SampleStream(random.key(3, "augment", epoch), np.asarray(rows))


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_a_flip_is_the_image_or_its_mirror() -> None:
    flipped = augment.RandomHorizontalFlip(0.25)(IMAGES, rng())
    as_it_was = (flipped == IMAGES).all(axis=(1, 2, 3))
    mirrored = (flipped == IMAGES[..., ::-1]).all(axis=(1, 2, 3))
    assert (as_it_was ^ mirrored).all()
    assert np.array_equal(mirrored, rng().random(40) < 0.25)
    assert np.array_equal(augment.RandomHorizontalFlip(0.0)(IMAGES, rng()), IMAGES)


def test_a_crop_is_a_part_of_the_padded_image_and_every_place_occurs() -> None:
    many = np.repeat(IMAGES[:1], 500, axis=0)
    padded = np.pad(IMAGES[0], ((0, 0), (1, 1), (1, 1)))
    crops = augment.RandomCrop((4, 3), padding=1)(many, rng())
    assert crops.shape == (500, 3, 4, 3)
    parts = {padded[:, i : i + 4, j : j + 3].tobytes(): 0 for i in range(5) for j in range(5)}
    for crop in crops:
        parts[crop.tobytes()] += 1  # KeyError for what is no part
    assert min(parts.values()) >= 5
    assert len(parts) == 25


def test_colours_follow_the_formula() -> None:
    images = IMAGES.astype(np.float64)
    jittered = augment.ColorJitter(0.4, 0.3, 0.5)(images, rng())
    factors = 1 + np.asarray([0.4, 0.3, 0.5]) * (2 * rng().random((40, 3)) - 1)
    for x, y, (brightness, contrast, saturation) in zip(images, jittered, factors, strict=True):
        bright = np.clip(x * brightness, 0, 1)
        mean = (0.299 * bright[0] + 0.587 * bright[1] + 0.114 * bright[2]).mean()
        strong = np.clip(mean + contrast * (bright - mean), 0, 1)
        grey = 0.299 * strong[0] + 0.587 * strong[1] + 0.114 * strong[2]
        np.testing.assert_allclose(
            y, np.clip(grey + saturation * (strong - grey), 0, 1), atol=1e-12
        )


def test_a_grey_image_has_no_saturation() -> None:
    grey = np.clip(3 * IMAGES[:, :1] - 1, 0, 1)  # many numbers are 0 or 1
    np.testing.assert_allclose(augment.ColorJitter(saturation=1.0)(grey, rng()), grey, atol=1e-6)


def test_nothing_is_written_to_and_the_dtype_stays() -> None:
    for dtype in ("float32", "float64"):
        images = IMAGES.astype(dtype)
        images.flags.writeable = False
        assert ALL(images, rng()).dtype == dtype


def test_a_sample_is_changed_alike_in_whatever_batch() -> None:
    whole = ALL(IMAGES, stream(range(40)))
    for rows in (np.arange(7), np.asarray([39, 3, 20]), np.asarray([12])):
        assert np.array_equal(ALL(IMAGES[rows], stream(rows)), whole[rows])
    assert not np.array_equal(ALL(IMAGES, stream(range(40), epoch=1)), whole)


def test_a_samples_numbers_are_uniform_and_normal_and_independent() -> None:
    drawn = stream(range(2000))
    u, v = drawn.random((2000, 25)), drawn.random(2000)
    counts, _ = np.histogram(u, bins=20, range=(0, 1))
    assert ((counts - 2500) ** 2 / 2500).sum() < 43.8  # the 0.999 quantile, 19 degrees of freedom
    assert abs(np.corrcoef(u[:, 24], v)[0, 1]) < 0.1
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.1
    z = drawn.standard_normal((2000, 25))
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02


@pytest.mark.parametrize(
    ("attempt", "error", "words"),
    [
        (lambda: augment.RandomHorizontalFlip(1.5), ValueError, "p is a probability; got 1.5"),
        (lambda: augment.RandomCrop(0), ValueError, "size is a positive integer"),
        (lambda: augment.RandomCrop((4, True)), ValueError, r"got \(4, True\)"),
        (lambda: augment.RandomCrop((4, 4, 4)), ValueError, r"got \(4, 4, 4\)"),
        (lambda: augment.RandomCrop(4, padding=-1), ValueError, "padding is an integer"),
        (lambda: augment.RandomCrop(9)(IMAGES, rng()), ValueError, r"\(6, 5\).*smaller than"),
        (lambda: augment.ColorJitter(2), ValueError, "brightness is a number from 0 to 1; got 2"),
        (lambda: augment.ColorJitter()(IMAGES * 255, rng()), ValueError, "divide numbers up to"),
        (lambda: augment.ColorJitter()(IMAGES[:, :2], rng()), ValueError, "1 or 3 channels; got 2"),
        (lambda: augment.ColorJitter()(IMAGES.astype(int), rng()), TypeError, "images are int64"),
        (lambda: ALL(IMAGES[0], rng()), TypeError, r"expected a NumPy array.*got \(3, 6, 5\)"),
        (lambda: augment.Compose(ALL), TypeError, "expected a list of functions"),
        (lambda: augment.Compose([ALL, 0.5]), TypeError, "expected a list of functions"),
        (lambda: stream([0, 1]).random(3), ValueError, r"draws for 2 samples.*got the size \(3,\)"),
    ],
)  # fmt: skip
def test_bad_settings_and_images(attempt: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        attempt()
