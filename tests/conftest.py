"""Fixtures: plug-ins that are installed for the tests, and Python in a clean environment."""

import gc
import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import polynet
from polynet.backend import refresh

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # SciPy reads it once, when it is imported
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell ignores it for background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["plugins"]  # these are distributions to install; some cannot be imported

PLUGINS = Path(__file__).with_name("plugins")
LARGE = ("cupy", "jax", "torch")


def _install(target, names):
    command = [sys.executable, str(PLUGINS / "wheels.py"), str(target), *names]
    subprocess.run(command, check=True)
    return target


def pytest_collection_finish():
    """Keep thousands of collected tests out of the rounds of Python's garbage collector.

    They stay until the end, and each round that looks at all objects would take 0.3 seconds.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory):
    """The folder where all plug-ins of tests/plugins are installed, except the claimant."""
    names = sorted({path.parent.name for path in PLUGINS.glob("*/entry_points.txt")} - {"claimant"})
    return _install(tmp_path_factory.mktemp("plugins"), names)


@pytest.fixture(scope="session")
def claimant_site(tmp_path_factory):
    """The folder of the claimant, a plug-in that claims NumPy's arrays and makes them ambiguous."""
    return _install(tmp_path_factory.mktemp("claimant"), ["claimant"])


@contextmanager
def _on_path(site):
    before = set(sys.modules)
    sys.path.insert(0, str(site))
    refresh()
    try:
        yield site
    finally:
        sys.path.remove(str(site))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
                del sys.modules[name]
        refresh()


@pytest.fixture
def nothing_chosen(monkeypatch):
    """No backend is chosen when the test begins; a choice that the test makes is undone."""
    monkeypatch.delenv("POLYNET_BACKEND", raising=False)
    polynet.set_backend(None)
    yield
    polynet.set_backend(None)


@pytest.fixture
def plugins(plugin_site, nothing_chosen):
    """Install the plug-ins of tests/plugins, except the claimant."""
    with _on_path(plugin_site) as site:
        yield site


@pytest.fixture
def claimant(claimant_site, nothing_chosen):
    """Install the claimant."""
    with _on_path(claimant_site) as site:
        yield site


@pytest.fixture(scope="module")
def example(request):
    """The program at the path FILE of the test module, imported as a module."""
    spec = importlib.util.spec_from_file_location(
        f"example_{request.module.FILE.stem}", request.module.FILE
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def raises():
    """`raises(action, kind, words)`: the action raises this kind of error, with all the words."""

    def check(action, kind, words):
        with pytest.raises(kind) as caught:
            action()
        for word in words:
            assert word in str(caught.value), str(caught.value)

    return check


@pytest.fixture(scope="session")
def lean_site(tmp_path_factory):
    """A folder that hides the large libraries from every Python that has the folder on its path.

    So a test does not wait until they are imported, and its result does not depend on whether they
    are installed.
    """
    folder = tmp_path_factory.mktemp("lean")
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {LARGE}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    return folder


@pytest.fixture
def run_python(tmp_path, lean_site):
    """`run_python(*args, sites=(), **environment)` runs Python in an empty folder."""

    def run(*args, sites=(), **environment):
        ours = ("POLYNET_", "PYTEST_", "PYTHONPATH")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        path = os.pathsep.join(map(str, [lean_site, *sites]))
        quiet = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=tmp_path,
            env=kept | quiet | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,  # the test judges the exit status
        )

    return run
