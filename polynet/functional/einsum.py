"""Sums of products by Einstein's notation."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from itertools import combinations
from typing import Any

from polynet.tensor import composition


@composition
def einsum(xp, equation, /, *arrays):
    """The sum of products that `equation` describes, as in `numpy.einsum`.

    `equation` names the axes of each array by letters, with commas between the arrays, and after
    "->" those of the result. Letters that the result lacks are summed over. Without "->", the
    result has the letters that occur once, in alphabetical order. A letter that occurs twice in one
    array takes its diagonal. "..." stands for any number of axes, which broadcast; an axis of
    length 1 broadcasts too.

    Of several arrays, the two whose product takes the fewest multiplications are multiplied first;
    in case of a tie, the two whose product is smallest, then the two farthest left. The product of
    two arrays that share letters to be summed is one `matmul`.

    Raises TypeError if the first argument is not an equation or another is not an array of numbers,
    and ValueError for arrays that do not fit the equation.

    >>> import numpy as np
    >>> x = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> einsum("ij,j->i", x, np.asarray([1.0, 10.0]))
    array([21., 43.])
    >>> float(einsum("ii->", x))
    5.0
    """
    _check_kinds(xp, equation, arrays)
    operands = list(arrays)
    for name, k, how in _steps(equation, tuple(tuple(x.shape) for x in arrays)):
        x = operands[k]
        if name == "sum":
            operands[k] = xp.sum(x, axis=how, dtype=x.dtype)
        elif name == "getitem":
            operands[k] = x[how]
        elif name in ("matmul", "multiply"):
            operands[k] = getattr(xp, name)(x, operands.pop(how))
        else:
            operands[k] = getattr(xp, name)(x, how)
    return operands[0]


def _check_kinds(xp, equation, arrays):
    if not isinstance(equation, str):
        raise TypeError(
            'einsum: expected an equation, such as "ij,jk->ik", and then the arrays; got a '
            f"{type(equation).__name__} first"
        )
    for k, x in enumerate(arrays):
        if not hasattr(x, "shape") or x.dtype == xp.bool:
            found = getattr(x, "dtype", f"a {type(x).__name__}")
            raise TypeError(
                f"einsum {equation!r}: expected arrays of numbers; array {k} is {found}: "
                "polynet.asarray(x) makes an array, xp.astype(x, …) numbers of booleans"
            )


# Reading the equation. The label of an axis is a letter or, within "...", its index from the right


def _parse(equation, dimensions):
    """The labels of each array, which has that many dimensions, and those of the result."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    for term in (*terms, right):
        if not re.fullmatch(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*", term):
            raise ValueError(
                f'einsum: expected letters, commas, one "->" and "..." once for each array; got '
                f"{term!r} in {equation!r}"
            )
    if len(terms) != len(dimensions):
        raise ValueError(
            f"einsum {equation!r} is of {len(terms)} arrays, between commas; got {len(dimensions)}"
        )
    found = [_labels(equation, k, terms[k], n) for k, n in enumerate(dimensions)]
    every = [label for labels in found for label in labels]
    dots = sorted({label for label in every if isinstance(label, int)})  # the axes of "..."
    if not arrow:
        once = sorted(label for label in every if every.count(label) == 1 and label not in dots)
        return found, (*dots, *once)
    output = _expand_ellipsis(right, dots)
    if dots and "..." not in right:
        raise ValueError(f'einsum {equation!r}: the result lacks the axes of "...": "->...{right}"')
    for label in output:
        if label not in every:
            raise ValueError(f"einsum {equation!r}: {label!r} of the result is in no array")
        if output.count(label) > 1:
            raise ValueError(f"einsum {equation!r}: {label!r} stands twice in the result")
    return found, output


def _labels(equation, k, term, dimensions):
    letters = len(term.replace("...", ""))
    dots = dimensions - letters
    if dots < 0 or (dots and "..." not in term):
        raise ValueError(
            f"einsum {equation!r}: array {k}, {term!r}, has {dimensions} dimensions; expected "
            f"{letters}{' or more' if '...' in term else ''}"
        )
    return _expand_ellipsis(term, range(-dots, 0))


def _expand_ellipsis(term, dots):
    before, _, after = term.partition("...")
    return (*before, *(dots if "..." in term else ()), *after)


def _sizes(equation, terms, shapes):
    """The length of each label's axes, which must be the same for all of them, or 1."""
    found: dict[str | int, dict[int, int]] = {}  # by label and length, the first array with it
    for k, (labels, shape) in enumerate(zip(terms, shapes, strict=True)):
        here: dict[str | int, int] = {}
        for label, n in zip(labels, shape, strict=True):
            found.setdefault(label, {}).setdefault(n, k)
            if here.setdefault(label, n) != n:
                raise ValueError(
                    f"einsum {equation!r}: {label!r} twice in array {k} is a diagonal, of one "
                    f"length; got {here[label]} and {n}"
                )
    for label, lengths in found.items():
        if len(lengths) - (1 in lengths) > 1:
            axis = f'axis {label} of "..."' if isinstance(label, int) else repr(label)
            places = " and ".join(f"{n} in array {k}" for n, k in lengths.items())
            raise ValueError(f"einsum {equation!r}: {axis} has one length; got {places}")
    return {label: next((n for n in lengths if n != 1), 1) for label, lengths in found.items()}


# Planning: a step is the name of a function, the index of its operand, and its other argument


@lru_cache(maxsize=1024)
def _steps(equation, shapes):
    terms, output = _parse(equation, tuple(map(len, shapes)))
    plan = _Plan(terms, output, _sizes(equation, terms, shapes))
    for k, shape in enumerate(shapes):
        plan.drop_ones(k, shape)
        plan.diagonals(k)
    for k in range(len(shapes)):
        plan.sum_alone(k)
    while len(plan.terms) > 1:
        plan.multiply(*min(combinations(range(len(plan.terms)), 2), key=plan.cost))
    plan.arrange(0, [[label] for label in output])
    return plan.steps


class _Plan:
    """The steps so far, and the labels of the operands that are left after them."""

    def __init__(self, terms, output, sizes) -> None:
        self.terms = list(terms)
        self.output = output
        self.sizes = sizes
        self.steps: list[tuple[str, int, Any]] = []

    def drop_ones(self, k, shape):
        """Drop the axes of length 1 whose label has a longer axis elsewhere: they broadcast."""
        pairs = zip(self.terms[k], shape, strict=True)
        labels = tuple(label for label, n in pairs if n == self.sizes[label])
        if labels != self.terms[k]:
            self.terms[k] = labels
            self.steps.append(("reshape", k, tuple(self.sizes[label] for label in labels)))

    def diagonals(self, k):
        """Where two axes have the same label, take the diagonal, which becomes the last axis."""
        for label in self.terms[k]:
            while self.terms[k].count(label) > 1:
                labels, n = self.terms[k], self.sizes[label]
                j = len(labels) - 1 - labels[::-1].index(label)
                both = (labels.index(label), j)
                rest = [axis for axis in range(len(labels)) if axis not in both]
                self.terms[k] = (*(labels[axis] for axis in rest), label)
                shape = [self.sizes[labels[axis]] for axis in rest]
                self.steps += [
                    ("permute_dims", k, (*rest, *both)),
                    ("reshape", k, (*shape, n * n)),
                    ("getitem", k, (..., slice(None, None, n + 1))),
                ]

    def sum_alone(self, k):
        """Sum operand k over the labels that neither another operand nor the result has."""
        needed = self.needed_beside(k)
        axes = tuple(a for a, label in enumerate(self.terms[k]) if label not in needed)
        if axes:
            self.terms[k] = tuple(label for label in self.terms[k] if label in needed)
            self.steps.append(("sum", k, axes))

    def needed_beside(self, *operands):
        """The labels of the result, and of all other operands."""
        others = [labels for k, labels in enumerate(self.terms) if k not in operands]
        return {label for labels in (self.output, *others) for label in labels}

    def cost(self, pair):
        """The number of multiplications in the product of two, and the size of its result."""
        found = {label for k in pair for label in self.terms[k]}
        return self.count(found), self.count(found & self.needed_beside(*pair))

    def count(self, labels):
        return math.prod(self.sizes[label] for label in labels)

    def multiply(self, i, j):
        """Replace operand i by its product with j, summed over the labels that no other needs."""
        x, y, needed = self.terms[i], self.terms[j], self.needed_beside(i, j)
        both = [label for label in x if label in y]
        stack = [[label] for label in both if label in needed]
        summed = [label for label in both if label not in needed]
        left, right = ([a for a in labels if a not in both] for labels in (x, y))
        number = not (stack or left or right)
        if summed and number:  # the product of two vectors is faster than that of two matrices
            of_x, of_y = [summed], [summed]
        elif summed:
            of_x, of_y = [left, summed], [summed, right]
        else:  # an outer product: each axis meets an axis of length 1
            of_x = [*([a] for a in left), *([] for _ in right)]
            of_y = [*([] for _ in left), *([a] for a in right)]
        self.arrange(i, [*stack, *of_x])
        self.arrange(j, [*stack, *of_y])
        self.steps.append(("matmul" if summed else "multiply", i, j))
        self.terms[i] = (*(a for group in stack for a in group), *left, *right)
        del self.terms[j]
        if summed and not number and (len(left) != 1 or len(right) != 1):
            self.steps.append(("reshape", i, tuple(self.sizes[a] for a in self.terms[i])))

    def arrange(self, k, groups):
        """Permute and reshape operand k so that it has one axis for each group of its labels."""
        labels = [label for group in groups for label in group]
        order = tuple(self.terms[k].index(label) for label in labels)
        if order != tuple(range(len(order))):
            self.steps.append(("permute_dims", k, order))
        if any(len(group) != 1 for group in groups):
            self.steps.append(("reshape", k, tuple(map(self.count, groups))))
