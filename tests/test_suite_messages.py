"""What the conformance suite says of a plug-in: what it lacks, need not have, and gets wrong."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import polynet
from polynet.testing.assertions import assert_close
from polynet.testing.samples import SAMPLES
from polynet.testing.suite import test_engine, test_namespace, test_ops, test_purity
from polynet.testing.suite.cases import is_capable

pytestmark = pytest.mark.usefixtures("nothing_chosen")


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


def test_rule_12_the_suite_skips_a_function_that_is_lacking_where_it_is_called(
    plugins, monkeypatch
):
    """It is named once, by the test above, and the tests of its values say no more than that."""
    backend = polynet.get_backend("loopback")
    monkeypatch.setattr(backend, "xp", SimpleNamespace(sum=backend.xp.sum))
    for test, args in (
        (test_ops.test_value, ("nextafter", SAMPLES["nextafter"][0])),
        (test_ops.test_gradient, ("nextafter", SAMPLES["nextafter"][0])),
        (test_purity.test_rule, ("nextafter",)),
        (test_namespace.test_results_and_gradients_stay, ("nextafter",)),
        (test_namespace.test_functions_without_derivative, ("signbit",)),
    ):
        with pytest.raises(pytest.skip.Exception, match=f"xp has no '{args[0]}'"):
            test(backend, *args)


MASK = next(s for s in SAMPLES["getitem"] if s.needs == "boolean indexing")
TIMES = next(s for s in SAMPLES["repeat"] if s.needs == "data-dependent shapes")


def test_rule_12_the_suite_skips_what_a_library_says_it_is_not_capable_of():
    strict = pytest.importorskip("array_api_strict")
    backend = polynet.get_backend("strict")
    flags = strict.get_array_api_strict_flags()
    strict.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False)
    try:
        for test, args, lack in (
            (test_ops.test_value, ("getitem", MASK), MASK.needs),
            (test_ops.test_gradient, ("repeat", TIMES), TIMES.needs),
            (test_namespace.test_functions_without_derivative, ("nonzero",), TIMES.needs),
        ):
            with pytest.raises(pytest.skip.Exception, match=f"no {lack}, as its capabilities"):
                test(backend, *args)
        test_purity.test_rule(backend, "getitem")
    finally:
        strict.set_array_api_strict_flags(**flags)


def test_rule_12_the_suite_believes_no_library_that_says_it_is_less_capable(plugins, monkeypatch):
    """JAX says so of what it cannot do inside its compiler only."""
    backend = polynet.get_backend("loopback")
    info = sys.modules["polynet_loopback"].Info
    for lack in (MASK.needs, TIMES.needs):
        monkeypatch.setattr(info, "capabilities", lambda self, lack=lack: {lack: False})
        assert is_capable(backend, lack)


def test_rule_12_the_suite_says_in_the_first_line_what_differs():
    with pytest.raises(AssertionError, match=r"\ANot equal to tolerance rtol=0\.1"):
        assert_close(np.ones(2), np.zeros(2), polynet.get_backend("numpy"), rtol=0.1, atol=0.0)
