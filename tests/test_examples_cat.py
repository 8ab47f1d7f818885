"""The example of the cat: its data, its answers, and the pictures that it draws."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from printed import ASCII

from polynet import random

FILE = Path(__file__).parents[1] / "examples" / "cat_or_not.py"


@pytest.fixture(scope="module")
def photographs(example):
    pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    return example.photographs()


# Pieces of photographs


def pixels(example, photograph, places):
    """Which pixels of the photograph are in any of the pieces at `places`."""
    used = np.zeros(photograph.shape[:2], dtype=bool)
    for _, top, left in places:
        piece = used[top : top + example.PIECE, left : left + example.PIECE]
        assert piece.shape == (example.PIECE, example.PIECE)  # within the photograph
        piece[...] = True
    return used


@pytest.mark.parametrize("seed", range(5))
def test_training_and_test_pieces_share_no_pixel(example, photographs, seed):
    parts = example.all_places(photographs, seed)
    for name, photograph in photographs.items():
        train, test = (
            pixels(example, photograph, [p for p in parts[part] if p.photograph == name])
            for part in ("train", "test")
        )
        assert not (train & test).any()
        assert train.mean() > 0.2  # pieces come from all over the photograph
        assert test.mean() > 0.05


def test_as_many_pieces_with_the_cat_as_without(example, photographs):
    task = example.pieces_task(seed=0)
    for part, count in ((task.train, 300), (task.test, 100)):
        assert part.x.shape == (2 * count, 3, 16, 16)
        assert part.x.dtype == part.y.dtype == np.float32
        assert (part.y == 1).sum() == (part.y == 0).sum() == count
        assert part.x.min() >= 0
        assert 0.5 < part.x.max() <= 1
    names = [p.photograph for p in example.all_places(photographs, 0)["train"]]
    assert {name: names.count(name) for name in example.OTHERS} == dict.fromkeys(example.OTHERS, 75)


def test_a_piece_is_cut_where_it_says(example, photographs):
    task, parts = example.pieces_task(seed=3), example.all_places(photographs, 3)
    for i in (0, 299, 300, 599):
        name, top, left = parts["train"][i]
        assert task.train.y[i] == (name == example.CAT)
        piece = photographs[name][top : top + 32, left : left + 32] / 255
        corner = piece[:2, :2].mean(axis=(0, 1))
        np.testing.assert_allclose(task.train.x[i][:, 0, 0], corner, rtol=1e-6)
        np.testing.assert_allclose(task.train.x[i].mean(), piece.mean(), rtol=1e-5)


def test_pieces_come_from_the_seed(example, photographs):
    one, same, other = (example.pieces_task(seed) for seed in (1, 1, 2))
    for a, b, c in zip(one[:2], same[:2], other[:2], strict=True):
        assert np.array_equal(a.x, b.x)
        assert np.array_equal(a.y, b.y)
        assert not np.array_equal(a.x, c.x)


# Faces


def test_faces(example):
    pytest.importorskip("skimage", reason="the faces come with scikit-image")
    task, same, other = (example.faces_task(seed) for seed in (1, 1, 2))
    assert task.train.x.shape == (150, 1, 25, 25)
    assert task.test.x.shape == (50, 1, 25, 25)
    assert (task.train.y.sum(), task.test.y.sum()) == (75, 25)
    assert np.array_equal(task.test.x, same.test.x)
    assert not np.array_equal(task.test.x, other.test.x)
    train = {picture.tobytes() for picture in task.train.x}
    assert not any(picture.tobytes() in train for picture in task.test.x)


# A folder


def fill(folder, shade, count=12, size=(40, 30)):
    """Pictures of about one shade, as PNG, JPEG, palette, grey and transparent files."""
    image = pytest.importorskip("PIL.Image", reason="pictures are read and written by Pillow")
    folder.mkdir(parents=True)
    noise = np.random.default_rng(shade)
    for i in range(count):
        pixels = np.clip(noise.normal(shade, 20, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
        mode = ("RGB", "RGB", "P", "L", "RGBA")[i % 5]
        kind = "jpg" if i % 5 == 1 else "png"
        image.fromarray(pixels).convert(mode).save(folder / f"{i:02}.{kind}")
    return folder


@pytest.fixture
def folder(tmp_path):
    """cat/ is bright, other/ is dark."""
    for name, shade in (("cat", 200), ("other", 60)):
        fill(tmp_path / "pictures" / name, shade)
    return tmp_path / "pictures"


def test_a_folder_of_pictures(example, folder):
    task, same, other = (example.folder_task(folder, seed) for seed in (0, 0, 1))
    assert (task.yes, task.no) == ("cat", "other")
    assert task.train.x.shape == (18, 3, 32, 32)
    assert task.test.x.shape == (6, 3, 32, 32)
    assert (task.train.y.sum(), task.test.y.sum()) == (9, 3)
    for part in task[:2]:
        bright = part.x.mean(axis=(1, 2, 3)) > 0.5
        assert np.array_equal(bright, part.y == 1)
    assert np.array_equal(task.train.x, same.train.x)
    assert not np.array_equal(task.train.x, other.train.x)


def test_bad_files_are_named_and_skipped(example, folder, capsys):
    whole = (folder / "cat" / "01.jpg").read_bytes()
    (folder / "cat" / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    whole = (folder / "cat" / "00.png").read_bytes()
    (folder / "other" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "other" / "notes.txt").write_text("not a picture")
    (folder / "other" / "empty.png").touch()
    (folder / "other" / "deeper").mkdir()
    (folder / "other" / ".hidden").write_text("not looked at")
    task = example.folder_task(folder, seed=0)
    assert len(task.train.y) + len(task.test.y) == 24
    said = capsys.readouterr().err.splitlines()
    named = [re.match(r"skipped (.*?): .+", line)[1] for line in said]
    bad = ["cat/torn.jpg", "other/deeper", "other/empty.png", "other/notes.txt", "other/torn.png"]
    assert named == [str(folder / name) for name in bad]


def test_the_middle_square_is_taken_upright(example, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pictures are read and written by Pillow")
    pixels = np.zeros((32, 96, 3), dtype=np.uint8)
    pixels[:16, 32:64] = 255  # of the middle square the upper half is white
    exif = image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    image.fromarray(pixels).save(tmp_path / "plain.png")
    image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    half = np.repeat([1.0, 0.0], 16)[:, None] + np.zeros((3, 32, 32))
    assert np.array_equal(example.read_picture(tmp_path / "plain.png"), half)
    assert np.array_equal(example.read_picture(tmp_path / "turned.png"), half[:, ::-1])


def test_a_picture_in_grey_and_of_another_size(example, tmp_path):
    grey = example.read_picture(fill(tmp_path / "a", 128, 1) / "00.png", 1, 25)
    assert grey.shape == (1, 25, 25)
    assert 0.4 < grey.mean() < 0.6


def test_a_folder_that_is_missing(example, tmp_path):
    with pytest.raises(SystemExit, match=r"no such folder.*'pieces' or 'faces'"):
        example.folder_task(tmp_path / "nowhere", seed=0)


@pytest.mark.parametrize("names", [(), ("cat",), ("cat", "dog", "horse")])
def test_a_folder_without_two_classes(example, tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    found = re.escape(f"found {len(names)} ({', '.join(names) or 'none'})")
    with pytest.raises(SystemExit, match=f"expected two sub-folders.*{found}"):
        example.folder_task(tmp_path, seed=0)


def test_too_few_pictures(example, folder):
    for path in list((folder / "other").iterdir())[5:]:
        path.unlink()
    with pytest.raises(SystemExit, match=r"other holds 5 pictures .* needs at least 8"):
        example.folder_task(folder, seed=0)


def test_nothing_that_can_be_read(example, folder, capsys):
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"GIF89a, or so it says")
    with pytest.raises(SystemExit, match="cat holds 0 pictures"):
        example.folder_task(folder, seed=0)
    assert capsys.readouterr().err.count("skipped") == 12


# What the network sees and answers


def test_the_scale_is_that_of_the_training_pictures(example):
    x = np.random.default_rng(0).uniform(size=(50, 3, 4, 4)).astype(np.float32)
    scale = example.scale_of(x)
    scaled = scale(x)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=(0, 2, 3)), 1, rtol=1e-6)
    np.testing.assert_array_equal(scale(x[:5]), scaled[:5])
    assert np.isfinite(example.scale_of(np.zeros((3, 1, 2, 2)))(np.ones((1, 1, 2, 2)))).all()


def test_training_pictures_change_and_test_pictures_do_not(example):
    x = np.random.default_rng(0).uniform(size=(64, 3, 8, 6)).astype(np.float32)
    pictures = example.Pictures(x, np.arange(64, dtype=np.float32))
    scale = example.scale_of(x)
    source, rows = example.changing(pictures, scale), np.arange(64)
    stream = lambda epoch: random.SampleStream(random.key(0, epoch), rows)
    first, second = (source.training_batch(rows, stream(epoch))[0] for epoch in (0, 1))
    same, y = source.training_batch(rows, stream(0))
    still, _ = source.batch(rows)
    assert np.array_equal(first, same)
    assert np.array_equal(y[:, 0], pictures.y)
    assert np.array_equal(still, example.ready(pictures, scale).x)
    for changed in (first, second):
        assert changed.shape == x.shape
        assert changed.dtype == np.float32
        # Every picture is changed, but not into another: its brightness stays about the same.
        assert (np.abs(changed - still).reshape(64, -1).max(axis=1) > 0.05).all()
    assert not np.array_equal(first, second)


def test_answers_and_losses(example):
    x = np.random.default_rng(0).normal(size=(6, 1, 4, 4)).astype(np.float32)
    y = np.array([1, 0, 1, 0, 1, 0], dtype=np.float32)[:, None]
    trainer = example.make_trainer((1, 4, 4), seed=0, backend="numpy")  # no dropout: it predicts
    p = example.answers(trainer, x)
    assert p.shape == (6,)
    assert np.all((p > 0) & (p < 1))
    by_formula = -np.log(np.where(y[:, 0] == 1, p, 1 - p))
    each = example.loss_of_each(trainer, example.Pictures(x, y))
    np.testing.assert_allclose(each, by_formula, rtol=1e-5)
    np.testing.assert_allclose(np.mean(each), trainer.evaluate(x, y)["loss"], rtol=1e-6)


def test_what_is_drawn_has_right_and_wrong_answers(example):
    y = np.repeat([1.0, 0.0], 100)
    answer = np.where(y == 1, 0.9, 0.1)
    wrong = [3, 50, 120, 121, 122, 123, 124, 125, 126, 199]
    answer[wrong] = 1 - answer[wrong]
    chosen = example.to_draw(y, answer, count=32)
    assert len(chosen) == len(set(chosen)) == 32
    assert set(chosen[24:]) <= set(wrong)
    assert (y[chosen[:24]] == 1).sum() == 12
    assert len(example.to_draw(y[:5], answer[:5], count=32)) == 5


# The program


def check_pictures(folder):
    imread = pytest.importorskip("matplotlib.image", reason="matplotlib draws").imread
    names = {"cat_numbers.png", "cat_answers.png", "cat_learning.png"}
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        picture = imread(folder / name)
        assert min(picture.shape[:2]) > 400
        assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 100


def accuracies(text):
    before, after = re.findall(r"test pictures: .* accuracy ([\d.]+)", text)
    return float(before), float(after)


@pytest.mark.parametrize(("data", "least"), [("pieces", 0.8), ("faces", 0.85)])
def test_the_program(run_python, tmp_path, data, least):
    for library in ("skimage", "matplotlib"):
        pytest.importorskip(library, reason="the example needs it")
    options = ["--data", data, "--epochs", "10", "--seed", "5", "--out", tmp_path / "a" / "b"]
    result = run_python("-W", "error", FILE, "--backend", "numpy", *options, **ASCII)
    assert (result.returncode, result.stderr) == (0, "")
    before, after = accuracies(result.stdout)
    assert before < 0.75
    assert after > max(least, before)
    assert re.search(r"Conv2d\(\d, 16, 3, padding=1\)", result.stdout)
    epochs = re.findall(r"^ +\d+ +\d\.\d{3} +\d\.\d{3} +\d\.\d{3}$", result.stdout, re.MULTILINE)
    assert len(epochs) == 10
    check_pictures(tmp_path / "a" / "b")


def test_the_program_on_a_folder(example, folder, capsys, tmp_path):
    for library in ("skimage", "matplotlib"):
        pytest.importorskip(library, reason="the example needs it")
    (folder / "cat" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    mine = [
        str(p) for p in (fill(tmp_path / k, v, 1) / "00.png" for k, v in (("a", 190), ("b", 70)))
    ]
    options = ["--data", str(folder), "--picture", *mine, "--epochs", "3"]
    example.main([*options, "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    found = re.findall(r"^  (0\.\d{3})  (cat|other): (\S+)$", said.out, re.MULTILINE)
    assert [(name, path) for _, name, path in found] == list(
        zip(("cat", "other"), mine, strict=True)
    )
    assert float(found[0][0]) > 0.5 > float(found[1][0])
    assert f"skipped {folder / 'cat' / 'torn.png'}: " in said.err
    assert "9 cat (1),    9 other (0)" in said.out
    assert accuracies(said.out)[1] == 1.0
    check_pictures(tmp_path / "out")


def test_evaluating_first_does_not_change_what_training_starts_from(example):
    x = np.random.default_rng(0).normal(size=(40, 1, 4, 4)).astype(np.float32)
    y = (x.mean(axis=(2, 3)) > 0).astype(np.float32)
    trainer, other = (example.make_trainer((1, 4, 4), 0, backend="numpy") for _ in range(2))
    trainer.evaluate(x, y)
    assert trainer.fit(x, y, progress=False).step_losses == (
        other.fit(x, y, progress=False).step_losses
    )


@pytest.mark.parametrize(
    ("module", "name"), [("skimage", "scikit-image"), ("PIL", "Pillow"), ("matplotlib",) * 2]
)
def test_what_is_missing_is_said(example, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as raised:
        example.main([])
    assert name in str(raised.value)
    assert "pip install 'polynet-array[examples]'" in str(raised.value)
    assert "pip install '.[examples]'" in str(raised.value)
