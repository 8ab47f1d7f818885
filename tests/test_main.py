"""`python -m polynet`: the table, the precedence, the choice, and the warning of a namesake."""

import re

import pytest

from polynet.__main__ import main


@pytest.fixture
def namesake(tmp_path_factory):
    """A folder with the metadata of the unrelated distribution called polynet."""
    folder = tmp_path_factory.mktemp("namesake")
    info = folder / "polynet-0.0.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polynet\nVersion: 0.0.9\n")
    return folder


def row(name, text):
    (line,) = re.findall(rf"^{name}  .*$", text, re.MULTILINE)
    return re.split(r"  +", line)


def test_the_table(run_python, plugin_site, namesake):
    result = run_python("-m", "polynet", sites=[plugin_site, namesake], POLYNET_BACKEND="loopback")
    text = result.stdout
    assert (result.returncode, result.stderr) == (0, "")
    assert row("backend", text) == ["backend", "state", "version", "devices", "distribution"]
    assert row("loopback", text)[3:] == ["loop:0, loop:1", "loopback 1.0"]
    assert row("numpy", text)[1] == "available"
    assert row("missing", text) == ["missing", "missing dependency", "-", "-", "mistakes 1.0"]
    assert row("twice", text)[-1] == "conflict_a 1.0 and conflict_b 1.0"
    hint = "  to install it: pip install unobtainium"
    assert f"missing: missing dependency: Unobtainium is not installed\n{hint}\n" in text
    assert "at_import: broken: loading it raised RuntimeError: this module falls over\n" in text
    assert "Chosen now: loopback, by POLYNET_BACKEND=loopback\n" in text
    assert 'the distribution "polynet" 0.0.9 is installed beside "polynet-array"' in text
    assert "pip uninstall polynet, then pip install --force-reinstall polynet-array" in text


def test_the_order_and_that_nothing_was_chosen(run_python):
    result = run_python("-m", "polynet")
    order = (
        "an argument, use_backend, set_backend, POLYNET_BACKEND, the arrays that come in, numpy."
    )
    assert result.returncode == 0
    assert f"What chooses the backend, in order of precedence: {order}\n" in result.stdout
    assert "first of cupy, torch, jax that has more than a CPU, else numpy.\n" in result.stdout
    assert "Chosen now: numpy, because nobody chose" in result.stdout
    assert "WARNING" not in result.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nunpy", "none. POLYNET_BACKEND: unknown backend 'nunpy'. Did you mean 'numpy'?"),
        ("cupy", "none. POLYNET_BACKEND: backend 'cupy' "),
        ("auto", "numpy, by POLYNET_BACKEND=auto"),
    ],
)
def test_what_the_environment_chose(run_python, name, said):
    result = run_python("-m", "polynet", POLYNET_BACKEND=name)
    assert result.returncode == 0
    assert f"Chosen now: {said}" in result.stdout


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "usage: python -m polynet [-h]" in capsys.readouterr().out


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--verbose"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --verbose" in capsys.readouterr().err
