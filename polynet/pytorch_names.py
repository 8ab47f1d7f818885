"""What to use in place of PyTorch's names that polynet lacks, for the errors that they raise."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NoReturn

from polynet.errors import did_you_mean

_PASSES = (
    "a network that is called predicts, and a Trainer, or net.bind(params, context), makes the "
    "passes in which self.training is true"
)
_TO = "net.to(backend=…, device=…) gives a copy elsewhere"
_DTYPE = 'net.to(dtype=…) gives a copy in "float32" or "float64"; mixed precision is a backend\'s'
OF_A_MODULE = {
    "train": _PASSES,
    "eval": f"{_PASSES}; a part predicts within one as self.part.bind(self.part.state_dict())",
    "zero_grad": "value_and_grad returns the gradients: none are kept that would have to be zeroed",
    **dict.fromkeys(("cuda", "cpu"), _TO),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), _DTYPE),
    "requires_grad_": "optim.Groups chooses an optimizer for each parameter by its name, and "
    "optim.Frozen() leaves its parameters as they are",
    "load_state_dict": "net.replace(arrays) gives a network with other arrays, and "
    "checkpoint.load(path, net) one with those of a file",
    "named_parameters": "net.parameters() is a dict of arrays by name",
    "named_buffers": "net.buffers() is a dict of arrays by name",
    **dict.fromkeys(
        ("children", "named_children", "named_modules"),
        "net.modules() gives every module with its path",
    ),
    "register_buffer": "set an attribute: self.mean = nn.Buffer((3,), nn.init.zeros)",
    "register_parameter": "set an attribute: self.scale = nn.Parameter((3,), nn.init.ones)",
    "add_module": "set an attribute: self.layer = nn.Linear(3, 2)",
}
"""By the name of an attribute of torch.nn.Module."""
_LISTS = "layers may be in a plain list, tuple or dict: self.layers = [nn.Linear(3, 3), …]"
_LOSSES = {
    "CrossEntropyLoss": "use losses.cross_entropy",
    "NLLLoss": "use losses.nll",
    "MSELoss": "use losses.mse",
    "L1Loss": "use losses.l1",
    "BCEWithLogitsLoss": "use losses.binary_cross_entropy_with_logits",
    "BCELoss": "use losses.binary_cross_entropy_with_logits, of outputs without the sigmoid",
}
_FORMULAS = {
    "gaussian_nll": "xp.mean(xp.log(variance) + (mean - y) ** 2 / variance) / 2",
    "triplet_margin": "xp.mean(functional.relu("
    "xp.linalg.vector_norm(anchor - positive, axis=1)"
    " - xp.linalg.vector_norm(anchor - negative, axis=1) + 1))",
}
_OF_SEVERAL = {
    name: f"a loss of several outputs is your own function of their dict: {_FORMULAS[ours]}"
    for ours, *theirs in (
        ("gaussian_nll", "gaussian_nll_loss", "GaussianNLLLoss"),
        ("triplet_margin", "triplet_margin_loss", "TripletMarginLoss"),
    )
    for name in (ours, *theirs)
}
_LOSS_FUNCTIONS = {
    **{
        f"{name}_loss": f"use losses.{name}"
        for name in ("huber", "l1", "mse", "multi_margin", "nll", "smooth_l1")
    },
    "binary_cross_entropy": _LOSSES["BCELoss"],
}
_WINDOWS = "for any number of axes, use functional."
OF_NN = {
    **dict.fromkeys(("ModuleList", "ModuleDict"), _LISTS),
    **dict.fromkeys(("ParameterList", "ParameterDict"), "set each Parameter as an attribute"),
    "Transformer": "its two parts are nn.TransformerEncoder and nn.TransformerDecoder",
    "UpsamplingNearest2d": "use nn.Upsample",
    "UpsamplingBilinear2d": 'use nn.Upsample(…, mode="bilinear", align_corners=True)',
    "functional": "polynet.functional has the functions",
    "utils": "optim.ClipNorm and optim.ClipValue clip gradients around an optimizer, and recurrent "
    "layers take lengths, lstm(x, lengths=lengths)",
    **_LOSSES,
    **_OF_SEVERAL,
}
"""By the name in torch.nn."""

OF_LOSSES = {**_LOSSES, **_LOSS_FUNCTIONS, **_OF_SEVERAL}
"""By the name in torch.nn, and in torch.nn.functional."""
OF_FUNCTIONAL = {
    **_LOSS_FUNCTIONS,
    **_OF_SEVERAL,
    **{
        name: f"use losses.{name}"
        for name in ("binary_cross_entropy_with_logits", "cross_entropy", "kl_div")
    },
    **{
        f"{theirs}{axes}d": _WINDOWS + ours
        for theirs, ours in (
            ("conv", "convolution"),
            ("conv_transpose", "convolution_transpose"),
            ("max_pool", "max_pool"),
            ("avg_pool", "avg_pool"),
            ("adaptive_max_pool", "adaptive_max_pool"),
            ("adaptive_avg_pool", "adaptive_avg_pool"),
        )
        for axes in (1, 2, 3)
    },
    "upsample": "use functional.interpolate",
    "pixel_shuffle": "use nn.PixelShuffle",
    "pixel_unshuffle": "use nn.PixelUnshuffle",
    "flatten": "use nn.Flatten, or xp.reshape(x, (x.shape[0], -1))",
    "embedding": "use nn.Embedding, or xp.take(weight, codes, axis=0)",
    "normalize": "use x / xp.linalg.vector_norm(x, axis=1, keepdims=True)",
    "one_hot": "use xp.astype(codes[..., None] == xp.arange(classes), xp.float32)",
}
"""By the name in torch.nn.functional."""
OF_A_CALL = {
    "dim": "the standard's name is axis",
    "keepdim": "the standard's name is keepdims",
    "inplace": "no function writes over its arguments",
    "reduction": "every loss is a mean; times the number of its terms it is the sum, and "
    "sample_weight weighs each sample",
    **dict.fromkeys(
        ("device", "dtype"), "net.init(device=…, dtype=…) or a Trainer puts a whole network there"
    ),
    "padding_mode": "a padding layer goes before it, such as nn.ReflectionPad2d",
    "last_epoch": "a run that goes on, trainer.load(path), knows its step",
    "maximize": "a loss is minimised: return its negative",
}
"""By the name of an argument of PyTorch's functions, layers and schedules."""
NO_PARAMETERS = "; an optimizer is given none: a Trainer hands it the parameters of its network"
"""Of an optimizer that is given parameters before its `lr`."""
OF_OPTIM = {
    "lr_scheduler": "a schedule stands where lr does: optim.SGD(optim.schedules.StepLR(0.1, 30))",
    "swa_utils": "optim.EMA averages the parameters of an optimizer",
}
"""By the name in torch.optim."""
OF_SCHEDULES = {
    "ReduceLROnPlateau": "it counts epochs, and so is one of polynet.callbacks",
    "LambdaLR": "a schedule of your own is a Schedule with a method rate(self, xp, step, dtype)",
}
"""By the name in torch.optim.lr_scheduler."""
_OF = {
    "polynet.nn": OF_NN,
    "polynet.losses": OF_LOSSES,
    "polynet.functional": OF_FUNCTIONAL,
    "polynet.optim": OF_OPTIM,
    "polynet.optim.schedules": OF_SCHEDULES,
}


def instead(name: str, names: dict[str, str]) -> str:
    """An addition to the error for a missing name: "" unless it is one of PyTorch's."""
    return f", which PyTorch has; here, {names[name]}" if name in names else ""


def named_in(module: str, names: Collection[str]) -> Callable[[str], NoReturn]:
    """A `__getattr__` for a module, whose error says what to use in place of a missing name."""

    def missing(name: str) -> NoReturn:
        what = instead(name, _OF.get(module, {})) or "." + did_you_mean(name, names)
        raise AttributeError(f"{module} has no {name!r}{what}", name=name)

    return missing
