"""Layers, optimizers and schedules have PyTorch's settings: names, places and defaults.

What one of the two lacks is listed, with a reason.
"""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest
from beside_pytorch import torch

from polynet import callbacks, nn, optim
from polynet.optim import schedules

OUR_OWN = {
    "weight_init": "says how a weight is drawn, which PyTorch does afterwards, in place",
    "bias_init": "likewise",
    "lr": "of a schedule: PyTorch takes it from the optimizer",
    "ReduceLROnPlateau.monitor": "PyTorch's is handed the number by the user's loop",
    "ReduceLROnPlateau.min_factor": "it lowers a factor of the rate, not the rate",
}
"""Settings that PyTorch lacks."""

THEIRS = {
    "device": "a network is put on a device by init and to",
    "dtype": "a network's is given to init",
    "inplace": "arrays are not written over",
    "padding_mode": "zeros are the only padding yet",
    "return_indices": "of the largest numbers: nothing here takes them",
    "AvgPool2d.divisor_override": "not there yet",
    "AvgPool3d.divisor_override": "likewise",
    "BatchNorm1d.bias": "new in PyTorch 2.13",
    "BatchNorm2d.bias": "new in PyTorch 2.13",
    "BatchNorm3d.bias": "new in PyTorch 2.13",
    "InstanceNorm1d.bias": "new in PyTorch 2.13",
    "InstanceNorm2d.bias": "new in PyTorch 2.13",
    "InstanceNorm3d.bias": "new in PyTorch 2.13",
    "InstanceNorm1d.momentum": "instance norms keep no statistics",
    "InstanceNorm2d.momentum": "likewise",
    "InstanceNorm3d.momentum": "likewise",
    "InstanceNorm1d.track_running_stats": "likewise",
    "InstanceNorm2d.track_running_stats": "likewise",
    "InstanceNorm3d.track_running_stats": "likewise",
    "TransformerEncoder.enable_nested_tensor": "how PyTorch skips what is padded",
    "TransformerEncoder.mask_check": "likewise",
    "Embedding.max_norm": "it changes the weight in a forward pass",
    "Embedding.norm_type": "likewise",
    "Embedding.scale_grad_by_freq": "not there yet",
    "Embedding.sparse": "gradients are dense",
    "Hardtanh.min_value": "PyTorch's own, deprecated name",
    "Hardtanh.max_value": "likewise",
    "LSTM.proj_size": "not there yet",
    "MultiheadAttention.add_bias_kv": "not there yet",
    "MultiheadAttention.add_zero_attn": "likewise",
    "MultiheadAttention.kdim": "likewise",
    "MultiheadAttention.vdim": "likewise",
    "Upsample.recompute_scale_factor": "give the size",
    "params": "an optimizer is a function of the parameters, and holds none",
    "foreach": "how PyTorch runs the formula: here a backend's kernel decides",
    "fused": "likewise",
    "capturable": "likewise",
    "differentiable": "likewise",
    "maximize": "negate the loss",
    "Adam.amsgrad": "not there yet",
    "AdamW.amsgrad": "likewise",
    "Adam.decoupled_weight_decay": "that is AdamW",
    "SGD.dampening": "not there yet",
    "RMSprop.centered": "not there yet",
    "optimizer": "of a schedule, which is what the optimizer is given",
    "last_epoch": "a schedule is a function of the step, and counts none",
    "OneCycleLR.epochs": "total_steps says it",
    "OneCycleLR.steps_per_epoch": "likewise",
    "OneCycleLR.cycle_momentum": "momentum stays as it is",
    "OneCycleLR.base_momentum": "likewise",
    "OneCycleLR.max_momentum": "likewise",
    "OneCycleLR.three_phase": "not there yet",
    "ReduceLROnPlateau.min_lr": "it lowers a factor of the rate, not the rate",
    "ReduceLROnPlateau.eps": "likewise",
}
"""Settings of PyTorch's that are not here, all of a name or one part's."""

DEFAULTS = {
    "Softmax.dim": "the last axis: PyTorch's None guesses by the number of axes, and warns",
    "LogSoftmax.dim": "likewise",
    "Softmin.dim": "likewise",
    "TransformerDecoderLayer.activation": "relu, our own",
    "TransformerEncoderLayer.activation": "likewise",
    "ReduceLROnPlateau.mode": "min where the number's name ends in loss; else it is to be said",
    "OneCycleLR.total_steps": "has none, as there are no epochs to count instead",
}
"""Defaults that differ."""

PARTS = {
    ours.__name__: (ours, theirs, group)
    for group, here, there in (
        ("layer", nn, torch.nn),
        ("optimizer", optim, torch.optim),
        ("schedule", schedules, torch.optim.lr_scheduler),
        ("schedule", callbacks, torch.optim.lr_scheduler),
    )
    for name, ours in vars(here).items()
    if inspect.isclass(ours) and name not in ("Any", "Buffer", "Module", "Optimizer", "Parameter")
    if (theirs := getattr(there, name, None)) is not None
}

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def settings(part: Any) -> dict[str, inspect.Parameter]:
    """What it is made of, by name; of what PyTorch says by overloads only, the first."""
    made = part.__init__
    overloads = typing.get_overloads(made) if inspect.isfunction(made) else []
    parameters = list(inspect.signature([*overloads, made][0]).parameters.values())[1:]
    return {p.name: p for p in parameters if p.kind not in VARIADIC and p.name[0] != "_"}


def test_there_is_what_to_compare() -> None:
    kinds = [group for *_, group in PARTS.values()]
    assert kinds.count("layer") >= 80
    assert kinds.count("optimizer") >= 6
    assert kinds.count("schedule") >= 9


@pytest.mark.parametrize("name", PARTS)
def test_names(name: str) -> None:
    ours, theirs, _ = PARTS[name]
    here, there = settings(ours), settings(theirs)
    listed = {n: n in OUR_OWN or f"{name}.{n}" in OUR_OWN for n in here if n not in there}
    assert all(listed.values()), f"PyTorch's {name} does not take {listed}; it takes {list(there)}"
    listed = {n: n in THEIRS or f"{name}.{n}" in THEIRS for n in there if n not in here}
    assert all(listed.values()), f"PyTorch's {name} takes {listed}, which are not listed"


@pytest.mark.parametrize("name", PARTS)
def test_defaults(name: str) -> None:
    ours, theirs, _ = PARTS[name]
    here, there = settings(ours), settings(theirs)
    for n in here.keys() & there.keys():
        same = here[n].default == there[n].default
        assert same != (f"{name}.{n}" in DEFAULTS), (n, here[n].default, there[n].default)


@pytest.mark.parametrize("name", [n for n, (*_, group) in PARTS.items() if group != "schedule"])
def test_places(name: str) -> None:
    """A setting that may be given by position means there what it means in PyTorch."""
    ours, theirs, group = PARTS[name]
    here = [n for n, p in settings(ours).items() if p.kind is not p.KEYWORD_ONLY]
    there = [n for n, p in settings(theirs).items() if p.kind is not p.KEYWORD_ONLY]
    assert here == there[group == "optimizer" :][: len(here)]


def test_what_is_listed_is_lacking() -> None:
    for name, (ours, _, _) in PARTS.items():
        assert not [n for n in settings(ours) if f"{name}.{n}" in THEIRS]
    known = {n for pair in PARTS.values() for part in pair[:2] for n in settings(part)}
    for listed in (*OUR_OWN, *THEIRS, *DEFAULTS):
        part, _, setting = listed.rpartition(".")
        assert not part or part in PARTS, listed
        assert setting in known, listed
