"""Saving a network's parameters, or a whole run of training; loading either on any backend.

The file is safetensors: arrays by name, contiguous, in PyTorch's layout, and nothing that can
run. It has a checksum of its content. Saving the same things again writes the same bytes. It
replaces what is at its path in one move, as `polynet.files` says.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from polynet.backend import Array, Backend, asarray, common_backend, to_numpy
from polynet.data import Place
from polynet.data.place import cast
from polynet.errors import did_you_mean, listed, unknown, warn
from polynet.files import StrPath, check_folder, replace_file
from polynet.history import History, Position
from polynet.nn import Module
from polynet.nn.described import Described, check_dtype
from polynet.step import Kept, State, weights_of
from polynet.tree import named_leaves, replace_leaves

__all__ = ["load", "save"]

M = TypeVar("M", bound=Module)

CHECKSUM = "polynet.sha256"
RUN = "polynet.run"
PICKLED = re.compile(
    rb"PK\x03\x04.{26}[^/]*/data\.pkl|\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL
)
"""How a file of torch.save begins, in its present format and in its old one."""
VERSION = 2
"""The version of the format of a run's file: of what it holds, under which names."""


def save(path: StrPath, net: Module) -> None:
    """Write the parameters and buffers of `net` to `path`, replacing what is there in one move.

    `safetensors.torch.load_file(path)` gives a `state_dict` that the same network in PyTorch
    loads; whole numbers are int64, as in PyTorch. Shared parameters are in the file once, as in
    PyTorch's own files. A PyTorch network that shares parameters loads the file by
    `safetensors.torch.load_model(torch_net, path)`.
    """
    _check_network("save", net)
    host = {name: to_numpy(a) for name, a in net.state_dict().items()}
    _write(path, {n: a.astype(np.int64) if a.dtype.kind == "i" else a for n, a in host.items()}, {})


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
    described = {**net.parameters(), **net.buffers()}
    arrays = _under(path, _network_in(path), prefix)
    patterns = [without] if isinstance(without, str) else list(without)
    kept, arrays = _without(path, patterns, described, net.aliases(), arrays)
    expected = {n: thing for n, thing in described.items() if n not in kept}
    try:
        _check_shapes(path, arrays, expected, "parameter")
    except (KeyError, ValueError) as error:
        error.add_note(_to_load_a_part(arrays, expected, prefix))
        raise
    drawn = {n: p for n, p in described.items() if not isinstance(p, Described)}
    arrays |= {n: to_numpy(p) for n, p in drawn.items() if n in kept}
    found = {n: thing for n, thing in described.items() if n in arrays}
    arrays = _in_dtypes(path, arrays, found, dtype)
    if backend is None and drawn:
        backend = common_backend(drawn.values(), "the network's parameters")[0]
    moved = {n: asarray(a, backend=backend, device=device) for n, a in arrays.items()}
    return net.bind({**described, **moved})


def _network_in(path: StrPath) -> dict[str, np.ndarray]:
    """The parameters and buffers in a file, by the names that its network has for them."""
    arrays, metadata = _parsed(path, Path(path).read_bytes())
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
    found = {n[len(prefix) :]: a for n, a in arrays.items() if n.startswith(prefix)}
    if not found and prefix:
        parts = [n.split(".")[:-1] for n in sorted(arrays)]
        begins = {".".join(p[:depth]) + ".": None for p in parts for depth in range(1, len(p) + 1)}
        first = [b for b in begins if b.count(".") == 1]
        names = listed(map(repr, first or sorted(arrays)), prefix)
        raise KeyError(
            f"{path} has no name that begins with {prefix!r}.{did_you_mean(prefix, begins)} Its "
            f"names {'begin with' if first else 'are'} {names}"
        )
    return found


def _without(
    path: StrPath,
    patterns: list[str],
    described: Mapping[str, Any],
    aliases: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
) -> tuple[set[str], dict[str, np.ndarray]]:
    """The network's names that stay as they are, and the arrays to read, by the network's names.

    A shared parameter is read if the file has it under a path that fits no pattern.
    """
    paths = [*described, *aliases]
    for pattern in patterns:
        if not any(fnmatchcase(n, pattern) for n in (*paths, *arrays)):
            names = listed(map(repr, described), pattern)
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
    found: dict[str, np.ndarray] = {}
    given: dict[str, str] = {}
    for in_file, array in arrays.items():
        name = aliases.get(in_file, in_file)
        if name in found and not np.array_equal(found[name], array, equal_nan=True):
            raise ValueError(
                f"{path}: {given[name]!r} and {in_file!r} differ, but in this network they are one "
                "parameter: the file is of a network that has two"
            )
        found[name], given[name] = array, in_file
    return found


def _in_dtypes(
    path: StrPath,
    arrays: Mapping[str, np.ndarray],
    described: Mapping[str, Any],
    dtype: str | None,
) -> dict[str, np.ndarray]:
    """The arrays in the network's dtypes; floating-point numbers in `dtype`, if it is given.

    A network that is only described takes the dtype of the file, if all its arrays have the same
    one, float32 or float64.
    """
    free = {n for n, thing in described.items() if getattr(thing, "dtype", None) is None}
    in_file = {arrays[n].dtype.name for n in free}
    default = in_file.pop() if in_file in ({"float32"}, {"float64"}) else "float32"

    def converted(name: str, thing: Any) -> np.ndarray:
        host = arrays[name]
        own = default if name in free else str(thing.dtype).rpartition(".")[2]
        wanted = dtype if dtype and own.startswith("float") else own
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

    return {name: converted(name, thing) for name, thing in described.items()}


def save_run(
    path: StrPath,
    state: State,
    kept: Kept,
    history: History,
    position: Position,
    identity: Mapping[str, Any],
    keep_previous: bool,
) -> None:
    """Write the file of `Trainer.save`: every leaf of `state` under its name, and the rest.

    `identity` holds, by name, the settings that a Trainer needs to go on with this run.
    """
    check_folder(path)
    if keep_previous and Path(path).exists():
        content = Path(path).read_bytes()
        try:
            _parsed_run(path, content)
        except ValueError:
            pass  # a file that is not whole does not replace the last one that was
        else:
            replace_file(_previous(path), [content], model=path)
    numbers = {
        "epochs": {name: np.asarray(v, np.float64) for name, v in history.items()},
        "step_losses": np.asarray(history.step_losses, np.float64),
        "step_weights": np.asarray(history.step_weights, np.float64),
    }
    run = {
        "version": VERSION,
        "position": asdict(position),
        "identity": identity,
        "kept": {name: epoch for name, (epoch, _) in kept.items()},
    }
    weights = {name: tree for name, (_, tree) in kept.items()}
    arrays = dict(named_leaves({**state, "kept": weights, "history": numbers}))
    _write(path, arrays, {RUN: json.dumps(run)})


def load_run(
    path: StrPath,
    state: State,
    place: Place,
    identity: Mapping[str, Any],
    or_previous: bool,
) -> tuple[State, Kept, History, Position]:
    """The state, kept weights, history and position in `path`, the arrays at `place`.

    `state` and `identity` are those of the Trainer that wants to go on. Where those in the file
    differ, it raises the errors that `Trainer.load` lists.
    """
    path, arrays, run = _found_run(path, or_previous)
    _check_identity(path, run, identity)
    numbers = {n: arrays.pop(n).tolist() for n in list(arrays) if n.startswith("history.")}
    expected = {**state, "kept": dict.fromkeys(run["kept"], weights_of(state))}
    leaves = dict(named_leaves(expected))
    _check_shapes(path, arrays, leaves, "array")
    moved = {name: place.backend.from_host(a, place.device) for name, a in arrays.items()}
    for name, leaf in leaves.items():
        if moved[name].dtype != leaf.dtype:
            raise TypeError(f"{path}: {name!r} is {moved[name].dtype}, the Trainer's {leaf.dtype}")
    found = replace_leaves(expected, moved)
    weights = found.pop("kept")
    kept = {name: (epoch, weights[name]) for name, epoch in run["kept"].items()}
    position = Position(**run["position"])
    return found, kept, _history(numbers, position.epoch), position


def _found_run(
    path: StrPath, or_previous: bool
) -> tuple[StrPath, dict[str, np.ndarray], dict[str, Any]]:
    """The path at which a run was found, `path` or the one before it, and the run."""
    try:
        return path, *_parsed_run(path, Path(path).read_bytes())
    except (ValueError, FileNotFoundError) as error:
        before = _previous(path)
        if not before.exists():
            raise
        if not or_previous:
            error.add_note(f"The run before it is in {before}: load(path, or_previous=True)")
            raise
        found = _parsed_run(before, before.read_bytes())
        warn(f"{error}; {before} is loaded instead")
        return before, *found


def _check_identity(path: StrPath, run: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise ValueError for a run that a Trainer of this identity cannot go on with."""
    if run["version"] != VERSION:
        raise ValueError(
            f"{path} is a run of format {run['version']}, this polynet reads format {VERSION}: "
            "load it with the polynet that saved it"
        )
    for name in {**identity, **run["identity"]}:
        saved, own = run["identity"].get(name), identity.get(name)
        if saved != own:
            raise ValueError(
                f"{path} is a run with {name} {saved}, this Trainer has {own}; give the Trainer "
                "the same to go on with the run, or begin another run with its network: "
                "Trainer(checkpoint.load(path, net), …)"
            )


def _history(numbers: dict[str, list[float]], epochs: int) -> History:
    """The history from the columns of numbers that `save_run` wrote after `epochs` epochs."""
    history = History()
    history.step_losses = numbers.pop("history.step_losses")
    history.step_weights = numbers.pop("history.step_weights")
    for name, column in numbers.items():  # a column that began later may lack NaN at its start
        lacking = epochs - len(column)
        history.epochs[name.removeprefix("history.epochs.")] = [math.nan] * lacking + column
    return history


def _previous(path: StrPath) -> Path:
    """The path under which the run that was at `path` before is kept."""
    return Path(f"{os.fspath(path)}.previous")


def _parsed_run(path: StrPath, content: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the description of the run in the `content` of the file at `path`."""
    arrays, metadata = _parsed(path, content)
    if RUN not in metadata or CHECKSUM not in metadata:
        raise ValueError(
            f"{path} is not a run that Trainer.save wrote; for a network's parameters alone, use "
            "polynet.checkpoint.load(path, net)"
        )
    return arrays, json.loads(metadata[RUN])


def _check_shapes(
    path: StrPath, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], kind: str
) -> None:
    """Refuse arrays whose names or shapes are not those expected."""
    missing = [name for name in expected if name not in arrays]
    lacks = f"{path} lacks the {kind} " + ", ".join(map(repr, missing[:3]))
    if len(missing) > 3:
        lacks += f" and {len(missing) - 3} more"
    for name in sorted(arrays):
        if name not in expected:
            also = f" And {lacks}." if missing else ""
            raise KeyError(f"{path}: {unknown(kind, name, expected)}{also}")
    if missing:
        raise KeyError(lacks)
    for name, thing in expected.items():
        if arrays[name].shape != tuple(thing.shape):
            raise ValueError(
                f"{path}: {name!r} has shape {arrays[name].shape}, the network's "
                f"{tuple(thing.shape)}"
            )


def _write(path: StrPath, arrays: Mapping[str, Array], more: Mapping[str, str]) -> None:
    """Write named arrays, and `more` metadata, in one move."""
    host = {name: np.asarray(to_numpy(a), order="C") for name, a in arrays.items()}
    metadata = {"format": "pt", **more}
    metadata[CHECKSUM] = _sha256(host, metadata)
    replace_file(path, _in_order(safetensors.numpy.save(host, metadata=metadata)))


def _in_order(content: bytes) -> list[bytes | memoryview]:
    """The parts of a file, with a sorted header: safetensors writes metadata in varying order."""
    header, end = _header(content)
    ordered = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)
    return [len(ordered).to_bytes(8, "little"), ordered, memoryview(content)[end:]]


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the position at which the numbers begin."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), end


def _parsed(path: StrPath, content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata in the `content` of the file at `path`.

    The checksum is compared; a file of another program may lack it.
    """
    try:
        arrays = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        kind = " a file of torch.save, and" if PICKLED.match(content) else ""
        raise ValueError(
            f"{path} is{kind} not a whole safetensors file: {error}. In PyTorch, write one by "
            "safetensors.torch.save_file(net.state_dict(), path)"
        ) from error
    except KeyError as error:
        raise ValueError(
            f"{path} holds arrays of {error}, a dtype that NumPy lacks; convert them where they "
            "were written, in PyTorch by {name: t.float() for name, t in state_dict.items()}"
        ) from error
    header, _ = _header(content)
    metadata = header.get("__metadata__") or {}
    rest = {name: text for name, text in metadata.items() if name != CHECKSUM}
    if CHECKSUM in metadata and metadata[CHECKSUM] != _sha256(arrays, rest):
        raise ValueError(
            f"{path} was changed since it was written: its SHA-256 is not the one it states; "
            "take another copy"
        )
    return arrays, metadata


def _sha256(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """The checksum of everything in a file except the checksum itself."""
    names = sorted(arrays)
    described = [[name, arrays[name].dtype.str, arrays[name].shape] for name in names]
    digest = hashlib.sha256(json.dumps([metadata, described], sort_keys=True).encode())
    for name in names:
        digest.update(arrays[name].reshape(-1).view(np.uint8).data)  # no copy: it is contiguous
    return digest.hexdigest()
