"""Plug-ins, found and chosen: the fourteen rules, each on plug-ins that were really installed.

tests/plugins holds them, right and wrong; `loopback` is a whole library that polynet does not
know, and stands for anybody's.
"""

import contextvars
import copy
import json
import re
import sys
import threading
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import polynet
from polynet import Trainer, losses, nn, optim, random, tree
from polynet.backend import (
    CONTRACT,
    Backend,
    backend_of,
    common_backend,
    refresh,
    registry,
    selection,
)
from polynet.errors import (
    BackendError,
    BackendUnavailableError,
    MissingDependency,
    MixedBackendsError,
    UnknownBackendError,
)
from polynet.testing.assertions import assert_close
from polynet.testing.suite import test_engine, test_namespace

pytestmark = pytest.mark.usefixtures("nothing_chosen")

SOURCE = Path(polynet.__file__).parent


def loopback(values, *, device="loop:0"):
    return polynet.asarray(values, backend="loopback", device=device)


def square_sum(x):
    return (x * x)[0] + (x * x)[1]


# 1. Entry point = lower-case identifier -> zero-argument factory; ours go the same way.


def test_rule_01_every_name_comes_from_an_entry_point(plugins):
    points = {point.name for point in metadata.entry_points(group="polynet.backends")}
    assert set(registry.names()) == points >= {"numpy", "cupy", "loopback"}


def test_rule_01_not_even_numpy_is_known_without_one(monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    refresh()
    try:
        with pytest.raises(UnknownBackendError, match=r"'numpy'\. Expected one of: \(none\)"):
            polynet.get_backend("numpy")
    finally:
        monkeypatch.undo()
        refresh()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Shouty", "not a lower-case identifier"), ("auto", "a reserved word")],
)
def test_rule_01_a_bad_name_is_refused_unloaded(plugins, name, reason):
    status = registry.status(name)
    assert status.state == "incompatible"
    assert f"{name!r} is {reason}" in status.reason
    assert "polynet_mistakes" not in sys.modules


# 2. Names are listed without loading; what is asked for is loaded, once; refresh looks again.


def test_rule_02_listing_loads_nothing(plugins):
    assert "loopback" in registry.names()
    assert not [name for name in sys.modules if name.startswith(("polynet_loop", "polynet_mist"))]


def test_rule_02_only_what_is_asked_for_is_loaded_and_once(plugins):
    first = polynet.get_backend("loopback")
    assert "polynet_loopback" in sys.modules
    assert "polynet_mistakes" not in sys.modules
    assert polynet.get_backend("loopback") is first


def test_rule_02_threads_that_ask_at_once_get_one_backend(plugins):
    start, found = threading.Barrier(4), []

    def ask():
        start.wait()
        found.append(polynet.get_backend("loopback"))

    run_threads(ask, 4)
    assert len(found) == 4
    assert len({id(backend) for backend in found}) == 1


def test_rule_02_refresh_sees_what_was_installed_since(plugin_site):
    assert "loopback" not in registry.names()
    sys.path.insert(0, str(plugin_site))
    try:
        assert "loopback" not in registry.names()
        refresh()
        assert "loopback" in registry.names()
    finally:
        sys.path.remove(str(plugin_site))
        refresh()
    assert "loopback" not in registry.names()


def test_rule_02_refresh_forgets_whose_an_array_was(plugins):
    x = loopback([1.0])
    assert backend_of(x).name == "loopback"
    sys.path.remove(str(plugins))
    refresh()
    try:
        with pytest.raises(TypeError, match="Array is not an array of any"):
            backend_of(x)
    finally:
        sys.path.insert(0, str(plugins))


# 3. Identical duplicates collapse; conflicting ones are unusable, and name both distributions.


def test_rule_03_identical_duplicates_collapse(plugins):
    owners = {p.dist.name for p in metadata.entry_points(group="polynet.backends", name="same")}
    assert owners == {"duplicate_a", "duplicate_b"}
    assert registry.names().count("same") == 1
    assert polynet.get_backend("same").name == "same"


def test_rule_03_conflicting_duplicates_are_unusable_and_name_both(plugins):
    reason = "conflict_a 1.0 and conflict_b 1.0 both register 'twice'; uninstall one of them"
    assert registry.status("twice").state == "incompatible"
    assert registry.status("twice").reason == reason
    with pytest.raises(BackendUnavailableError, match=reason):
        polynet.get_backend("twice")
    assert not {"polynet_conflict_a", "polynet_conflict_b"} & set(sys.modules)


# 4. Each backend has a state, and keeps the original exception, its distribution and a hint.

STATES = [
    ("loopback", "available", "", None),
    ("raising", "broken", "ZeroDivisionError: the factory divided by zero", ZeroDivisionError),
    ("at_import", "broken", "RuntimeError: this module falls over", RuntimeError),
    ("absent", "broken", "no attribute 'nothing_of_this_name'", AttributeError),
    ("wrong_type", "broken", "returned dict; expected a polynet.backend.Backend", None),
    ("lacking", "broken", "it lacks the attribute version and xp", None),
    ("misnamed", "broken", "calls itself 'another', but is registered as 'misnamed'", None),
    ("missing", "missing dependency", "Unobtainium is not installed", MissingDependency),
    ("careless", "missing dependency", "'a_library_that_nobody_has'", ModuleNotFoundError),
    ("astray", "broken", "the module polynet_nowhere, which is not there", ModuleNotFoundError),
    ("listing", "broken", "TypeError: devices() returned a list; expected a dict of", TypeError),
    ("wordy", "incompatible", "version '1' of the contract; this polynet has 1", None),
    ("deviceless", "no device", "it found no device", None),
    ("driverless", "no device", "OSError: the driver is too old", OSError),
    ("miscounting", "no device", "the sum of four ones on cpu came out as 5.0", ArithmeticError),
    ("newer", "incompatible", "version 2 of the contract; this polynet has 1", None),
    ("older", "incompatible", "version 0 of the contract; this polynet has 1", None),
    ("uncontracted", "incompatible", "it states no version of the contract", None),
    ("twice", "incompatible", "both register 'twice'", None),
    ("Shouty", "incompatible", "not a lower-case identifier", None),
    ("auto", "incompatible", "a reserved word", None),
]


@pytest.mark.parametrize(("name", "state", "reason", "cause"), STATES, ids=[s[0] for s in STATES])
def test_rule_04_state(plugins, name, state, reason, cause):
    status = registry.status(name)
    assert status.state == state
    assert reason in status.reason
    assert type(status.error) is (cause or type(None))
    assert (status.backend is None) is (state != "available")
    assert re.fullmatch(r"\w+ 1\.0( and \w+ 1\.0)?", status.distribution)
    assert registry.status(name) is status


@pytest.mark.parametrize("name", [s[0] for s in STATES if s[1] != "available" and s[0] != "auto"])
def test_rule_04_asking_raises_with_the_cause_chained(plugins, name):
    status = registry.status(name)
    with pytest.raises(BackendUnavailableError) as caught:
        polynet.get_backend(name)
    assert caught.value.__cause__ is status.error
    for part in (repr(name), status.distribution, status.state, status.reason):
        assert part in str(caught.value)


def test_rule_04_the_install_hint_is_given_once(plugins):
    assert registry.status("missing").install == "pip install unobtainium"
    with pytest.raises(BackendUnavailableError) as caught:
        polynet.get_backend("missing")
    assert str(caught.value).endswith("To install it: pip install unobtainium")
    assert str(caught.value).count("pip install") == 1


def test_rule_04_every_plugin_installed_for_the_tests_has_its_state_tested(plugins):
    points = metadata.entry_points(group="polynet.backends")
    ours = {p.name for p in points if Path(p.dist.locate_file("")) == plugins}
    assert ours - {"same"} == {state[0] for state in STATES}


def test_rule_04_broken_plugins_harm_nobody(plugins):
    states = {name: registry.status(name).state for name, *_ in STATES}
    assert len(set(states.values())) == 5
    assert polynet.get_backend("numpy").name == "numpy"
    assert backend_of(np.ones(2)).name == "numpy", "a broken plug-in claims NumPy's arrays too"
    assert backend_of(loopback([1.0])).name == "loopback"


# 5. Availability is a probe that allocates and computes, never an import.


@pytest.mark.parametrize("name", ["deviceless", "driverless", "miscounting"])
def test_rule_05_importable_is_not_available(plugins, name):
    assert not registry.status(name).available
    assert "polynet_mistakes" in sys.modules


def test_rule_05_the_probe_computes_on_the_device(plugins):
    backend = polynet.get_backend("loopback")
    backend.probe("loop:1")
    backend.xp = None
    with pytest.raises(AttributeError):
        backend.probe("loop:1")


# 6. argument > use_backend > set_backend > POLYNET_BACKEND > the arrays > numpy


def test_rule_06_precedence(plugins, monkeypatch):
    assert polynet.get_backend().name == "numpy"
    assert backend_of(loopback([1.0])).name == "loopback"
    x = np.ones(2)
    assert backend_of(x).name == "numpy"
    monkeypatch.setenv("POLYNET_BACKEND", "same")
    assert (polynet.get_backend().name, backend_of(x).name) == ("same", "same")
    polynet.set_backend("loopback")
    assert polynet.get_backend().name == "loopback"
    with polynet.use_backend("same"):
        assert polynet.get_backend().name == "same"
        with polynet.use_backend("numpy"):
            assert polynet.get_backend().name == "numpy"
            assert polynet.get_backend("loopback").name == "loopback"
        assert polynet.get_backend().name == "same"
    assert polynet.get_backend().name == "loopback"
    polynet.set_backend(None)
    assert polynet.get_backend().name == "same"


def test_rule_06_who_is_asked_for_needs_no_claim(plugins, monkeypatch):
    """Whose arrays these are where nobody chose is another matter."""
    monkeypatch.setattr(registry, "claimants", lambda module: ("numpy",) * (module == "numpy"))
    refresh_types()
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
    net = nn.Linear(2, 1).init(seed=0, backend="loopback")
    job = Trainer(net, losses.mse, optim.SGD(0.1), backend="loopback")
    job.fit(loopback(x), loopback(y), epochs=2)
    job = Trainer(nn.Linear(2, 1), losses.mse, optim.SGD(0.1), backend="loopback")
    job.fit(x, y, epochs=2)
    assert job.predict(x).shape == (8, 1)
    monkeypatch.undo()
    refresh_types()


def refresh_types():
    selection._by_type.clear()


def test_rule_06_a_claim_may_name_the_factory_in_other_words(plugins):
    """Of the only plug-in of its distribution."""
    assert registry.claimants("polynet_loopback_arrays") == ("loopback",)


def test_rule_06_asarray_follows_the_choice(plugins):
    with polynet.use_backend("loopback") as backend:
        assert backend.is_array(polynet.asarray([1.0]))
        assert isinstance(polynet.asarray([1.0], backend="numpy"), np.ndarray)


def test_rule_06_use_backend_ends_with_the_block_even_by_an_error(plugins):
    with pytest.raises(KeyError), polynet.use_backend("loopback"):
        raise KeyError
    assert polynet.get_backend().name == "numpy"


def test_rule_06_the_environment_is_read_when_asked_and_every_time(plugins, monkeypatch):
    for name in ("loopback", "same", "numpy"):
        monkeypatch.setenv("POLYNET_BACKEND", f" {name} ")
        assert polynet.get_backend().name == name
    monkeypatch.setenv("POLYNET_BACKEND", "")
    assert polynet.get_backend().name == "numpy"


IMPORTS = """
import json, sys
import polynet, polynet.backend
polynet.backend.registry.names()
large = ("torch", "jax", "cupy", "array_api_strict", "polynet_loopback", "polynet_numpy")
print(json.dumps(sorted(set(large) & set(sys.modules))))
"""


def test_rule_06_import_loads_no_library_and_writes_nothing(plugin_site, run_python, tmp_path):
    result = run_python("-c", IMPORTS, sites=[plugin_site], POLYNET_BACKEND="nonsense")
    assert (result.stderr, result.returncode) == ("", 0)
    assert json.loads(result.stdout) == []
    assert list(tmp_path.iterdir()) == []


# 7. Never fall back silently; "auto" is opt-in, prints its order, and says what it chose.


@pytest.mark.parametrize("given", ["numpyy", "NUMPY"])
def test_rule_07_an_unknown_name_raises_with_the_nearest_one(given):
    with pytest.raises(UnknownBackendError) as caught:
        polynet.get_backend(given)
    assert f"unknown backend {given!r}. Did you mean 'numpy'?" in str(caught.value)
    assert "cupy, jax, numpy" in str(caught.value)


def test_rule_07_the_environment_is_named_where_it_is_wrong(plugins, monkeypatch):
    monkeypatch.setenv("POLYNET_BACKEND", "loopbak")
    with pytest.raises(UnknownBackendError, match=r"POLYNET_BACKEND: .*mean 'loopback'\?"):
        polynet.get_backend()
    monkeypatch.setenv("POLYNET_BACKEND", "raising")
    with pytest.raises(BackendUnavailableError, match=r"POLYNET_BACKEND: .*'raising'") as caught:
        backend_of(np.ones(2))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("name", ["missing", "no_such_backend"])
def test_rule_07_choosing_what_cannot_be_used_raises_and_changes_nothing(plugins, name):
    polynet.set_backend("loopback")
    with pytest.raises(BackendError, match=name):
        polynet.set_backend(name)
    with pytest.raises(BackendError, match=name), polynet.use_backend(name):
        pytest.fail("the block must not run")
    assert polynet.get_backend().name == "loopback"


def test_rule_07_auto_prints_its_order_and_choice(plugins, monkeypatch, capsys):
    monkeypatch.setattr(selection, "AUTO_ORDER", ("not_installed", "missing", "same", "loopback"))
    assert polynet.get_backend("auto").name == "loopback", "the first with more than a CPU"
    order = "not_installed, missing, same, loopback, numpy"
    assert capsys.readouterr() == ("", f'polynet: "auto" chose loopback (order: {order})\n')


def test_rule_07_auto_may_choose_numpy_and_says_so(plugins, monkeypatch, capsys):
    monkeypatch.setattr(selection, "AUTO_ORDER", ("missing",))
    assert polynet.get_backend("auto").name == "numpy"
    assert '"auto" chose numpy (order: missing, numpy)' in capsys.readouterr().err


def test_rule_07_auto_in_the_environment_speaks_once(plugins, monkeypatch, capsys):
    monkeypatch.setattr(selection, "AUTO_ORDER", ("loopback",))
    monkeypatch.setenv("POLYNET_BACKEND", "auto")
    assert [polynet.get_backend().name for _ in range(3)] == ["loopback"] * 3
    assert capsys.readouterr().err.count("chose loopback") == 1


# 8. One backend and one device; a mix raises, naming both. A choice holds in threads.


def test_rule_08_mixed_backends_raise_and_name_both(plugins):
    x = loopback([1.0])
    with pytest.raises(
        MixedBackendsError, match=r"the rows are on .* 'numpy' and 'loopback'; move"
    ):
        common_backend([np.ones(2), x], "the rows")
    with pytest.raises(MixedBackendsError, match="'loopback' and 'numpy'"):
        polynet.value_and_grad(lambda p: p[0], argnums=0)([x, np.ones(1)])
    with pytest.raises(MixedBackendsError, match=r"numpy\.ndarray met .* backend 'loopback'"):
        polynet.value_and_grad(lambda p: (p * np.ones(1))[0])(x)


def test_rule_08_mixed_devices_raise_and_name_both(plugins):
    x, y = loopback([1.0]), loopback([1.0], device="loop:1")
    with pytest.raises(MixedBackendsError, match="devices of 'loopback', loop:0 and loop:1; move"):
        common_backend([x, y])
    assert common_backend([y, y]) == (polynet.get_backend("loopback"), "loop:1")


def test_rule_08_an_unknown_device_raises_with_those_there_are(plugins):
    with pytest.raises(ValueError, match="no device 'cuda:0'; it has: loop:0, loop:1"):
        loopback([1.0], device="cuda:0")


def test_rule_08_what_no_backend_claims_is_no_array():
    with pytest.raises(TypeError, match=r"builtins\.list is not an array of any backend found \("):
        backend_of([1.0])


def test_rule_08_arrays_that_two_backends_claim_wait_for_a_choice(claimant):
    x = np.ones(2)
    advice = "several backends take numpy's arrays: claimant, numpy; choose one with polynet.use_b"
    with pytest.raises(TypeError, match=advice):
        backend_of(x)
    with pytest.raises(TypeError, match=advice):
        polynet.grad(square_sum)(x)
    for name in ("claimant", "numpy"):
        with polynet.use_backend(name):
            assert backend_of(x).name == name
            assert polynet.grad(square_sum)(x).tolist() == [2.0, 2.0]


def test_rule_08_set_backend_holds_in_worker_threads(plugins):
    seen = []
    polynet.set_backend("loopback")
    run_threads(lambda: seen.append(polynet.get_backend().name), 2)
    assert seen == ["loopback", "loopback"]


def test_rule_08_set_backend_outlives_the_context_it_was_called_in(plugins):
    """As in a notebook, where each cell may run in a context of its own."""
    contextvars.Context().run(polynet.set_backend, "loopback")
    assert polynet.get_backend().name == "loopback"


def test_rule_08_use_backend_goes_where_its_context_goes(plugins):
    seen = {}

    def look(where):
        seen[where] = polynet.get_backend().name

    with polynet.use_backend("loopback"):
        context = contextvars.copy_context()
        run_threads(lambda: context.run(look, "in the context"))
        run_threads(lambda: look("in a thread of its own"))
    assert seen == {"in the context": "loopback", "in a thread of its own": "numpy"}


# 9. A contract version, checked before use, naming both versions.


@pytest.mark.parametrize(("name", "version"), [("newer", 2), ("older", 0)])
def test_rule_09_another_contract_is_refused_naming_both_versions(plugins, name, version):
    reason = f"written for version {version} of the contract; this polynet has {CONTRACT}"
    with pytest.raises(BackendUnavailableError, match=reason):
        polynet.get_backend(name)


def test_rule_09_the_contract_is_read_before_the_plugin_is_built(plugins):
    registry.status("newer")
    with pytest.raises(TypeError, match="abstract"):
        sys.modules["polynet_mistakes"].Newer()


# 10. A small mandatory surface; everything else has a default.

MANDATORY = {"devices", "is_array", "from_host", "to_host"}


def test_rule_10_four_methods_and_four_attributes_are_a_backend(plugins):
    written = {name for name in vars(type(polynet.get_backend("loopback"))) if name[0] != "_"}
    assert Backend.__abstractmethods__ == MANDATORY
    assert written == MANDATORY | {"name", "contract", "version", "xp"}


def test_rule_10_the_default_step_runner_trains(plugins):
    def step(x, scale, rows):
        value, slope = polynet.value_and_grad(lambda x: square_sum(x) * scale)(x)
        return x - slope * rows, value

    run = polynet.get_backend("loopback").compile(step)
    x, losses = run(loopback([3.0, 4.0]), 1.0, loopback([0.25, 0.25]))
    assert polynet.to_numpy(x).tolist() == [0.75, 1.0]
    assert [float(loss) for loss in losses] == [25.0, 6.25]


def test_rule_10_a_runner_is_a_function_and_gives_a_loss_a_step(plugins):
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
    for compile_, words in (
        (lambda step: None, r"compile of backend 'loopback' returned a NoneType; expected a func"),
        (lambda step: step, r"a run of 1 steps on 'loopback' gave losses of shape \(\)"),
    ):
        backend = copy.copy(polynet.get_backend("loopback"))
        backend.compile = compile_
        job = Trainer(nn.Linear(2, 1), losses.mse, optim.SGD(0.1), backend=backend)
        with pytest.raises(TypeError, match=words):
            job.fit(x, y, batch_size=8)


# 11. Streams are counters: the same numbers everywhere.


def test_rule_11_a_mask_is_the_same_on_a_library_nobody_knows(plugins):
    def mask(backend):
        key = polynet.asarray(random.key(7, "dropout"), backend=backend)
        step = polynet.asarray(np.array([3], dtype=np.int32), backend=backend)
        xp = polynet.get_backend(backend).xp
        return polynet.to_numpy(random.keep_mask.definition(xp, key, step, shape=(5, 7), keep=0.5))

    assert 0 < mask("numpy").sum() < 35
    np.testing.assert_array_equal(mask("loopback"), mask("numpy"), strict=True)


# 12. The suite ships in the package; a CPU runs loopback and strict. See test_pytest_plugin.py.


def test_rule_12_the_pytest_plugin_ships_with_the_distribution():
    (point,) = metadata.entry_points(group="pytest11", name="polynet")
    assert (point.dist.name, point.value) == ("polynet-array", "polynet.testing.plugin")
    assert (SOURCE / "testing" / "plugin.py").is_file()


def test_rule_12_loopback_and_strict_need_no_gpu(plugins):
    pytest.importorskip("array_api_strict")
    assert [registry.status(name).state for name in ("loopback", "strict")] == ["available"] * 2


def test_rule_12_the_suite_names_what_is_lacking_once(plugins, monkeypatch):
    backend = polynet.get_backend("loopback")
    monkeypatch.setattr(backend, "xp", SimpleNamespace(sum=backend.xp.sum))
    with pytest.raises(AssertionError, match="xp lacks __array_namespace_info__, abs, acos, "):
        test_namespace.test_the_namespace_has_what_polynet_uses(backend)


def test_rule_12_the_suite_skips_what_a_library_need_not_have(plugins, monkeypatch):
    backend = polynet.get_backend("loopback")
    monkeypatch.setattr(backend, "xp", SimpleNamespace(sum=backend.xp.sum))
    with pytest.raises(pytest.skip.Exception, match="xp has no 'unique_values'"):
        test_engine.test_a_function_without_derivative_is_refused_by_name(backend)


def test_rule_12_the_suite_says_in_the_first_line_what_differs():
    with pytest.raises(AssertionError, match=r"\ANot equal to tolerance rtol=0\.1"):
        assert_close(np.ones(2), np.zeros(2), polynet.get_backend("numpy"), rtol=0.1, atol=0.0)


# 13. dtype, device, gradients; what was saved on A loads on B.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("device", ["loop:0", "loop:1"])
def test_rule_13_a_gradient_keeps_library_dtype_and_device(plugins, dtype, device):
    backend = polynet.get_backend("loopback")
    x = polynet.asarray([3.0, -4.0], backend=backend, device=device, dtype=dtype)
    value, slope = polynet.value_and_grad(square_sum)(x)
    assert (float(value), polynet.to_numpy(slope).tolist()) == (25.0, [6.0, -8.0])
    for array in (value, slope):
        assert backend.is_array(array)
        assert (str(array.dtype), backend.device_name(array)) == (dtype, device)


def test_rule_13_a_little_network_has_the_gradients_it_has_on_numpy(plugins):
    def loss(p, x):
        hidden = x @ p["weight"].mT + p["bias"]
        return square_sum(hidden[0, :] * 0.5 - 1.0)

    rng = np.random.default_rng(0)
    p = {"weight": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)}
    x = rng.normal(size=(1, 3))
    expected, slopes = polynet.value_and_grad(loss)(p, x)
    value, found = polynet.value_and_grad(loss)(tree.map(loopback, p), loopback(x))
    assert float(value) == float(expected)
    for name, slope in slopes.items():
        np.testing.assert_array_equal(polynet.to_numpy(found[name]), slope, strict=True)


def test_rule_13_a_tree_moves_there_and_back_bit_for_bit(plugins):
    p = {"a": np.float32([0.1, -0.0]), "b": [np.int32([7]), np.array(True)]}
    back = tree.map(polynet.to_numpy, tree.map(loopback, p))
    before, after = (
        [(name, array.dtype, array.tobytes()) for name, array in tree.named_leaves(t)]
        for t in (p, back)
    )
    assert before == after


def test_rule_13_nothing_reaches_the_host_by_itself(plugins):
    with pytest.raises(TypeError, match="does not become a NumPy array by itself"):
        np.asarray(loopback([1.0]))


def test_rule_13_dtypes_are_compared_with_dtypes_only(plugins, monkeypatch):
    x = loopback([1.0, 2.0])
    library = sys.modules["polynet_loopback"]
    opened = library.opened
    monkeypatch.setattr(library, "opened", lambda x: x.kind if isinstance(x, Dtype) else opened(x))
    monkeypatch.setattr(library.Array, "dtype", property(lambda a: Dtype(a.value.dtype)))
    slopes = polynet.grad(lambda a: polynet.array_namespace(*a).sum(a[0] * a[1]))([x, x * 3])
    assert [slope.value.tolist() for slope in slopes] == [[3.0, 6.0], [1.0, 2.0]]


# 14. Booleans in the environment are read strictly; no version gates at import.


def test_rule_14_the_environment_holds_names_and_no_booleans():
    """Whoever adds a variable adds it here; a boolean one must refuse what is not a boolean."""
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    assert set(re.findall(r"POLYNET_[A-Z_]+", text)) == {"POLYNET_BACKEND", "POLYNET_REQUIRE"}


@pytest.mark.parametrize("word", ["0", "false", "off"])
def test_rule_14_a_boolean_word_is_not_a_backend(monkeypatch, word):
    monkeypatch.setenv("POLYNET_BACKEND", word)
    with pytest.raises(UnknownBackendError, match=f"POLYNET_BACKEND: unknown backend '{word}'"):
        polynet.get_backend()


def test_rule_14_an_odd_version_stops_nobody(run_python):
    script = "import numpy, polynet; numpy.__version__ = 'odd'; "
    result = run_python("-c", script + "print(polynet.get_backend().version.partition(', ')[0])")
    assert (result.stdout, result.stderr) == ("odd\n", "")


# Helpers


def run_threads(target, count=1):
    threads = [threading.Thread(target=target) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Dtype:
    """A dtype that is compared with its like only, as MLX's are: with None it raises."""

    def __init__(self, kind):
        self.kind = kind

    def __eq__(self, other):
        if not isinstance(other, Dtype):
            raise TypeError(f"expected a Dtype, got {other!r}")
        return self.kind == other.kind

    __hash__ = None
