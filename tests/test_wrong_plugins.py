"""Wrong plug-ins: each is the loopback's with one mistake, which the suite finds and names.

The folder wrong_plugins has them, and is installed. All of them go through the suite in one run of
pytest, whose report the tests here read.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import wrong_plugins
from wrong_plugins import FOUND, REFUSED, compiled_step, contract, kernels, namespace

PLUGINS = Path(__file__).with_name("plugins")
MODULES = (wrong_plugins, contract, namespace, kernels, compiled_step)

SUITE = "polynet.testing.suite."
RELU = "(relu and not linear_relu)"
FEW = f"not results_and_gradients or {RELU} or exp or mean"
"""Of 75 calls those that show mistakes."""
CONTRACT = ["--pyargs", *(f"{SUITE}test_{of}" for of in ("contract", "namespace", "compile"))]
CONTRACT += ["-k", FEW]
KERNELS = ["--pyargs", SUITE + "test_ops", SUITE + "test_purity", "-k", f"{RELU} or every_kernel"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory, lean_site):
    """Where all of the wrong plug-ins are installed."""
    folder, site = tmp_path_factory.mktemp("build") / "wrong", tmp_path_factory.mktemp("site")
    shutil.copytree(Path(wrong_plugins.__file__).parent, folder / "wrong_plugins")
    names = {"right", *FOUND, *REFUSED}
    points = [f"{n} = {m.__name__}:{n}\n" for m in MODULES for n in vars(m) if n in names]
    (folder / "entry_points.txt").write_text("".join(["[polynet.backends]\n", *points]))
    wheels = [sys.executable, PLUGINS / "wheels.py", site, "loopback", folder]
    subprocess.run(list(map(str, wheels)), check=True)
    ours = ("POLYNET_", "PYTEST_", "PYTHONPATH")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    path = os.pathsep.join(map(str, [lean_site, site]))
    return {
        **kept,
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def start_pytest(environment, folder, names, *args):
    command = [sys.executable, "-m", "pytest", "-p", "polynet.testing.plugin", "-q"]
    command += ["-W", "error", "-p", "no:cacheprovider", "--tb=line", *args]
    return subprocess.Popen(
        [*command, f"--polynet-backend={','.join(names)}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def reports(environment, tmp_path_factory):
    """By plug-in: every test that ran and, where it failed, what it said, in order."""
    folder = tmp_path_factory.mktemp("run")
    of_kernels = [name for name in FOUND if name.startswith(("kernel", "pullback"))]
    runs = [
        start_pytest(environment, folder, names, *args, f"--junitxml={report}")
        for names, args, report in (
            (["right", *FOUND], CONTRACT, "0.xml"),
            (["right", *of_kernels], KERNELS, "1.xml"),
        )
    ]
    for run in runs:
        said, _ = run.communicate(timeout=120)
        assert run.returncode == pytest.ExitCode.TESTS_FAILED, said
    tests = {}
    for report in ("0.xml", "1.xml"):
        for case in ElementTree.parse(folder / report).iter("testcase"):
            name = re.match(r"(\w+)\[(\w+)", case.get("name"))
            if name:
                failure = case.find("failure")
                failure = case.find("error") if failure is None else failure
                said = None if failure is None else failure.get("message")
                tests.setdefault(name[2], []).append((name[1], said))
    return tests


def test_what_is_right_passes(reports):
    assert [test for test in reports["right"] if test[1] is not None] == []
    assert {test for test, _ in reports["right"]} >= {test for test, _ in FOUND.values()}


@pytest.mark.parametrize("mistake", FOUND)
def test_the_suite_finds_and_names(reports, mistake):
    failures = [(test, said) for test, said in reports[mistake] if said is not None]
    assert failures, "every test passed"
    test, says = FOUND[mistake]
    assert failures[0][0] == test, failures[0]
    assert re.search(says, failures[0][1], re.DOTALL | re.IGNORECASE), failures[0][1]


@pytest.mark.parametrize("mistake", REFUSED)
def test_the_suite_does_not_begin(environment, tmp_path, mistake):
    run = start_pytest(environment, tmp_path, [mistake], *CONTRACT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    start = rf"ERROR: --polynet-backend: backend '{mistake}' \(from wrong 1\.0\) cannot be used: "
    assert re.search(start + REFUSED[mistake], said), said
