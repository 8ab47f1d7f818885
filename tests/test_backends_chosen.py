"""Which backend it is: rules 6 to 8, and 14, of what the environment may say.

An argument, a block, the process, the environment, or the arrays choose, and nothing is mixed.
"""

import contextvars
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from plugin_tools import loopback, run_threads, square_sum

import polynet
from polynet import Trainer, losses, nn, optim
from polynet.backend import backend_of, common_backend, registry, selection
from polynet.errors import (
    BackendError,
    BackendUnavailableError,
    MixedBackendsError,
    UnknownBackendError,
)

pytestmark = pytest.mark.usefixtures("nothing_chosen")

SOURCE = Path(polynet.__file__).parent

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
    inherited = getattr(sys.flags, "thread_inherit_context", 0)  # by free-threaded Python
    own = "loopback" if inherited else "numpy"
    assert seen == {"in the context": "loopback", "in a thread of its own": own}


# 14. Booleans in the environment are read strictly; no version gates at import.


def test_rule_14_the_environment_holds_names_and_no_booleans():
    """Whoever adds a variable adds it here; a boolean one must refuse what is not a boolean."""
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
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
