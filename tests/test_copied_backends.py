"""A backend is one thing in a process, and goes to another by its name; a process may be forked."""

import copy
import os
import pickle

import pytest

import polynet
from polynet.backend import registry

pytestmark = pytest.mark.usefixtures("nothing_chosen")


@pytest.mark.parametrize("again", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_a_backend_that_is_copied_or_pickled_is_itself(plugins, again):
    backend = polynet.get_backend("loopback")
    assert again(backend) is backend
    assert again({"a": [backend]})["a"][0] is backend
    assert again(registry.status("loopback")).backend is backend


def test_a_changed_backend_is_pickled_with_its_changes(plugins, monkeypatch):
    backend = polynet.get_backend("loopback")

    def with_precision(self, precision):
        other = self.variant("with_precision", precision)
        other.precision = precision
        return other

    monkeypatch.setattr(type(backend), "with_precision", with_precision)
    monkeypatch.setattr(backend, "kernels", {"relu": None})
    changed = backend.with_precision("tf32").without_kernels()
    found = pickle.loads(pickle.dumps(changed))
    assert type(found) is type(backend)
    assert (found.precision, found.kernels) == ("tf32", {})
    assert backend.kernels == {"relu": None}
    assert copy.deepcopy(changed) is changed


FORKED = """
import gc, os, signal, sys, threading
from polynet.backend import collector, registry

work = registry._lock if sys.argv[1] == "the registry" else collector.collector_off
inside, done = threading.Event(), threading.Event()


def works():
    with work:
        inside.set()
        done.wait()


thread = threading.Thread(target=works)
thread.start()
assert inside.wait(timeout=60)
child = os.fork()
if child == 0:
    signal.alarm(20)  # which ends a process that waits for ever
    with collector.collector_off:
        fine = not gc.isenabled()
    registry.status("numpy")
    os._exit(0 if fine and gc.isenabled() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
thread.join()
assert gc.isenabled()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("held", ["the registry", "a capture"])
def test_a_process_forked_while_another_thread_is_at_work_is_as_free_as_any(run_python, held):
    result = run_python("-c", FORKED, held)
    assert (result.returncode, result.stdout) == (0, "0\n"), result.stderr
