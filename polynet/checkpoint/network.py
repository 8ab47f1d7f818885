"""Files of networks: saving parameters and buffers, and loading all of them or a part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from polynet.backend import Backend, asarray, common_backend, to_numpy
from polynet.backend.transfer import dtype_name
from polynet.checkpoint.format import RUN, check_shapes, parsed, write
from polynet.data.place import cast
from polynet.errors import did_you_mean, listed
from polynet.files import StrPath
from polynet.nn import Module
from polynet.nn.described import Described, check_dtype

M = TypeVar("M", bound=Module)


def save(path: StrPath, net: Module) -> None:
    """Write the parameters and buffers of `net` to `path`, replacing what is there in one move.

    `safetensors.torch.load_file(path)` gives a `state_dict` that the same network in PyTorch
    loads; whole numbers are int64, as in PyTorch. Shared parameters are in the file once, as in
    PyTorch's own files. A PyTorch network that shares parameters loads the file by
    `safetensors.torch.load_model(torch_net, path)`.
    """
    _check_network("save", net)
    host = {name: to_numpy(a) for name, a in net.state_dict().items()}
    write(path, {n: a.astype(np.int64) if a.dtype.kind == "i" else a for n, a in host.items()}, {})


def load(
    path: StrPath,
    net: M,
    *,
    prefix: str = "",
    without: str | Iterable[str] = (),
    backend: str | Backend | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> M:
    """`net` with the parameters and buffers in `path`, a file of `save`, `Trainer.save` or PyTorch.

    They go to the backend given, else to that of `net` if it is drawn, else to the one chosen,
    else to numpy. Their dtype must be that of `net` if it is drawn; else they keep the dtype of the
    file. With `dtype`, "float32" or "float64", they are converted to it. Whole numbers are
    converted to the network's own dtype. A shared parameter may be in the file under any of its
    paths.

    Every name in the file must be one of `net`, and the reverse. For a network that is a part of
    the one in the file, `prefix` is what its names begin with there, such as "model.encoder.";
    other names are not read. For networks that differ in a part, `without` is a pattern as in
    `optim.Groups`, or several: names that fit are not read, and in `net` their parameters stay as
    they are. A shared parameter is read if the file has it under a path that fits no pattern.
    Parameters that are only described are then drawn by `init`, or by a Trainer.

    >>> import tempfile
    >>> from polynet import checkpoint, nn
    >>> def network(classes):
    ...     return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, classes))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint.save(f"{folder}/ten.safetensors", network(10).init(backend="numpy"))
    ...     net = checkpoint.load(f"{folder}/ten.safetensors", network(3), without="2.*")
    >>> net.init(seed=1)[2].weight.shape
    (3, 4)

    In PyTorch, `safetensors.torch.save_file(torch_net.state_dict(), path)` writes such a file,
    `save_model(torch_net, path)` also where parameters are shared.

    Raises ValueError for a file that is torn, changed since it was written, or no safetensors
    file, KeyError where its names are not those of `net` and for a prefix or a pattern that fits
    no name, ValueError for another shape, and TypeError for another dtype.
    """
    _check_network("load", net)
    if dtype is not None:
        check_dtype("load", dtype)
    own = {**net.parameters(), **net.buffers()}  # arrays, or descriptions
    in_file = _under(path, _network_in(path), prefix)
    patterns = [without] if isinstance(without, str) else list(without)
    kept, arrays = _without(path, patterns, own, net.aliases(), in_file)
    expected = {n: thing for n, thing in own.items() if n not in kept}
    try:
        check_shapes(path, arrays, expected, "parameter")
    except (KeyError, ValueError) as error:
        error.add_note(_to_load_a_part(arrays, expected, prefix))
        raise
    drawn = {n: p for n, p in own.items() if not isinstance(p, Described)}
    arrays |= {n: to_numpy(p) for n, p in drawn.items() if n in kept}
    arrays = _in_dtypes(path, arrays, own, dtype)
    if backend is None and drawn:
        backend = common_backend(drawn.values(), "the network's parameters")[0]
    moved = {n: asarray(a, backend=backend, device=device) for n, a in arrays.items()}
    return net.bind({**own, **moved})


def _network_in(path: StrPath) -> dict[str, np.ndarray]:
    """The parameters and buffers in a file, by the names that its network has for them."""
    arrays, metadata = parsed(path, Path(path).read_bytes())
    if RUN not in metadata:
        return arrays
    inside = {n.partition("."): a for n, a in arrays.items()}
    return {n: a for (group, _, n), a in inside.items() if group in ("params", "buffers")}


def _check_network(verb: str, net: Any) -> None:
    """Raise TypeError for what is no network."""
    if not isinstance(net, Module):
        came = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
        raise TypeError(
            f"checkpoint.{verb}(path, net): net is {came}; expected a polynet.nn.Module. That of a "
            "Trainer is trainer.net, and its whole run goes by trainer.save(path) and load(path)"
        )


def _under(path: StrPath, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, by the rest of their names."""
    under = {n[len(prefix) :]: a for n, a in arrays.items() if n.startswith(prefix)}
    if not under and prefix:
        parts = [n.split(".")[:-1] for n in sorted(arrays)]
        begins = {".".join(p[:depth]) + ".": None for p in parts for depth in range(1, len(p) + 1)}
        first = [b for b in begins if b.count(".") == 1]
        names = listed(map(repr, first or sorted(arrays)), prefix)
        raise KeyError(
            f"{path} has no name that begins with {prefix!r}.{did_you_mean(prefix, begins)} Its "
            f"names {'begin with' if first else 'are'} {names}"
        )
    return under


def _without(
    path: StrPath,
    patterns: list[str],
    own: Mapping[str, Any],
    aliases: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
) -> tuple[set[str], dict[str, np.ndarray]]:
    """The network's names that stay as they are, and the arrays to read, by the network's names.

    A shared parameter is read if the file has it under a path that fits no pattern.
    """
    paths = [*own, *aliases]
    for pattern in patterns:
        if not any(fnmatchcase(n, pattern) for n in (*paths, *arrays)):
            names = listed(map(repr, own), pattern)
            raise KeyError(
                f"{path}: the pattern {pattern!r} of `without` fits no name in the file or in the "
                f"network, which has {names}"
            )
    fit, left_out = (
        {n for n in names if any(fnmatchcase(n, p) for p in patterns)} for names in (paths, arrays)
    )
    read = {n: a for n, a in arrays.items() if n not in left_out}
    read = _by_first_name(path, read, aliases)
    return {aliases.get(n, n) for n in fit} - read.keys(), read


def _to_load_a_part(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], prefix: str
) -> str:
    """What to give `load` where a file and a network differ."""
    first = next(iter(expected), "")
    begins = [n.removesuffix(first) for n in sorted(arrays) if n.endswith(f".{first}")]
    begins = [begin for begin in begins if all(f"{begin}{n}" in arrays for n in expected)]

    def misfits(begin: str) -> int:
        return sum(arrays[f"{begin}{n}"].shape != tuple(a.shape) for n, a in expected.items())

    if begins:
        begin = prefix + min(begins, key=misfits)
        return f"The file has all of them under longer names: load(…, prefix={begin!r})"
    return 'To load all but a part, such as a new last layer: load(…, without="head.*")'


def _by_first_name(
    path: StrPath, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The arrays by name; a shared one has the name that the network gives it."""
    by_name: dict[str, np.ndarray] = {}
    read_from: dict[str, str] = {}
    for in_file, array in arrays.items():
        name = aliases.get(in_file, in_file)
        if name in by_name and not np.array_equal(by_name[name], array, equal_nan=True):
            raise ValueError(
                f"{path}: {read_from[name]!r} and {in_file!r} differ, but in this network they are "
                "one parameter: the file is of a network that has two"
            )
        by_name[name], read_from[name] = array, in_file
    return by_name


def _in_dtypes(
    path: StrPath,
    arrays: Mapping[str, np.ndarray],
    own: Mapping[str, Any],
    dtype: str | None,
) -> dict[str, np.ndarray]:
    """The arrays in the network's dtypes; floating-point numbers in `dtype`, if it is given.

    A network that is only described takes the dtype of the file, if all its arrays have the same
    one, float32 or float64.
    """
    free = {n for n in arrays if getattr(own[n], "dtype", None) is None}
    in_file = {arrays[n].dtype.name for n in free}
    default = in_file.pop() if in_file in ({"float32"}, {"float64"}) else "float32"

    def converted(name: str) -> np.ndarray:
        host = arrays[name]
        wanted = default if name in free else dtype_name(own[name].dtype)
        wanted = dtype if dtype and wanted.startswith("float") else wanted
        if host.dtype.name == wanted:
            return host
        if host.dtype.kind in "iu" and wanted.startswith("int"):
            limits = np.iinfo(wanted)
            if host.size and not limits.min <= host.min() <= host.max() <= limits.max:
                raise ValueError(f"{path}: {name!r} holds integers that do not fit into {wanted}")
            return host.astype(wanted)
        if host.dtype.kind == "f" and wanted == dtype:
            return cast(host, wanted, f"{path}: {name!r}")
        floats = host.dtype.kind == "f" and wanted.startswith("float")
        raise TypeError(
            f"{path}: {name!r} is {host.dtype}, the network's {wanted}"
            + (f"; load(path, net, dtype={wanted!r}) converts" if floats else "")
        )

    return {name: converted(name) for name in own if name in arrays}
