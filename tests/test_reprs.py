"""What things say of themselves where they are printed: what they are, and no place in memory."""

from functools import partial

import numpy as np
import pytest

from polynet import Trainer, data, losses, nn, optim
from polynet.callbacks import Checkpoint, EarlyStopping, ReduceLROnPlateau


def halves(*xs):
    return xs


class Squares(data.Source):
    def __len__(self):
        return 100


ARRAYS = data.arrays(np.zeros((3, 4)), np.zeros(3, "int32"))
SAID = "<arrays of 3 samples: x (3, 4) float64, y (3,) int32>"
CASES = {
    "Parameter((3, 2), uniform(-1.0, 1.0))": nn.Parameter((3, 2), nn.init.uniform(-1.0, 1.0)),
    "Parameter((3,), halves(3, by=2))": nn.Parameter((3,), partial(halves, 3, by=2)),
    "Buffer((3,), constant(0.0))": nn.Buffer((3,), nn.init.zeros),
    "Buffer((), halves, 'int32')": nn.Buffer((), halves, "int32"),
    "Context(keys=['2.stream'], buffers=[], first=0, samples=1)": nn.Context(
        np, np.zeros(1), {"2.stream": np.zeros(2)}
    ),
    "Conv2d(3, 8, 3)": nn.Conv2d(3, 8, 3),
    "Conv2d(3, 8, (3, 5), stride=2, padding=(1, 2), dilation=2, bias=False)": nn.Conv2d(
        3, 8, (3, 5), stride=2, padding=(1, 2), dilation=2, bias=False
    ),
    "Conv1d(4, 8, 4, padding='same', groups=2)": nn.Conv1d(4, 8, 4, padding="same", groups=2),
    "ConvTranspose2d(8, 3, 4, stride=2, padding=1, output_padding=1)": nn.ConvTranspose2d(
        8, 3, 4, stride=2, padding=1, output_padding=1
    ),
    "LSTM(\n  2, 3, num_layers=2\n  dropout: Dropout(0.0)\n)": nn.LSTM(2, 3, num_layers=2),
    "Sequential(\n  0: MultiheadAttention(\n    4, 2\n    out_proj: Linear(4, 4)\n"
    "    dropout: Dropout(0.0)\n  )\n)": nn.Sequential(nn.MultiheadAttention(4, 2)),
    "ZeroPad2d((1, 1, 1, 1))": nn.ZeroPad2d(1),
    "ConstantPad1d((1, 2), 0.5)": nn.ConstantPad1d((1, 2), 0.5),
    "Unflatten(1, (3, -1))": nn.Unflatten(1, (3, -1)),
    "TransformerEncoder(\n  layers.0: Identity()\n  layers.1: Identity()\n)": nn.TransformerEncoder(
        nn.Identity(), 2
    ),
    "Upsample(scale_factor=2.0)": nn.Upsample(scale_factor=2),
    "Upsample(size=(2, 3), mode='bilinear', align_corners=False)": nn.Upsample(
        (2, 3), mode="bilinear", align_corners=False
    ),
    SAID: ARRAYS,
    "<arrays of 3 samples: x['a'] (3,) bool, y (3,) float64, sample_weight (3,) float64>": (
        data.arrays({"a": np.zeros(3, bool)}, np.zeros(3), np.ones(3))
    ),
    f"{SAID}.augmented(RandomHorizontalFlip(p=0.5))": ARRAYS.augmented(
        data.augment.RandomHorizontalFlip()
    ),
    f"<2 samples of {SAID}.map(halves)>": ARRAYS.map(halves).subset(np.arange(2)),
    "<Squares of 100 samples>": Squares(),
    "EarlyStopping(monitor='val_loss', mode='min', min_delta=0.0, patience=5, "
    "restore_best_weights=True)": EarlyStopping(),
    "Checkpoint(monitor='val_loss', mode='min', path='a', every=1, "
    "save_best_only=False)": Checkpoint("a"),
    "ReduceLROnPlateau(monitor='loss', mode='min', factor=0.5, patience=10, "
    "threshold=0.0001, threshold_mode='rel', cooldown=0, min_factor=0.0)": ReduceLROnPlateau(
        "loss", factor=0.5
    ),
    "<Trainer of Sequential, mse, SGD(lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0): "
    "0 epochs>": Trainer(nn.Sequential(nn.Linear(4, 1)), losses.mse, optim.SGD(0.5)),
}


@pytest.mark.parametrize("expected", CASES)
def test_repr(expected):
    assert repr(CASES[expected]) == expected
