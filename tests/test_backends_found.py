"""Plug-ins, found and judged: rules 1 to 5 and 9, on plug-ins that were really installed.

tests/plugins holds them, right and wrong. Rules 6 to 8 and 14 are in test_backends_chosen.py, 10 to
13 in test_backends_unknown.py.
"""

import re
import sys
import threading
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from plugin_tools import loopback, run_threads

import polynet
from polynet.backend import CONTRACT, backend_of, refresh, registry
from polynet.errors import BackendUnavailableError, MissingDependency, UnknownBackendError

pytestmark = pytest.mark.usefixtures("nothing_chosen")


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
    ("unlinked", "missing dependency", "libunobtainium.so.1: cannot open shared", ImportError),
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
