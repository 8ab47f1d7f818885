"""A second plug-in that claims NumPy's arrays."""

from polynet_numpy import NumpyBackend


class Claimant(NumpyBackend):
    name = "claimant"


load = Claimant
