"""A photograph that is out of focus, made sharp again: gradient descent without a network.

The parameters are the pixels of the sharp photograph, 16,384 numbers. The program knows what the
camera did: its lens spread each point over a small disc, and its sensor added a little noise. So it
guesses a sharp photograph, computes what the camera would have seen of it, and compares this with
what the camera saw. The gradient says how to change every pixel of the guess.

The camera's lens is computed by SciPy's own `fftconvolve`, which knows nothing of derivatives. It
is written against the array API standard, and so polynet differentiates it. The walk downhill is
SciPy's too, by its minimiser L-BFGS, which is given value and gradient.

Many sharp photographs look alike out of focus. Of these, the loss prefers one whose neighbouring
pixels are alike but at few edges: Rudin, Osher and Fatemi, "Nonlinear total variation based noise
removal algorithms", 1992.

    python examples/sharpen.py
    python examples/sharpen.py --backend torch --radius 3
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import polynet

os.environ["SCIPY_ARRAY_API"] = "1"  # SciPy reads it once, when it is imported

Array = Any
Loss = Callable[[Array], Array]
There = Callable[[np.ndarray], Array]
"""Makes an array of the chosen backend from numbers."""

NOT_INSTALLED = """\
this example needs packages that are not installed: {missing}. To install them:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

SIDE = 128
"""How many pixels each side of the sharp photograph has."""
RADIUS, MOST = 5, 20
"""Of the disc over which the lens spreads each point, in pixels."""
NOISE = 0.001
"""The standard deviation of the sensor's noise, where 0 is black and 1 is white."""
ROUGH = 3e-5
"""How much the roughness of a photograph counts in the loss."""
NUDGES = {"float64": 1e-6, "float32": 1e-2}
"""How much a pixel is changed to find a slope: the less, the more digits its number must have."""


# The camera


def read_photograph() -> np.ndarray:
    """The face of a cat, in grey: (SIDE, SIDE) pixels from 0 (black) to 1 (white)."""
    from skimage import data

    face = data.chelsea()[40 : 40 + 2 * SIDE, 110 : 110 + 2 * SIDE].mean(axis=2) / 255
    return face.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3))


def disc(radius: int) -> np.ndarray:
    """What the lens makes of one point: a round spot, whose pixels add up to 1."""
    away = np.arange(-radius, radius + 1)
    spot = (away[:, None] ** 2 + away**2 <= radius**2).astype(float)
    return spot / spot.sum()


def through_lens(photograph: Array, spot: Array) -> Array:
    """The photograph out of focus, without the margin of which the lens sees only a part."""
    from scipy.signal import fftconvolve

    return fftconvolve(photograph, spot, mode="valid")


def taken(photograph: np.ndarray, spot: np.ndarray, seed: int) -> np.ndarray:
    """What the camera saw: the photograph out of focus, and noise."""
    seen = through_lens(photograph, spot)
    return seen + np.random.default_rng(seed).normal(0, NOISE, seen.shape)


# The loss, and the walk downhill


def roughness(photograph: Array) -> Array:
    """How much neighbouring pixels differ: the sum of √(right² + down² + a little)."""
    xp = polynet.array_namespace(photograph)
    here = photograph[:-1, :-1]
    right, down = photograph[:-1, 1:] - here, photograph[1:, :-1] - here
    return xp.sum(xp.sqrt(right**2 + down**2 + 1e-4))


def loss_of(seen: Array, spot: Array) -> Loss:
    """The loss of a guess: how far it is from what the camera saw, and its roughness."""

    def loss(guess: Array) -> Array:
        xp = polynet.array_namespace(guess)  # that of arrays which record what SciPy computes
        wrong = through_lens(guess, xp.asarray(spot)) - xp.asarray(seen)
        return xp.sum(wrong**2) / 2 + ROUGH * roughness(guess)

    return loss


def first_guess(seen: np.ndarray, margin: int) -> np.ndarray:
    """What the camera saw, with a margin of the pixels at its border."""
    return np.pad(seen, margin, mode="edge")


def slope_by_nudging(
    loss: Loss, guess: np.ndarray, place: tuple[int, int], nudge: float, there: There
) -> float:
    """The slope of the loss along one pixel, which is made a little lighter, and darker."""
    found = []
    for change in (nudge, -nudge):
        nudged = guess.copy()
        nudged[place] += change
        found.append(float(loss(there(nudged))))
    return (found[0] - found[1]) / (2 * nudge)


def sharpened(loss: Loss, guess: np.ndarray, there: There) -> tuple[np.ndarray, list[float]]:
    """The photograph with the least loss, and the losses on the way to it."""
    from scipy.optimize import minimize

    value_and_grad = polynet.value_and_grad(loss)

    def of_numbers(pixels: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_grad(there(pixels.reshape(guess.shape)))
        return float(value), polynet.to_numpy(gradient).reshape(-1)

    losses = [float(loss(there(guess)))]
    found = minimize(
        of_numbers, guess.reshape(-1), jac=True, method="L-BFGS-B", options={"maxiter": 500},
        callback=lambda intermediate_result: losses.append(intermediate_result.fun),
    )  # fmt: skip
    return found.x.reshape(guess.shape), losses


def mistake(photograph: np.ndarray, truth: np.ndarray, margin: int) -> float:
    """How far a pixel is from the truth: the root of the mean square, without the margin."""
    inner = (slice(margin, -margin),) * 2
    return float(np.sqrt(np.mean((photograph[inner] - truth[inner]) ** 2)))


# What is shown


def seconds(call: Callable[[], Any], repeats: int = 10) -> float:
    """The least time of some calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        float(call())  # waits until the number is there
        times.append(time.perf_counter() - start)
    return min(times)


def show_gradient(loss: Loss, guess: np.ndarray, dtype: str, there: There) -> None:
    arrays, middle = there(guess), SIDE // 2
    both = polynet.value_and_grad(loss)
    gradient = polynet.to_numpy(both(arrays)[1])
    print("\nThe slope of the loss along some pixels")
    print("---------------------------------------")
    print("  row, column       by nudging   by value_and_grad   difference")
    for place in ((middle, middle), (middle, SIDE // 4), (SIDE // 4, middle), (20, 90)):
        nudged = slope_by_nudging(loss, guess, place, NUDGES[dtype], there)
        at = "{}, {}".format(*place)
        print(f"  {at:<11} {nudged:16.9f} {gradient[place]:19.9f}", end="")
        print(f" {abs(nudged - gradient[place]):12.0e}")
    once, whole = seconds(lambda: loss(arrays)), seconds(lambda: both(arrays)[0])
    print(f"Nudging all {guess.size:,} pixels up and down would take", end=" ")
    print(f"{2 * guess.size * once:.0f} s. value_and_grad")
    print(f"takes {whole:.4f} s, {whole / once:.1f} times as long as the loss alone.")


def show_walk(losses: list[float]) -> None:
    print("\nThe walk downhill")
    print("-----------------")
    shown = [s for s in (0, 1, 2, 5, 10, 20, 50, 100, 200) if s < len(losses) - 1]
    shown.append(len(losses) - 1)
    print("  step" + "".join(f"{s:>9}" for s in shown))
    print("  loss" + "".join(f"{losses[s]:9.4f}" for s in shown))


def draw(panels: dict[str, np.ndarray], margin: int) -> Any:
    """The photographs side by side, without their margin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.3), layout="constrained")
    inner = (slice(margin, -margin),) * 2
    columns = figure.subplots(1, len(panels))
    for axes, (title, photograph) in zip(columns, panels.items(), strict=True):
        axes.imshow(photograph[inner], cmap="gray", vmin=0, vmax=1)
        axes.set_title(title)
        axes.axis("off")
    return figure


# The program


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    check_installed()
    backend = polynet.get_backend(options.backend)
    dtype = finest_dtype(backend, options.device)

    def there(numbers: np.ndarray) -> Array:
        return polynet.asarray(numbers, backend=backend, device=options.device, dtype=dtype)

    truth, spot, margin = read_photograph(), disc(options.radius), options.radius
    seen = taken(truth, spot, options.seed)
    guess = first_guess(seen, margin)
    loss = loss_of(there(seen), there(spot))
    print(f"backend {backend.name}, device {backend.device_name(there(guess))}, {dtype}")
    if dtype == "float32":
        print("(This backend or device has no float64. With float32, fewer digits agree.)")
    print("The camera saw {} x {} pixels, out of focus.".format(*seen.shape))
    print(f"The sharp photograph has {SIDE} x {SIDE}, which are {guess.size:,} parameters.")

    show_gradient(loss, guess, dtype, there)
    start = time.perf_counter()
    found, losses = sharpened(loss, guess, there)
    took = time.perf_counter() - start
    show_walk(losses)

    before, after = (mistake(p, truth, margin) for p in (guess, found))
    print(f"\nIn {took:.1f} s the mistake of a pixel fell from {before:.3f} to {after:.3f},")
    print("where 0 is black and 1 is white.")
    panels = {"what the camera saw": guess, "made sharp": found, "the truth": truth}
    options.out.mkdir(parents=True, exist_ok=True)
    draw(panels, margin).savefig(options.out / "sharpen.png", dpi=80)
    print(f"\nThe picture is in {options.out / 'sharpen.png'}")


def finest_dtype(backend: polynet.Backend, device: str | None) -> str:
    """float64, which shows more digits, if the device has it; otherwise float32."""
    try:
        polynet.asarray(0.0, backend=backend, device=device, dtype="float64")
    except TypeError:
        return "float32"
    return "float64"


def check_installed() -> None:
    """Name all missing packages at once, before the work begins."""
    packages = {"matplotlib": "matplotlib", "scipy": "scipy", "skimage": "scikit-image"}
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise SystemExit(NOT_INSTALLED.format(missing=" and ".join(missing)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a photograph sharp by gradient descent.")
    parser.add_argument(
        "--backend", help="such as numpy, torch or jax; python -m polynet lists all"
    )
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: the backend's first)")
    parser.add_argument(
        "--radius",
        type=int,
        default=RADIUS,
        help=f"how far out of focus the camera is, in pixels (default {RADIUS})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the sensor's noise (default 0)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the picture (default out)"
    )
    options = parser.parse_args(argv)
    if not 1 <= options.radius <= MOST:
        parser.error(f"--radius is {options.radius}; expected 1 to {MOST} pixels")
    return options


if __name__ == "__main__":
    main()
