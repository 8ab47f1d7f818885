from polynet import (
    backend as backend,
)
from polynet import (
    callbacks as callbacks,
)
from polynet import (
    checkpoint as checkpoint,
)
from polynet import (
    data as data,
)
from polynet import (
    derivative as derivative,
)
from polynet import (
    errors as errors,
)
from polynet import (
    functional as functional,
)
from polynet import (
    history as history,
)
from polynet import (
    losses as losses,
)
from polynet import (
    metrics as metrics,
)
from polynet import (
    nn as nn,
)
from polynet import (
    ops as ops,
)
from polynet import (
    optim as optim,
)
from polynet import (
    random as random,
)
from polynet import (
    step as step,
)
from polynet import (
    tensor as tensor,
)
from polynet import (
    testing as testing,
)
from polynet import (
    train as train,
)
from polynet import (
    tree as tree,
)
from polynet import (
    view as view,
)
from polynet.backend import Backend as Backend
from polynet.backend import asarray as asarray
from polynet.backend import get_backend as get_backend
from polynet.backend import set_backend as set_backend
from polynet.backend import to_numpy as to_numpy
from polynet.backend import use_backend as use_backend
from polynet.derivative import grad as grad
from polynet.derivative import hessian as hessian
from polynet.derivative import hvp as hvp
from polynet.derivative import jacobian as jacobian
from polynet.derivative import jvp as jvp
from polynet.derivative import stop_gradient as stop_gradient
from polynet.derivative import value_and_grad as value_and_grad
from polynet.derivative import vjp as vjp
from polynet.errors import RecordError as RecordError
from polynet.history import History as History
from polynet.nn import Context as Context
from polynet.ops import array_namespace as array_namespace
from polynet.ops import namespace as namespace
from polynet.tensor import Tensor as Tensor
from polynet.tensor import composition as composition
from polynet.tensor import op as op
from polynet.tensor import with_pullbacks as with_pullbacks
from polynet.testing import check_grad as check_grad
from polynet.train import Trainer as Trainer
from polynet.view import record as record

__version__: str
