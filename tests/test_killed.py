"""Runs that are killed and started anew; `python tests/killed.py` kills fifty."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from killed import kill


@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_a_killed_run_ends_with_the_same_bits(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "strict" and importlib.util.find_spec("array_api_strict") is None:
        pytest.skip("array-api-strict is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    assert kill(backend, 4, tmp_path)["kills"] == 4
