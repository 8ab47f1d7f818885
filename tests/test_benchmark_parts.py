"""A benchmark's parts, each in a process of its own: what fails or hangs costs only itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks import parts

from polynet.backend import registry

WRITE = "import os, pathlib, subprocess, sys, time; out = pathlib.Path(sys.argv[1]); "
PROGRAMS = {
    "hangs": "out.write_text('# Report\\n\\n## Hangs\\n\\nso far\\n'); "
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "out.with_name('child').write_text(str(p.pid)); time.sleep(60)",
    "crashes": "os.abort()",
    "fails": "out.write_text('# Report\\n\\n## Fails\\n\\nFAILED: this\\n'); sys.exit(1)",
    "works": "out.write_text('# Report\\n\\n## Works\\n\\n42\\n')",
}


def part(name: str, folder: Path) -> parts.Part:
    return parts.Part(
        name,
        lambda seconds, out: [sys.executable, "-c", WRITE + PROGRAMS[name], str(out)],
        folder / f"{name}.md",
    )


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended, and whose end nobody asked for, does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks into /proc")
def test_what_hangs_or_crashes_loses_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LEAST", 1.0)
    written: list[str] = []
    names = ("hangs", "crashes", "works", "fails")
    texts = parts.run(
        [part(name, tmp_path) for name in names], names[:2], 16.0,
        lambda now: written.append("\n".join(now)),
    )  # fmt: skip
    assert texts == [
        "## Hangs\n\nso far\n\nFAILED: not done in 8 s.\n",
        "## crashes\n\nFAILED: exit status -6.\n",
        "## Works\n\n42\n",
        "## Fails\n\nFAILED: this\n",
    ]
    assert written[-1] == "\n".join(texts)
    assert any("so far" in text and "not done" not in text for text in written), "it came at once"
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 10
    while runs(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not runs(child), "what a part started is ended with it"


def test_parts_without_time_are_named(tmp_path: Path) -> None:
    assert parts.run([part("works", tmp_path)], (), 0.0, print) == ["## works\n\nNot run.\n"]


BENCHMARKS = Path(parts.__file__).parent


def test_the_program_for_a_gpu_can_be_imported_and_knows_its_parts() -> None:
    asked = "import gpu; print([name for name in gpu.PARTS if not hasattr(gpu.Program, name)])"
    command = [sys.executable, "-c", asked]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(registry.status("cupy").available, reason="there is a GPU")
def test_without_a_gpu_the_program_says_so() -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:6]) == (2, "cupy: "), done.stderr
