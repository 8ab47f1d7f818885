"""Gradient descent: optimizers, and what goes around them.

An optimizer is two pure functions. `init(params)` gives its state; `update(params, grads,
state, step)` gives the next parameters and state. Formulas, names and defaults are PyTorch's.

- `SGD`, `RMSprop`, `Adagrad`, `Adam`, `AdamW`, `NAdam`: rules, the same for every parameter;
- `schedules`: learning rates that change from step to step, `SGD(lr=schedules.StepLR(0.1, 30))`;
- `ClipNorm`, `ClipValue`: an optimizer with gradients that are kept small, `ClipNorm(Adam(), 1.0)`;
- `Groups` and `Frozen`: different optimizers for different parameters, or no optimizer;
- `EMA`: an optimizer that also averages the parameters.
"""

from typing import TYPE_CHECKING

from polynet.optim import schedules
from polynet.optim.adam import Adam, AdamW, NAdam, adam, adamw, nadam
from polynet.optim.averaging import EMA, moving_average
from polynet.optim.base import Optimizer
from polynet.optim.clipping import ClipNorm, ClipValue, clip_norm, clip_value
from polynet.optim.groups import Frozen, Groups
from polynet.optim.sgd import SGD, sgd
from polynet.optim.squares import Adagrad, RMSprop, adagrad, rmsprop
from polynet.pytorch_names import named_in

__all__ = [
    "EMA", "SGD", "Adagrad", "Adam", "AdamW", "ClipNorm", "ClipValue", "Frozen", "Groups", "NAdam",
    "Optimizer", "RMSprop", "adagrad", "adam", "adamw", "clip_norm", "clip_value", "moving_average",
    "nadam", "rmsprop", "schedules", "sgd",
]  # fmt: skip

if not TYPE_CHECKING:  # which would believe that every name exists
    __getattr__ = named_in(__name__, __all__)
