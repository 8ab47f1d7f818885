"""Whatever a network is trained with can be captured, where a backend captures its steps.

Nothing in it may read the device: `compile="require"` would raise. And a capture gives the bits
of the loop.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from polynet import Trainer, functional, losses, nn, optim, use_backend
from polynet.backend import Backend, looped, registry, to_numpy
from polynet.backend.static import WARM_UP
from polynet.nn import activation
from polynet.optim import schedules

rng = np.random.default_rng(2)
COUNT = 44
Y = rng.integers(0, 3, size=COUNT)
NUMBERS = np.abs(rng.normal(size=(COUNT, 3))) + 0.1
SHARES = NUMBERS / NUMBERS.sum(axis=1, keepdims=True)
TARGETS = {
    **dict.fromkeys(["cross_entropy", "multi_margin", "nll"], Y),
    **dict.fromkeys(["binary_cross_entropy_with_logits", "kl_div"], SHARES),
    "hinge": np.sign(rng.normal(size=(COUNT, 3))),
    **dict.fromkeys(["l1", "mse", "huber", "smooth_l1", "cosine_distance"], NUMBERS),
}
ACTIVATIONS = [
    kind
    for name, kind in vars(activation).items()
    if name in nn.__all__ and name not in ("Module", "Parameter")
]
OPTIMIZERS = [
    *(optim.SGD(0.1), optim.SGD(0.1, momentum=0.9, nesterov=True), optim.Adam(1e-2)),
    *(optim.AdamW(schedules.CosineAnnealingLR(1e-2, 30)), optim.NAdam(1e-2)),
    *(optim.RMSprop(1e-2, momentum=0.5), optim.Adagrad(1e-2, lr_decay=0.1)),
    *(optim.ClipNorm(optim.SGD(0.1), 0.5), optim.ClipValue(optim.SGD(0.1), 0.1)),
    optim.EMA(optim.Groups({"0.*": optim.Frozen()}, others=optim.Adam(1e-2)), decay=0.9),
    optim.EMA(
        optim.ClipNorm(
            optim.Groups({"0.*": optim.SGD(schedules.StepLR(0.1, 5))}, others=optim.Adam(1e-2)),
            max_norm=0.5,
        ),
        decay=0.9,
    ),
]


class Read(nn.Module):
    """The last of a recurrent layer's outputs."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.out = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(x)[0][:, -1, :])


class Transformer(nn.Module):
    """What an encoder makes of a sequence, and a decoder's layer of both."""

    def __init__(self) -> None:
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 16, 0.1, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.decoder(x, self.encoder(x), tgt_is_causal=True)


class Bilinear(nn.Module):
    """Every pair of features has its own weight."""

    def __init__(self) -> None:
        self.weight = nn.Parameter((3, 6, 6), nn.init.normal(0.0, 0.1))

    def forward(self, x: Any) -> Any:
        return functional.einsum("bi,oij,bj->bo", x, self.weight, x)


NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "pictures": (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(),
            nn.MaxPool2d(2), nn.Dropout2d(0.3), nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 3, 2),
            nn.InstanceNorm2d(3), nn.Upsample(scale_factor=2), nn.Upsample(11),
            nn.Upsample(scale_factor=1.5, mode="bilinear"), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ),
        (2, 8, 8),
    ),
    "volumes": (
        nn.Sequential(
            nn.ReplicationPad2d(1), nn.ReflectionPad2d((0, 1, 2, 0)), nn.ConstantPad2d(1, 0.5),
            nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.Unflatten(1, (2, 4)),
            nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2),
            nn.Dropout3d(0.3), nn.ConvTranspose3d(4, 3, 2), nn.InstanceNorm3d(3), nn.AvgPool3d(2),
            nn.AdaptiveMaxPool3d((1, 2, 2)), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        ),
        (8, 4, 4),
    ),
    "bilinear": (Bilinear(), (6,)),
    "transformer": (
        nn.Sequential(Transformer(), nn.Flatten(), nn.Linear(24, 3)),
        (3, 8),
    ),
    **{
        kind.__name__: (Read(kind(4, 5, batch_first=True)), (6, 4))
        for kind in (nn.RNN, nn.LSTM, nn.GRU)
    },
}  # fmt: skip


@pytest.fixture(params=["numpy", "torch", "cupy", "cuda_captured"])
def capturing(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend that captures: on the host, on a device, or as on a device."""
    if request.param == "cuda_captured":
        if shutil.which("g++") is None:
            pytest.skip("g++ is not installed, which compiles the CUDA sources")
        from plugins.cuda_on_host.captured import CudaCaptured

        backend: Backend = CudaCaptured()
    else:
        status = registry.status(request.param)
        if not status.available:
            pytest.skip(f"{request.param}: {status.reason}")
        backend = status.require()
    with use_backend(backend):
        yield backend


def must_be_captured(
    backend: Backend, net: nn.Module, loss: Any, optimizer: Any, x: Any, y: Any
) -> None:
    found = []
    for how in ("require", "auto"):
        run = Trainer(net, loss, optimizer, backend=backend, compile=how)
        with pytest.MonkeyPatch.context() as patch:
            if how == "auto":
                patch.setattr(backend, "compile", partial(looped, backend))
            run.fit(x, y, epochs=WARM_UP + 2, batch_size=8)
        found.append(run)
    captured, loop = found
    assert captured.history.step_losses == loop.history.step_losses
    weights = captured.net.state_dict()
    for path, w in loop.net.state_dict().items():
        assert np.array_equal(to_numpy(weights[path]), to_numpy(w)), path


DENSE = rng.normal(size=(COUNT, 6))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_is_captured(capturing: Backend, kind: type[nn.Module]) -> None:
    made = kind(0.1, 0.0) if kind is nn.Threshold else kind()
    net = nn.Sequential(nn.Linear(6, 8), made, nn.Linear(4 if kind is nn.GLU else 8, 3))
    must_be_captured(capturing, net, losses.mse, optim.SGD(1e-2), DENSE, NUMBERS)


def test_every_loss_has_targets_here() -> None:
    assert TARGETS.keys() == set(losses.__all__)


@pytest.mark.parametrize("name", TARGETS)
def test_every_loss_is_captured(capturing: Backend, name: str) -> None:
    last = [nn.LogSoftmax()] if name in ("nll", "kl_div") else []
    net = nn.Sequential(nn.Linear(6, 3), *last)
    loss, y = getattr(losses, name), TARGETS[name]
    must_be_captured(capturing, net, loss, optim.SGD(1e-2), DENSE, y)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_every_optimizer_is_captured(capturing: Backend, optimizer: optim.Optimizer) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    must_be_captured(capturing, net, losses.cross_entropy, optimizer, DENSE, Y)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_is_captured(capturing: Backend, name: str) -> None:
    net, shape = NETWORKS[name]
    x = rng.normal(size=(COUNT, *shape))
    must_be_captured(capturing, net, losses.cross_entropy, optim.Adam(1e-2), x, Y)
