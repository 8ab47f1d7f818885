"""A pytest plug-in: a test that takes `backend` runs once on each backend found.

    def test_sum(backend):
        x = polynet.asarray([1.0, 2.0])  # on `backend`, which is the one chosen
        assert float(backend.xp.sum(x)) == 3.0

Tests on a backend that is installed, but cannot be used here, are skipped with the reason. A
backend that was asked for fails the run instead: with `--polynet-backend NAME`, it must be usable
and must run a test. In the environment, `POLYNET_REQUIRE=NAME,NAME` lists backends that must be
usable.

Tests that a backend is known to fail are listed in a file, `--polynet-expected FILE`, one a line:

    test_ops.py::test_value[metal-expm1-0]  # metal computes exp(x) - 1; see its issue 12

The id is what pytest prints, with or without the folders before the file's name. The list is
strict: an expected failure that passes fails the run, and so does an id of no test.

A test of an optional part of plug-ins is marked `polynet_part(name)`. On a backend that brings the
part, the test belongs to that part's level. On others, where polynet's default stands in, it
belongs to the level "minimal", as all unmarked tests do; but tests of kernels, `compile` and `jit`
are left out there. A test with a parameter `kernel` is only for backends with a kernel of that
name. `--polynet-level LEVEL` runs one level.

The run ends with a table that counts, by backend and level, the tests that passed, failed, were
expected to fail and were skipped. Below it are the parts that a backend does not bring, and the
reasons.

pytest loads this file wherever polynet is installed, so it imports polynet only when asked.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from polynet.backend import Backend

OPTION = "--polynet-backend"
EXPECTED = "--polynet-expected"
LEVEL = "--polynet-level"
REQUIRE = "POLYNET_REQUIRE"
ALL = "all"

MARKER = "polynet_part"
MINIMAL = "minimal"
PARTS = ("kernels", "compile", "jit", "owned", "device_of", "probe", "share")
"""The optional parts of a plug-in, each an attribute or a method of `polynet.backend.Backend`."""
OWN_ONLY = ("kernels", "compile", "jit")
"""Parts tested only where a plug-in brings them; the defaults of the others are tested too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("polynet")
    group.addoption(
        OPTION,
        action="append",
        default=[],
        metavar="NAME",
        help="run tests that take `backend` on this one; several by commas or by repeating the "
        f"option; '{ALL}' (the default) is every one installed, and skips what is unavailable",
    )
    group.addoption(
        EXPECTED,
        metavar="FILE",
        help="tests that must fail, one a line, as `test id  # reason`; one that passes fails the "
        "run, and so does an id of no test",
    )
    group.addoption(
        LEVEL,
        choices=(MINIMAL, *PARTS),
        help="run tests of this level only: what every backend must pass, or what is tested of a "
        "part that a backend brings",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}(name): tests an optional part of a plug-in")
    config.pluginmanager.register(levels := _Levels(config.getoption(LEVEL)))
    if config.getoption(EXPECTED):
        config.pluginmanager.register(_ExpectedFailures(config.getoption(EXPECTED)))
    if hasattr(config, "workerinput"):
        return  # a worker of pytest-xdist, whose controller does all this
    named = [name for name in _given(config) if name != ALL]
    _require(OPTION, named)
    required = os.environ.get(REQUIRE, "")
    _require(REQUIRE, _split(required) if required.strip() else [])
    if named and not config.option.collectonly:
        config.pluginmanager.register(_Guard(named))
    config.pluginmanager.register(_Table(levels))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The name is our own: a test that uses another project's fixture `backend` does not have it.
    if "polynet_backend_name" in metafunc.fixturenames:
        from polynet.backend import registry

        given = _given(metafunc.config)
        names = registry.names() if not given or ALL in given else given
        metafunc.parametrize("polynet_backend_name", names)


@pytest.fixture
def backend(polynet_backend_name: str) -> Iterator[Backend]:
    """Each backend in turn, which is the one chosen for the duration of the test."""
    from polynet.backend import registry, use_backend

    status = registry.status(polynet_backend_name)
    if not status.available:
        todo = f"; to install it: {status.install}" if status.install else ""
        pytest.skip(f"backend {status.name!r}: {status.state}: {status.reason}{todo}")
    with use_backend(status.require()) as chosen:
        yield chosen


def _given(config: pytest.Config) -> list[str]:
    """The names given by the option, in order, each once."""
    return list(dict.fromkeys(n for text in config.getoption(OPTION) for n in _split(text)))


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _require(source: str, names: list[str]) -> None:
    """End the run, with pytest's exit code 4, unless all of `names` can be used."""
    for name in names:
        from polynet.backend import registry
        from polynet.errors import BackendError

        try:
            registry.status(name).require()
        except BackendError as error:
            raise pytest.UsageError(f"{source}: {error}") from error


def _backend_of(test: pytest.TestReport | pytest.Item) -> str | None:
    """The backend that a test is for, or None."""
    return next((str(name) for key, name in test.user_properties if key == OPTION), None)


def _level_of(test: pytest.TestReport | pytest.Item) -> str:
    """The level of a test."""
    return next((str(level) for key, level in test.user_properties if key == LEVEL), MINIMAL)


def _fail(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that would have passed, or had nothing to do."""
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class _Guard:
    """Fails a run in which a named backend ran no test: success would be misleading."""

    def __init__(self, named: list[str]) -> None:
        self.idle: dict[str | None, None] = dict.fromkeys(named)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and (not report.skipped or hasattr(report, "wasxfail")):
            self.idle.pop(_backend_of(report), None)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.idle:
            _fail(session, exitstatus)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self.idle:
            terminalreporter.write_line(f"ERROR: {OPTION} {name}: no test ran on it", red=True)


class _Levels:
    """Leaves out tests of parts that a backend lacks; notes backend and level in the other tests.

    Under pytest-xdist, every worker collects all of the tests and tells the controller.
    """

    def __init__(self, level: str | None) -> None:
        self.level = level
        self.lacking: dict[str, list[str]] = {}
        """By backend: the parts that it does not bring, among those that have tests."""

    @pytest.hookimpl(hookwrapper=True)  # not wrapper=True, which older versions do not know
    def pytest_pycollect_makeitem(self) -> Iterator[None]:
        outcome: Any = yield
        made = outcome.get_result()
        if isinstance(made, list):
            outcome.force_result([item for item in made if self._is_there(item)])

    def _is_there(self, item: Any) -> bool:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        name = params.get("polynet_backend_name")
        if name is None:
            return True
        level = self._level(item, str(name), params)
        if level is not None:
            item.user_properties += [(OPTION, name), (LEVEL, level)]
        return level is not None

    def _level(self, item: pytest.Item, name: str, params: dict[str, Any]) -> str | None:
        """The level of a test of a backend; None where there is nothing to test."""
        from polynet.backend import registry

        marker = item.get_closest_marker(MARKER)
        backend = None if marker is None else registry.status(name).backend
        if marker is None or backend is None:  # an unusable backend, which is skipped, has no parts
            return MINIMAL
        (part,) = marker.args
        if part not in _parts(backend):
            lacking = self.lacking.setdefault(name, [])
            lacking += [] if part in lacking else [part]
            return None if part in OWN_ONLY else MINIMAL
        there = "kernel" not in params or params["kernel"] in backend.kernels
        return str(part) if there else None

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        if self.level is not None:
            others = [item for item in items if _level_of(item) != self.level]
            config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if _level_of(item) == self.level]
        if hasattr(config, "workeroutput"):
            config.workeroutput[LEVEL] = self.lacking

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.lacking = getattr(node, "workeroutput", {}).get(LEVEL, self.lacking)


def _kernels(name: str) -> list[str]:
    """The names of a backend's kernels."""
    from polynet.backend import registry

    return sorted(registry.status(name).require().kernels)


def _parts(backend: Backend) -> list[str]:
    """The optional parts that a backend brings: those that differ from polynet's default."""
    from polynet.backend import Backend

    def is_own(part: str) -> bool:
        found = getattr(backend, part)
        return getattr(found, "__func__", None) is not getattr(Backend, part)

    return [part for part in PARTS if (backend.kernels if part == "kernels" else is_own(part))]


class _ExpectedFailures:
    """Marks the tests that a file lists, and fails a run if a line of the file names no test.

    Under pytest-xdist, every worker collects all of the tests and tells the controller.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.reasons = _read_expected(path)
        self.strangers: list[str] = []

    @pytest.hookimpl(tryfirst=True)  # before tests are deselected, such as by -k
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        strangers = set(self.reasons)
        for item in items:
            for name in _names(item.nodeid) & self.reasons.keys():
                item.add_marker(pytest.mark.xfail(reason=self.reasons[name], strict=True))
                strangers.discard(name)
        if not session.testsfailed:  # else a file could not be collected, which fails the run too
            self.strangers = sorted(strangers)
        if hasattr(config, "workeroutput"):
            config.workeroutput[EXPECTED] = self.strangers

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.strangers = getattr(node, "workeroutput", {}).get(EXPECTED, self.strangers)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.strangers:
            _fail(session, exitstatus)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self.strangers:
            line = f"ERROR: {EXPECTED} {self.path}: no test has the id {name!r}"
            terminalreporter.write_line(line, red=True)


def _read_expected(path: str) -> dict[str, str]:
    """The reasons by test id; a line that gives none is a usage error."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise pytest.UsageError(f"{EXPECTED}: {error}") from error
    reasons = {}
    for number, line in enumerate(lines, start=1):
        name, _, reason = (part.strip() for part in line.partition(" # "))
        if not name or name.startswith("#"):
            continue
        if not reason:
            raise pytest.UsageError(
                f"{EXPECTED}: {path}, line {number}: {name!r} has no reason; "
                "expected `test id  # reason`"
            )
        reasons[name] = reason
    return reasons


def _names(nodeid: str) -> set[str]:
    """A test's id, and what is left of it without some or all of the folders in front."""
    path, colons, rest = nodeid.partition("::")
    folders = path.split("/")
    return {"/".join(folders[i:]) + colons + rest for i in range(len(folders))}


COLUMNS = ("passed", "failed", "expected to fail", "skipped")
COLUMN_OF = {
    "passed": "passed",
    "xpassed": "passed",  # one that was not strict
    "skipped": "skipped",
    "xfailed": "expected to fail",
    "failed": "failed",
    "error": "failed",
}
"""The column of a test, by pytest's word for its outcome; of two outcomes, the last one counts."""


class _Table:
    """Ends the run with the results on each backend, and the reasons of tests that did not pass."""

    def __init__(self, levels: _Levels) -> None:
        self.levels = levels

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        ends = self._ends(terminalreporter.stats)
        if not ends:
            return
        counts = Counter((name, level, column) for name, level, column, _ in ends)
        reasons = Counter((name, column, why) for name, _, column, why in ends if why)
        rows = sorted({(name, _rank(level), level) for name, level, _, _ in ends})
        wide = max(len(text) for text in ["backend", *(name for name, _, _ in rows)])
        broad = max(len(text) for text in ["level", *(level for _, _, level in rows)])
        terminalreporter.write_sep("=", "polynet, by backend")
        title = [f"{'backend':{wide}}", f"{'level':{broad}}", *COLUMNS]
        terminalreporter.write_line("  ".join(title))
        for name, _, level in rows:
            cells = [f"{counts[name, level, column]:{len(column)}}" for column in COLUMNS]
            line = [f"{name:{wide}}", f"{level:{broad}}", *cells]
            terminalreporter.write_line("  ".join(line))
        for name in [name for name, _, level in rows if level == "kernels"]:
            terminalreporter.write_line(f"{name}: kernels: {', '.join(_kernels(name))}")
        for name in dict.fromkeys(name for name, _, _ in rows):
            if lacking := sorted(self.levels.lacking.get(name, ()), key=_rank):
                terminalreporter.write_line(f"{name}: does not bring {', '.join(lacking)}")
        for (name, column, reason), count in sorted(reasons.items()):
            terminalreporter.write_line(f"{name}: {count} {column}: {reason}")

    def _ends(self, stats: dict[str, list[Any]]) -> list[tuple[str, str, str, str]]:
        """Backend, level, column and reason of each test that was for a backend."""
        ends = {
            report.nodeid: (name, _level_of(report), column, _reason(report))
            for category, column in COLUMN_OF.items()
            for report in stats.get(category, ())
            if isinstance(report, pytest.TestReport) and (name := _backend_of(report))
        }
        return list(ends.values())


def _rank(level: str) -> int:
    """Where a level stands in the table: "minimal" first."""
    return (MINIMAL, *PARTS).index(level)


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped or expected to fail; "" for any other."""
    if report.skipped and hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return ""
