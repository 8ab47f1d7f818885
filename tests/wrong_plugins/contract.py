"""What a plug-in says of itself wrongly, and its methods do wrongly."""

import abc

import numpy as np

from wrong_plugins import found, make_writable, refused, replace

# Plug-ins that are not taken


@refused("incompatible: it was written for version 7 of the contract; this polynet has 1")
def wrong_version(lib, plugin):
    plugin.contract = 7


@refused("broken: it lacks the attribute version")
def without_a_version(lib, plugin):
    del plugin.version


@refused("broken: loading it raised TypeError: .* abstract method '?to_host")
def without_to_host(lib, plugin):
    del plugin.to_host
    abc.update_abstractmethods(plugin)


@refused("broken: it calls itself 'another', but is registered as 'misnamed'")
def misnamed(lib, plugin):
    plugin.name = "another"


@refused("no device: it found no device")
def without_devices(lib, plugin):
    plugin.devices = lambda self: {}


@refused("no device: computing on its default device raised ArithmeticError: the sum of four ones")
def probe_fails(lib, plugin):
    replace(lib, "sum", lambda f: lambda x, **options: f(x, **options) + 1)


@refused(r"broken: .*device='loop:0'\) is on 'place 0', .*; in devices\(\), give each device as")
def devices_are_not_those_of_arrays(lib, plugin):
    plugin.device_of = lambda self, array: array.device.replace("loop:", "place ")


# Methods


@found("test_name_version_and_contract", r"version is \(1, 2\); expected a str")
def version_is_a_tuple(lib, plugin):
    plugin.version = (1, 2)


@found("test_without_kernels_takes_them_from_a_copy", "returned the backend itself")
def without_kernels_changes_itself(lib, plugin):
    def without_kernels(self):
        self.kernels = {}
        return self

    plugin.without_kernels = without_kernels


@found("test_an_unknown_device_is_an_error_by_name", r"device\('no_such_device'\) raised no Value")
def device_takes_any_name(lib, plugin):
    plugin.device = lambda self, name: self.devices().get(name, "loop:0")


@found("test_probe_passes_on_every_device", r"probe\('loop:1'\) raised OSError: no driver")
def second_device_is_broken(lib, plugin):
    def probe(self, device):
        if device == "loop:1":
            raise OSError("no driver")

    plugin.probe = probe


@found("test_device_of_says_where_an_array_is", r"device_of\(xp.zeros\(…, device='loop:1'\)\) is")
def device_of_lies(lib, plugin):
    plugin.device_of = lambda self, array: "loop:0"
    plugin.probe = lambda self, device: None  # polynet's would find it first


@found("test_from_host_lands_on_the_device_asked_for", r"from_host\(…, device 'loop:1'\) put")
def from_host_ignores_the_device(lib, plugin):
    plugin.from_host = lambda self, array, device: lib.Array(np.array(array), "loop:0")


@found("test_from_host_is_a_copy", "from_host shares memory")
def from_host_shares_memory(lib, plugin):
    plugin.from_host = lambda self, array, device: lib.Array(array, device)


@found("test_a_dtype_stays_or_is_refused", "from_host made float32 of float64 on 'loop:0'")
def from_host_halves_float64(lib, plugin):
    def from_host(self, array, device):
        short = array.dtype == np.float64
        return lib.Array(array.astype(np.float32 if short else array.dtype), device)

    plugin.from_host = from_host


@found("test_there_and_back", "from_host of float32, .*: the shape became")
def from_host_forgets_the_strides(lib, plugin):
    def from_host(self, array, device):
        plain = array.T if array.ndim == 2 and array.flags.f_contiguous else array
        return lib.Array(np.array(plain), device)

    plugin.from_host = from_host


@found("test_to_host_is_a_copy", "to_host shares memory")
def to_host_returns_a_view(lib, plugin):
    plugin.to_host = lambda self, array: array.value


@found("test_there_and_back", "to_host of float32, .*: expected float32, got float64")
def to_host_doubles_float32(lib, plugin):
    def to_host(self, array):
        short = array.value.dtype == np.float32
        return np.array(array.value, dtype=np.float64 if short else array.value.dtype)

    plugin.to_host = to_host


@found("test_to_host_is_a_copy", "to_host of a broadcast array has one place for several elements")
def to_host_keeps_the_strides(lib, plugin):
    def to_host(self, array):
        copy = np.array(array.value)
        if 0 in array.value.strides:
            whole = np.lib.stride_tricks.as_strided(copy, copy.shape, array.value.strides)
            whole[...] = copy
            return whole
        return copy

    plugin.to_host = to_host


@found("test_is_array_of_nothing_else", r"is_array is true of a numpy\.ndarray")
def is_array_is_too_broad(lib, plugin):
    plugin.is_array = lambda self, x: isinstance(x, lib.Array | np.ndarray)


@found("test_there_and_back", "from_host of float32, 0-d: is_array is false of what came")
def is_array_is_too_narrow(lib, plugin):
    plugin.is_array = lambda self, x: isinstance(x, lib.Array) and x.ndim > 0


@found("test_share_is_the_same_memory_or_an_error", "share of float32, a matrix, .* is a copy: ")
def share_copies(lib, plugin):
    plugin.share = lambda self, x, device: lib.Array(np.array(x), device)


@found("test_share_is_the_same_memory_or_an_error", "broadcast, .*: read-only memory can be writ")
def share_opens_read_only_memory(lib, plugin):
    make_writable(lib)

    def share(self, x, device):
        if not x.flags.writeable:
            x = np.lib.stride_tricks.as_strided(np.array(x))
        return lib.Array(x, device)

    plugin.share = share


@found("test_owned_is_equal_and_alone", "owned of .* transposed shares memory with that array")
def owned_returns_a_view(lib, plugin):
    make_writable(lib)
    plugin.owned = lambda self, array: array
