"""Two ways to compute a 3 × 3 convolution on a GPU: by im2col, or by Winograd's algorithm.

    python tests/benchmarks/gpu_convolutions.py

Prints a table of microseconds for the layers of a ResNet-18 on 32×32, and for narrower and smaller
layers: the forward pass, the gradient of the images, and that of the weights. `LEAST_CHANNELS` and
`LEAST_TILES` of `polynet_cupy.winograd` come from this table. The last column is the largest
difference between the two ways, relative to the largest number.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import cupy
from gpu_products import microseconds
from measure import table

from polynet import get_backend
from polynet_cupy import tuning, winograd
from polynet_cupy.convolution import convolution

LAYERS = (
    (256, 64, 64, 32), (256, 128, 128, 16), (256, 256, 256, 8), (256, 512, 512, 4),
    (256, 32, 32, 32), (256, 16, 16, 32), (256, 64, 128, 16), (32, 512, 512, 4), (8, 128, 128, 16),
)  # fmt: skip
"""Images, channels in and out, and their height and width."""
SAME = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
LIMITS = {"im2col": 1 << 30, "Winograd": 1}
"""The least channels and tiles with which Winograd's way is taken."""


def timed(
    way: str, x: cupy.ndarray, weight: cupy.ndarray
) -> tuple[list[cupy.ndarray], list[float]]:
    """The result and the gradients of a convolution, and the microseconds that each takes."""
    xp = get_backend("cupy").xp
    limits = dict.fromkeys(("LEAST_CHANNELS", "LEAST_TILES"), LIMITS[way])
    with mock.patch.multiple(winograd, **limits):
        y, back = convolution(xp, x, weight, **SAME)
        g = cupy.random.default_rng(1).standard_normal(y.shape, dtype=y.dtype)
        calls = (
            lambda: convolution(xp, x, weight, **SAME)[0],
            lambda: back(g, (True, False))[0],
            lambda: back(g, (False, True))[1],
        )
        for _ in range(tuning.TIMED_AT):  # algorithms are not timed during a capture
            found = [call() for call in calls]
        return found, [microseconds(call) for call in calls]


def rows() -> Iterator[list[str]]:
    draw = cupy.random.default_rng(0).standard_normal
    for images, channels, outputs, size in LAYERS:
        x = draw((images, channels, size, size), dtype=cupy.float32)
        weight = draw((outputs, channels, 3, 3), dtype=cupy.float32)
        (plain, before), (found, after) = (timed(way, x, weight) for way in LIMITS)
        apart = max(
            float(abs(a - b).max() / abs(a).max()) for a, b in zip(plain, found, strict=True)
        )
        each = [f"{a:.0f} / {b:.0f} = {a / b:.2f}" for a, b in zip(after, before, strict=True)]
        yield [f"{images}×{channels}×{size}² → {outputs}", *each, f"{apart:.0e}"]


def main() -> None:
    """Print each row as soon as it is known."""
    parts = [f"{part}, Winograd / im2col" for part in ("forth", "to images", "to weights")]
    print(
        f"## Convolutions of 3×3 in float32, µs\n\n{table(['layer', *parts, 'apart'], [])}", end=""
    )
    for row in rows():
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
