"""What holds the house up: imports point down, no array library in the core, a quick import."""

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import polynet

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "polynet"

FLOORS = {
    "backend": 0,
    "tree": 0,
    "errors": 0,
    "files": 0,
    "pytorch_names": 0,
    "integers": 0,
    "random": 1,
    "tensor": 1,
    "ops": 2,
    "derivative": 2,
    "functional": 3,
    "losses": 3,
    "nn": 4,
    "optim": 4,
    "callbacks": 5,
    "data": 4,
    "metrics": 4,
    "history": 4,
    "interrupt": 4,
    "step": 5,
    "arguments": 5,
    "run": 5,
    "scores": 5,
    "targets": 5,
    "trial": 5,
    "unread": 5,
    "train": 5,
    "checkpoint": 5,
    "view": 6,
    "onnx": 6,
    "sklearn": 6,
    "__init__": 6,
    "__main__": 6,
    "testing": 7,  # above all: nothing imports it, and __init__ only names what is in it
}
"""Which floor each room of `polynet/` is on; a room imports from its own floor and those below."""

NUMPY = {
    "arguments": "says what metrics are given, which is on the host",
    "backend.contract": "types of what moves between host and device",
    "backend.transfer": "moves arrays between host and device",
    "checkpoint.format": "writes and reads arrays of the host",
    "checkpoint.network": "reads arrays of the host",
    "checkpoint.run": "writes and reads arrays of the host",
    "data.augment": "changes images on the host, before they are moved",
    "data.feeds": "checks batches on the host, before they are moved",
    "data.given": "takes in a user's data, which is on the host",
    "data.images": "decodes images on the host",
    "data.order": "draws the order on the host, so that it is the same everywhere",
    "data.place": "takes in a user's data, which is on the host",
    "data.source": "makes batches on the host, before they are moved",
    "data.stacked": "stacks batches on the host, before they are moved",
    "metrics": "are functions of host arrays, as scikit-learn's",
    "nn.init": "draws parameters on the host, so that they are the same everywhere",
    "onnx": "writes arrays of the host to a file",
    "onnx.graphs": "takes in arrays of the host, as a plug-in does",
    "onnx.kernels": "makes constants of a graph",
    "onnx.samples": "computes constants of a graph",
    "random": "draws on the host, so that numbers are the same everywhere",
    "sklearn": "takes and gives arrays of the host, as scikit-learn does",
    "step": "makes the step counter on the host",
    "targets": "checks labels, which are on the host",
    "trial": "lets a loss divide by nothing on the host, while it is tried",
    "unread": "holds losses that were read to the host",
}
"""The modules of the core that may import NumPy, each with its reason."""

DEPENDENCIES = {
    "array_api_compat": {
        "functional.attention",
        "functional.padding",
        "functional.pooling",
        "functional.recurrent",
        "functional.resampling",
        "losses.shared",
        "ops.assignment",
        "ops.decompositions",
        "ops.fourier",
        "ops.indexing",
        "ops.manipulation",
        "ops.matrices",
        "optim.base",
        "random",
        "tensor.recording",
    },
    "PIL": {"data.images"},
    "ndonnx": {"onnx", "onnx.graphs", "onnx.kernels"},
    "onnx": {"onnx", "onnx.samples"},
    "spox": {"onnx.graphs", "onnx.kernels"},
    "safetensors": {"checkpoint.format"},
    "sklearn": {"sklearn"},
    "tqdm": {"train"},
    "numpy": set(NUMPY),
}
"""Who may import each dependency. The core imports nothing else from outside."""

CONTRACT = {"polynet.backend", "polynet.errors", "polynet.random", "polynet.tree"}
"""What a plug-in may import of polynet."""

PLUGINS = {
    "polynet_numpy": {"numpy", "array_api_compat.numpy", "numba", "llvmlite"},  # where installed
    "polynet_cupy": {"numpy", "cupy", "cuda.pathfinder", "cupyx", "array_api_compat"},
    "polynet_strict": {"numpy", "array_api_strict"},
    "polynet_torch": {"numpy", "torch", "array_api_compat"},
    "polynet_jax": {"numpy", "jax", "jaxlib"},
}
"""What each plug-in may import from outside."""

TOP = {
    *("polynet", "backends", "tests", "examples"),
    *("pyproject.toml", "noxfile.py", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
}


def module_name(path, root):
    """`polynet/nn/linear.py` as "polynet.nn.linear"; a package is called by its folder."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(folder, root):
    """The modules below a folder, by name."""
    return {module_name(path, root): path for path in sorted(folder.rglob("*.py"))}


CORE = sources(PACKAGE, ROOT)
BACKENDS = {
    plugin: sources(ROOT / "backends" / plugin, ROOT / "backends")
    for plugin in sorted(p.name for p in (ROOT / "backends").iterdir() if p.is_dir())
}


def imports(path, known):
    """The modules that a file imports, at the top or within a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import; name the module in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def short(module):
    return module.removeprefix("polynet").removeprefix(".") or "__init__"


def room(module):
    return short(module).partition(".")[0]


def is_standard(module):
    return module.partition(".")[0] in sys.stdlib_module_names


def outside(path):
    """What a file imports that is neither Python's nor polynet's."""
    found = set(imports(path, CORE))
    return {m for m in found if not is_standard(m) and m.partition(".")[0] != "polynet"}


def test_every_module_has_a_floor():
    rooms = {room(module) for module in CORE}
    assert rooms == set(FLOORS), "a new room needs a floor; a room that is gone needs none"


@pytest.mark.parametrize("module", CORE)
def test_imports_point_down(module):
    within = [m for m in imports(CORE[module], CORE) if m.partition(".")[0] == "polynet"]
    above = [m for m in within if FLOORS[room(m)] > FLOORS[room(module)]]
    assert not above, f"{module}, on floor {FLOORS[room(module)]}, imports from above: {above}"
    if room(module) != "testing":
        assert "testing" not in map(room, within)


def test_no_module_imports_itself_through_others():
    graph = {module: set(imports(path, CORE)) & set(CORE) for module, path in CORE.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the cycle


@pytest.mark.parametrize("module", [m for m in CORE if room(m) != "testing"])
def test_the_core_imports_no_array_library(module):
    for name in outside(CORE[module]):
        who = DEPENDENCIES.get(name.partition(".")[0], set())
        assert short(module) in who, f"{module} imports {name}; only {sorted(who)} may"
        assert not name.startswith("array_api_compat."), "a namespace comes from the backend"


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_no_permission_is_out_of_date(dependency):
    users = {
        short(module)
        for module, path in CORE.items()
        if room(module) != "testing"
        and dependency in {name.partition(".")[0] for name in outside(path)}
    }
    assert users == DEPENDENCIES[dependency]


def test_the_conformance_suite_needs_pytest_and_numpy_only():
    for module in (m for m in CORE if room(m) == "testing"):
        assert outside(CORE[module]) <= {"numpy", "pytest", "array_api_compat"}, module


@pytest.mark.parametrize("plugin", BACKENDS)
def test_a_plugin_imports_the_contract_and_its_own_library(plugin):
    for module, path in BACKENDS[plugin].items():
        for name in imports(path, CORE):
            top = name.partition(".")[0]
            if top == "polynet":
                assert name in CONTRACT, f"{module} imports {name}; it may import {CONTRACT}"
            elif not is_standard(name) and top != plugin:
                allowed = PLUGINS[plugin]
                assert {name, top} & allowed, f"{module} imports {name}; it may import {allowed}"


# What an import costs

LIBRARIES = ("array_api_strict", "cupy", "jax", "numpy", "safetensors", "torch", "tqdm")

LOADED = """\
import sys
before = set(sys.modules)
{code}
print(*sorted(set(sys.modules) - before))
"""


def loaded(run_python, code):
    """The modules that `code` loads in a new Python."""
    done = run_python("-c", LOADED.format(code=code))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_polynet_loads_itself_only(run_python):
    modules = loaded(run_python, "import polynet")
    assert [m for m in modules if m.partition(".")[0].startswith("polynet")] == ["polynet"]
    assert not [m for m in modules if m.partition(".")[0] in LIBRARIES]


def test_describing_a_network_loads_no_backend(run_python):
    modules = loaded(run_python, "import polynet; polynet.nn, polynet.optim, polynet.losses")
    tops = {m.partition(".")[0] for m in modules}
    assert not tops & (set(LIBRARIES) - {"numpy"})
    assert not [t for t in tops if t.startswith("polynet_")]
    assert not [m for m in modules if m.startswith("array_api_compat.numpy")]


def test_computing_on_numpy_loads_no_other_backend(run_python):
    code = "import polynet; polynet.asarray([1.0], backend='numpy')"
    modules = loaded(run_python, code)
    tops = {m.partition(".")[0] for m in modules}
    assert {t for t in tops if t.startswith("polynet_")} == {"polynet_numpy"}
    assert not tops & (set(LIBRARIES) - {"numpy"})


# What is where, and what it says


def test_the_top_level_stays_short():
    try:
        done = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not know this folder: {error}")
    top = {line.partition("/")[0] for line in done.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP


def test_authors_of_backends_get_the_pytest_that_our_tests_have():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extra = project["project"]["optional-dependencies"]["testing"]
    assert extra == [
        p for p in project["dependency-groups"]["test"] if re.match(r"pytest\b(?!-)", p)
    ]


@pytest.mark.parametrize("name", polynet.__all__)
def test_every_public_name_says_what_it_is(name):
    thing = getattr(polynet, name)
    assert name in dir(polynet)
    assert inspect.getdoc(thing), f"polynet.{name} has no docstring"
    if inspect.isfunction(thing):
        assert ">>> " in thing.__doc__, f"polynet.{name} shows no example"


@pytest.mark.parametrize(
    "module",
    [f"polynet.{name}" for name in polynet.__all__ if name in FLOORS]
    + ["polynet.nn.init", "polynet.optim.schedules", "polynet.data.augment"],
)
def test_every_room_says_which_of_its_names_are_meant(module):
    room = importlib.import_module(module)
    assert not [name for name in room.__all__ if not hasattr(room, name)]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="gradd"):
        _ = polynet.gradd


def test_type_checkers_see_every_public_name():
    """`polynet/__init__.py` imports lazily; the stub beside it says what that gives."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(polynet.__all__)
