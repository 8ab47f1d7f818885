"""The engine of polynet in 59 lines: arrays that record each operation, and a backward pass.

Forward propagation computes the result and writes a record: a list with one line for each
parameter and each operation. A line keeps the value, the numbers of the earlier lines that it was
computed from, and functions that carry a gradient back to those lines. Backward propagation reads
the record from its last line to its first. That is the whole idea. `polynet/tensor/` adds several
derivatives at once, any array library, and errors that say what to do. The 59 lines are the
lines with code between the two marks, and three imports.

The program below the engine trains a small network on exclusive or (XOR). It prints the record of
the network's loss, and compares the gradients with those of `polynet.value_and_grad`.

    python examples/engine_in_60_lines.py
"""

import argparse
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np

# ---- The engine begins here.

Line = namedtuple("Line", "op value inputs pullbacks")


# An array, together with the record that it is part of and the number of its line there.
class Tensor:
    __array_ufunc__ = None  # for `array @ tensor`, NumPy then calls the Tensor's __rmatmul__

    def __init__(self, value, record, line):
        self.value, self.record, self.line = value, record, line

    # Code for any array library asks an array for its functions, such as tanh, by this method.
    def __array_namespace__(self):
        return FUNCTIONS


# A rule computes on plain arrays. It returns the result and, for each input, a function (pullback)
# that turns the gradient of the result into the gradient of that input. `op` makes a rule work on
# Tensors: it takes their values out, and writes the rule's result at the end of the record.
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


# The product of two matrices.
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


# Calls f and returns its record. The first lines are the leaves, which are the arrays to
# differentiate by. The last line is the result of f.
def forward(f, *leaves):
    record = [Line("leaf", x, (), ()) for x in leaves]
    result = f(*(Tensor(x, record, i) for i, x in enumerate(leaves)))
    return record[: result.line + 1]


# Returns the gradient of the result by every line. The gradient of the result by itself is 1. From
# there, each line hands its gradient back to its inputs. An input that was used several times
# receives several gradients, and they are added up.
def backward(record):
    gradients = [np.zeros_like(line.value) for line in record]
    gradients[-1] += 1.0
    for row in reversed(range(len(record))):
        for at, pullback in zip(record[row].inputs, record[row].pullbacks, strict=True):
            if at is not None:
                g = pullback(gradients[row])
                gradients[at] = gradients[at] + sum_to(record[at].value.shape, g)
    return gradients


# Broadcasting stretched an input of this shape to the shape of g, so each of its numbers was used
# in several places. Their gradients are added up.
def sum_to(shape, g):
    extra = g.ndim - len(shape)
    stretched = (extra + i for i, n in enumerate(shape) if n != g.shape[extra + i])
    return g.sum(axis=(*range(extra), *stretched)).reshape(shape)


# ---- The engine ends here. The program below uses it.


NO_MATPLOTLIB = """\
this example draws with matplotlib, which is not installed. To install it:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

# Exclusive or: the target is 1 if exactly one of the two inputs is 1. No straight line separates
# the corners with target 1 from those with target 0, so one linear layer cannot learn it.
CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TARGETS = np.array([[0.0], [1.0], [1.0], [0.0]])


def network(x, w1, b1, w2, b2):
    """Two layers. The same code runs on NumPy's arrays, on our Tensors and on polynet's."""
    xp = w1.__array_namespace__()
    return xp.tanh(x @ w1 + b1) @ w2 + b2


def loss(*params):
    """The mean of (answer - target)² over the four corners."""
    error = network(CORNERS, *params) - TARGETS
    return error.__array_namespace__().mean(error * error)


def first_params(seed, hidden=4):
    """The weights and biases of both layers, drawn at random from the seed."""
    draw = np.random.default_rng(seed).standard_normal
    return [draw((2, hidden)), draw(hidden), draw((hidden, 1)), draw(1)]


def train(params, step_size=0.2, steps=1000):
    """Gradient descent. Returns the trained parameters, and the loss before each step."""
    losses = []
    for _ in range(steps):
        record = forward(loss, *params)
        gradients = backward(record)
        losses.append(float(record[-1].value))
        params = [p - step_size * g for p, g in zip(params, gradients[: len(params)], strict=True)]
    return params, losses


def differences(params):
    """How far our loss is from polynet's, and the largest difference between the gradients."""
    import polynet  # only to compare: the engine above does not use it

    record = forward(loss, *params)
    ours = backward(record)[: len(params)]
    value, theirs = polynet.value_and_grad(loss, argnums=(0, 1, 2, 3))(*params)
    apart = max(float(np.max(np.abs(a - b))) for a, b in zip(ours, theirs, strict=True))
    return abs(float(record[-1].value - value)), apart


NAMES = ("w1", "b1", "w2", "b2")


def title(i, line):
    """The name of a line's op; for a leaf, also the name of the parameter."""
    return line.op if line.inputs else f"{line.op} {NAMES[i]}"


def sources(line):
    """The numbers of the lines that this line was computed from; "data" for a plain array."""
    return ", ".join("data" if at is None else str(at) for at in line.inputs)


def shown(array, most=3):
    """The first numbers of an array, and "..." if it has more."""
    numbers = " ".join(f"{n:7.3f}" for n in array.ravel()[:most])
    return numbers + (" ..." if array.size > most else "")


def print_record(record):
    print("line  op        from      shape    value                       gradient of the loss")
    for i, (line, g) in enumerate(zip(record, backward(record), strict=True)):
        shape = "x".join(map(str, line.value.shape))
        row = f"{i:4}  {title(i, line):<8}  {sources(line):<8}  {shape:<5}  {shown(line.value):<26}"
        print(f"{row}  {shown(g)}")


def draw(figure, record, params):
    """Draw the record as a graph, and beside it the trained network's answers."""
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
        "The record: parameters green, results blue.\nForward goes down, backward goes up."
    )
    left.axis("off")

    side = np.linspace(-0.4, 1.4, 120)
    x = np.stack(np.meshgrid(side, side), axis=-1)
    answers = network(x.reshape(-1, 2), *params).reshape(x.shape[:2])
    levels = np.linspace(-0.5, 1.5, 21)
    filled = right.contourf(side, side, answers, levels=levels, cmap="RdBu_r", extend="both")
    right.contour(side, side, answers, levels=[0.5], colors="black")
    right.scatter(*CORNERS.T, c=TARGETS[:, 0], cmap="RdBu_r", s=140, edgecolors="black", zorder=3)
    for corner, target in zip(CORNERS, TARGETS[:, 0], strict=True):
        right.annotate(f"{target:.0f}", corner, (9, 9), textcoords="offset points", fontsize=13)
    right.set_title("What the trained network answers to two inputs.\nAt the dots: the targets.")
    right.set(xlabel="first input", ylabel="second input")
    figure.colorbar(filled, ax=right, label="the network's answer; it is 0.5 on the black lines")


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train on XOR with an engine of 60 lines.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first weights (default 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the picture (default out)"
    )
    options = parser.parse_args(argv)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit(NO_MATPLOTLIB) from None

    first = first_params(options.seed)
    record = forward(loss, *first)
    print("The record of the loss, before training. Forward propagation wrote it from the first")
    print("line to the last; backward propagation found the gradients from the last to the first.")
    print('"from" names the lines that a line was computed from; "data" stands for the inputs and')
    print(
        'the targets, which have no line. A "leaf" is a parameter. "..." stands for more numbers.\n'
    )
    print_record(record)

    trained, losses = train(first)
    print(f"\nGradient descent, {len(losses)} steps: the loss before some of them")
    print("step " + "".join(f"{i:9}" for i in (0, 10, 100, len(losses) - 1)))
    print("loss " + "".join(f"{losses[i]:9.5f}" for i in (0, 10, 100, len(losses) - 1)))
    print("\nThe network's answers before and after training, beside the target")
    print("two inputs   target   before    after")
    before, after = network(CORNERS, *first), network(CORNERS, *trained)
    for (x1, x2), (target,), (b,), (a,) in zip(CORNERS, TARGETS, before, after, strict=True):
        print(f"{x1:.0f} and {x2:.0f}      {target:.0f}        {b:+.3f}   {a:+.3f}")

    print("\nHow far this engine's numbers are from those of polynet.value_and_grad, at most")
    print("                    loss      gradients")
    for when, params in (("before", first), ("after", trained)):
        value, gradient = differences(params)
        print(f"  {when:<6} training   {value:.1e}   {gradient:.1e}")

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    draw(figure, record, trained)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "engine.png", dpi=110)
    print(f"\nThe picture is in {options.out / 'engine.png'}")


if __name__ == "__main__":
    main()
