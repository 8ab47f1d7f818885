"""A folder of images by class: decoded when needed, trained on, refused where it is none."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from polynet import Trainer, data, losses, nn, optim
from polynet.data import augment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name, count in (("cats", 5), ("apples", 3)):
        (tmp_path / name / "more").mkdir(parents=True)
        (tmp_path / name / "notes.txt").write_text("not an image")
        for i in range(count):
            pixels = np.full((6 + i, 9, 3), (10 * i, 200, 0 if name == "cats" else 255), np.uint8)
            at = tmp_path / name / ("more" if i == 2 else ".") / f"{i}.png"
            image.fromarray(pixels).save(at)
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_a_folder_of_images(folder: Path) -> None:
    source = data.image_folder(folder, size=(np.int64(4), 5))
    assert source.classes == ("apples", "cats")
    assert len(source) == 8
    x, y = source.batch(np.asarray([7, 0, 3]))
    assert x.shape == (3, 3, 4, 5)
    assert x.dtype == np.float32
    assert y.tolist() == [1, 0, 1]
    assert [f.parent.name for f in source.files[1:3]] == ["apples", "more"]
    np.testing.assert_allclose(x[:, 1], 200 / 255, rtol=1e-6)
    assert x[:, 2].max(axis=(1, 2)).tolist() == [0, 1, 0]


def test_training_on_a_folder(folder: Path) -> None:
    source = data.image_folder(folder, size=6).augmented(
        augment.Compose([augment.RandomHorizontalFlip(), augment.RandomCrop(6, padding=1)])
    )
    jobs = []
    for _ in range(2):
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 2))
        jobs.append(Trainer(net, losses.cross_entropy, optim.Adam(1e-2), backend="numpy"))
        jobs[-1].fit(source, epochs=4, batch_size=3)
    assert jobs[0].history.step_losses == jobs[1].history.step_losses
    assert jobs[0].predict(source).shape == (8, 2)
    assert jobs[0].history["loss"][-1] < jobs[0].history["loss"][0]


def test_a_torn_image_is_named(folder: Path) -> None:
    torn = folder / "cats" / "4.png"
    torn.write_bytes(torn.read_bytes()[:40])
    job = Trainer(nn.Linear(4, 2), losses.cross_entropy, optim.SGD(), backend="numpy")
    with pytest.raises(ValueError, match=r"cats.4\.png cannot be decoded"):
        job.evaluate(data.image_folder(folder, size=4).map(lambda x, y: (x[:, 0, 0], y)))


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", "uint16"), ("I", "int32"), ("F", "float32")])
def test_more_than_8_bits_are_not_cut_off(folder: Path, mode: str, dtype: str) -> None:
    image = importlib.import_module("PIL.Image")
    deep = image.fromarray(np.full((6, 9), 1000, dtype))
    assert deep.mode == mode
    deep.save(folder / "cats" / "9.tiff")
    with pytest.raises(ValueError, match=rf"9\.tiff has more than 8 bits.*'{mode}'.*8 bits"):
        data.image_folder(folder, size=4).batch(np.arange(8))


def test_folders_that_are_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="holds no folders; expected one for each class"):
        data.image_folder(folder / "cats" / "more", size=4)
    (folder / "dogs").mkdir()
    with pytest.raises(ValueError, match="dogs holds no images"):
        data.image_folder(folder, size=4)
    with pytest.raises(ValueError, match="size is a positive integer"):
        data.image_folder(folder, size=0)
