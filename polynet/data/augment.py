"""Images changed at random, so that a network does not memorise position, side or brightness.

An augmentation is a function `(images, rng) -> images`. `images` is a NumPy array (samples,
channels, height, width), which it leaves as it is; it changes every sample in another way. `rng` is
a NumPy Generator, or the stream that `Source.augmented` draws from. Names and settings are
torchvision's. An augmentation of your own, after one of these:

>>> import numpy as np
>>> def noisy(images, rng):
...     return images + 0.1 * rng.standard_normal(images.shape).astype(images.dtype)
>>> both = Compose([RandomHorizontalFlip(), noisy])
>>> both(np.zeros((8, 3, 32, 32), np.float32), np.random.default_rng(0)).shape
(8, 3, 32, 32)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from polynet.integers import integer, sides
from polynet.tensor import told_class

__all__ = ["Augmentation", "ColorJitter", "Compose", "Draws", "RandomCrop", "RandomHorizontalFlip"]

GREY = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in brightness (ITU-R BT.601)."""


class Draws(Protocol):
    """What an augmentation draws from: a NumPy Generator, or a `polynet.random.SampleStream`."""

    def random(self, size: int | tuple[int, ...]) -> np.ndarray:
        """Numbers in [0, 1); the first axis counts samples."""

    def standard_normal(self, size: int | tuple[int, ...]) -> np.ndarray:
        """Standard normal numbers; the first axis counts samples."""


Augmentation = Callable[[np.ndarray, Draws], np.ndarray]


@told_class
class Compose:
    """One augmentation after the other."""

    def __init__(self, augmentations: Iterable[Augmentation]) -> None:
        found = () if callable(augmentations) else tuple(augmentations)
        if callable(augmentations) or not all(map(callable, found)):
            raise TypeError(
                "Compose: expected a list of functions (images, rng) -> images; got "
                f"{augmentations!r}"
            )
        self.augmentations = found

    def __call__(self, images: np.ndarray, rng: Draws) -> np.ndarray:
        for augmentation in self.augmentations:
            images = augmentation(images, rng)
        return images

    def __repr__(self) -> str:
        return f"Compose({list(self.augmentations)!r})"


@told_class
@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Left and right exchanged, with probability `p`.

    >>> import numpy as np
    >>> RandomHorizontalFlip(p=1.0)(np.asarray([[[[1, 2, 3]]]]), np.random.default_rng(0))
    array([[[[3, 2, 1]]]])
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"RandomHorizontalFlip: p is a probability; got {self.p!r}")

    def __call__(self, images: np.ndarray, rng: Draws) -> np.ndarray:
        _check_images("RandomHorizontalFlip", images)
        flipped = rng.random(len(images)) < self.p
        return np.where(flipped[:, None, None, None], images[..., ::-1], images)


@told_class
@dataclass(frozen=True)
class RandomCrop:
    """A part of `size` (height, width, or one number for both), at a random place in the image.

    First, `padding` zeros are put on each side of the image. So a `size` that is the image's own
    moves the image.

    >>> import numpy as np
    >>> RandomCrop(32, padding=4)(np.ones((5, 3, 32, 32)), np.random.default_rng(0)).shape
    (5, 3, 32, 32)
    """

    size: int | tuple[int, int]
    padding: int = 0

    def __post_init__(self) -> None:
        padding = integer(self.padding, least=0)
        if padding is None:
            raise ValueError(f"RandomCrop: padding is an integer, at least 0; got {self.padding!r}")
        object.__setattr__(self, "size", sides("RandomCrop", self.size))
        object.__setattr__(self, "padding", padding)

    def __call__(self, images: np.ndarray, rng: Draws) -> np.ndarray:
        _check_images("RandomCrop", images)
        assert isinstance(self.size, tuple)
        height, width = self.size
        sides = (self.padding, self.padding)
        padded = np.pad(images, ((0, 0), (0, 0), sides, sides))
        room = padded.shape[2] - height + 1, padded.shape[3] - width + 1
        if min(room) < 1:
            raise ValueError(
                f"RandomCrop: images of {images.shape[2:]} with padding {self.padding} are smaller "
                f"than size {self.size}"
            )
        places = (rng.random((len(images), 2)) * room).astype(int)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=(2, 3))
        return windows[np.arange(len(images)), :, places[:, 0], places[:, 1]]


@told_class
@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation changed by factors from [1 - s, 1 + s] for setting s.

    An image x, of numbers from 0 to 1, becomes in this order
    f·x;  f·x + (1 - f)·(its mean grey);  f·x + (1 - f)·(the grey of each pixel),
    with a factor f for each, and each clipped to [0, 1]. Images have three channels (red, green,
    blue), or one, which is grey. Raises ValueError for numbers outside 0 to 1: scale them to
    another range after the jitter, or in the network.

    >>> import numpy as np
    >>> images = np.full((4, 3, 8, 8), 0.5, np.float32)
    >>> jittered = ColorJitter(brightness=0.2)(images, np.random.default_rng(0))
    >>> bool((np.abs(jittered - 0.5) <= 0.1).all())
    True
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"ColorJitter: {name} is a number from 0 to 1; got {value!r}")

    def __call__(self, images: np.ndarray, rng: Draws) -> np.ndarray:
        _check_images("ColorJitter", images)
        if images.dtype.kind != "f":
            raise TypeError(
                f"ColorJitter: images are {images.dtype}; expected floating numbers from 0 to 1"
            )
        if images.size and not 0 <= images.min() <= images.max() <= 1:
            raise ValueError(
                f"ColorJitter: images hold numbers from {images.min()} to {images.max()}; expected "
                "0 to 1: divide numbers up to 255 by 255; scale to another range after the jitter"
            )
        if images.shape[1] not in {1, 3}:
            raise ValueError(f"ColorJitter: images have 1 or 3 channels; got {images.shape[1]}")
        spread = np.asarray([self.brightness, self.contrast, self.saturation])
        factors = 1 + spread * (2 * rng.random((len(images), 3)) - 1)
        brightness, contrast, saturation = factors.astype(images.dtype).T[..., None, None, None]
        if self.brightness:
            images = np.clip(brightness * images, 0, 1)
        if self.contrast:
            mean = _grey(images).mean(axis=(1, 2, 3), keepdims=True)
            images = np.clip(contrast * images + (1 - contrast) * mean, 0, 1)
        if self.saturation:
            images = np.clip(saturation * images + (1 - saturation) * _grey(images), 0, 1)
        return images


def _grey(images: np.ndarray) -> np.ndarray:
    if images.shape[1] == 1:
        return images
    weights = np.asarray(GREY, images.dtype)[:, None, None]
    return (images * weights).sum(axis=1, keepdims=True)


def _check_images(name: str, images: np.ndarray) -> None:
    if not isinstance(images, np.ndarray) or images.ndim != 4:
        raise TypeError(
            f"{name}: expected a NumPy array (samples, channels, height, width), got "
            f"{getattr(images, 'shape', type(images).__name__)}"
        )
