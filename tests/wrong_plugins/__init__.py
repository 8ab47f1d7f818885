"""Plug-ins that are the loopback's with one mistake each: how a mistake is made and registered.

The mistakes are in the modules beside, one for each part of the contract.
"""

import importlib.util

import numpy as np

from polynet.errors import NotCompiledError

FOUND = {}
"""By mistake: the test of the suite that fails first, and what it says."""
REFUSED = {}
"""By mistake: why polynet does not even take the plug-in."""


def loader(mistake):
    """The factory of a plug-in that is right but for one thing: what `mistake` does to it."""

    def load():
        spec = importlib.util.find_spec("polynet_loopback")
        lib = importlib.util.module_from_spec(spec)  # a copy, which nobody else has
        spec.loader.exec_module(lib)
        plugin = lib.LoopbackBackend
        plugin.name = mistake.__name__
        plugin.kernels = {"relu": relu_kernel(lib)}
        mistake(lib, plugin)
        return plugin()

    return load


def found(test, says):
    """Register a mistake: the test that fails first, and what it says, a regular expression."""

    def register(mistake):
        FOUND[mistake.__name__] = (test, says)
        return loader(mistake)

    return register


def refused(says):
    """Register a mistake with which the plug-in cannot be used at all."""

    def register(mistake):
        REFUSED[mistake.__name__] = says
        return loader(mistake)

    return register


# What is right, to make mistakes in


@loader
def right(lib, plugin):
    """No mistake, in kernels and in a compiled step neither, which the loopback does not bring."""

    def stacked(self, state, losses, before):
        return state, lib.xp.stack(losses)

    plugin.compile = compiled(stacked)


def relu_kernel(lib, *, value=lambda x: np.maximum(x, 0), slope=1.0):
    def relu(xp, x):
        y = lib.Array(value(x.value), x.device)
        return y, (lambda g: xp.where(x <= 0, g * 0, g * slope),)

    return relu


def run_steps(step, state, data, batches):
    losses = []
    for i in range(batches.shape[0]):
        state, loss = step(state, data, batches[i, ...])
        losses.append(loss)
    return state, losses


def replace(lib, name, wrap):
    """Put `wrap(f)` in the place of a function `f` of the namespace."""
    setattr(lib.xp, name, wrap(getattr(lib.xp, name)))


def make_writable(lib):
    """Let arrays be written to, as NumPy's and PyTorch's can, so that sharing memory shows."""

    def write(self, key, value):
        self.value[key] = value

    lib.Array.__setitem__ = write


def compiled(returned, refuses=True):
    """A `compile` that returns `returned(plugin, state, losses, the state before)`."""

    def compile_step(self, step):
        if refuses and getattr(step, "required", False):
            raise NotCompiledError("it takes one operation at a time")

        def run(state, data, batches):
            after, losses = run_steps(step, state, data, batches)
            return returned(self, after, losses, state)

        return run

    return compile_step
