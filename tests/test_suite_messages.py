"""What the conformance suite says of a plug-in: what it lacks, need not have, and gets wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

import polynet
from polynet.testing.assertions import assert_close
from polynet.testing.suite import test_engine, test_namespace

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


def test_rule_12_the_suite_says_in_the_first_line_what_differs():
    with pytest.raises(AssertionError, match=r"\ANot equal to tolerance rtol=0\.1"):
        assert_close(np.ones(2), np.zeros(2), polynet.get_backend("numpy"), rtol=0.1, atol=0.0)
