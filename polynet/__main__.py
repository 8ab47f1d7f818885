"""`python -m polynet`: which backends are installed, and why some of them cannot be used."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from importlib import metadata

from polynet import __version__
from polynet.backend import AUTO_ORDER, PRECEDENCE, Status, chosen_backend, registry
from polynet.errors import BackendError

NAMESAKE = """\
WARNING: the distribution "polynet" {version} is installed beside "polynet-array". It is another
project. Both contain a Python package called polynet, so each overwrites files of the other.
To repair: pip uninstall polynet, then pip install --force-reinstall polynet-array
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Print every backend that was found, its state, and how a backend is chosen."""
    parser = argparse.ArgumentParser(
        prog="python -m polynet",
        description="Show every backend, its state, and how to install what is missing.",
    )
    parser.parse_args(argv)
    statuses = [registry.status(name) for name in registry.names()]
    heading = ("backend", "state", "version", "devices", "distribution")
    print(f"polynet {__version__}\n")
    print(_warning() + _table([heading, *map(_row, statuses)]))
    for status in statuses:
        if not status.available:
            print(_reason(status))
    print(f"What chooses the backend, in order of precedence: {', '.join(PRECEDENCE)}.")
    print(
        f'"auto" takes the first of {", ".join(AUTO_ORDER)} that has more than a CPU, else numpy.'
    )
    print(f"Chosen now: {_chosen()}")


def _row(status: Status) -> tuple[str, ...]:
    version = str(status.backend.version) if status.backend else "-"
    devices = ", ".join(status.devices) or "-"
    return status.name, status.state, version, devices, status.distribution


def _table(rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _reason(status: Status) -> str:
    todo = f"  to install it: {status.install}\n" if status.install else ""
    return f"{status.name}: {status.state}: {status.reason}\n{todo}"


def _chosen() -> str:
    try:
        chosen = chosen_backend()
    except BackendError as error:
        return f"none. {error}"
    if chosen is None:
        return "numpy, because nobody chose one; arrays of another library choose their own backend"
    return f"{chosen.name}, by POLYNET_BACKEND={os.environ.get('POLYNET_BACKEND', '')}"


def _warning() -> str:
    """A warning, if the unrelated distribution that is called polynet is installed too."""
    try:
        return NAMESAKE.format(version=metadata.version("polynet")) + "\n"
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
