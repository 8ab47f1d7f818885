"""The look inside: a gradient is the slope of the loss, and the network learns exclusive or."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import polynet

FILE = Path(__file__).parents[1] / "examples" / "look_inside.py"
PICTURE = FILE.parent / "pictures" / "look_inside.svg"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_slope_by_hand_is_the_gradient(example, seed):
    net = example.network(seed)
    loss, parameters = example.loss_of(net), net.parameters()
    record = polynet.record(loss, parameters)
    for line in record.lines[: len(parameters)]:
        for place in np.ndindex(line.shape):
            by_hand = example.slope_by_hand(loss, parameters, line.name, place)
            assert by_hand == pytest.approx(line.gradient[place], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_exclusive_or(example, seed):
    net = example.network(seed)
    trained, history = example.walk_downhill(example.loss_of(net), net.parameters())
    assert history[-1] <= 0.05**2 < 0.1 < history[0]
    np.testing.assert_allclose(net.replace(trained)(example.INPUTS), example.RIGHT, atol=0.1)


def test_the_program(run_python, tmp_path):
    result = run_python("-W", "error", FILE, "--out", tmp_path / "pictures")
    assert (result.returncode, result.stderr) == (0, "")
    rows = [row.split()[:4] for row in result.stdout.splitlines()]
    assert ["0", "leaf", "0.weight", "(4,"] in rows
    assert ["13", "mean", "12", "mse"] in rows
    drawn = (tmp_path / "pictures" / "look_inside.svg").read_text(encoding="utf-8")
    shown = [t.text for t in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert "13  mean  (in mse)" in shown


def test_the_picture_in_the_repository_is_the_one_it_draws(example, tmp_path):
    example.main(["--out", str(tmp_path)])
    drawn = (tmp_path / PICTURE.name).read_text(encoding="utf-8")
    assert drawn == PICTURE.read_text(encoding="utf-8")
