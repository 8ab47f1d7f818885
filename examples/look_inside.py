"""A look inside: a small network laid open, line by line, forward and back.

Exclusive or (XOR) asks for one of two, and not both. A network of two layers starts with random
parameters. The program prints what its loss recorded, with every value and the gradient that
came back to it; moves one parameter by hand, to see that its gradient is the slope of the
loss; then walks downhill until the four answers are right. The same record, as a picture, is
written to `look_inside.svg`.

    python examples/look_inside.py
"""

import argparse
from pathlib import Path

import numpy as np

import polynet
from polynet import losses, nn

CORNERS = np.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
RIGHT = np.asarray([[0.0], [1.0], [1.0], [0.0]])


def network(seed):
    """Two layers, with their first parameters drawn from the seed."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    return net.init(seed, backend="numpy", dtype="float64")


def loss_of(net):
    """The loss as a function of the parameters alone: mean of (answer - right)²."""
    return lambda parameters: losses.mse(net.bind(parameters)(CORNERS), RIGHT)


def slope_by_hand(loss, parameters, name, place, step=1e-5):
    """How the loss changes when one number of one parameter moves a little, up and down."""
    found = []
    for way in (step, -step):
        moved = parameters[name].copy()
        moved[place] += way
        found.append(float(loss({**parameters, name: moved})))
    return (found[0] - found[1]) / (2 * step)


def walk_downhill(loss, parameters, rate=0.3, close=0.05, most=5000):
    """Gradient descent until the loss is at most `close`²; returns parameters and losses."""
    history = []
    for _ in range(most):
        value, gradient = polynet.value_and_grad(loss)(parameters)
        history.append(float(value))
        if history[-1] <= close**2:
            break
        parameters = {name: p - rate * gradient[name] for name, p in parameters.items()}
    return parameters, history


def main(argv=None):
    parser = argparse.ArgumentParser(description="Look inside a small network.")
    parser.add_argument("--seed", type=int, default=0, help="of the first parameters (default 0)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args(argv)

    net = network(options.seed)
    loss, parameters = loss_of(net), net.parameters()
    record = polynet.record(loss, parameters)
    print("What the loss recorded, and the gradients that came back:\n")
    print(record)

    print("\nOne number moved by hand: the slope of the loss, beside the gradient in the record")
    for line in record.lines[: len(parameters)]:
        place = (0,) * len(line.shape)
        by_hand = slope_by_hand(loss, parameters, line.name, place)
        print(f"  {line.name:<9} {by_hand:+.8f}  {line.gradient[place]:+.8f}")

    trained, history = walk_downhill(loss, parameters)
    first, last = history[0], history[-1]
    print(f"\nDownhill in {len(history) - 1} steps: the loss went from {first:.4f} to {last:.4f}")
    print("\ntwo inputs   right   before    after")
    before, after = net(CORNERS), net.replace(trained)(CORNERS)
    for corner, right, b, a in zip(CORNERS, RIGHT, before, after, strict=True):
        print(
            f"{corner[0]:.0f} and {corner[1]:.0f}      {right[0]:.0f}     {b[0]:+.3f}   {a[0]:+.3f}"
        )

    options.out.mkdir(parents=True, exist_ok=True)
    record.save(options.out / "look_inside.svg")
    print(f"\nDrawn: {options.out / 'look_inside.svg'}")


if __name__ == "__main__":
    main()
