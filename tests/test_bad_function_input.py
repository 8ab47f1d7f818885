"""What functions refuse that are called directly, on every backend before its kernels see it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import functional
from polynet.backend import Backend, asarray, to_numpy

X = np.ones((2, 4, 8, 8), "float32")
WEIGHT = np.ones((4, 4, 3, 3), "float32")
WINDOWS: dict[str, tuple[tuple[np.ndarray, ...], dict[str, Any]]] = {
    "convolution": (
        (X, WEIGHT),
        {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1},
    ),
    "convolution_transpose": (
        (X, WEIGHT),
        {
            **dict.fromkeys(("stride", "padding", "dilation"), (1, 1)),
            "output_padding": (0, 0),
            "groups": 1,
        },
    ),
    "max_pool": (
        (X,),
        {"window": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)},
    ),
    "avg_pool": ((X,), {"window": (2, 2), "stride": (2, 2), "padding": (0, 0)}),
    "adaptive_max_pool": ((X,), {"sizes": (2, 2)}),
    "adaptive_avg_pool": ((X,), {"sizes": (2, 2)}),
}
"""By function: its arrays, and settings that fit them."""
WRONG: dict[str, list[Any]] = {
    **{name: [(0, 1), (-1, 1), (1.0, 1), (1,)] for name in ("stride", "dilation", "window")},
    "sizes": [(0, 1), (-1, 1), (1.0, 1), 1],
    "padding": [(-1, 1), ((-1, 1), (1, 1)), (1,), 1],
    "output_padding": [(-1, 1), (0,), 0],
    "groups": [0, -1, 1.0, 3],
}


@pytest.mark.parametrize(
    ("name", "setting"), [(name, s) for name, (_, settings) in WINDOWS.items() for s in settings]
)
def test_windows_have_settings_that_fit(backend: Backend, name: str, setting: str) -> None:
    arrays, settings = WINDOWS[name]
    given = [asarray(a, backend=backend) for a in arrays]
    function = getattr(functional, name)
    value = to_numpy(function(*given, **settings))
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    assert to_numpy(function(*given, **lists)).tolist() == value.tolist()
    for wrong in WRONG[setting]:
        with pytest.raises(ValueError, match=rf"^{name}: .*{setting}"):
            function(*given, **{**settings, setting: wrong})


@pytest.mark.parametrize("name", ["convolution", "convolution_transpose"])
@pytest.mark.parametrize(
    ("x", "weight"), [((4, 8, 8), (4, 4, 3, 3)), ((2, 3, 8, 8), (4, 4, 3, 3)), ((2, 4), (4, 4))]
)
def test_convolutions_have_the_channels_of_their_weight(name: str, x: Any, weight: Any) -> None:
    settings = WINDOWS[name][1]
    with pytest.raises(ValueError, match=rf"^{name}: x has shape .* weight .*; expected"):
        getattr(functional, name)(np.ones(x), np.ones(weight), **settings)


def test_padding_of_more_than_half_a_window_is_refused() -> None:
    for pool in (functional.max_pool, functional.avg_pool):
        with pytest.raises(ValueError, match=r"padding is at most half of window \(2, 2\)"):
            pool(X, window=(2, 2), stride=(1, 1), padding=(2, 0))


def test_what_is_no_array_is_told_so() -> None:
    with pytest.raises(TypeError, match="expected at least one array, got none"):
        functional.max_pool([[1.0]], window=(1,), stride=(1,), padding=(0,))


def test_a_call_that_does_not_fit_is_told_the_signature_before_its_settings_are_looked_at() -> None:
    with pytest.raises(TypeError, match=r"^max_pool\(x, /, \*, window, .*missing .*'window'"):
        functional.max_pool(X, kernel_size=2)
    with pytest.raises(TypeError, match=r"^convolution\(x, weight, .*missing .*'weight'"):
        functional.convolution(X)
