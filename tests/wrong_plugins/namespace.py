"""Wrong functions and operators of a plug-in's namespace."""

import numpy as np

from wrong_plugins import found, replace


@found("test_arrays_have_what_polynet_uses", "shape is of int64; expected Python's int")
def shape_is_of_numpys_integers(lib, plugin):
    lib.Array.shape = property(lambda self: tuple(map(np.int64, self.value.shape)))


@found("test_the_namespace_has_what_polynet_uses", r"xp lacks logaddexp\n")
def missing_function(lib, plugin):
    class Missing(lib.Namespace):
        def __getattr__(self, name):
            if name == "logaddexp":
                raise AttributeError(name)
            return super().__getattr__(name)

    plugin.xp = Missing()


@found("test_functions_without_derivative", "xp: argmax on 'loop:0': .*not equal")
def argmax_is_argmin(lib, plugin):
    lib.xp.argmax = lib.xp.argmin


@found("test_functions_without_derivative", "xp: zeros_like on 'loop:1': the result is on loop:0")
def zeros_like_leaks_the_device(lib, plugin):
    replace(lib, "zeros_like", lambda f: lambda x: lib.Array(np.zeros_like(x.value), "loop:0"))


@found("test_results_and_gradients_stay", r"'exp' by xp .*: the result is a numpy\.ndarray")
def exp_is_a_host_copy_in_disguise(lib, plugin):
    lib.xp.exp = lambda x: np.exp(x.value)


@found("test_results_and_gradients_stay", "'mean' by xp .*: float64 came of float32")
def mean_is_in_float64(lib, plugin):
    double = lib.xp.float64
    replace(lib, "mean", lambda f: lambda x, **options: f(lib.xp.astype(x, double), **options))


@found("test_functions_without_derivative", "xp: n >> 7 on 'loop:0': .*not equal")
def right_shift_forgets_the_sign(lib, plugin):
    right_shift = lib.Array.__rshift__

    def __rshift__(self, n):
        words = lib.Array(self.value.view(np.uint32), self.device)
        bits = lib.Array(n.value.view(np.uint32), n.device) if isinstance(n, lib.Array) else n
        return lib.Array(right_shift(words, bits).value.view(np.int32), self.device)

    lib.Array.__rshift__ = __rshift__


@found("test_int32_wraps_around_and_keeps_its_sign", r"int32 \+ int32: .*not equal")
def int32_saturates(lib, plugin):
    add = lib.Array.__add__

    def __add__(self, other):
        if isinstance(other, lib.Array) and self.dtype == other.dtype == lib.xp.int32:
            sums = self.value.astype(np.int64) + other.value
            return lib.Array(np.clip(sums, -(2**31), 2**31 - 1).astype(np.int32), self.device)
        return add(self, other)

    lib.Array.__add__ = __add__
