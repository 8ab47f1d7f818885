"""A second plug-in that claims NumPy's arrays."""

from polynet_numpy import NumpyBackend


class load(NumpyBackend):  # noqa: N801 (a factory)
    name = "claimant"
