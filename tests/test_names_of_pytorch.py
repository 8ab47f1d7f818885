"""Who asks for PyTorch's names that are missing is told what stands here for them."""

from __future__ import annotations

import re

import pytest

from polynet import functional, losses, nn, optim
from polynet.nn.pytorch_names import OF_A_MODULE, OF_NN

HOUSES = {"nn": nn, "optim": optim, "losses": losses, "functional": functional}


@pytest.mark.parametrize("name", OF_A_MODULE)
def test_of_a_module(name: str) -> None:
    net = nn.Sequential(nn.Linear(2, 1))
    with pytest.raises(AttributeError) as caught:
        getattr(net, name)
    assert str(caught.value) == (
        f"Sequential has no attribute {name!r}, as PyTorch has: {OF_A_MODULE[name]}"
    )
    assert not hasattr(net, name)


@pytest.mark.parametrize("name", OF_NN)
def test_of_torch_nn(name: str) -> None:
    with pytest.raises(AttributeError, match=f"polynet.nn has no {name!r}, as PyTorch has: "):
        getattr(nn, name)


def test_what_they_name_is_there() -> None:
    words = " ".join([*OF_A_MODULE.values(), *OF_NN.values()])
    named = re.findall(r"\b(nn|optim|losses)\.(\w+)", words)
    assert len(named) > 10
    assert [name for house, name in named if not hasattr(HOUSES[house], name)] == []
    own = set(re.findall(r"\bnet\.(\w+)", words))
    assert own <= set(dir(nn.Module)), own


def test_others_are_compared_with_what_is_there() -> None:
    with pytest.raises(AttributeError, match=r"nn has no 'Linaer'\. Did you mean 'Linear'\?$"):
        _ = nn.Linaer
    with pytest.raises(AttributeError, match=r"Linear has no attribute 'foo'$"):
        _ = nn.Linear(1, 1).foo
