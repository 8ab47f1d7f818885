"""The pytest plug-in: what runs, what is skipped and why, and when the run fails."""

import re

import pytest

from polynet_numpy.kernels import KERNELS

TAKES_BACKEND = """
import polynet

def test_sum(backend):
    assert polynet.get_backend() is backend
    x = polynet.asarray([1.0, 2.0])
    assert backend.is_array(x) and float(backend.xp.sum(x)) == 3.0

def test_afterwards():
    assert polynet.get_backend().name == "numpy"
"""


@pytest.fixture
def run_pytest(run_python, plugin_site, tmp_path):
    """`run_pytest(source, *args)` runs pytest on `source`, with the plug-ins installed."""

    def run(source, *args, **environment):
        (tmp_path / "test_it.py").write_text(source)
        lean = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        command = ["-m", "pytest", "-v", "-ra", "-W", "error", *lean, *args]
        return run_python(*command, sites=[plugin_site], **environment)

    return run


def outcomes(result):
    """How each test ended, by the test's id."""
    return dict(re.findall(r"^test_it\.py::(\S+) ([A-Z]+)", result.stdout, re.MULTILINE))


def test_each_backend_found_is_one_test_and_one_that_is_unavailable_a_skip(run_pytest):
    result = run_pytest(TAKES_BACKEND)
    ran = outcomes(result)
    assert result.returncode == 0
    assert {ran[f"test_sum[{name}]"] for name in ("numpy", "loopback", "same")} == {"PASSED"}
    assert {ran[f"test_sum[{name}]"] for name in ("cupy", "missing", "twice")} == {"SKIPPED"}
    assert ran["test_afterwards"] == "PASSED"
    assert ran == outcomes(run_pytest(TAKES_BACKEND, "--polynet-backend=all"))


def test_a_skip_says_state_reason_and_what_to_install(run_pytest):
    hint = "Unobtainium is not installed; to install it: pip install unobtainium"
    said = run_pytest(TAKES_BACKEND).stdout
    for skip in (
        f"backend 'missing': missing dependency: {hint}\n",
        "backend 'cupy': missing dependency: CuPy is not installed; to install it: pip install",
        "backend 'raising': broken: loading it raised ZeroDivisionError: the factory divided by",
        "backend 'deviceless': no device: it found no device\n",
        "backend 'newer': incompatible: it was written for version 2 of the contract",
    ):
        assert skip in said


def test_the_backends_named_run_and_no_others(run_pytest):
    names = ["--polynet-backend=loopback,numpy", "--polynet-backend=same,numpy"]
    result = run_pytest(TAKES_BACKEND, *names)
    assert result.returncode == 0
    ids = {"test_sum[loopback]", "test_sum[numpy]", "test_sum[same]", "test_afterwards"}
    assert set(outcomes(result)) == ids


REFUSED = [
    ("loopbak", r"unknown backend 'loopbak'\. Did you mean 'loopback'\?"),
    ("numpy,missing", "'missing' .* missing dependency: Unobtainium .*pip install unobtainium"),
    ("driverless", "'driverless' .* no device: .*the driver is too old"),
    (",", r"unknown backend ''\. Expected one of: "),
]


@pytest.mark.parametrize(("given", "reason"), REFUSED)
def test_named_but_not_usable_is_a_usage_error(run_pytest, given, reason):
    result = run_pytest(TAKES_BACKEND, "--polynet-backend", given)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.search(f"ERROR: --polynet-backend: .*{reason}", result.stderr)


@pytest.mark.parametrize(("given", "reason"), [REFUSED[1], ("0", "unknown backend '0'")])
def test_required_but_not_usable_is_a_usage_error(run_pytest, given, reason):
    result = run_pytest(TAKES_BACKEND, POLYNET_REQUIRE=given)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.search(f"ERROR: POLYNET_REQUIRE: .*{reason}", result.stderr)


@pytest.mark.parametrize("given", ["numpy, loopback", " "])
def test_what_is_required_and_there_changes_nothing(run_pytest, given):
    result = run_pytest(TAKES_BACKEND, "--polynet-backend=same", POLYNET_REQUIRE=given)
    assert result.returncode == 0
    assert set(outcomes(result)) == {"test_sum[same]", "test_afterwards"}


IDLE = {
    "deselected": (TAKES_BACKEND, ["-k", "afterwards"]),
    "all deselected": (TAKES_BACKEND, ["-k", "nothing_like_this"]),
    "skipped": ("import pytest\ndef test(backend): pytest.skip('no')", []),
    "marked": ("import pytest\n@pytest.mark.skip\ndef test(backend): pass", []),
    "one of two": (
        "import pytest\ndef test(backend):\n    backend.name == 'same' or pytest.skip('no')",
        ["--polynet-backend=same"],
    ),
}


@pytest.mark.parametrize(("source", "args"), IDLE.values(), ids=IDLE)
def test_named_but_no_test_ran_on_it_fails_the_run(run_pytest, source, args):
    result = run_pytest(source, "--polynet-backend=loopback", *args)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "ERROR: --polynet-backend loopback: no test ran on it" in result.stdout
    assert "--polynet-backend same:" not in result.stdout


def test_without_a_name_nothing_need_run(run_pytest):
    result = run_pytest(TAKES_BACKEND, "-k", "afterwards", "--polynet-backend=all")
    assert result.returncode == 0


def test_an_expected_failure_has_run(run_pytest):
    source = "import pytest\n@pytest.mark.xfail\ndef test(backend): assert False"
    assert run_pytest(source, "--polynet-backend=loopback").returncode == 0


def test_collecting_runs_nothing_and_fails_nothing(run_pytest):
    result = run_pytest(TAKES_BACKEND, "--polynet-backend=loopback", "--collect-only", "-q")
    assert result.returncode == 0
    assert "test_sum[loopback]" in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--polynet-backend=loopback"], 0, "2 passed"),
        (["--polynet-backend=loopback", "-k", "afterwards"], 1, "loopback: no test ran on it"),
        (["--polynet-backend=loopbak"], 4, "Did you mean 'loopback'?"),
    ],
    ids=["ran", "idle", "unknown"],
)
def test_the_same_under_xdist(run_pytest, args, code, text):
    pytest.importorskip("xdist")
    result = run_pytest(TAKES_BACKEND, "-n", "2", *args)
    assert result.returncode == code
    assert text in result.stdout + result.stderr


def test_the_suite_in_the_package_takes_the_option(run_pytest):
    result = run_pytest("", "--pyargs", "polynet.testing", "--polynet-backend=loopbak")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "Did you mean 'loopback'?" in result.stderr


def test_a_backend_of_somebody_else_is_left_alone(run_pytest):
    source = """
import pytest

@pytest.fixture
def backend():
    return "theirs"

def test_fixture(backend):
    assert backend == "theirs"

@pytest.mark.parametrize("backend", ["agg", "svg"])
def test_parameter(backend):
    assert backend in ("agg", "svg")
"""
    result = run_pytest(source)
    assert result.returncode == 0
    assert set(outcomes(result)) == {"test_fixture", "test_parameter[agg]", "test_parameter[svg]"}


def test_other_parameters_stand_beside_the_backend(run_pytest):
    source = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test(n, backend):
    pass
"""
    result = run_pytest(source, "--polynet-backend=numpy")
    assert set(outcomes(result)) == {"test[numpy-1]", "test[numpy-2]"}


def test_loading_the_plugin_loads_no_more_of_polynet(run_python):
    script = "import sys, polynet.testing.plugin; print(*(m for m in sys.modules if m[:7] in word))"
    script = script.replace("word", "('polynet', 'numpy')")
    result = run_python("-c", script)
    assert result.stdout.split() == ["polynet", "polynet.testing", "polynet.testing.plugin"]


# Expected failures

FAILS = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_it(n, backend):
    assert n == 1

def test_of_no_backend():
    assert True
"""
WRONG = "test_it.py::test_it[loopback-2]"


@pytest.fixture
def run_expecting(run_pytest, tmp_path):
    """Runs pytest on `FAILS` with these lines in the file of expected failures."""

    def run(*lines, args=("--polynet-backend=loopback",)):
        (tmp_path / "expected.txt").write_text("\n".join(lines))
        return run_pytest(FAILS, "--polynet-expected=expected.txt", *args)

    return run


@pytest.mark.parametrize("folders", ["", "here/and/there/"])
def test_an_expected_failure_is_reported_with_its_reason(run_pytest, tmp_path, folders):
    place = tmp_path / folders
    place.mkdir(parents=True, exist_ok=True)
    (place / "test_other.py").write_text(FAILS)
    expected = "# what loopback gets wrong\n\ntest_other.py::test_it[loopback-2]  # it has no # 2\n"
    (tmp_path / "expected.txt").write_text(expected)
    command = [str(place / "test_other.py"), "--polynet-expected=expected.txt"]
    result = run_pytest("", "--polynet-backend=loopback", *command)
    assert result.returncode == 0, result.stdout
    assert re.search(r"XFAIL \S*test_it\[loopback-2\] - it has no # 2\n", result.stdout)
    assert "loopback: 1 expected to fail: it has no # 2\n" in result.stdout


def test_the_failures_expected_and_no_others_are_forgiven(run_expecting):
    result = run_expecting()
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert outcomes(result)["test_it[loopback-2]"] == "FAILED"


def test_an_expected_failure_that_passes_fails_the_run(run_expecting):
    result = run_expecting(f"{WRONG}  # 2", "test_it.py::test_it[loopback-1]  # outdated")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert outcomes(result)["test_it[loopback-1]"] == "FAILED"
    assert "[XPASS(strict)] outdated" in result.stdout


@pytest.mark.parametrize(
    ("name", "workers"),
    [("test_it.py::test_it", []), ("it.py::test_it[loopback-2]", []), ("test_it.py", ["-n", "2"])],
    ids=["without parameters", "part of an id", "xdist"],
)
def test_an_id_of_no_test_fails_the_run(run_expecting, name, workers):
    if workers:
        pytest.importorskip("xdist")
    args = ["--polynet-backend=loopback", *workers]
    result = run_expecting(f"{WRONG}  # 2", f"{name}  # renamed", args=args)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 xfailed" in result.stdout
    assert (
        "ERROR: --polynet-expected expected.txt: no test has the id " + repr(name) in result.stdout
    )
    assert result.stdout.count("no test has the id") == 1


def test_an_expected_failure_may_be_deselected(run_expecting):
    args = ["--polynet-backend=loopback", "-k", "loopback-1"]
    assert run_expecting(f"{WRONG}  # 2", args=args).returncode == 0


@pytest.mark.parametrize("line", [WRONG, f"{WRONG}  # "])
def test_an_expected_failure_without_a_reason_is_a_usage_error(run_expecting, line):
    result = run_expecting("# why", line)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    said = re.escape("expected.txt, line 2: 'test_it.py::test_it[loopback-2]")
    assert re.search(f"ERROR: --polynet-expected: {said}.* has no reason", result.stderr)


def test_a_file_that_is_not_there_is_a_usage_error(run_pytest):
    result = run_pytest(FAILS, "--polynet-expected=nowhere.txt")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --polynet-expected: " in result.stderr
    assert "nowhere.txt" in result.stderr


# The closing table

ALL_ENDS = """
import pytest

@pytest.fixture
def unclean():
    yield
    raise OSError("it cannot be put away")

def test_passes(backend): pass
def test_fails(backend): assert False
def test_is_not_set_up(backend, nothing_of_this_name): pass
def test_is_not_cleaned_up(backend, unclean): pass
def test_skips(backend): pytest.skip("no such device")
@pytest.mark.skip(reason="not written")
def test_is_skipped(backend): pass
@pytest.mark.xfail(reason="known")
def test_is_expected_to_fail(backend): assert False
@pytest.mark.xfail(reason="was known")
def test_passes_though(backend): pass
def test_of_no_backend(): pass
"""
TABLE = """
backend   level    passed  failed  expected to fail  skipped
loopback  minimal       2       3                 1        2
missing   minimal       0       0                 0        8
loopback: 1 expected to fail: known
loopback: 1 skipped: no such device
loopback: 1 skipped: not written
missing: 7 skipped: backend 'missing': missing dependency: Unobtainium is not installed; \
to install it: pip install unobtainium
missing: 1 skipped: not written
"""


def closing_table(result, *others):
    """The lines below the title, without the backends that the test is not about."""
    _, _, after = result.stdout.partition(" polynet, by backend ==")
    lines = after.partition("\n==")[0].splitlines()[1:]
    wanted = ("backend ", "loopback", "missing", *others)
    return "".join(f"{line}\n" for line in lines if line.startswith(wanted))


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_the_run_closes_with_a_table(run_pytest, workers):
    if workers:
        pytest.importorskip("xdist")
    result = run_pytest(ALL_ENDS, "-k", "loopback or missing or no_backend", *workers)
    found = re.sub(r" +", " ", closing_table(result))
    assert found == re.sub(r" +", " ", TABLE.removeprefix("\n"))


def test_without_tests_of_backends_there_is_no_table(run_pytest):
    result = run_pytest("def test(): pass")
    assert result.returncode == 0
    assert "polynet, by backend" not in result.stdout


# Levels

PARTS = """
import pytest

part = pytest.mark.polynet_part

def test_of_all(backend): pass
@part("compile")
def test_compile(backend): assert backend.name == "numpy"
@part("owned")
def test_owned(backend): pass
@part("kernels")
def test_kernels(backend): assert backend.kernels
@part("kernels")
@pytest.mark.parametrize("kernel", ["linear", "gru"])
def test_kernel(backend, kernel): assert backend.kernels[kernel]
def test_of_no_backend(): pass
"""
OF_NUMPY = {"test_of_all[numpy]", "test_owned[numpy]", "test_kernels[numpy]"}
OF_NUMPY |= {"test_kernel[numpy-linear]", "test_compile[numpy]"}
OF_LOOPBACK = {"test_of_all[loopback]", "test_owned[loopback]"}
LEVELS = f"""
backend level passed failed expected to fail skipped
loopback minimal 2 0 0 0
missing minimal 0 0 0 6
numpy minimal 1 0 0 0
numpy kernels 2 0 0 0
numpy compile 1 0 0 0
numpy owned 1 0 0 0
numpy: kernels: {", ".join(sorted(KERNELS))}
loopback: does not bring kernels, compile, owned
missing: 6 skipped: backend 'missing': missing dependency: Unobtainium is not installed; \
to install it: pip install unobtainium
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_part_is_tested_where_it_is_there_and_has_a_row_of_its_own(run_pytest, workers):
    if workers:
        pytest.importorskip("xdist")
    result = run_pytest(PARTS, "-k", "loopback or missing or numpy or no_backend", *workers)
    assert result.returncode == 0, result.stdout
    found = re.sub(r" +", " ", closing_table(result, "numpy"))
    assert sorted(found.splitlines()) == sorted(LEVELS.strip().splitlines())
    if not workers:
        ran = {name for name, end in outcomes(result).items() if end == "PASSED"}
        assert ran == OF_NUMPY | OF_LOOPBACK | {"test_of_no_backend"}


CHOSEN = {
    "minimal": {"test_of_all[numpy]", "test_of_no_backend", *OF_LOOPBACK},
    "kernels": {"test_kernels[numpy]", "test_kernel[numpy-linear]"},
    "owned": {"test_owned[numpy]"},
}


@pytest.mark.parametrize("level", CHOSEN)
def test_one_level_runs_alone(run_pytest, level):
    backends = "--polynet-backend=all"
    result = run_pytest(
        PARTS, f"--polynet-level={level}", backends, "-k", "numpy or loopback or no_b"
    )
    assert result.returncode == 0, result.stdout
    assert set(outcomes(result)) == CHOSEN[level]


def test_a_level_that_a_backend_does_not_have_fails_the_run(run_pytest):
    result = run_pytest(PARTS, "--polynet-level=compile", "--polynet-backend=loopback")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "ERROR: --polynet-backend loopback: no test ran on it" in result.stdout


def test_an_unknown_level_is_a_usage_error(run_pytest):
    result = run_pytest(PARTS, "--polynet-level=kernel")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.search("invalid choice: 'kernel'.*choose from", result.stderr)
    assert re.search("choose from '?minimal'?, '?kernels'?, '?compile'?", result.stderr)


def test_an_expected_failure_of_a_part_that_is_gone_is_of_no_test(run_pytest, tmp_path):
    (tmp_path / "expected.txt").write_text("test_it.py::test_compile[loopback]  # it was slow\n")
    args = ["--polynet-backend=loopback", "--polynet-expected=expected.txt"]
    result = run_pytest(PARTS, *args)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "no test has the id 'test_it.py::test_compile[loopback]'" in result.stdout


def test_the_suite_has_levels(run_pytest):
    suite = ["--pyargs", "polynet.testing", "-k", "compile or kernel or owned or probe"]
    result = run_pytest("", *suite, "--polynet-backend=loopback,numpy")
    assert result.returncode == 0, result.stdout
    table = closing_table(result, "numpy")
    assert re.search(r"^numpy +kernels +[1-9][0-9]* +0 +0 +0$", table, re.MULTILINE)
    assert f"numpy: kernels: {', '.join(sorted(KERNELS))}\n" in table
    assert re.search(r"^numpy +owned +1 +0 +0 +0$", table, re.MULTILINE)
    assert re.findall(r"^loopback +(\S+) ", table, re.MULTILINE) == ["minimal"]
    assert re.search(r"^numpy +compile +[1-9][0-9]* +0 +0 +0$", table, re.MULTILINE)
    assert "numpy: does not bring jit, probe\n" in table
    every = "kernels, compile, jit, owned, device_of, probe, share"
    assert f"loopback: does not bring {every}\n" in table
