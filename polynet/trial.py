"""A trial of some samples, so that what does not fit is said before the first step."""

from __future__ import annotations

from polynet.arguments import target_check
from polynet.backend import backend_of, to_numpy
from polynet.data import Feed
from polynet.nn import Module
from polynet.scores import Loss, loss_of


def try_out(net: Module, data: Feed, loss: Loss, count: int) -> int:
    """Let `count` samples go through the network and the loss, as far as there are; how many did.

    They are as many as in training, since a network or a loss may need so many: losses of
    triplets do. Of data that make their batches themselves it is the first batch.
    """
    x, y, *weights = data.first(count)
    outputs = net(x)
    check = target_check(loss, outputs, y, data.names[1])
    if check is not None:
        check(to_numpy(y))
        data.check_targets(check)
    xp = backend_of(outputs).xp
    loss_of(loss, outputs, y, [xp.ones_like(w) for w in weights], data.names[2])
    return x.shape[0]
