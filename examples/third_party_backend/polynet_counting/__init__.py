"""A backend for polynet that counts: NumPy, and a profile of what training asks it to do.

    from polynet_counting import profile

    trainer = Trainer(net, loss, optimizer, backend="counting")
    with profile():
        trainer.fit(x, y)

prints which functions of the Array API standard were called, how often, how many numbers they
made, how many bytes they moved, and how long they took. `python -m polynet_counting` does this for
a small network.
"""

import numpy as np

from polynet.backend import Backend
from polynet_counting.arrays import Array, xp
from polynet_counting.profiles import Profile, profile

__all__ = ["Array", "CountingBackend", "Profile", "load", "profile", "xp"]


class CountingBackend(Backend):
    """Everything that polynet needs of a library; `polynet.backend.Backend` describes each part."""

    name = "counting"
    contract = 1
    version = np.__version__
    xp = xp

    def devices(self):
        return {"cpu": "cpu"}

    def is_array(self, x):
        return isinstance(x, Array)

    def from_host(self, array, device):  # noqa: ARG002 (there is only one)
        return Array(np.array(array))

    def to_host(self, array):
        return np.array(array.value)


load = CountingBackend
