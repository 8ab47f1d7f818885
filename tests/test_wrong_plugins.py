"""Wrong plug-ins: each is the loopback's with one mistake, which the suite finds and names.

This file is the plug-ins too: a copy of it is installed, with an entry point for each mistake. All
of them go through the suite in one run of pytest, whose report the tests here read.
"""

import abc
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import polynet
from polynet.errors import NotCompiledError

PLUGINS = Path(__file__).with_name("plugins")

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
        short = array.dtype == np.float32
        return np.array(array.value, dtype=np.float64 if short else array.dtype)

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


# The namespace


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
        if isinstance(other, lib.Array) and self.dtype == other.dtype == np.int32:
            sums = self.value.astype(np.int64) + other.value
            return lib.Array(np.clip(sums, -(2**31), 2**31 - 1).astype(np.int32), self.device)
        return add(self, other)

    lib.Array.__add__ = __add__


# Kernels


@found("test_value", r"the kernel 'relu' of \[\(3, 4\)\], in float32: .*not equal")
def kernel_has_a_wrong_value(lib, plugin):
    plugin.kernels = {"relu": relu_kernel(lib, value=lambda x: np.maximum(x, 0.2))}


@found("test_gradient", r"gradient of the kernel 'relu' of .*, by array 0: .*not equal")
def kernel_has_a_wrong_gradient(lib, plugin):
    plugin.kernels = {"relu": relu_kernel(lib, slope=0.9)}


@found("test_results_and_gradients_stay", "kernel 'relu' .* device 'loop:1': the result is on loop")
def kernel_leaks_the_device(lib, plugin):
    def relu(xp, x):
        y, pullbacks = relu_kernel(lib)(xp, x)
        return lib.Array(y.value, "loop:0"), pullbacks

    plugin.kernels = {"relu": relu}


@found("test_kernel", r"the kernel 'relu' of \[\(3, 4\)\] changed an argument: .*not equal")
def kernel_changes_its_input(lib, plugin):
    plugin.kernels = {"relu": relu_kernel(lib, value=lambda x: np.maximum(x, 0, out=x))}


@found("test_kernel", "pullback 0 of the kernel 'relu' of .* changed the gradient it was given")
def pullback_writes_to_the_gradient(lib, plugin):
    def relu(xp, x):
        y, _ = relu_kernel(lib)(xp, x)

        def pullback(g):
            if not g.value.flags.writeable:  # as with somebody who has seen that error
                g = lib.Array(g.value.copy(), g.device)
            g.value[...] *= ~(x.value <= 0)
            return g

        return y, (pullback,)

    plugin.kernels = {"relu": relu}


@found("test_kernel", "pullback 0 of the kernel 'relu' of .* changed the result")
def pullback_writes_to_the_result(lib, plugin):
    def relu(xp, x):
        y, _ = relu_kernel(lib)(xp, x)

        def pullback(g):
            np.multiply(g.value, y.value != 0, out=y.value)
            return lib.Array(y.value.copy(), y.device)

        return y, (pullback,)

    plugin.kernels = {"relu": relu}


@found(
    "test_kernel", "pullback 0 of the kernel 'relu' of .* remembers an earlier call: .*not equal"
)
def pullback_remembers_its_first_answer(lib, plugin):
    def relu(xp, x):
        y, (pullback,) = relu_kernel(lib)(xp, x)
        answers = []

        def remembering(g):
            answers.append(pullback(g))
            return answers[0]

        return y, (remembering,)

    plugin.kernels = {"relu": relu}


@found("test_kernel_equals_its_definition", "the kernel 'relu' declines every sample")
def kernel_declines_everything(lib, plugin):
    plugin.kernels = {"relu": lambda xp, x: NotImplemented}


@found("test_every_kernel_replaces_a_composition", r"kernel 'rellu' .* Did you mean 'relu'")
def kernel_of_no_composition(lib, plugin):
    plugin.kernels = {"rellu": relu_kernel(lib)}


# The compiled step


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


@found("test_compile_runs_the_steps_in_order", "compile, the state after 1 steps .* leaves")
def compile_drops_a_leaf(lib, plugin):
    def without_key(self, state, losses, before):
        return {name: part for name, part in state.items() if name != "key"}, lib.xp.stack(losses)

    plugin.compile = compiled(without_key)


@found("test_compile_runs_the_steps_in_order", "compile, .*: leaf 'step': .*not equal")
def compile_forgets_a_leaf(lib, plugin):
    def with_old_step(self, state, losses, before):
        return {**state, "step": before["step"]}, lib.xp.stack(losses)

    plugin.compile = compiled(with_old_step)


@found("test_compile_runs_the_steps_in_order", "compile, the losses of 3 steps .*not equal")
def compile_returns_the_losses_of_the_step_before(lib, plugin):
    def late(self, state, losses, before):
        return state, lib.xp.stack([losses[0], *losses[:-1]])

    plugin.compile = compiled(late)


@found("test_compile_runs_the_steps_in_order", "compile, the losses of 1 steps .*: the result is a")
def compile_returns_a_list_of_losses(lib, plugin):
    plugin.compile = compiled(lambda self, state, losses, before: (state, losses))


@found("test_compile_runs_the_steps_in_order", r"on 'loop:1': the result is on loop:0")
def compile_leaves_the_losses_on_the_default_device(lib, plugin):
    def moved(self, state, losses, before):
        return state, lib.Array(lib.xp.stack(losses).value, "loop:0")

    plugin.compile = compiled(moved)


@found("test_compile_overwrites_nothing_that_others_hold", "leaf 'losses of an earlier call")
def compile_reuses_a_buffer_that_the_caller_holds(lib, plugin):
    buffers = {}

    def overwritten(self, state, losses, before):
        new = lib.xp.stack(losses)
        buffer = buffers.setdefault((new.shape, new.device), new)
        buffer.value[...] = new.value
        return state, buffer

    plugin.compile = compiled(overwritten)


@found(
    "test_compile_returns_leaves_of_their_own",
    r"compile: 'state\.optimizer\.first' is 'state\.optimizer\.second' too",
)
def compile_returns_a_leaf_twice(lib, plugin):
    def merged(self, state, losses, before):
        first = state["optimizer"]["first"]
        slots = dict.fromkeys(state["optimizer"], first)
        return {**state, "optimizer": slots}, lib.xp.stack(losses)

    plugin.compile = compiled(merged)


@found(
    "test_compile_trains_as_the_loop_does", r"leaf 'params\.0\.weight' after 4 calls, in float64"
)
def compile_computes_in_float32(lib, plugin):
    def rounded(self, state, losses, before):
        def short(leaf):
            wide = leaf.dtype == np.float64
            return (
                lib.Array(leaf.value.astype("float32").astype("float64"), leaf.device)
                if wide
                else leaf
            )

        return polynet.tree.map(short, state), lib.xp.stack(losses)

    plugin.compile = compiled(rounded)


@found("test_a_step_that_must_be_one_program_is_or_raises", "step.required is true; expected NotC")
def compile_goes_on_one_operation_at_a_time(lib, plugin):
    def stacked(self, state, losses, before):
        return state, lib.xp.stack(losses)

    plugin.compile = compiled(stacked, refuses=False)


@found("test_compile_returns_leaves_of_their_own", r"first' shares memory with .*second': .*not eq")
def compile_returns_two_leaves_in_one_place(lib, plugin):
    make_writable(lib)

    def packed(self, state, losses, before):
        first = state["optimizer"]["first"]
        slots = {"first": first, "second": lib.Array(first.value, first.device)}
        return {**state, "optimizer": slots}, lib.xp.stack(losses)

    plugin.compile = compiled(packed)


@found("test_two_compiled_steps_are_two", "the second step compiled is not the one it was given")
def compile_remembers_its_first_step(lib, plugin):
    steps = []

    def compile_step(self, step):
        steps.append(step)

        def run(state, data, batches):
            state, losses = run_steps(steps[0], state, data, batches)
            return state, lib.xp.stack(losses)

        return run

    plugin.compile = compile_step


@found("test_compile_reads_nothing_on_the_host", "compile: its runner called to_host 3 times")
def compile_reads_the_losses_on_the_host(lib, plugin):
    def through_the_host(self, state, losses, before):
        host = np.stack([self.to_host(loss) for loss in losses])
        return state, self.from_host(host, losses[0].device)

    plugin.compile = compiled(through_the_host)


# What the suite says of them

SUITE = "polynet.testing.suite."
RELU = "(relu and not linear_relu)"
FEW = f"not results_and_gradients or {RELU} or exp or mean"
"""Of 75 calls those that show mistakes."""
CONTRACT = ["--pyargs", *(f"{SUITE}test_{of}" for of in ("contract", "namespace", "compile"))]
CONTRACT += ["-k", FEW]
KERNELS = ["--pyargs", SUITE + "test_ops", SUITE + "test_purity", "-k", f"{RELU} or every_kernel"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory, lean_site):
    """Where all of the plug-ins above are installed."""
    folder, site = tmp_path_factory.mktemp("build") / "wrong", tmp_path_factory.mktemp("site")
    folder.mkdir()
    (folder / "polynet_wrong.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    points = [f"{name} = polynet_wrong:{name}\n" for name in ("right", *FOUND, *REFUSED)]
    (folder / "entry_points.txt").write_text("".join(["[polynet.backends]\n", *points]))
    wheels = [sys.executable, PLUGINS / "wheels.py", site, "loopback", folder]
    subprocess.run(list(map(str, wheels)), check=True)
    ours = ("POLYNET_", "PYTEST_", "PYTHONPATH")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    path = os.pathsep.join(map(str, [lean_site, site]))
    return {
        **kept,
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def start_pytest(environment, folder, names, *args):
    command = [sys.executable, "-m", "pytest", "-p", "polynet.testing.plugin", "-q"]
    command += ["-W", "error", "-p", "no:cacheprovider", "--tb=line", *args]
    return subprocess.Popen(
        [*command, f"--polynet-backend={','.join(names)}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def reports(environment, tmp_path_factory):
    """By plug-in: every test that ran and, where it failed, what it said, in order."""
    folder = tmp_path_factory.mktemp("run")
    kernels = [name for name in FOUND if name.startswith(("kernel", "pullback"))]
    runs = [
        start_pytest(environment, folder, names, *args, f"--junitxml={report}")
        for names, args, report in (
            (["right", *FOUND], CONTRACT, "0.xml"),
            (["right", *kernels], KERNELS, "1.xml"),
        )
    ]
    for run in runs:
        said, _ = run.communicate(timeout=120)
        assert run.returncode == pytest.ExitCode.TESTS_FAILED, said
    tests = {}
    for report in ("0.xml", "1.xml"):
        for case in ElementTree.parse(folder / report).iter("testcase"):
            name = re.match(r"(\w+)\[(\w+)", case.get("name"))
            if name:
                failure = case.find("failure")
                failure = case.find("error") if failure is None else failure
                said = None if failure is None else failure.get("message")
                tests.setdefault(name[2], []).append((name[1], said))
    return tests


def test_what_is_right_passes(reports):
    assert [test for test in reports["right"] if test[1] is not None] == []
    assert {test for test, _ in reports["right"]} >= {test for test, _ in FOUND.values()}


@pytest.mark.parametrize("mistake", FOUND)
def test_the_suite_finds_and_names(reports, mistake):
    failures = [(test, said) for test, said in reports[mistake] if said is not None]
    assert failures, "every test passed"
    test, says = FOUND[mistake]
    assert failures[0][0] == test, failures[0]
    assert re.search(says, failures[0][1], re.DOTALL | re.IGNORECASE), failures[0][1]


@pytest.mark.parametrize("mistake", REFUSED)
def test_the_suite_does_not_begin(environment, tmp_path, mistake):
    run = start_pytest(environment, tmp_path, [mistake], *CONTRACT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    start = rf"ERROR: --polynet-backend: backend '{mistake}' \(from wrong 1\.0\) cannot be used: "
    assert re.search(start + REFUSED[mistake], said), said
