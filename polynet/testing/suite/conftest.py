"""Fixtures of the suite."""

from __future__ import annotations

import pytest

from polynet.backend import Backend, get_backend


@pytest.fixture
def definitions() -> Backend:
    """NumPy without kernels: what every backend is compared with."""
    return get_backend("numpy").without_kernels()
