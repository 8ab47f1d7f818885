"""A folder of images, in one folder for each class; images are decoded when they are needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from polynet.data.source import Batch, Source
from polynet.errors import MissingDependency
from polynet.integers import sides

DEEP = ("I", "F")
"""Pillow's modes of more than 8 bits a channel, which its conversion to RGB cuts off at 255."""
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def image_folder(path: str | os.PathLike[str], *, size: int | tuple[int, int]) -> ImageFolder:
    """The images in `path`/<class>/…, each resized to `size` (height, width; or one number).

    A batch's `x` is (samples, 3, height, width), float32 from 0 to 1: red, green, blue. Its `y`
    holds the class of each sample, as an index into `source.classes`, the sorted names of the
    classes. Other files are ignored. This function needs Pillow: `pip install
    'polynet-array[images]'`. Raises ValueError for a folder without classes, a class without
    images, and an image that cannot be decoded or has more than 8 bits a channel.

        source = data.image_folder("pets", size=64)
        trainer.fit(source.augmented(augment.RandomHorizontalFlip()), validation_split=0.2)
    """
    return ImageFolder(Path(path), sides("image_folder", size))


class ImageFolder(Source):
    """What `image_folder` returns: `classes` by name, and `files` in the order of the samples."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self._pillow = _pillow()
        self._size = size
        folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
        if not folders:
            raise ValueError(f"{path} holds no folders; expected one for each class, with images")
        self.classes = tuple(f.name for f in folders)
        self.files: list[Path] = []
        labels = []
        for label, folder in enumerate(folders):
            found = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
            if not found:
                raise ValueError(f"{folder} holds no images; expected files {', '.join(SUFFIXES)}")
            self.files += found
            labels += [label] * len(found)
        self.labels = np.asarray(labels)

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, rows: np.ndarray) -> Batch:
        return np.stack([self._image(self.files[i]) for i in rows]), self.labels[rows]

    def _image(self, file: Path) -> np.ndarray:
        height, width = self._size
        try:
            with self._pillow.open(file) as image:
                _check_depth(file, image.mode)
                bilinear = self._pillow.Resampling.BILINEAR
                pixels = np.asarray(image.convert("RGB").resize((width, height), bilinear))
        except OSError as error:
            raise ValueError(f"{file} cannot be decoded: {error}") from error
        return pixels.transpose(2, 0, 1).astype(np.float32) / 255


def _check_depth(file: Path, mode: str) -> None:
    if mode.partition(";")[0] in DEEP:
        raise ValueError(
            f"{file} has more than 8 bits a channel (Pillow's mode {mode!r}), which would be cut "
            "off at 255; scale its numbers and save it in 8 bits, or read it in a data.Source of "
            "your own"
        )


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency("Pillow", "pip install 'polynet-array[images]'") from error
    return Image
