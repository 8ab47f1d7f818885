"""Every check of polynet, one session each: `nox --list` shows them, `nox -s lint` runs one.

Arguments after `--` go to the program that the session runs: `nox -s tests -- -x -k tensor`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
BACKENDS = ("numpy", "strict")  # these can be installed everywhere, in seconds

nox.needs_version = ">=2025.5.1"
nox.options.sessions = [
    *(f"tests-{python}(numpy)" for python in PYTHONS),
    f"tests-{PYTHONS[0]}(strict)",  # pure Python on NumPy, whose tests find what a Python breaks
    *("lowest", "lint", "types", "package", "examples"),
]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # sessions of a missing Python show as skipped
nox.options.reuse_venv = "yes"  # installing into it again brings it up to date

TORCH = "torch==2.13.0"  # one known version, with which the results were measured
ONE_THREAD = {  # small arrays gain nothing from more threads, and two sessions may run at once
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")
}
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each of hundreds of processes would compile again


def _see_pythons_off_the_path() -> None:
    """Let nox find Pythons that version managers installed but did not put on the PATH."""
    home = Path.home()
    places = (
        Path(os.environ.get("PYENV_ROOT", home / ".pyenv"), "versions"),
        home / ".asdf/installs/python",
        home / ".local/share/mise/installs/python",
        home / ".local/share/uv/python",
    )
    found = [p for place in places for v in PYTHONS for p in place.glob(f"*{v}.*/bin")]
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, found)])


_see_pythons_off_the_path()


def group(name: str) -> list[str]:
    """The requirements of a dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, name)


EXAMPLES = "tests/test_examples_*.py"
"""Tests of the examples, which have a session of their own."""


def files(*patterns: str) -> tuple[str, ...]:
    """Files in `tests`, by patterns of their names."""
    return tuple(str(path) for p in patterns for path in sorted(Path("tests").glob(p)))


TWO = ("-n", "2", "--dist", "worksteal")
"""Two processes; one that has no more tests takes half of what the other has left."""


def pytest(session: nox.Session, *args: str, **env: str) -> None:
    """Run pytest as this project's sessions do."""
    session.run("pytest", *args, *session.posargs, env={**ONE_THREAD, **env})


MACHINERY = files("test_architecture.py", "test_pytest_plugin.py", "test_wrong_plugins.py")
"""Tests that read sources, or start many new processes, which choose their own libraries: one
session runs them."""
NUMPYS = files(
    *("test_numpy_*.py", "test_killed.py", "test_main.py", "test_memory.py", "test_onnx.py"),
    *("test_sklearn.py", "test_standard.py"),
)
"""Tests that use no array library but NumPy: the sessions of NumPy run them."""
JAXS = files("test_*jax.py")
"""Tests that JAX's session runs."""
CUDA = files("test_cuda_*.py")
"""Tests of CUDA code without a GPU, which `cuda_sources` runs."""
CAPTURED = "cuda_captured"
"""A part of the names of such tests in files with other tests."""
SOURCES = "tests/test_cuda_sources.py"
"""The tests of CUDA code that run nothing on the host, and so need no g++."""
LONG = ("tests/test_agreement.py", "tests/test_derivative_properties.py", "tests/test_onnx.py")
"""Tests of hundreds of training steps or files, or thousands of derivatives, on one Python only."""


def run_tests(
    session: nox.Session, *args: str, without: tuple[str, ...] = MACHINERY, **env: str
) -> None:
    """Run all tests except those of the examples and of CUDA, in two processes."""
    left_out = [f"--ignore={path}" for path in (*without, *CUDA)]
    only = () if "-k" in args else ("-k", f"not {CAPTURED}")
    pytest(session, *TWO, f"--ignore-glob={EXAMPLES}", *left_out, *only, *args, **env)


# Tests


@nox.session(python=PYTHONS)
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
def tests(session: nox.Session, backend: str) -> None:
    """The tests on one backend.

    The sessions with numpy also run the tests that need no backend. With numpy and the oldest
    Python all tests run, and Numba compiles NumPy's loops; in the other sessions NumPy runs without
    Numba.
    """
    with_numba = backend == BACKENDS[0] and session.python == PYTHONS[0]
    session.install("-e", ".[strict,numba]" if with_numba else ".[strict]", *group("test"))
    only = () if backend == "numpy" else ("-k", backend)
    without = () if backend == BACKENDS[0] else (*MACHINERY, *NUMPYS)
    without = without if session.python == PYTHONS[0] else (*MACHINERY, *LONG)
    run_tests(session, "--polynet-backend", backend, *only, without=without)


@nox.session(python=PYTHONS[0], venv_backend="virtualenv")
def tests_torch(session: nox.Session) -> None:
    """The suite on PyTorch, and all comparisons with PyTorch (a download of 300 MB).

    JAX is installed for the run that is handed on from backend to backend, and Numba for NumPy's
    Adam.
    """
    session.install(TORCH)
    session.install("-e", ".[strict,jax,numba,examples]", *group("test"), *group("others"))
    others = (*MACHINERY, *NUMPYS, *JAXS)
    jax = {"JAX_ENABLE_X64": "1", **_kept_programs(session), **_plain_programs(session)}
    run_tests(session, "--polynet-backend", "torch", without=others, **jax)
    with_torch = files("test_examples_transfer.py", "test_examples_digits.py")
    pytest(session, *with_torch, "-k", "transfer or torch and not no_pytorch")


@nox.session(python=PYTHONS[0])
def tests_jax(session: nox.Session) -> None:
    """The suite on JAX with 64 bits; layers, training and the relay also with 32, JAX's default.

    Most of the time goes to compiling thousands of single ops. So the whole suite runs without
    XLA's more expensive optimizations, and layers, training and the relay run with them.
    """
    session.install("-e", ".[strict,jax]", *group("test"))
    kept, plain = _kept_programs(session), _plain_programs(session)
    for bits, how, tests_of in (
        ("1", plain, "jax"),
        ("0", {}, "jax and (training or layers or relay)"),
    ):
        env = {"JAX_ENABLE_X64": bits, **how, **kept}
        run_tests(session, "--polynet-backend", "jax", "-k", tests_of, **env)


def _kept_programs(session: nox.Session) -> dict[str, str]:
    """Settings by which a program that several tests need is compiled once for all processes."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(Path(session.create_tmp(), "programs").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",  # no test reads the lines
    }


def _plain_programs(session: nox.Session) -> dict[str, str]:
    """Settings for programs of JAX without XLA's more expensive optimizations."""
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **_older_code(session)}


def _older_code(session: nox.Session) -> dict[str, str]:
    """A flag for XLA's older code generator, which takes two thirds of the time.

    A version of XLA without that generator ends the process when it reads the flag; for such a
    version the result is empty.
    """
    older = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
    try:
        session.run("python", "-c", "import jax; jax.devices()", env=older, silent=True)
    except nox.command.CommandFailed:
        session.warn(f"this XLA does not know {older['XLA_FLAGS']}: programs compile more slowly")
        return {}
    return older


@nox.session(python=PYTHONS[0])
def array_api(session: nox.Session) -> None:
    """The official suite of the Array API standard, from a local copy: `-- PATH`."""
    path = os.environ.get("ARRAY_API_TESTS_PATH")
    args = session.posargs or ([path] if path else [])
    if not args:
        session.error(
            "give a clone of github:data-apis/array-api-tests, with its submodules, at the commit "
            "in tests/array_api/run.py: `nox -s array_api -- PATH`, or ARRAY_API_TESTS_PATH"
        )
    session.install("-e", ".[strict]", *group("array_api"))
    session.run("python", "tests/array_api/run.py", *args, env=ONE_THREAD)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The tests with the oldest Python and dependencies that pyproject.toml allows."""
    extras = PROJECT["project"]["optional-dependencies"]
    declared = [*PROJECT["project"]["dependencies"], *extras["strict"]]
    session.install("-e", ".[strict]", *group("test"), *map(_oldest, declared))
    run_tests(session, "--polynet-backend", ",".join(BACKENDS), without=(*MACHINERY, *LONG))


def _oldest(requirement: str) -> str:
    """From `numpy>=2.0` to `numpy==2.0`."""
    return requirement.partition(",")[0].replace(">=", "==")


ON_HOST = "tests/plugins/cuda_on_host"
"""CuPy's plug-in with its kernels compiled for the host."""


@nox.session(python=PYTHONS[0])
def cuda_sources(session: nox.Session) -> None:
    """CuPy's kernels without a GPU: compiled for three kinds of GPU, and run on the host.

    The suite on `cupy` runs if there is a GPU; if not, it is collected, and skipped with the
    reason. For the host the kernels are compiled by g++. The last run has its sanitizers, which end
    the process if a kernel reads or writes past an array, reads a pack at an address that is not
    aligned, or counts beyond what an integer holds. (A download of 700 MB: NVRTC and cuBLASLt.)
    """
    session.install("-e", ".", *group("cuda"), *group("test"))
    pytest(session, SOURCES)  # in one process, so that its table of registers is printed
    pytest(session, "polynet/testing", "-k", "cupy", "-q", "-rN")
    if shutil.which("g++") is None:
        session.skip("g++ is not installed: the kernels were compiled, but not run on the host")
    with_plugin = {"PYTHONPATH": str(Path(ON_HOST).resolve())}
    on_the_host = [path for path in CUDA if path != SOURCES]
    others = ("polynet/testing", "tests/test_captured_parts.py", "tests/test_kernels.py")
    only = ("--polynet-backend", "cuda_on_host", "-k", "cuda", *TWO)
    pytest(session, *on_the_host, *others, *only, **with_plugin)
    libraries = [
        str(session.run("g++", f"-print-file-name={name}", external=True, silent=True)).strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    if not all(map(os.path.isabs, libraries)):
        session.skip("g++ lacks AddressSanitizer: whether kernels keep within arrays was not seen")
    flags = "-g -fsanitize=address,alignment,bounds,shift,signed-integer-overflow"
    watched = {
        "CUDA_ON_HOST_FLAGS": f"{flags} -fsanitize-undefined-trap-on-error",
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    beside = [path for path in on_the_host if "captured" not in path]
    pytest(session, *beside, *TWO, **with_plugin, **watched)


# Style and types


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout; `nox -s lint -- --fix` repairs what ruff can repair."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]))


@nox.session
def types(session: nox.Session) -> None:
    """The types of polynet, of its plug-ins and of a user's program, for the oldest Python."""
    session.install("-e", ".", *group("types"))
    session.run("mypy", "--python-version", PYTHONS[0], *session.posargs)


# The package

SHIPPED = (
    *("polynet/py.typed", "polynet_numpy/py.typed", "polynet/testing/plugin.py"),
    *("polynet_cupy/sources/common.cuh", "polynet_cupy/sources/rows.cu"),
)
LISTED = PROJECT["project"]["entry-points"]["polynet.backends"]
TRAIN = """\
import numpy as np, polynet
from polynet import losses, nn, optim
trainer = polynet.Trainer(nn.Linear(1, 1), losses.mse, optim.SGD(lr=0.1), backend="numpy")
x = np.linspace(-1, 1, 32)[:, None]
assert trainer.fit(x, 2 * x, epochs=2)["loss"][1] < trainer.history["loss"][0]
print("trained with", polynet.__file__)
"""


@nox.session
def package(session: nox.Session) -> None:
    """A source archive and a wheel from it, installed in every way: the entry points must work."""
    wheel = _build(session)
    session.run("python", "-c", CHECK_WHEEL, wheel, *SHIPPED)
    for what in ([wheel], ["."], ["-e", "."]):
        _install_and_try(session, what)


def _build(session: nox.Session) -> str:
    """Make a source archive, and a wheel from it; returns the wheel's path."""
    session.install(*group("package"))
    dist = Path(session.create_tmp()).resolve()
    for old in dist.glob("*.*"):
        old.unlink()
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    (wheel,) = dist.glob("*.whl")
    return str(wheel)


CHECK_WHEEL = """\
import sys, zipfile
from packaging.metadata import Metadata
wheel, *shipped = sys.argv[1:]
archive = zipfile.ZipFile(wheel)
names = archive.namelist()
(found,) = (n for n in names if n.endswith(".dist-info/METADATA"))
print(Metadata.from_email(archive.read(found), validate=True).name, "has valid metadata")
missing = set(shipped) - set(names)
strays = [n for n in names if not n.startswith("polynet")]
assert not missing and not strays, f"missing: {missing}; not wanted: {strays}"
"""


def _install_and_try(session: nox.Session, what: list[str]) -> None:
    """Install with pip into a new environment; list backends and train, outside the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        python = _install_afresh(session, folder, *what)
        with session.chdir(folder):
            table = session.run(python, "-m", "polynet", external=True, silent=True)
            session.run(python, "-c", TRAIN, external=True)
    listed = re.findall(r"^(\w+)  ", str(table), flags=re.MULTILINE)
    if not set(LISTED) <= set(listed):
        session.error(f"python -m polynet lists {listed}, expected {sorted(LISTED)}:\n{table}")


def _install_afresh(session: nox.Session, folder: str, *what: str) -> str:
    """Install with pip into a new environment in `folder`; returns its Python."""
    session.run("python", "-m", "venv", folder, silent=True)
    python = str(Path(folder, "Scripts" if sys.platform == "win32" else "bin", "python"))
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    session.run(*pip, *what, external=True)
    return python


ALONE = dict.fromkeys(("PYTHONPATH", "PYTEST_ADDOPTS", "POLYNET_BACKEND"))
"""Unset variables that this machine may have set, and an author's may not."""


@nox.session
def third_party(session: nox.Session) -> None:
    """The plug-in of another distribution passes the suite, beside a wheel of polynet."""
    wheel = _build(session)
    with tempfile.TemporaryDirectory() as folder:
        python = _install_afresh(session, folder, wheel, "examples/third_party_backend[test]")
        (empty := Path(folder, "empty")).mkdir()
        with session.chdir(empty):  # away from the checkout and its configuration of pytest
            suite = ["-W", "error", "--pyargs", "polynet.testing", "--polynet-backend", "counting"]
            for program in (["pytest", *suite, *session.posargs], ["polynet_counting"]):
                env = {**ONE_THREAD, **ALONE}
                session.run(python, "-m", *program, external=True, env=env)


# Programs


@nox.session
def examples(session: nox.Session) -> None:
    """The tests of the examples, which run every one as a program, with small settings."""
    session.install("-e", ".[examples]", *group("test"))
    pytest(session, *TWO, *map(str, sorted(Path().glob(EXAMPLES))))


@nox.session(venv_backend="virtualenv")
def benchmarks(session: nox.Session) -> None:
    """Run the measurements in tests/benchmarks, or the one named: `-- cpu --quick`."""
    session.install(TORCH)
    session.install("-e", ".[strict,examples,jax,numba]", *group("benchmarks"))
    programs = {path.stem: path for path in sorted(Path("tests/benchmarks").glob("*.py"))}
    shared = "candidates cpu_bench gpu_checks gpu_peers gpu_steps measure networks parts workers"
    for module in shared.split():
        del programs[module]
    named = [name for name in session.posargs if name in programs]
    options = [text for text in session.posargs if text not in programs]
    everywhere = [name for name in programs if not name.startswith("gpu")]  # these need a GPU
    for name in named or everywhere:
        session.run("python", str(programs[name]), *options, env=ONE_THREAD)
