"""A pytest plug-in: a test that takes `backend` runs once on each backend found.

    def test_sum(backend):
        x = polynet.asarray([1.0, 2.0])  # on `backend`, which is the one chosen
        assert float(backend.xp.sum(x)) == 3.0

A backend that is installed, but cannot be used here, is a skip that says why. One that was
asked for fails the run instead: by `--polynet-backend NAME` it must be usable and must run a
test; in the environment, `POLYNET_REQUIRE=NAME,NAME` says what must be usable.

pytest loads this file wherever polynet is installed, so it imports polynet only when asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from polynet.backend import Backend

OPTION = "--polynet-backend"
REQUIRE = "POLYNET_REQUIRE"
ALL = "all"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("polynet").addoption(
        OPTION,
        action="append",
        default=[],
        metavar="NAME",
        help="run tests that take `backend` on this one; several by commas or by repeating the "
        f"option; '{ALL}' (the default) is every one installed, and skips what is unavailable",
    )


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # a worker of pytest-xdist, whose controller does all this
    named = [name for name in _given(config) if name != ALL]
    _require(OPTION, named)
    required = os.environ.get(REQUIRE, "")
    _require(REQUIRE, _split(required) if required.strip() else [])
    if named and not config.option.collectonly:
        config.pluginmanager.register(_Guard(named))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # A name of our own: where `backend` is somebody else's fixture, this is not asked for.
    if "polynet_backend_name" in metafunc.fixturenames:
        from polynet.backend import registry

        given = _given(metafunc.config)
        names = registry.names() if not given or ALL in given else given
        metafunc.parametrize("polynet_backend_name", names)


@pytest.fixture
def backend(request: pytest.FixtureRequest, polynet_backend_name: str) -> Iterator[Backend]:
    """Each backend in turn, which is the one chosen for the duration of the test."""
    from polynet.backend import registry, use_backend

    status = registry.status(polynet_backend_name)
    if not status.available:
        todo = f"; to install it: {status.install}" if status.install else ""
        pytest.skip(f"backend {status.name!r}: {status.state}: {status.reason}{todo}")
    request.node.user_properties.append((OPTION, status.name))
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


class _Guard:
    """Fails a run in which a backend that was named ran no test: green would say too much."""

    def __init__(self, named: list[str]) -> None:
        self.idle = dict.fromkeys(named)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and (not report.skipped or hasattr(report, "wasxfail")):
            for key, name in report.user_properties:
                if key == OPTION:
                    self.idle.pop(str(name), None)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        passed = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if self.idle and passed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self.idle:
            terminalreporter.write_line(f"ERROR: {OPTION} {name}: no test ran on it", red=True)
