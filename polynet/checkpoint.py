"""Saving a network's parameters, or a whole run of training; loading either on any backend.

The file is safetensors: arrays by name, contiguous, in PyTorch's layout, and nothing that can
run. It has a checksum of all it holds, and is written beside its place and moved there whole,
so that a reader never meets half a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from polynet.backend import Array, Backend, asarray, common_backend, to_numpy
from polynet.data import Place
from polynet.errors import unknown
from polynet.history import History, Position
from polynet.nn import Module, Parameter
from polynet.step import Kept, State, weights_of
from polynet.tree import named_leaves, replace_leaves

M = TypeVar("M", bound=Module)
StrPath = str | os.PathLike[str]

CHECKSUM = "polynet.sha256"
RUN = "polynet.run"
VERSION = 2
"""Of what a run's file holds under which names."""


def save(path: StrPath, net: Module) -> None:
    """Write the parameters of `net` to `path`, replacing what is there in one move.

    `safetensors.torch.load_file(path)` gives a `state_dict` that the same network in PyTorch
    loads.
    """
    _write(path, net.drawn_parameters(), {})


def load(
    path: StrPath,
    net: M,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
) -> M:
    """`net` with the parameters in `path`, which `save` or `Trainer.save` wrote, or PyTorch.

    They go to the backend given, else to that of `net` if it is drawn, else to the one chosen,
    else to numpy.

    Raises ValueError for a file that is torn, changed since it was written, or no safetensors
    file, KeyError where its names are not those of `net`, and ValueError for another shape.
    """
    arrays, facts = _read(path)
    if RUN in facts:
        inside = {n.partition("."): a for n, a in arrays.items()}
        arrays = {name: a for (group, _, name), a in inside.items() if group == "params"}
    described = net.parameters()
    _check_shapes(path, arrays, described, "parameter")
    drawn = [p for p in described.values() if not isinstance(p, Parameter)]
    if backend is None and drawn:
        backend = common_backend(drawn, "the network's parameters")[0]
    return net.bind({n: asarray(arrays[n], backend=backend, device=device) for n in described})


def save_run(
    path: StrPath,
    state: State,
    kept: Kept,
    history: History,
    position: Position,
    identity: Mapping[str, Any],
) -> None:
    """Write what `Trainer.save` promises: every leaf of `state` under its name, and the rest.

    `identity` is what must be equal for a Trainer to go on with this run, by name.
    """
    recorded = {
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
    arrays = dict(named_leaves({**state, "kept": weights, "history": recorded}))
    _write(path, arrays, {RUN: json.dumps(run)})


def load_run(
    path: StrPath, state: State, place: Place, identity: Mapping[str, Any]
) -> tuple[State, Kept, History, Position]:
    """The state, kept weights, history and position in `path`, the arrays at `place`.

    `state` and `identity` are those of the Trainer that wants to go on; it raises what
    `Trainer.load` says where the file's differ.
    """
    arrays, facts = _read(path)
    if RUN not in facts or CHECKSUM not in facts:
        raise ValueError(
            f"{path} is not a run that Trainer.save wrote; for a network's parameters alone, use "
            "polynet.checkpoint.load(path, net)"
        )
    run = json.loads(facts[RUN])
    if run["version"] != VERSION:
        raise ValueError(
            f"{path} is a run of format {run['version']}, this polynet reads format {VERSION}: "
            "load it with the polynet that saved it"
        )
    for name in {**identity, **run["identity"]}:
        there, here = run["identity"].get(name), identity.get(name)
        if there != here:
            raise ValueError(
                f"{path} is a run with {name} {there}, this Trainer has {here}; make it with the "
                "same to go on with the run"
            )
    recorded = {n: arrays.pop(n).tolist() for n in list(arrays) if n.startswith("history.")}
    expected = {**state, "kept": dict.fromkeys(run["kept"], weights_of(state))}
    leaves = dict(named_leaves(expected))
    _check_shapes(path, arrays, leaves, "array")
    moved = {name: place.backend.from_host(a, place.device) for name, a in arrays.items()}
    for name, leaf in leaves.items():
        if moved[name].dtype != leaf.dtype:
            raise TypeError(f"{path}: {name!r} is {moved[name].dtype}, the Trainer's {leaf.dtype}")
    history = History()
    history.step_losses = recorded.pop("history.step_losses")
    history.step_weights = recorded.pop("history.step_weights")
    history.epochs = {n.removeprefix("history.epochs."): v for n, v in recorded.items()}
    found = replace_leaves(expected, moved)
    weights = found.pop("kept")
    kept = {name: (epoch, weights[name]) for name, epoch in run["kept"].items()}
    return found, kept, history, Position(**run["position"])


def _check_shapes(
    path: StrPath, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], kind: str
) -> None:
    """Refuse arrays whose names or shapes are not those expected."""
    for name in sorted(set(arrays) ^ set(expected)):
        if name in arrays:
            raise KeyError(f"{path}: {unknown(kind, name, expected)}")
        raise KeyError(f"{path} lacks the {kind} {name!r}")
    for name, thing in expected.items():
        if arrays[name].shape != tuple(thing.shape):
            raise ValueError(
                f"{path}: {name!r} has shape {arrays[name].shape}, the network's "
                f"{tuple(thing.shape)}"
            )


def _write(path: StrPath, arrays: Mapping[str, Array], facts: Mapping[str, str]) -> None:
    """Write named arrays, and texts about them, in one move."""
    target = Path(path)
    host = {name: np.asarray(to_numpy(a), order="C") for name, a in arrays.items()}
    metadata = {"format": "pt", **facts}
    metadata[CHECKSUM] = _sha256(host, metadata)
    content = safetensors.numpy.save(host, metadata=metadata)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # so that the new name outlives a power cut too
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(path: StrPath) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the texts in `path`; a file of another program may lack the checksum."""
    content = Path(path).read_bytes()
    try:
        arrays = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path} holds arrays of {error}, a dtype that NumPy lacks") from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__") or {}
    rest = {name: text for name, text in metadata.items() if name != CHECKSUM}
    if CHECKSUM in metadata and metadata[CHECKSUM] != _sha256(arrays, rest):
        raise ValueError(
            f"{path} was changed since it was written: its SHA-256 is not the one it states; "
            "take another copy"
        )
    return arrays, metadata


def _sha256(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """The checksum of everything in a file but itself."""
    names = sorted(arrays)
    described = [[name, arrays[name].dtype.str, arrays[name].shape] for name in names]
    digest = hashlib.sha256(json.dumps([metadata, described], sort_keys=True).encode())
    for name in names:
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
