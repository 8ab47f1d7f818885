"""Fourier transforms of real and complex numbers, with any length, axes and norm."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from polynet.ops import EXTENSIONS
from properties.draws import (
    Draw,
    Sample,
    Samples,
    Shape,
    an_axis,
    axes,
    complex_numbers,
    numbers,
    real_or_complex,
    sample,
    shapes,
    some_axes,
)

NORMS = st.sampled_from(["backward", "ortho", "forward"])


def of_kind(draw: Draw, kind: str, shape: Shape) -> Any:
    """The input of a transform: complex numbers, real numbers, or either kind."""
    make = {"complex": complex_numbers, "real": numbers, "either": real_or_complex}[kind]
    return make(draw, shape)


@st.composite
def along_an_axis(draw: Draw, kind: str) -> Sample:
    shape = draw(shapes(least=1, side=2))
    options: dict[str, Any] = {"axis": an_axis(draw, len(shape)), "norm": draw(NORMS)}
    if draw(st.booleans()):
        options["n"] = draw(st.integers(1, 6))
    return sample(of_kind(draw, kind, shape), **options)


@st.composite
def along_axes(draw: Draw, kind: str) -> Sample:
    shape = draw(shapes(least=1, side=2))
    options: dict[str, Any] = {"norm": draw(NORMS)}
    if draw(st.booleans()):
        options["axes"] = some_axes(draw, len(shape))
        if draw(st.booleans()):
            options["s"] = tuple(draw(st.integers(1, 6)) for _ in options["axes"])
    return sample(of_kind(draw, kind, shape), **options)


@st.composite
def shifted(draw: Draw) -> Sample:
    shape = draw(shapes(least=1))
    return sample(real_or_complex(draw, shape), axes=axes(draw, len(shape)))


FUNCTIONS = {f"fft.{name}": f for name, f in EXTENSIONS["fft"].items()}
"""The functions themselves: the suite wraps them, so that its inputs and results are real."""

PROPERTIES: dict[str, Samples] = {
    **dict.fromkeys("fft.fft fft.ifft".split(), along_an_axis("complex")),
    **dict.fromkeys("fft.irfft fft.hfft".split(), along_an_axis("complex")),
    **dict.fromkeys("fft.rfft fft.ihfft".split(), along_an_axis("real")),
    **dict.fromkeys("fft.fftn fft.ifftn fft.irfftn".split(), along_axes("complex")),
    "fft.rfftn": along_axes("real"),
    **dict.fromkeys("fft.fftshift fft.ifftshift".split(), shifted()),
}
