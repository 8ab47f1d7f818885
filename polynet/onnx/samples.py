"""One graph for any number of samples, merged from graphs that were traced for a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto
from onnx.helper import make_node
from onnx.numpy_helper import from_array, to_array

COUNT = "number_of_samples"
"""The name that the number of samples has in a graph; it is the first size of the first input."""


def merged(models: Sequence[ModelProto], counts: Sequence[int]) -> ModelProto:
    """One graph for any number of samples, from a model for each number in `counts`.

    The models may differ in constants, such as the shape for an array: a constant that is
    α·samples + β in all of them is computed by this formula. Raises ValueError for any other
    difference.
    """
    graphs = [model.graph for model in models]
    whole = ModelProto()
    whole.CopyFrom(models[0])
    nodes = list(_nodes([graph.node for graph in graphs], counts))
    del whole.graph.node[:], whole.graph.value_info[:]
    whole.graph.node.extend([*_count(graphs[0].input[0].name), *nodes])
    for values in ("input", "output"):
        for same in zip(*(getattr(g, values) for g in (whole.graph, *graphs)), strict=True):
            _set_sizes(*(value.type.tensor_type.shape.dim for value in same), counts=counts)
    return whole


def _count(x: str) -> list[NodeProto]:
    """Nodes that compute the number of samples, which is the first size of `x`."""
    return [
        make_node("Shape", [x], [f"{COUNT}_shape"]),
        make_node("Constant", [], [f"{COUNT}_axis"], value=from_array(np.asarray(0))),
        make_node("Gather", [f"{COUNT}_shape", f"{COUNT}_axis"], [COUNT]),
    ]


def _nodes(graphs: Sequence[Iterable[NodeProto]], counts: Sequence[int]) -> Iterator[NodeProto]:
    """The nodes of the merged graph, from the nodes of each graph."""
    for same in zip_longest(*graphs, fillvalue=NodeProto()):
        if any(_kind(node) != _kind(same[0]) for node in same):
            raise _differs("by other operations")
        if same[0].op_type == "Constant":
            yield from _constant(same[0], [to_array(n.attribute[0].t) for n in same], counts)
            continue
        node = NodeProto()
        node.CopyFrom(same[0])
        for k, attribute in enumerate(node.attribute):
            if attribute.type == AttributeProto.GRAPH:
                inner = list(_nodes([n.attribute[k].g.node for n in same], counts))
                del attribute.g.node[:], attribute.g.value_info[:]
                attribute.g.node.extend(inner)
                for value in attribute.g.output:
                    value.type.tensor_type.ClearField("shape")
        yield node


def _kind(node: NodeProto) -> tuple[Any, ...]:
    """All that must be equal for two nodes to be merged: all but constants and inner graphs."""
    constant = node.op_type == "Constant"
    settings = [] if constant else [a for a in node.attribute if a.type != AttributeProto.GRAPH]
    return node.op_type, list(node.input), list(node.output), settings


def _constant(
    node: NodeProto, values: Sequence[np.ndarray], counts: Sequence[int]
) -> list[NodeProto]:
    """A constant, or nodes that compute it from the number of samples: α·samples + β."""
    first, second, *_ = values
    if all(value.tobytes() == first.tobytes() for value in values):
        return [node]
    if first.dtype != np.int64 or any(value.shape != first.shape for value in values):
        raise _differs("with other numbers")
    slope = (second - first) // (counts[1] - counts[0])
    start = first - slope * counts[0]
    if any((slope * n + start != value).any() for n, value in zip(counts, values, strict=True)):
        raise _differs("with shapes that do not grow evenly")
    (name,) = node.output
    parts = [f"{name}_{part}" for part in ("slope", "times", "start")]
    return [
        make_node("Constant", [], parts[:1], value=from_array(slope)),
        make_node("Mul", [parts[0], COUNT], parts[1:2]),
        make_node("Constant", [], parts[2:], value=from_array(start)),
        make_node("Add", parts[1:], [name]),
    ]


def _set_sizes(sizes: Any, *given: Any, counts: Sequence[int]) -> None:
    """Mark which sizes of an input or output are the number of samples, and which may be any."""
    for size, *same in zip(sizes, *given, strict=True):
        found = [each.dim_value for each in same]
        if found == list(counts):
            size.dim_param = "samples"
        elif len({*found}) > 1:
            size.Clear()


def _differs(how: str) -> ValueError:
    return ValueError(
        f"export: for another number of samples the network computes {how}, but an ONNX file is "
        "one graph for any number. The output for a sample must not depend on the number of others"
    )
