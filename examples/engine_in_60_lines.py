"""The engine of polynet in 59 lines: arrays that record what happens to them, and the sweep back.

Forward propagation computes, and writes a record: a list with one line for each result, which
says from which earlier lines it was computed and how a gradient goes back to them. Backward
propagation reads the record from its end. That is all; `polynet/tensor/` is the same idea,
with several derivatives at once, any array library, and errors that say what to do. The 59
lines are those with code between the two marks, and three imports.

The program below the engine trains a small network on exclusive or (XOR), prints the record of
its loss, and compares the gradients with those of `polynet.value_and_grad`.

    python examples/engine_in_60_lines.py
"""

import argparse
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np

# ---- The engine begins here.

Line = namedtuple("Line", "op value inputs pullbacks")


# An array that knows which line of which record it is.
class Tensor:
    __array_ufunc__ = None  # NumPy leaves `array @ tensor` to the Tensor

    def __init__(self, value, record, line):
        self.value, self.record, self.line = value, record, line

    # Array code asks its arrays where the functions for them are.
    def __array_namespace__(self):
        return FUNCTIONS


# A rule returns a result and, for each input, how a gradient goes back to it. Around it, `op`
# takes the values out of the Tensors, and writes what the rule did at the end of the record.
def op(rule):
    def call(*args):
        record = next(a.record for a in args if isinstance(a, Tensor))
        inputs = tuple(a.line if isinstance(a, Tensor) else None for a in args)
        value, pullbacks = rule(*(a.value if isinstance(a, Tensor) else a for a in args))
        record.append(Line(rule.__name__, value, inputs, pullbacks))
        return Tensor(value, record, len(record) - 1)

    return call


@op
def add(x, y):
    return x + y, (lambda g: g, lambda g: g)


@op
def subtract(x, y):
    return x - y, (lambda g: g, lambda g: -g)


@op
def multiply(x, y):
    return x * y, (lambda g: g * y, lambda g: g * x)


# Of two matrices.
@op
def matmul(x, y):
    return x @ y, (lambda g: g @ y.T, lambda g: x.T @ g)


@op
def tanh(x):
    y = np.tanh(x)
    return y, (lambda g: g * (1 - y * y),)


@op
def mean(x):
    return np.mean(x), (lambda g: np.broadcast_to(g / x.size, x.shape),)


FUNCTIONS = SimpleNamespace(tanh=tanh, mean=mean)
Tensor.__add__ = Tensor.__radd__ = add
Tensor.__sub__, Tensor.__rsub__ = subtract, lambda y, x: subtract(x, y)
Tensor.__mul__ = Tensor.__rmul__ = multiply
Tensor.__matmul__, Tensor.__rmatmul__ = matmul, lambda y, x: matmul(x, y)


# The first lines of the record are the arrays to differentiate by, the last is the result.
def forward(f, *leaves):
    record = [Line("leaf", x, (), ()) for x in leaves]
    result = f(*(Tensor(x, record, i) for i, x in enumerate(leaves)))
    return record[: result.line + 1]


# The slope of the result by itself is 1. From there each line hands its gradient back to its
# inputs, where what arrives is added up: an input used twice matters twice.
def backward(record):
    gradients = [np.zeros_like(line.value) for line in record]
    gradients[-1] += 1.0
    for row in reversed(range(len(record))):
        for at, pullback in zip(record[row].inputs, record[row].pullbacks, strict=True):
            if at is not None:
                g = pullback(gradients[row])
                gradients[at] = gradients[at] + sum_to(record[at].value.shape, g)
    return gradients


# An input that was stretched to a larger shape (broadcasting) is used once in every place.
def sum_to(shape, g):
    extra = g.ndim - len(shape)
    stretched = (extra + i for i, n in enumerate(shape) if n != g.shape[extra + i])
    return g.sum(axis=(*range(extra), *stretched)).reshape(shape)


# ---- The engine ends here. What follows uses it.


NO_MATPLOTLIB = """\
this example draws with matplotlib, which is not installed. To install it:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

# Exclusive or: one of the two, and not both. No line parts the ones from the zeros.
CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
RIGHT = np.array([[0.0], [1.0], [1.0], [0.0]])


def network(x, w1, b1, w2, b2):
    """Two layers. The code is the same for NumPy's arrays, our Tensors and polynet's."""
    xp = w1.__array_namespace__()
    return xp.tanh(x @ w1 + b1) @ w2 + b2


def loss(*params):
    """Mean of (answer - right)² over the four corners."""
    off = network(CORNERS, *params) - RIGHT
    return off.__array_namespace__().mean(off * off)


def first_params(seed, hidden=4):
    """Weights and biases of both layers, drawn from the seed."""
    draw = np.random.default_rng(seed).standard_normal
    return [draw((2, hidden)), draw(hidden), draw((hidden, 1)), draw(1)]


def train(params, step=0.2, count=1000):
    """Gradient descent; returns the parameters and the loss before each step."""
    losses = []
    for _ in range(count):
        record = forward(loss, *params)
        gradients = backward(record)
        losses.append(float(record[-1].value))
        params = [p - step * g for p, g in zip(params, gradients[: len(params)], strict=True)]
    return params, losses


def differences(params):
    """How far our loss and gradients are from those of polynet, at most."""
    import polynet  # the engine above needs nothing of it

    record = forward(loss, *params)
    ours = backward(record)[: len(params)]
    value, theirs = polynet.value_and_grad(loss, argnums=(0, 1, 2, 3))(*params)
    apart = max(float(np.max(np.abs(a - b))) for a, b in zip(ours, theirs, strict=True))
    return abs(float(record[-1].value - value)), apart


NAMES = ("w1", "b1", "w2", "b2")


def title(i, line):
    """What stands in a line: a parameter, or the result of an op."""
    return line.op if line.inputs else f"{line.op} {NAMES[i]}"


def sources(line):
    """The lines a line was computed from; an input that is not on record is data."""
    return ", ".join("data" if at is None else str(at) for at in line.inputs)


def shown(array, most=3):
    """The first numbers of an array."""
    numbers = " ".join(f"{n:7.3f}" for n in array.ravel()[:most])
    return numbers + (" …" if array.size > most else "")


def print_record(record):
    print("line  op        from      shape    value                       gradient of the loss")
    for i, (line, g) in enumerate(zip(record, backward(record), strict=True)):
        shape = "×".join(map(str, line.value.shape))
        row = f"{i:4}  {title(i, line):<8}  {sources(line):<8}  {shape:<5}  {shown(line.value):<26}"
        print(f"{row}  {shown(g)}")


def draw(figure, record, params):
    """The record as a graph, and the trained network's answers."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    for i, line in enumerate(record):
        leaf = not line.inputs
        shape = "×".join(map(str, line.value.shape)) or "a number"
        left.plot(0, i, "o", ms=10, color="tab:green" if leaf else "tab:blue", zorder=3)
        left.text(0.12, i, f"{i}  {title(i, line)}   ({shape})", va="center")
        for at in {at for at in line.inputs if at is not None}:
            bend = f"arc3,rad={0.0 if i - at == 1 else 0.5}"
            arrow = {"arrowstyle": "->", "connectionstyle": bend, "color": "0.4", "shrinkB": 6}
            left.annotate("", (0, i), (0, at), arrowprops=arrow)
    left.set(xlim=(-1.3, 1.2), ylim=(len(record) - 0.5, -0.8))
    left.set_title(
        "The record: parameters green, results blue.\nThe sweep goes up, against the arrows."
    )
    left.axis("off")

    side = np.linspace(-0.4, 1.4, 120)
    x = np.stack(np.meshgrid(side, side), axis=-1)
    answers = network(x.reshape(-1, 2), *params).reshape(x.shape[:2])
    levels = np.linspace(-0.5, 1.5, 21)
    filled = right.contourf(side, side, answers, levels=levels, cmap="RdBu_r", extend="both")
    right.contour(side, side, answers, levels=[0.5], colors="black")
    right.scatter(*CORNERS.T, c=RIGHT[:, 0], cmap="RdBu_r", s=140, edgecolors="black", zorder=3)
    for corner, answer in zip(CORNERS, RIGHT[:, 0], strict=True):
        right.annotate(f"{answer:.0f}", corner, (9, 9), textcoords="offset points", fontsize=13)
    right.set(title="Exclusive or, learned: the answers", xlabel="first", ylabel="second")
    figure.colorbar(filled, ax=right, label="answer; black line: 0.5")


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train on XOR with an engine of 60 lines.")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights (default 0)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args(argv)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit(NO_MATPLOTLIB) from None

    first = first_params(options.seed)
    record = forward(loss, *first)
    print("The record of the loss, before training:\n")
    print_record(record)

    trained, losses = train(first)
    print("\nstep " + "".join(f"{i:9}" for i in (0, 10, 100, len(losses) - 1)))
    print("loss " + "".join(f"{losses[i]:9.5f}" for i in (0, 10, 100, len(losses) - 1)))
    print("\ntwo inputs   right   before    after")
    before, after = network(CORNERS, *first), network(CORNERS, *trained)
    for corner, right, b, a in zip(CORNERS, RIGHT, before, after, strict=True):
        print(
            f"{corner[0]:.0f} and {corner[1]:.0f}      {right[0]:.0f}     {b[0]:+.3f}   {a[0]:+.3f}"
        )

    print("\nBeside polynet.value_and_grad: difference of the loss, largest of the gradients")
    for when, params in (("before", first), ("after", trained)):
        value, gradient = differences(params)
        print(f"  {when:<6} training   {value:.1e}   {gradient:.1e}")

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    draw(figure, record, trained)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "engine.png", dpi=110)
    print(f"\nDrawn: {options.out / 'engine.png'}")


if __name__ == "__main__":
    main()
