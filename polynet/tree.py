"""A network's arrays as a tree of named arrays: dicts, lists and tuples with arrays as leaves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

__all__ = ["Tree", "leaves", "map", "named_leaves", "replace_leaves", "structure"]

Tree = Any

_SEQUENCES = (list, tuple)
_BRANCHES = (dict, *_SEQUENCES, type(None))


def named_leaves(tree: Tree, prefix: str = "") -> list[tuple[str, Any]]:
    """Every leaf with its path as a name, in the order of the tree.

    >>> named_leaves({"layer": {"weight": 1, "bias": 2}, "scale": (3, 4)})
    [('layer.weight', 1), ('layer.bias', 2), ('scale.0', 3), ('scale.1', 4)]
    """
    dot = [prefix] if prefix else []
    return [(".".join([*dot, *map(str, path)]), leaf) for path, leaf in paths(tree)]


def paths(tree: Tree, before: tuple[Hashable, ...] = ()) -> list[tuple[tuple[Hashable, ...], Any]]:
    """Every leaf with the keys that lead to it. Unlike dotted names, these paths are unique.

    >>> paths({"a.b": 1, "a": {"b": 2}})
    [(('a.b',), 1), (('a', 'b'), 2)]
    """
    if isinstance(tree, dict):
        items: Iterable[tuple[Hashable, Any]] = tree.items()
    elif isinstance(tree, _SEQUENCES):
        items = enumerate(tree)
    else:
        return [] if tree is None else [(before, tree)]
    return [leaf for key, branch in items for leaf in paths(branch, (*before, key))]


def leaves(tree: Tree) -> list[Any]:
    """Every leaf, in order."""
    found: list[Any] = []
    _collect((tree,), found)
    return found


def _collect(branches: Iterable[Tree], found: list[Any]) -> None:
    for branch in branches:
        if not isinstance(branch, _BRANCHES):
            found.append(branch)
        elif branch is not None:
            _collect(branch.values() if isinstance(branch, dict) else branch, found)


def structure(tree: Tree) -> Hashable:
    """A tree without its leaves: equal for trees that differ only in leaves, or in list and tuple.

    >>> structure({"a": 1, "b": (2, 3)}) == structure({"a": 4, "b": (5, 6)})
    True
    >>> structure({"a": 1}) == structure({"b": 1})
    False
    """
    if isinstance(tree, dict):
        return dict, *tree, *[structure(branch) for branch in tree.values()]
    if isinstance(tree, _SEQUENCES):
        return tuple([structure(b) if isinstance(b, _BRANCHES) else ... for b in tree])
    return None if tree is None else ...


def map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:  # noqa: A001 (as in JAX)
    """A tree of `function(leaf, *leaves_of_others)`, in the structure of `tree`.

    >>> map(lambda p, g: p - g, {"a": 3, "b": [5]}, {"a": 1, "b": [2]})
    {'a': 2, 'b': [3]}
    """
    if not others:
        return _mapped(function, tree)
    if isinstance(tree, dict):
        for other in others:
            if set(other) != set(tree):
                odd = sorted(set(other) ^ set(tree))
                raise ValueError(f"trees of different structure: only one of them has {odd}")
        return {name: map(function, tree[name], *(o[name] for o in others)) for name in tree}
    if isinstance(tree, _SEQUENCES):
        for other in others:
            if len(other) != len(tree):
                raise ValueError(
                    f"trees of different structure: {len(tree)} and {len(other)} branches"
                )
        branches = [map(function, *branch) for branch in zip(tree, *others, strict=True)]
        if hasattr(tree, "_fields"):
            return type(tree)(*branches)
        return type(tree)(branches)
    if tree is None:
        return None
    return function(tree, *others)


def _mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """`map` over one tree, the common case, without a call for each leaf beside `function`'s."""
    if isinstance(tree, dict):
        return {
            name: _mapped(function, b) if isinstance(b, _BRANCHES) else function(b)
            for name, b in tree.items()
        }
    if isinstance(tree, _SEQUENCES):
        branches = [_mapped(function, b) for b in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return None if tree is None else function(tree)


def replace_leaves(tree: Tree, named: Mapping[str, Any]) -> Tree:
    """A tree with the structure of `tree`, whose leaves are taken from `named` by their paths.

    >>> replace_leaves({"a": [1, 2], "b": 3}, {"a.0": 10, "a.1": 20, "b": 30})
    {'a': [10, 20], 'b': 30}
    """
    new = iter([named[name] for name, _ in named_leaves(tree)])
    return map(lambda _: next(new), tree)
