"""The programs in README.md run as they stand."""

import re
from pathlib import Path

import pytest

import polynet

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PROGRAMS = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: text.splitlines()[0])
def test_program(program, tmp_path, monkeypatch, nothing_chosen):
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})


def test_every_example_has_tests_that_run_it_as_a_program():
    run = r"def test_the_(?:whole_)?program.*(?:run_python|example\.main)\("
    tested = set()
    for path in ROOT.glob("tests/test_examples_*.py"):
        text = path.read_text(encoding="utf-8")
        assert re.search(run, text, re.DOTALL), path
        tested.add(re.search(r"^FILE = .*/ \"(\w+\.py)\"$", text, re.MULTILINE)[1])
    assert tested == {path.name for path in ROOT.glob("examples/*.py")}


def test_every_room_that_it_names_is_reachable():
    table = re.findall(r"^\| (`polynet\..*?) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    rooms = re.findall(r"polynet\.(\w+)", " ".join(table))
    assert len(rooms) > 10
    missing = {*rooms, "errors", "history"} - set(polynet.__all__)
    assert not missing, (
        f"polynet.X is there by accident only, once something imported it: {missing}"
    )
