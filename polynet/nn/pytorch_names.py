"""What stands here for PyTorch's names that are missing: an error says it to who asks for one."""

from __future__ import annotations

_PASSES = (
    "a network that is called predicts, and a Trainer, or net.bind(params, context), makes the "
    "passes in which self.training is true"
)
_TO = "net.to(backend=…, device=…) gives a copy elsewhere"
_DTYPE = 'net.init(dtype=…) draws "float32" or "float64"; mixed precision is a backend\'s'
OF_A_MODULE = {
    **dict.fromkeys(("train", "eval"), _PASSES),
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
OF_NN = {
    **dict.fromkeys(("ModuleList", "ModuleDict"), _LISTS),
    **dict.fromkeys(("ParameterList", "ParameterDict"), "set each Parameter as an attribute"),
    "functional": "polynet.functional has the functions",
    "utils": "optim.ClipNorm and optim.ClipValue clip gradients around an optimizer",
    "CrossEntropyLoss": "give losses.cross_entropy",
    "NLLLoss": "give losses.nll",
    "MSELoss": "give losses.mse",
    "L1Loss": "give losses.l1",
    "BCEWithLogitsLoss": "give losses.binary_cross_entropy_with_logits",
    "BCELoss": "give losses.binary_cross_entropy_with_logits, of outputs without the sigmoid",
}
"""By the name in torch.nn."""


def instead(name: str, names: dict[str, str]) -> str:
    """What an error says more of a name: nothing, if it is none of PyTorch's."""
    return f", as PyTorch has: {names[name]}" if name in names else ""
