"""A plug-in that another distribution, duplicate_b, registers in the very same words."""

from polynet_numpy import NumpyBackend


class Same(NumpyBackend):
    name = "same"


load = Same
