"""Recording a function's run and the sweep back through it, to look at every op."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polynet
from polynet import tree
from polynet.backend import Array, backend_of
from polynet.backend.transfer import dtype_name
from polynet.derivative import value_and_grad
from polynet.errors import RecordError, unknown
from polynet.tensor import LINE, Level, Tensor, highest_level, plain_value
from polynet.view.drawing import dot, svg


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a record: an array to differentiate by (a leaf), or a result of an op.

    `op` is the op's name, or "leaf". `name` is the leaf's name, or the number of the result if the
    op has several. `inputs` are the numbers of the lines that `value` was computed from, None for a
    constant. `within` is the name of the function that called the op. `gradient` is the derivative
    of the record's result by `value`, in the shape of `value`; zeros where no gradient came back.
    """

    op: str
    name: str
    inputs: tuple[int | None, ...]
    within: str
    value: Array
    gradient: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def title(self) -> str:
        return f"{self.op} {self.name}".rstrip()

    @property
    def kind(self) -> str:
        """Shape and dtype, as they are shown."""
        return f"{self.shape} {dtype_name(self.dtype)}"


@dataclass(frozen=True, eq=False)
class Record:
    """The ops of a function's run, line by line. `print` shows a table, `save` writes a picture.

    A notebook draws the picture. `record["0.weight"]` is the line of the leaf of that name; it
    raises KeyError where no leaf has the name. `result` is the number of the line of the function's
    result, or None where the result depends on no leaf.
    """

    lines: tuple[Line, ...]
    result: int | None

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def __getitem__(self, name: str) -> Line:
        leaves = {line.name: line for line in self.lines if line.op == "leaf"}
        if name not in leaves:
            raise KeyError(unknown("leaf", name, leaves))
        return leaves[name]

    def __str__(self) -> str:
        titles = ("line", "op", "from", "in", "shape", "value", "gradient")
        rows = [titles, *(self._row(i, line) for i, line in enumerate(self.lines))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if self.result is None:
            lines.append("The result depends on none of these lines: all gradients are 0.")
        return "\n".join(lines)

    def _row(self, number: int, line: Line) -> tuple[str, ...]:
        sources = ", ".join("constant" if at is None else str(at) for at in line.inputs)
        numbers = (shown(line.value), shown(line.gradient))
        return f"{number:4}", line.title, sources, line.within, line.kind, *numbers

    def __repr__(self) -> str:
        return f"<record of {len(self.lines)} lines: print it, or save('record.svg')>"

    def to_dot(self) -> str:
        """The record as a graph in the language of Graphviz."""
        return dot(self._labels(), self._inputs(), self.result)

    def to_svg(self) -> str:
        """The record as a picture: a box for each line, below the boxes of its inputs."""
        return svg(self._labels(), self._inputs(), self.result)

    _repr_svg_ = to_svg  # a notebook calls it by this name

    def save(self, path: str | Path) -> None:
        """Write the picture to a file that ends in ".svg", or its Graphviz source to ".dot"."""
        path = Path(path)
        if path.suffix not in (".svg", ".dot"):
            raise ValueError(f"a record is saved as .svg or .dot; got {path.name!r}")
        text = self.to_svg() if path.suffix == ".svg" else self.to_dot()
        path.write_text(text, encoding="utf-8")

    def _labels(self) -> list[list[str]]:
        return [
            [
                f"{i}  {line.title}" + (f"  (in {line.within})" if line.within else ""),
                line.kind,
                f"value     {shown(line.value)}",
                f"gradient  {shown(line.gradient)}",
            ]
            for i, line in enumerate(self.lines)
        ]

    def _inputs(self) -> list[list[int]]:
        """For each line, the lines that it was computed from, each once."""
        return [sorted({at for at in line.inputs if at is not None}) for line in self.lines]


def shown(array: Array, most: int = 3) -> str:
    """The first numbers of an array."""
    host = backend_of(array).to_host(array).ravel()
    numbers = " ".join(f"{n:.4g}" for n in host[:most].tolist())
    return f"{numbers} ..." if host.size > most else numbers  # a console may have ASCII only


def record(f: Callable[..., Any], *args: Any) -> Record:
    """Run `f(*args)`, differentiate it by all arguments, and return a record of every op.

    The arguments are arrays, or trees of them, and `f` returns one real 0-d array, as for
    `value_and_grad`. Arrays that are not arguments are constants. Every op that a gradient can
    reach has a line, with copies of its value and its gradient. Layers and losses appear as the ops
    that define them, since no kernels run. A leaf is named after its argument and, in a tree of
    arrays, its path; where a tree is the only argument, after its path alone.

    Raises TypeError as `value_and_grad` does, or if no array is given, and RecordError for
    arrays that another derivative is recording.

    >>> import numpy as np, polynet
    >>> def loss(w):
    ...     xp = polynet.array_namespace(w)
    ...     return xp.sum((w - 1.0) ** 2)
    >>> print(polynet.record(loss, np.asarray([3.0, 0.5])))
    line  op        from         in    shape         value   gradient
       0  leaf w                       (2,) float64  3 0.5   4 -1
       1  subtract  0, constant  loss  (2,) float64  2 -0.5  4 -1
       2  pow       1, constant  loss  (2,) float64  4 0.25  1 1
       3  sum       2            loss  () float64    4.25    1

    Source: the evaluation trace of Griewank and Walther, *Evaluating Derivatives* (2008), ch. 2.
    """
    leaves = tree.leaves(list(args))
    if not leaves:
        raise TypeError("record expected at least one array to differentiate by; got none")
    if any(type(leaf) is Tensor for leaf in leaves):
        raise RecordError(
            "record shows plain numbers, and got a Tensor of a derivative that is being taken; "
            "call record outside that derivative, or with polynet.stop_gradient(x)"
        )
    watcher = _Watcher()

    def watched(*tensors: Any) -> Any:
        level = highest_level(tensors)
        assert level is not None
        watcher.begin(level, _names(f, args), leaves)
        result = f(*tensors)
        if type(result) is Tensor and result._level is level and result._line is not None:
            watcher.result = watcher.numbers[result._line]
        return result

    _, slopes = value_and_grad(watched, tuple(range(len(args))))(*args)
    watcher.gradients.update(enumerate(tree.leaves(list(slopes))))
    return Record(tuple(watcher.lines()), watcher.result)


def _names(f: Callable[..., Any], args: Sequence[Any]) -> list[str]:
    """A name for each leaf among the arguments."""
    if len(args) == 1 and isinstance(args[0], dict | list | tuple):
        return [name for name, _ in tree.named_leaves(args[0])]
    given: dict[Any, Any]
    try:
        given = inspect.signature(f).bind(*args).arguments
    except (TypeError, ValueError):  # no signature is known, or a wrapper adds arguments
        given = dict(enumerate(args))
    return [name for name, _ in tree.named_leaves(given)]


class _Watcher:
    """Collects what a level records, and the gradients that its sweep brings back."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, tuple[int | None, ...], str, Array]] = []
        self.numbers: dict[int, int] = {}  # from a line of the level to a line of `rows`
        self.gradients: dict[int, Array] = {}
        self.result: int | None = None

    def begin(self, level: Level, names: list[str], leaves: list[Array]) -> None:
        """Begin with the leaves, which are the first lines of the level."""
        self.level = level
        for at, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
            self.numbers[at] = at
            self.rows.append(("leaf", name, (), "", _copy(level, leaf)))
        level.observe(self.see)

    def see(self, rule: Callable[..., Any], result: Any) -> None:
        """Note one op, with a line for each of its results."""
        results = result if isinstance(result, tuple | list) else (result,)
        for i, y in enumerate(results):
            if y._line is None:
                continue
            at = LINE * y._line
            inputs, pullbacks, saved = self.level.record[at + 1 : at + LINE]
            self.level.record[at + 2 : at + LINE] = (
                self._noting(len(self.rows), pullbacks, saved),
                None,
            )
            if results is result:  # this line is one part, whose input is the op's own line
                inputs = self.level.record[LINE * inputs[0] + 1]
            which = str(i) if results is result else ""
            sources = tuple(None if at is None else self.numbers[at] for at in _flat(inputs))
            self.numbers[y._line] = len(self.rows)
            value = _copy(self.level, y)
            self.rows.append((rule.__name__.strip("_"), which, sources, _caller(), value))

    def _noting(self, number: int, pullbacks: Any, saved: Any) -> Callable[..., Any]:
        """A joint pullback to replace those of a line; it also keeps the gradient it is given."""
        xp = self.level.namespace

        def joint(g: Array, needs: tuple[bool, ...]) -> Any:
            self.gradients[number] = _copy(self.level, g)
            if type(pullbacks) is not tuple:
                return pullbacks(g, needs)
            pairs = zip(pullbacks, needs, strict=False)  # a rule may give fewer pullbacks
            given = (g,) if saved is None else (xp, g, *saved)
            return [back(*given) if need and back is not None else None for back, need in pairs]

        return joint

    def lines(self) -> list[Line]:
        xp = self.level.xp
        return [
            Line(*row, self.gradients[i] if i in self.gradients else xp.zeros_like(row[-1]))
            for i, row in enumerate(self.rows)
        ]


def _copy(level: Level, x: Array) -> Array:
    """A copy of the plain array in `x`."""
    return level.xp.asarray(plain_value(x), copy=True)


def _flat(inputs: Any) -> Iterator[int | None]:
    """The inputs of a line, with lists of arrays flattened; an index or shape is one constant."""
    for at in inputs:
        if isinstance(at, list | tuple) and any(i is not None for i in at):
            yield from at
        else:
            yield at if isinstance(at, int) else None


_ENGINE = tuple(
    str(Path(polynet.__path__[0], room))
    for room in ("tensor", "view", "ops/operators", "losses/shared")
)
"""Files whose functions are not shown as callers: they only call ops on behalf of others."""


def _caller() -> str:
    """The name of the function whose code called the op that is being recorded."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_ENGINE):
        frame = frame.f_back
    return frame.f_code.co_name
