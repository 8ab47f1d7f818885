"""Train a line, y = ax + b: all that training a network does, with only two parameters.

An elastic cord hangs from the ceiling and carries a weight. How long is the cord with each weight?
There are thirty measurements, and gradient descent finds the line that fits them best. On the way
the program shows what a loss is, what a gradient is, how much time a gradient saves, and in which
direction to step.

    python examples/line.py
    python examples/line.py --backend torch --seed 7
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import polynet
from polynet import losses, nn, random, tree

Array = Any
Params = dict[str, Array]

NO_MATPLOTLIB = """\
this example draws with matplotlib, which is not installed. To install it:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

GUESS = {"a": 1.8, "b": 0.8}
"""Where the walk begins. It is only a guess, so the first answers are wrong."""

STEPS = {"too small": 0.01, "good": 0.2, "almost too large": 0.44, "too large": 0.5}
"""Step sizes, also called learning rates: a step moves each parameter by step · slope."""

WIDTHS = (3, 10, 30, 98, 300, 998)
"""Widths of the networks for which the cost is measured: from 22 parameters to a million."""

MOST_SECONDS = 15.0
"""If all tries would take longer than this, their time is estimated from the first ones."""


# The line, and how wrong it is


def predict(params: Params, x: Array) -> Array:
    """y = ax + b: a function with two parameters."""
    return params["a"] * x + params["b"]


def mean_loss(params: Params, x: Array, y: Array) -> Array:
    """The mean over all points of (answer - y)²."""
    return losses.mse(predict(params, x), y)


def measurements(seed: int, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Weights in kg, and the lengths in m of a cord that is 1 m long and gives 0.8 m a kg.

    The measurements are simulated. Each has a random error of some centimetres, which depends on
    the seed.
    """
    weight = np.linspace(0.0, 2.0, count)
    error = 0.1 * random.normal(random.key(seed, "line", "error"), count)
    return weight, 0.8 * weight + 1.0 + error


# The slope, found by trying


def try_each(
    loss: Callable[[Params], Array], params: Params, nudge: float
) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Yield the name, place and slope of every number in `params`; each slope takes two tries.

    A try moves ("nudges") one number a little, up or down, and computes the loss:
    slope ≈ (loss(p + nudge) - loss(p - nudge)) / (2 · nudge).
    """
    for name, p in params.items():
        backend = polynet.backend.backend_of(p)
        device, numbers = backend.device_of(p), polynet.to_numpy(p)
        for place in np.ndindex(numbers.shape):
            up, down = numbers.copy(), numbers.copy()
            up[place] += nudge
            down[place] -= nudge
            above, below = (
                float(loss({**params, name: backend.from_host(nudged, device)}))
                for nudged in (up, down)
            )
            yield name, place, (above - below) / (2 * nudge)


def slopes_by_trying(
    loss: Callable[[Params], Array], params: Params, nudge: float
) -> dict[str, np.ndarray]:
    """All slopes, in arrays that have the shapes of `params`."""
    slopes = {name: np.zeros(p.shape) for name, p in params.items()}
    for name, place, slope in try_each(loss, params, nudge):
        slopes[name][place] = slope
    return slopes


# What it costs to compute all slopes


class Cost(NamedTuple):
    """Seconds to compute all slopes: by two tries for each parameter, and by one backward pass."""

    parameters: int
    by_trying: float
    tried: bool
    """Whether all tries were made. If not, `by_trying` is an estimate from the first tries."""
    by_backward: float
    difference: float
    """The largest difference between the two slopes of a parameter, among those tried."""

    @property
    def tries(self) -> int:
        return 2 * self.parameters


def cost(loss: Callable[[Params], Array], params: Params, dtype: str) -> Cost:
    """Time both ways to the slopes of `loss`; stop trying if all tries would take too long."""
    both = polynet.value_and_grad(loss)
    # A call may return before the device has computed the result. Copying the result to the host
    # waits for it.
    by_backward = seconds(lambda: tree.map(polynet.to_numpy, both(params)))
    gradient = tree.map(polynet.to_numpy, both(params)[1])
    parameters = sum(math.prod(p.shape) for p in params.values())
    nudge = float(np.finfo(dtype).eps) ** (1 / 3)  # small, but much larger than rounding errors
    difference, begin = 0.0, time.perf_counter()
    for done, (name, place, slope) in enumerate(try_each(loss, params, nudge), start=1):
        difference = max(difference, abs(slope - float(gradient[name][place])))
        elapsed = time.perf_counter() - begin
        projected = elapsed / done * parameters
        if elapsed > 0.2 * MOST_SECONDS and projected > MOST_SECONDS:
            break
    return Cost(parameters, projected, done == parameters, by_backward, difference)


def network(width: int) -> nn.Sequential:
    """A number in, a number out, like the line; in between, two hidden layers of `width` units."""
    return nn.Sequential(
        nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
    )


def network_costs(x: Array, y: Array, where: dict[str, Any], seed: int) -> Iterator[Cost]:
    """The costs of larger and larger networks, on the same measurements."""
    rows, right = x[:, None], y[:, None]  # layers take a batch of rows
    for width in WIDTHS:
        net = network(width).init(seed, **where)

        def loss(params: Params, net: nn.Module = net) -> Array:
            return losses.mse(net.bind(params)(rows), right)

        yield cost(loss, net.parameters(), where["dtype"])


def seconds(run: Callable[[], Any], runs: int = 9) -> float:
    """The median time of `runs` runs, after one run to warm up."""
    times = []
    for _ in range(1 + runs):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[1:]))


# The walk downhill


class Walk(NamedTuple):
    path: np.ndarray
    """a and b before the first step and after each: (count + 1, 2)."""
    losses: list[float]


def step_downhill(params: Params, gradient: Params, step: float) -> Params:
    """params - step · gradient. There is a minus because the gradient points uphill."""
    return {name: params[name] - step * gradient[name] for name in params}


def walk(params: Params, x: Array, y: Array, step: float, count: int) -> Walk:
    """Compute the slope at the current a and b, step downhill, and repeat this `count` times."""
    slope_at = polynet.value_and_grad(mean_loss)
    path, losses_seen = [], []
    for _ in range(count + 1):
        loss, gradient = slope_at(params, x, y)
        path.append([float(params["a"]), float(params["b"])])
        losses_seen.append(float(loss))
        params = step_downhill(params, gradient, step)
    return Walk(np.array(path), losses_seen)


def least_squares(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """The best a and b, and the step size above which a walk diverges.

    For a line there is a formula for the best parameters; for a network there is none. With the
    rows (x, 1) as matrix X, the second derivative (curvature) of the loss is H = 2 XᵀX / n. In the
    direction in which the loss curves most, a step larger than 2 / (largest eigenvalue of H) jumps
    over the lowest point and lands farther from it than it started.
    """
    rows = np.stack([x, np.ones_like(x)], axis=1)
    best = np.linalg.lstsq(rows, y, rcond=None)[0]
    curvature = 2 * rows.T @ rows / len(x)
    return best, 2 / float(np.linalg.eigvalsh(curvature)[-1])


# What is printed


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def show_functions(params: Params, where: dict[str, Any], seed: int) -> None:
    heading("A network is a function, like a line")
    x = polynet.asarray([[0.5]], **where)  # layers take a batch of rows: here one row, one number
    a, b = float(params["a"]), float(params["b"])
    numbers = {"weight": polynet.asarray([[a]], **where), "bias": polynet.asarray([b], **where)}
    line = nn.Linear(1, 1).init(seed, **where).replace(numbers)
    larger = network(width=3).init(seed, **where)
    print(f"  predict(params, x)   {float(predict(params, x)[0, 0]):.4f}   the line at x = 0.5")
    print(f"  nn.Linear(1, 1)(x)   {float(line(x)[0, 0]):.4f}   the same line, as a layer")
    print(f"  network(x)           {float(larger(x)[0, 0]):.4f}   a network is called the same way")
    print(f"\nThe layers of this network, whose parameters are still random:\n{larger.summary()}")


def show_loss(params: Params, x: Array, y: Array, where: dict[str, Any]) -> None:
    heading("A loss tells how wrong an answer is")
    answer, right = polynet.asarray([0.32], **where), polynet.asarray([1.0], **where)
    loss = float(losses.mse(answer, right))
    print(f"If an answer is 0.32 and 1 would be right, the loss is (0.32 - 1)**2 = {loss:.4f}.")
    a, b, count = float(params["a"]), float(params["b"]), x.shape[0]
    print(f"\n{count} measurements: an elastic cord that carries x kilograms is y metres long.")
    print(f"We start with a guess, the line y = {a:.1f} x + {b:.1f}. Four of its answers:\n")
    print("  weight x   length y   answer ax + b   error   loss = error**2")
    answers = predict(params, x)
    for i in (0, 10, 20, 29):
        loss = float(losses.mse(answers[i : i + 1], y[i : i + 1]))
        measured, answered = float(y[i]), float(answers[i])
        print(f"  {float(x[i]):8.2f} {measured:10.2f} {answered:15.2f}", end="")
        print(f"   {answered - measured:+5.2f} {loss:15.4f}")
    mean = float(mean_loss(params, x, y))
    print(f"\nThe mean loss of all {count} measurements is {mean:.4f}. Training makes it smaller.")


def show_tries(params: Params, x: Array, y: Array) -> None:
    heading("Nudge each parameter up and down, and look at the loss")
    here = float(mean_loss(params, x, y))
    print(f"  no nudge         loss {here:.6f}")
    for name in params:
        for nudge in (+0.01, -0.01):
            loss = float(mean_loss({**params, name: params[name] + nudge}, x, y))
            verdict = "better" if loss < here else "worse"
            print(f"  {name} {nudge:+.2f}          loss {loss:.6f}   {verdict}")
    print("The two parameters a and b need four tries. A million parameters need two million.")


def show_gradient(params: Params, x: Array, y: Array, dtype: str) -> None:
    heading("The gradient is the slope in every direction at once")
    # Along a and along b the loss is a parabola. For a parabola this slope is exact, however large
    # the nudge.
    slopes = slopes_by_trying(lambda p: mean_loss(p, x, y), params, nudge=0.01)
    _, gradient = polynet.value_and_grad(mean_loss)(params, x, y)
    digits = np.finfo(dtype).precision
    print("The slope along a parameter says how fast the loss rises when that parameter grows.\n")
    print(f"  slope along   {'by four tries':>17}   {'by value_and_grad':>17}   difference")
    for name in params:
        tried, derived = float(slopes[name]), float(gradient[name])
        difference = abs(tried - derived)
        print(f"  {name:<11}   {tried:17.{digits}f}   {derived:17.{digits}f}   {difference:10.0e}")
    print("value_and_grad makes no tries. It finds all slopes together, in one backward pass.")


def show_cost(costs: list[Cost]) -> None:
    heading("How long it takes to find all slopes, as the number of parameters grows")
    print("                             time of all            time of one             largest")
    print("  parameters       tries           tries          backward pass    ratio  difference")
    for c in costs:
        how = "measured" if c.tried else "estimated"
        print(f"  {c.parameters:10,}  {c.tries:10,}  {duration(c.by_trying):>10} {how:<9}", end="")
        ratio = c.by_trying / c.by_backward
        print(f"  {duration(c.by_backward):>13}  {ratio:7,.0f}  {c.difference:10.0e}")
    print("measured: the program made all tries.")
    print(
        "estimated: it stopped after three seconds. At that speed all tries would take this long."
    )
    print("largest difference: between a slope by tries and the same slope by the backward pass.")


def duration(s: float) -> str:
    """A time in the unit that is easiest to read."""
    units = ("days", 86_400), ("hours", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)
    return next(
        (f"{s / size:.1f} {unit}" for unit, size in units if s >= size), f"{s * 1e6:.0f} us"
    )


def show_update(params: Params, x: Array, y: Array, step: float) -> None:
    heading("A step downhill: parameter - step * gradient")
    _, gradient = polynet.value_and_grad(mean_loss)(params, x, y)
    after = step_downhill(params, gradient, step)
    print("The gradient points uphill, so minus goes down, and plus would climb.")
    print("The step size is also called the learning rate.\n")
    for name in params:
        old, slope, new = float(params[name]), float(gradient[name]), float(after[name])
        print(f"  {name} = {old:.4f} - {step} * {slope:+.4f} = {new:.4f}")
    down = walk(params, x, y, step, count=5).losses
    up = walk(params, x, y, -step, count=5).losses  # minus a negative step is plus
    print("\n  loss after step  " + "".join(f"{i:9}" for i in range(6)))
    print("  minus: it falls  " + "".join(f"{loss:9.4f}" for loss in down))
    print("  plus: it rises   " + "".join(f"{loss:9.4g}" for loss in up))


def show_walks(walks: dict[str, Walk], best: np.ndarray, limit: float) -> None:
    heading(f"A blindfolded hiker walks {len(walks['good'].losses) - 1} steps downhill")
    print("The hiker feels the slope under the feet, steps downhill, and feels again.")
    print("a and b are where the hiker stands at the end, and the loss is the height there.\n")
    print("  step                             a           b        loss")
    for name, (path, seen) in walks.items():
        (a, b), last = path[-1], seen[-1]
        arrived = np.allclose(path[-1], best, atol=1e-3)
        verdict = "arrived" if arrived else "diverges" if last > seen[0] else "on its way"
        print(f"  {STEPS[name]:<5} {name:<16} {a:11.4g} {b:11.4g} {last:11.4g}   {verdict}")
    print(f"  least squares          {best[0]:11.4g} {best[1]:11.4g}", end="")
    print(" " * 14 + "the best line, by a formula")
    print(f"A walk with a step size above {limit:.3f} diverges:")
    print("each step jumps over the valley floor, and lands farther from it.")


# What is drawn

COLOURS = dict(zip(STEPS, ("tab:blue", "tab:green", "tab:purple", "tab:red"), strict=True))


def new_figure(**options: Any) -> Any:
    """A figure that needs no display. Without matplotlib, exit and say how to install it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit(NO_MATPLOTLIB) from None
    return Figure(**options)


def draw_line(axes: Any, x: np.ndarray, y: np.ndarray, path: np.ndarray) -> None:
    axes.scatter(x, y, s=22, color="0.35", zorder=3, label="measured (simulated)")
    last = len(path) - 1
    for count, shade in ((0, 0.3), (1, 0.4), (5, 0.5), (20, 0.7), (last, 1.0)):
        a, b = path[count]
        label = f"after {count} step{'s' * (count != 1)}: y = {a:.2f} x + {b:.2f}"
        width, style = (2.5, "-") if count == last else (1.2, "-" if count else "--")
        axes.plot(x, a * x + b, style, color="tab:green", alpha=shade, lw=width, label=label)
    axes.set(title="The line through the points")
    axes.set(xlabel="weight x (kg)", ylabel="length y of the cord (m)")
    axes.legend(loc="upper left", fontsize=9)


def draw_surface(
    axes: Any, x: np.ndarray, y: np.ndarray, walks: dict[str, Walk], best: np.ndarray
) -> None:
    a, b = np.meshgrid(np.linspace(-0.7, 2.5, 200), np.linspace(-0.6, 2.6, 200))
    surface = np.mean((a[..., None] * x + b[..., None] - y) ** 2, axis=-1)
    levels = np.geomspace(surface.min() * 1.1, surface.max(), 16)
    axes.contour(a, b, surface, levels=levels, colors="0.6", linewidths=0.8)
    for name, (path, _) in reversed(walks.items()):
        inside = path[np.abs(path - best).max(axis=1) < 2]  # the walk that diverges leaves
        label = f"step {STEPS[name]}, {name}" + (
            ": leaves the picture" if len(inside) < len(path) else ""
        )
        axes.plot(*inside.T, ".-", ms=6, lw=1.2, color=COLOURS[name], label=label)
    axes.plot(*walks["good"].path[0], "o", ms=9, color="black", label="start", zorder=4)
    axes.plot(
        *best, "*", ms=13, color="gold", mec="black", label="best line (least squares)", zorder=4
    )
    axes.set(xlim=(a.min(), a.max()), ylim=(b.min(), b.max()))
    axes.set(title="The walks on the loss surface (grey: lines of equal loss)")
    axes.set(xlabel="a (m per kg)", ylabel="b (m)")
    axes.legend(loc="upper left", fontsize=9, framealpha=1)


def draw_losses(axes: Any, walks: dict[str, Walk], climb: Walk) -> None:
    for name, w in walks.items():
        axes.plot(w.losses, color=COLOURS[name], label=f"step {STEPS[name]}, {name}")
    label = f"step {STEPS['good']}, plus instead of minus: climbs"
    axes.plot(climb.losses, "--", color="black", label=label)
    axes.set(yscale="log", ylim=(walks["good"].losses[-1] / 2, 300 * climb.losses[0]), xlim=(0, 80))
    axes.set(title="The loss after each step", xlabel="number of steps", ylabel="mean loss (m²)")
    axes.legend(fontsize=9)


def draw_cost(axes: Any, costs: list[Cost]) -> None:
    sizes = [c.parameters for c in costs]
    by_trying, by_backward = [c.by_trying for c in costs], [c.by_backward for c in costs]
    axes.loglog(sizes, by_trying, "--", color="tab:red", lw=1)
    for tried, fill, label in ((False, "white", "estimated"), (True, None, "measured")):
        some = [c for c in costs if c.tried is tried]
        there = [c.parameters for c in some], [c.by_trying for c in some]
        label = f"nudging each parameter up and down: {label}"
        axes.plot(*there, "o", color="tab:red", mfc=fill, label=label)
    axes.loglog(sizes, by_backward, "o-", color="tab:green", label="one backward pass: measured")
    for text, mark in (("a second", 1), ("a minute", 60), ("an hour", 3600), ("a day", 86_400)):
        axes.axhline(mark, color="0.85", lw=0.8, zorder=0)
        axes.text(1.8e7, mark * 1.2, text, color="0.4", fontsize=9, ha="right")
    axes.set(title="How long it takes to find all slopes")
    axes.set(xlabel="number of parameters", ylabel="seconds")
    axes.set(xlim=(1, 2e7), ylim=(min(by_backward) / 3, 3e7))
    axes.legend(loc="upper left", fontsize=9)


# The program


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    figure = new_figure(figsize=(13, 10), layout="constrained")
    backend = polynet.get_backend(options.backend)
    dtype = finest_dtype(backend, options.device)
    where = {"backend": backend, "device": options.device, "dtype": dtype}
    weights, lengths = measurements(options.seed)
    x, y = polynet.asarray(weights, **where), polynet.asarray(lengths, **where)
    params = {name: polynet.asarray(number, **where) for name, number in GUESS.items()}
    print(f"backend {backend.name}, device {backend.device_name(x)}, {dtype}, seed {options.seed}")
    if dtype == "float32":
        print("(This backend or device has no float64. With float32, fewer digits agree.)")

    show_functions(params, where, options.seed)
    show_loss(params, x, y, where)
    show_tries(params, x, y)
    show_gradient(params, x, y, dtype)

    costs = [
        cost(lambda p: mean_loss(p, x, y), params, dtype),
        *network_costs(x, y, where, options.seed),
    ]
    show_cost(costs)
    show_update(params, x, y, STEPS["good"])
    walks = {name: walk(params, x, y, step, count=200) for name, step in STEPS.items()}
    best, limit = least_squares(weights, lengths)
    show_walks(walks, best, limit)

    (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
    draw_line(top_left, weights, lengths, walks["good"].path)
    draw_surface(top_right, weights, lengths, walks, best)
    draw_losses(bottom_left, walks, walk(params, x, y, -STEPS["good"], count=10))
    draw_cost(bottom_right, costs)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "line.png", dpi=110)
    print(f"\nThe picture is in {options.out / 'line.png'}")


def finest_dtype(backend: polynet.Backend, device: str | None) -> str:
    """float64, which shows more digits, if the device has it; otherwise float32."""
    try:
        polynet.asarray(0.0, backend=backend, device=device, dtype="float64")
    except TypeError:
        return "float32"
    return "float64"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Fit a line by gradient descent, and show how that works."
    )
    parser.add_argument(
        "--backend", help="such as numpy, torch or jax; python -m polynet lists all"
    )
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: the backend's first)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the measurement errors and the networks' first weights (default 0)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the picture (default out)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
