"""One plug-in for each mistake that leaves the module itself importable."""

import numpy as np

from polynet.backend import Backend
from polynet.errors import MissingDependency
from polynet_numpy import NumpyBackend


def raising():
    raise ZeroDivisionError("the factory divided by zero")


def missing():
    raise MissingDependency("Unobtainium", "pip install unobtainium")


def unlinked():
    raise ImportError("libunobtainium.so.1: cannot open shared object file")


def wrong_type():
    return {"name": "wrong_type"}


class Bare(Backend):
    """The four methods, and nothing else: not even the contract's version."""

    def devices(self):
        return {"cpu": "cpu"}

    def is_array(self, x):
        return isinstance(x, np.ndarray)

    def from_host(self, array, device):
        return np.array(array)

    def to_host(self, array):
        return np.array(array)


class Lacking(Bare):
    name = "lacking"
    contract = 1


class Newer(Backend):
    """For a contract whose methods are others, so that this one cannot even be built here."""

    contract = 2


class Old(Bare):
    contract = 0


def older():
    return Old()


class Misnamed(NumpyBackend):
    name = "another"


class Wordy(Bare):
    contract = "1"


class Listing(NumpyBackend):
    name = "listing"

    def devices(self):
        return ["cpu"]


class Deviceless(NumpyBackend):
    name = "deviceless"

    def devices(self):
        return {}


class Driverless(NumpyBackend):
    name = "driverless"

    def devices(self):
        raise OSError("the driver is too old")


class Miscounting(NumpyBackend):
    name = "miscounting"

    def to_host(self, array):
        return np.array(array) + 1


class Shouty(NumpyBackend):
    name = "Shouty"
