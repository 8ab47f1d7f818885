"""A pytest plug-in: a test that takes `backend` runs once on each backend found.

    def test_sum(backend):
        x = polynet.asarray([1.0, 2.0])  # on `backend`, which is the one chosen
        assert float(backend.xp.sum(x)) == 3.0

A backend that is installed, but cannot be used here, is a skip that says why. One that was
asked for fails the run instead: by `--polynet-backend NAME` it must be usable and must run a
test; in the environment, `POLYNET_REQUIRE=NAME,NAME` says what must be usable.

What a backend is known to get wrong stands in a file, `--polynet-expected FILE`, one test a line:

    test_ops.py::test_value[metal-expm1-0]  # metal computes exp(x) - 1; see its issue 12

The id is what pytest prints, with or without the folders before the file's name. The list is
kept to strictly: an expected failure that passes fails the run, and so does an id of no test.

The run closes with a table of what passed, failed, was expected to fail and was skipped on each
backend, with the reasons.

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
REQUIRE = "POLYNET_REQUIRE"
ALL = "all"


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


def pytest_configure(config: pytest.Config) -> None:
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
    config.pluginmanager.register(_Table())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # A name of our own: where `backend` is somebody else's fixture, this is not asked for.
    if "polynet_backend_name" in metafunc.fixturenames:
        from polynet.backend import registry

        given = _given(metafunc.config)
        names = registry.names() if not given or ALL in given else given
        metafunc.parametrize("polynet_backend_name", names)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note in each test, and so in its reports, which backend it is for."""
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "polynet_backend_name" in callspec.params:
        item.user_properties.append((OPTION, callspec.params["polynet_backend_name"]))


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


def _backend_of(report: pytest.TestReport) -> str | None:
    """The backend that a test was for, or None."""
    return next((str(name) for key, name in report.user_properties if key == OPTION), None)


def _fail(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that would have passed, or had nothing to do."""
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class _Guard:
    """Fails a run in which a backend that was named ran no test: green would say too much."""

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


class _ExpectedFailures:
    """Marks the tests that a file lists, and fails a run in which one of its lines is of no test.

    Under pytest-xdist the workers collect, each all of the tests, and tell the controller.
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
"""Where a test counts, by pytest's word for how it ended: the last, if two are true of it."""


class _Table:
    """Closes the run with what happened on each backend, and why what did not pass did not."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        ends = self._ends(terminalreporter.stats)
        if not ends:
            return
        counts = Counter((name, column) for name, column, _ in ends)
        reasons = Counter(end for end in ends if end[2])
        names = sorted({name for name, _, _ in ends})
        width = max(map(len, [*names, "backend"]))
        terminalreporter.write_sep("=", "polynet, by backend")
        terminalreporter.write_line("  ".join([f"{'backend':{width}}", *COLUMNS]))
        for name in names:
            cells = [f"{counts[name, column]:{len(column)}}" for column in COLUMNS]
            terminalreporter.write_line("  ".join([f"{name:{width}}", *cells]))
        for (name, column, reason), count in sorted(reasons.items()):
            terminalreporter.write_line(f"{name}: {count} {column}: {reason}")

    def _ends(self, stats: dict[str, list[Any]]) -> list[tuple[str, str, str]]:
        """Backend, column and reason of each test that was for a backend."""
        ends = {
            report.nodeid: (name, column, _reason(report))
            for category, column in COLUMN_OF.items()
            for report in stats.get(category, ())
            if isinstance(report, pytest.TestReport) and (name := _backend_of(report))
        }
        return list(ends.values())


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped or expected to fail; "" for any other."""
    if report.skipped and hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return ""
