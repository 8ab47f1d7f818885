"""The programs in README.md run as they stand."""

import re
from pathlib import Path

import pytest

import polynet

README = Path(__file__).resolve().parents[1] / "README.md"
PROGRAMS = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: text.splitlines()[0])
def test_program(program, tmp_path, monkeypatch, nothing_chosen):
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})


def test_every_room_that_it_names_is_reachable():
    table = re.findall(r"^\| (`polynet\..*?) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    rooms = re.findall(r"polynet\.(\w+)", " ".join(table))
    assert len(rooms) > 10
    missing = {*rooms, "errors", "history"} - set(polynet.__all__)
    assert not missing, (
        f"polynet.X is there by accident only, once something imported it: {missing}"
    )
