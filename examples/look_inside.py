"""Look inside a small network: every value on the way forward, every gradient on the way back.

The network learns exclusive or (XOR): the right answer is 1 if one of the two inputs is 1 and the
other is 0, and otherwise 0. It has two layers, which start with random parameters. The program

- prints the record of the loss: each operation with its value and its gradient,
- changes single parameters a little, to show that a gradient is the slope of the loss,
- walks downhill until the four answers are right.

It also draws the record as a picture, `look_inside.svg`.

    python examples/look_inside.py
"""

import argparse
from pathlib import Path

import numpy as np

import polynet
from polynet import losses, nn

INPUTS = np.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
RIGHT = np.asarray([[0.0], [1.0], [1.0], [0.0]])

HOW_TO_READ = """\
This is the record of the loss. A leaf is a parameter. A constant is an array that is not trained:
the inputs, or the right answers. The last line is the loss.

Forward, from the first line to the last, each op computes its value from the lines in column
'from'. Column 'in' names the function of polynet that called the op.

Backward, from the last line to the first, each line gets its gradient: how fast the loss rises
when a number of its value grows.
"""


def network(seed):
    """Two layers with random parameters, which depend on the seed."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    return net.init(seed, backend="numpy", dtype="float64")


def loss_of(net):
    """The loss as a function of the parameters alone: the mean of (answer - right)²."""
    return lambda parameters: losses.mse(net.bind(parameters)(INPUTS), RIGHT)


def slope_by_hand(loss, parameters, name, place, step=1e-5):
    """The slope of the loss: (loss(p + step) - loss(p - step)) / (2 · step).

    p is one number: the one at `place` in the parameter `name`. All others stay as they are.
    """
    found = []
    for change in (step, -step):
        moved = parameters[name].copy()
        moved[place] += change
        found.append(float(loss({**parameters, name: moved})))
    return (found[0] - found[1]) / (2 * step)


def walk_downhill(loss, parameters, rate=0.3, close=0.05, most=5000):
    """Gradient descent until the loss is at most `close`²; returns parameters and all losses."""
    history = []
    for _ in range(most):
        value, gradient = polynet.value_and_grad(loss)(parameters)
        history.append(float(value))
        if history[-1] <= close**2:
            break
        parameters = {name: p - rate * gradient[name] for name, p in parameters.items()}
    return parameters, history


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Show every value and gradient inside a small network that learns XOR."
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first parameters (default 0)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the picture (default out)"
    )
    options = parser.parse_args(argv)

    net = network(options.seed)
    loss, parameters = loss_of(net), net.parameters()
    record = polynet.record(loss, parameters)
    print(HOW_TO_READ)
    print(record)

    print("\nIs the gradient the slope of the loss? The first number of each parameter is changed")
    print("a little, up and down, and the loss is computed both times:\n")
    print("  parameter        slope     gradient")
    for line in record.lines[: len(parameters)]:
        place = (0,) * len(line.shape)
        by_hand = slope_by_hand(loss, parameters, line.name, place)
        print(f"  {line.name:<9} {by_hand:+12.8f} {line.gradient[place]:+12.8f}")

    trained, history = walk_downhill(loss, parameters)
    first, last = history[0], history[-1]
    print(f"\nIn {len(history) - 1} steps downhill the loss fell from {first:.4f} to {last:.4f}.")
    print("The network's answers before the first step, and after the last:\n")
    print("  inputs    right answer   before    after")
    before, after = net(INPUTS), net.replace(trained)(INPUTS)
    for (one, two), right, b, a in zip(INPUTS, RIGHT, before, after, strict=True):
        print(f"  {one:.0f} and {two:.0f}   {right[0]:12.0f}   {b[0]:+.3f}   {a[0]:+.3f}")

    options.out.mkdir(parents=True, exist_ok=True)
    record.save(options.out / "look_inside.svg")
    print(f"\nThe picture of the record is in {options.out / 'look_inside.svg'}")


if __name__ == "__main__":
    main()
