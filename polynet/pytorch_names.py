"""What stands here for PyTorch's names that are missing: an error says it to who asks for one."""

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
    "zero_grad": "gradients are what value_and_grad returns: none are kept, to be zeroed",
    **dict.fromkeys(("cuda", "cpu"), _TO),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), _DTYPE),
    "requires_grad_": "optim.Groups gives parameters to optimizers by their names, and "
    "optim.Frozen() leaves its own as they are",
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
_LISTS = "layers may stand in a plain list, tuple or dict: self.layers = [nn.Linear(3, 3), …]"
_LOSSES = {
    "CrossEntropyLoss": "give losses.cross_entropy",
    "NLLLoss": "give losses.nll",
    "MSELoss": "give losses.mse",
    "L1Loss": "give losses.l1",
    "BCEWithLogitsLoss": "give losses.binary_cross_entropy_with_logits",
    "BCELoss": "give losses.binary_cross_entropy_with_logits, of outputs without the sigmoid",
}
_LOSS_FUNCTIONS = {
    **{
        f"{name}_loss": f"give losses.{name}"
        for name in ("huber", "l1", "mse", "multi_margin", "nll", "smooth_l1")
    },
    "binary_cross_entropy": _LOSSES["BCELoss"],
}
_WINDOWS = "any number of axes is one function, functional."
OF_NN = {
    **dict.fromkeys(("ModuleList", "ModuleDict"), _LISTS),
    **dict.fromkeys(("ParameterList", "ParameterDict"), "set each Parameter as an attribute"),
    "Transformer": "its two parts are nn.TransformerEncoder and nn.TransformerDecoder",
    "UpsamplingNearest2d": "give nn.Upsample",
    "UpsamplingBilinear2d": 'give nn.Upsample(…, mode="bilinear", align_corners=True)',
    "functional": "polynet.functional has the functions",
    "utils": "optim.ClipNorm and optim.ClipValue clip gradients around an optimizer, and recurrent "
    "layers take lengths, lstm(x, lengths=lengths)",
    **_LOSSES,
}
"""By the name in torch.nn."""

OF_LOSSES = {**_LOSSES, **_LOSS_FUNCTIONS}
"""By the name in torch.nn, and in torch.nn.functional."""
OF_FUNCTIONAL = {
    **_LOSS_FUNCTIONS,
    **{
        name: f"give losses.{name}"
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
    "upsample": "give functional.interpolate",
    "pad": "layers, such as nn.ConstantPad2d, nn.ReflectionPad2d and nn.ReplicationPad2d",
    "pixel_shuffle": "a layer of nn.PixelShuffle",
    "pixel_unshuffle": "a layer of nn.PixelUnshuffle",
    "flatten": "a layer of nn.Flatten, or xp.reshape(x, (x.shape[0], -1))",
    "embedding": "a layer of nn.Embedding, or xp.take(weight, codes, axis=0)",
    "normalize": "x / xp.linalg.vector_norm(x, axis=1, keepdims=True)",
    "one_hot": "xp.astype(codes[..., None] == xp.arange(classes), xp.float32)",
}
"""By the name in torch.nn.functional."""
OF_OPTIM = {
    "lr_scheduler": "a schedule stands where lr does: optim.SGD(optim.schedules.StepLR(0.1, 30))",
    "swa_utils": "optim.EMA averages the parameters of an optimizer",
}
"""By the name in torch.optim."""
OF_SCHEDULES = {
    "ReduceLROnPlateau": "it goes by epochs, and so is one of polynet.callbacks",
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
    """What an error says more of a name: nothing, if it is none of PyTorch's."""
    return f", as PyTorch has: {names[name]}" if name in names else ""


def named_in(module: str, names: Collection[str]) -> Callable[[str], NoReturn]:
    """A module's `__getattr__`, which says what the name that is missing may be meant for."""

    def missing(name: str) -> NoReturn:
        what = instead(name, _OF.get(module, {})) or "." + did_you_mean(name, names)
        raise AttributeError(f"{module} has no {name!r}{what}", name=name)

    return missing
