"""Files of whole runs of training, which `Trainer.save` writes and `Trainer.load` reads."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from polynet.checkpoint.format import CHECKSUM, RUN, check_shapes, parsed, write
from polynet.data import Place
from polynet.errors import warn
from polynet.files import StrPath, check_folder, replace_file
from polynet.history import History, Position
from polynet.step import Kept, State, weights_of
from polynet.tree import named_leaves, replace_leaves

VERSION = 3
"""The version of the format of a run's file: of what it holds, under which names."""


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
        "columns": list(history),
        "kept": {name: epoch for name, (epoch, _) in kept.items()},
    }
    weights = {name: tree for name, (_, tree) in kept.items()}
    arrays = dict(named_leaves({**state, "kept": weights, "history": numbers}))
    write(path, arrays, {RUN: json.dumps(run)})


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
    check_shapes(path, arrays, leaves, "array")
    moved = {name: place.backend.from_host(a, place.device) for name, a in arrays.items()}
    for name, leaf in leaves.items():
        if moved[name].dtype != leaf.dtype:
            raise TypeError(f"{path}: {name!r} is {moved[name].dtype}, the Trainer's {leaf.dtype}")
    found = replace_leaves(expected, moved)
    weights = found.pop("kept")
    kept = {name: (epoch, weights[name]) for name, epoch in run["kept"].items()}
    position = Position(**run["position"])
    return found, kept, _history(numbers, run["columns"], position.epoch), position


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


def _history(numbers: dict[str, list[float]], columns: list[str], epochs: int) -> History:
    """The history from the numbers that `save_run` wrote after `epochs` epochs.

    `columns` are their names in order, since the arrays of a safetensors file come in any order.
    """
    history = History()
    history.step_losses = numbers["history.step_losses"]
    history.step_weights = numbers["history.step_weights"]
    for name in columns:  # a column that began later may lack NaN at its start
        column = numbers[f"history.epochs.{name}"]
        history.epochs[name] = [math.nan] * (epochs - len(column)) + column
    return history


def _previous(path: StrPath) -> Path:
    """The path under which the run that was at `path` before is kept."""
    return Path(f"{os.fspath(path)}.previous")


def _parsed_run(path: StrPath, content: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the description of the run in the `content` of the file at `path`."""
    arrays, metadata = parsed(path, content)
    if RUN not in metadata or CHECKSUM not in metadata:
        raise ValueError(
            f"{path} is not a run that Trainer.save wrote; for a network's parameters alone, use "
            "polynet.checkpoint.load(path, net)"
        )
    return arrays, json.loads(metadata[RUN])
