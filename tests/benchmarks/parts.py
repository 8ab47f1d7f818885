"""Parts of a long program, each in a process of its own, all within a time that is given.

A part that fails, hangs or spoils its device costs only itself. What it wrote before stays.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

LEAST = 20.0
"""Seconds with which a part is still started."""


class Part:
    """A process that writes its results, as Markdown under a heading, to a file."""

    def __init__(
        self, name: str, command: Callable[[float, Path], Sequence[str]], file: Path
    ) -> None:
        """`command(seconds, file)` is what to run; it should be done within these seconds."""
        self.name = name
        self._command = command
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None
        self._until = self._seconds = 0.0
        self._late = False

    def start(self, seconds: float) -> None:
        self._seconds, self._until = seconds, time.monotonic() + seconds
        # A group of its own, so that it can be ended with all the processes that it starts.
        self._process = subprocess.Popen(self._command(seconds, self._file), process_group=0)

    def ended(self) -> bool:
        """Whether it has ended. One whose time is up is ended now, with all that it started."""
        assert self._process is not None
        running = self._process.poll() is None
        if running and time.monotonic() < self._until:
            return False
        self._late |= running
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return True

    def text(self) -> str:
        """What it has written so far, and how it ended if not as it should."""
        if self._process is None:
            return f"## {self.name}\n\nNot run.\n"
        written = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        found = "".join(written.partition("## ")[1:]) or f"## {self.name}\n"
        if self._late:
            found += f"\nFAILED: not done in {self._seconds:.0f} s.\n"
        elif self._process.returncode not in (None, 0, 1):  # 1: the text itself says what failed
            found += f"\nFAILED: exit status {self._process.returncode}.\n"
        return found


def run(
    parts: Sequence[Part],
    together: Sequence[str],
    seconds: float,
    write: Callable[[Sequence[str]], object],
) -> list[str]:
    """Run those named in `together` at the same time, then the others in turn; return their texts.

    The first ones may take half of the time, each other one all that is left. `write` gets the
    texts of all parts whenever one of them has changed.
    """
    end, texts = time.monotonic() + seconds, []
    at_once = [part for part in parts if part.name in together]
    groups = [at_once, *([part] for part in parts if part not in at_once)]
    for group in filter(None, groups):
        left = end - time.monotonic()
        if left < LEAST:
            break
        for part in group:
            part.start(seconds / 2 if group is at_once and len(groups) > 1 else left)
        running = list(group)
        while running:
            running = [part for part in running if not part.ended()]
            if (now := [part.text() for part in parts]) != texts:
                write(texts := now)
            time.sleep(0.2)
    write(texts := [part.text() for part in parts])
    return texts
