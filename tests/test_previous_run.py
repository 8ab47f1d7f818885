"""A run whose file is spoilt goes on from the one before, when that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import EPOCHS, FIT, X, Y, assert_same_run, saved, stayed, trainer


def spoilings(content: bytes) -> dict[str, bytes | None]:
    """What may have become of a file; None where it is gone."""
    found: dict[str, bytes | None] = {"gone": None, "empty": b"", "longer": content + b"\0"}
    for length in range(0, len(content), 211):
        found[f"cut at {length}"] = content[:length]
    for place in range(0, len(content), 97):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        found[f"flipped at {place}"] = bytes(flipped)
    return found


def test_the_run_before_is_taken_when_asked(tmp_path: Path) -> None:
    path, before = tmp_path / "run", tmp_path / "run.previous"
    first = trainer()
    first.fit(X, Y, epochs=1, **FIT)
    first.save(path, keep_previous=True)
    assert not before.exists()
    first.fit(X, Y, epochs=1, **FIT)
    first.save(path, keep_previous=True)
    newest, kept = trainer(), trainer()
    newest.load(path, or_previous=True)
    kept.load(before)
    assert (newest.epoch, kept.epoch) == (2, 1)
    content, job = path.read_bytes(), trainer()
    for spoilt in spoilings(content).values():
        path.unlink() if spoilt is None else path.write_bytes(spoilt)
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            job.load(path)
        assert "or_previous=True" in caught.value.__notes__[0]
        with pytest.warns(RuntimeWarning, match=r"run\.previous is loaded instead") as warned:
            job.load(path, or_previous=True)
        assert warned[0].filename == __file__
        assert_same_run(job, kept)
        path.write_bytes(content)
    job.fit(X, Y, epochs=EPOCHS - 1, **FIT)
    assert_same_run(job, stayed())


def test_what_is_spoilt_never_becomes_the_run_before(tmp_path: Path) -> None:
    path, before = tmp_path / "run", tmp_path / "run.previous"
    job = trainer()
    for _ in range(2):
        job.fit(X, Y, **FIT)
        job.save(path, keep_previous=True)
    good = before.read_bytes()
    for spoilt in spoilings(path.read_bytes()).values():
        path.unlink(missing_ok=True) if spoilt is None else path.write_bytes(spoilt)
        job.save(path, keep_previous=True)
        assert before.read_bytes() == good
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.previous"]
    job.save(path)
    assert before.read_bytes() == good
    newest = path.read_bytes()
    job.save(path, keep_previous=True)
    assert before.read_bytes() == newest


def test_without_a_whole_one_nothing_is_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    path.write_bytes(path.read_bytes()[:-1])
    job = trainer()
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        job.load(path, or_previous=True)
    (tmp_path / "run.previous").write_bytes(b"torn too")
    with pytest.raises(ValueError, match=r"run\.previous is not a whole safetensors file"):
        job.load(path, or_previous=True)
    other = saved(tmp_path / "other")
    (tmp_path / "other.previous").write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="a run with seed 3, this Trainer has 4"):
        trainer(seed=4).load(other, or_previous=True)
