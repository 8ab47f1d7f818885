"""One of two plug-ins that want the same name."""

from polynet_numpy import NumpyBackend


class Conflict(NumpyBackend):
    name = "twice"


load = Conflict
