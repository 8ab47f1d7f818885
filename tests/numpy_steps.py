"""Steps of a network on NumPy, and what they leave, for the tests of its compiled step."""

import numpy as np

from polynet import get_backend, losses, nn
from polynet.step import initial_state, make_step
from polynet.tree import named_leaves

NUMPY = get_backend("numpy")


def same_bits(found, expected):
    found, expected = dict(named_leaves(found)), dict(named_leaves(expected))
    assert list(found) == list(expected)
    for path, value in expected.items():
        assert found[path].dtype == value.dtype, path
        assert found[path].shape == value.shape, path
        assert found[path].tobytes() == value.tobytes(), path


def copied(tree):
    return {path: np.array(a) for path, a in named_leaves(tree)}


def replays(runner):
    """What it replays, of each shape of rows of each kind of data."""
    launches = [launch for known in runner._data.values() for launch in known.launches.values()]
    return [launch.replay for launch in launches if launch.replay is not None]


class Net(nn.Module):
    """Parameters large and small, buffers and dropout; names are those of the suite's groups."""

    def __init__(self):
        self.a = nn.Linear(6, 200)
        self.norm = nn.BatchNorm1d(200)
        self.b = nn.Linear(200, 200)
        self.drop = nn.Dropout(0.2)
        self.c = nn.Linear(200, 3)

    def forward(self, x):
        return self.c(self.drop(self.b(self.norm(self.a(x)))))


RNG = np.random.default_rng(3)
DATA = RNG.normal(size=(64, 6)).astype("float32"), RNG.integers(0, 3, size=64)
SHAPES = ((3, 32), (1, 32), (1, 5), (4, 32), (7, 5), (2, 32))
BATCHES = [RNG.integers(0, 64, size=shape) for shape in SHAPES]


def start(optimizer, dtype="float32", net=None):
    """A network's step, the state before it, and the data."""
    net = (net or Net()).init(seed=0, backend=NUMPY, dtype=dtype)
    step = make_step(net, losses.cross_entropy, optimizer, NUMPY.xp)
    return step, initial_state(net, optimizer, 0), (DATA[0].astype(dtype), DATA[1])


def run_all(run, state, data):
    found = []
    for rows in BATCHES:
        state, values = run(state, data, rows)
        found.append(values)
    return {"state": state, "losses": found}
