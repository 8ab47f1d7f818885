"""Training: the `Trainer`, which repeats the step."""

from __future__ import annotations

import functools
import itertools
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from tqdm import tqdm

from polynet import checkpoint, losses, random
from polynet.backend import (
    Array,
    Backend,
    backend_of,
    chosen_backend,
    common_backend,
    get_backend,
    to_numpy,
    use_backend,
)
from polynet.backend.transfer import on_host
from polynet.data import Place, batches, chunks, is_device_array, same_length, split
from polynet.errors import MixedBackendsError, NotFiniteError
from polynet.history import History, Position
from polynet.nn import Module
from polynet.ops import array_namespace
from polynet.optim import Optimizer
from polynet.optim.checks import number
from polynet.step import State, initial_state, make_step

Metric = Callable[[np.ndarray, np.ndarray], float]


class Trainer:
    """Trains a network: `fit`, `evaluate`, `predict`; `save` and `load` stop a run and go on.

    `net` may be described or have its parameters; it stays as it is, and `trainer.net` is the
    trained one. `loss(outputs, targets)` is one of `polynet.losses` or your own; `optimizer` one
    of `polynet.optim`; `metrics` are functions `(targets, outputs) -> number` of NumPy arrays.

    A described network is drawn at the first call, from `seed`, on the backend given, else on
    the one chosen, else on that of the data, else on NumPy; `dtype` is "float32" by default, or
    "float64".

    >>> import numpy as np
    >>> from polynet import Trainer, losses, nn, optim
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.Adam(lr=0.1))
    >>> history = trainer.fit(x, 3 * x + 1, epochs=40)
    >>> history["loss"][-1] < 1e-3
    True
    """

    def __init__(
        self,
        net: Module,
        loss: Callable[[Array, Array], Array],
        optimizer: Optimizer,
        *,
        metrics: Sequence[Metric] = (),
        seed: int = 0,
        backend: str | Backend | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        _check_kinds(net, loss, optimizer, metrics)
        random.key(seed)
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = _by_name(metrics)
        self.seed = seed
        self.history = History()
        self._described = net
        self._wanted = (backend, device, dtype)
        self._place: Place | None = None
        self._state: State = {}
        self._position = Position()
        self._unread: list[Any] = []  # losses of the newest calls, which stand on the device
        self._copy: Module | None = None
        self._run: Callable[..., Any] | None = None

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return self._position.epoch

    @property
    def net(self) -> Module:
        """The network as trained so far: a copy, which further training leaves alone."""
        if self._place is None:
            return self._described
        if self._copy is None:
            xp = self._place.backend.xp
            arrays = {**self._state["params"], **self._state["buffers"]}
            copies = {n: xp.asarray(a, copy=True) for n, a in arrays.items()}
            self._copy = self._described.bind(copies)
        return self._copy

    @property
    def averaged_net(self) -> Module:
        """The network with the parameters that `optim.EMA` averaged so far: a copy.

        Raises RuntimeError where there is no average: without `EMA`, or before the first call.
        """
        averages = self.optimizer.averages(self._state.get("optimizer", {}))
        if not averages:
            raise RuntimeError(
                "there are no averaged parameters: wrap the optimizer, optim.EMA(optim.Adam()), "
                "and fit"
            )
        copies = {n: array_namespace(a).asarray(a, copy=True) for n, a in averages.items()}
        return self.net.replace(copies)

    @property
    def lr_factor(self) -> float:
        """What multiplies every learning rate that is a schedule: 1 until it is set.

        It is part of the state: `save` keeps it, and no step is compiled anew when it changes.
        Setting it raises RuntimeError before the first step, TypeError where no rate is a
        schedule, and ValueError for what is no number, at least 0.
        """
        factors = self.optimizer.lr_factors(self._state.get("optimizer", {}))
        return float(to_numpy(factors[0])[0]) if factors else 1.0

    @lr_factor.setter
    def lr_factor(self, factor: float) -> None:
        factor = number("lr_factor", factor)
        if self._place is None:
            raise RuntimeError("lr_factor multiplies the rates of a run: there is none before fit")
        if not self.optimizer.lr_factors(self._state["optimizer"]):
            raise TypeError(
                "lr_factor multiplies learning rates that are schedules, and there is none: a "
                "number is compiled into the step. Give lr=optim.schedules.Constant(1e-3)"
            )
        changed = self.optimizer.with_lr_factor(self._state["optimizer"], factor)
        self._state = {**self._state, "optimizer": changed}

    # The three verbs

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Any, Any] | None = None,
        validation_split: float | None = None,
        stratify: bool = False,
        progress: bool | None = None,
    ) -> History:
        """Train for `epochs` passes over the samples, which are rows of `x` and `y`.

        Host arrays are checked, cast to the network's dtype and moved to its device; arrays
        on a device must be there already. One that is as it should be is not copied: leave it
        unchanged meanwhile. `validation_split` holds out that share of the
        samples, drawn by the seed, with `stratify` in each class. A second call goes on where
        the first ended. Progress is shown where there is a terminal; `progress` says otherwise.

        Returns the `History` of all calls. Ctrl-C takes effect between steps, and the next call
        goes on from there: it finishes the epoch that was cut, with the same samples and
        `batch_size`, as the first of its `epochs`. Raises NotFiniteError at the first loss that
        is NaN or infinite; such a run cannot go on.
        """
        _check_counts(epochs=epochs, batch_size=batch_size)
        if validation_split is not None:
            if validation_data is not None:
                raise ValueError("give validation_data or validation_split, not both")
            (x, y), validation_data = split(
                x, y, validation_split, seed=self.seed, stratify=stratify
            )
        elif stratify:
            raise ValueError("stratify is for validation_split: give the share to hold out")
        with self._ready(x) as place:
            data = self._take_in(x, y, "x", "y")
            held_out = None
            if validation_data is not None:
                held_out = self._take_in(*_pair(validation_data), "validation x", "validation y")
            if self._run is None:
                step = make_step(self._described, self.loss, self.optimizer, place.backend.xp)
                self._run = place.backend.compile(step)
            count = same_length(*data)
            self._position.check(batch_size, count)
            total = epochs * math.ceil(count / batch_size) - self._position.batches
            hidden = None if progress is None else not progress
            with (
                _interrupt_between_steps() as interrupted,
                tqdm(total=total, disable=hidden, unit="step") as bar,
            ):
                for _ in range(epochs):
                    numbers = {"loss": self._run_epoch(data, batch_size, bar, interrupted)}
                    if held_out:
                        numbers |= self._scores(*held_out, "val_")
                    self.history.record(numbers)
                    self._position = Position(self.epoch + 1)
                    bar.set_postfix({k: f"{v:.4g}" for k, v in self.history.last().items()})
                    if interrupted.is_set():
                        raise KeyboardInterrupt
        return self.history

    def evaluate(self, x: Any, y: Any, *, batch_size: int = 256) -> dict[str, float]:
        """The loss and the metrics on `x` and `y`, by name; nothing is trained."""
        _check_counts(batch_size=batch_size)
        with self._ready(x):
            return self._scores(*self._take_in(x, y, "x", "y"), "", batch_size)

    def predict(self, x: Any, *, batch_size: int = 256) -> Any:
        """The network's outputs for the rows of `x`: NumPy for host data, else of its kind."""
        _check_counts(batch_size=batch_size)
        with self._ready(x) as place:
            outputs = self._outputs(place.take_in(x, "x"), batch_size)
            return outputs if is_device_array(x) else on_host(outputs)

    # Stopping, and going on

    def save(self, path: str | os.PathLike[str], *, keep_previous: bool = False) -> None:
        """Write all that the run needs to go on: `load` takes it up, on any backend.

        The file is safetensors. It holds every array of the state by its name (`params.…`,
        `buffers.…`, `optimizer.…`, `keys.…`, `step`), the history, the position in the data, the
        seed, the dtype, the optimizer's settings and a checksum. `checkpoint.load(path, net)` reads
        the network alone, and `safetensors.torch.load_file(path)` shows everything. It replaces
        what is at `path` in one move; with `keep_previous`, the run that was there goes to
        `path` + ".previous" first, if its file is whole.

        Raises RuntimeError before the first `fit`, `evaluate` or `predict`, and NotFiniteError
        where training met a loss that is not finite, so that spoilt parameters replace nothing.
        """
        if self._place is None:
            raise RuntimeError(
                "the Trainer has nothing to save yet: its parameters are drawn at the first fit, "
                "evaluate or predict"
            )
        with use_backend(self._place.backend):
            self._read()
            checkpoint.save_run(
                path,
                self._state,
                self.history,
                self._position,
                self._identity(),
                keep_previous,
            )

    def load(self, path: str | os.PathLike[str], *, or_previous: bool = False) -> None:
        """Take over the run that `save` wrote to `path`; `fit` then goes on where it stopped.

        This Trainer has the same network, loss, optimizer, seed and dtype as the one that
        saved; its parameters go to its own backend and device: those it is on, else those it
        was given, else those chosen, else NumPy. With the same data the numbers are those of
        the run that never stopped. The loss, the layers' settings and the data are not compared.

        With `or_previous`, where the file is missing, torn or tampered with, the run before it is
        taken, which `save(path, keep_previous=True)` kept, and a RuntimeWarning says so.

        Raises ValueError for a file that is torn, tampered with or no saved run, for another
        seed, dtype, optimizer or setting of it, and for another shape; KeyError for other names;
        TypeError for an array of another dtype. The Trainer then stays as it was.

        >>> import tempfile
        >>> import numpy as np
        >>> from polynet import Trainer, losses, nn, optim
        >>> def trainer():
        ...     return Trainer(nn.Linear(1, 1), losses.mse, optim.Adam(lr=0.1), backend="numpy")
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> whole, first, second = trainer(), trainer(), trainer()
        >>> _ = whole.fit(x, 3 * x, epochs=4)
        >>> _ = first.fit(x, 3 * x, epochs=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first.save(f"{folder}/run.safetensors")
        ...     second.load(f"{folder}/run.safetensors")
        >>> second.fit(x, 3 * x, epochs=2).step_losses == whole.history.step_losses
        True
        """
        with self._ready(None) as place:
            self._state, self.history, self._position = checkpoint.load_run(
                path, self._state, place, self._identity(), or_previous
            )
            self._unread, self._copy = [], None

    def _identity(self) -> dict[str, Any]:
        """What must be equal for one Trainer to go on with the run of another."""
        assert self._place is not None
        kind = type(self.optimizer).__name__
        return {
            "seed": int(self.seed),
            "dtype": self._place.dtype,
            "optimizer": kind,
            **{f"{kind}'s {name}": repr(value) for name, value in vars(self.optimizer).items()},
        }

    # How

    @contextmanager
    def _ready(self, x: Any) -> Iterator[Place]:
        """The place of the network, whose parameters are drawn if they are not yet.

        A first call that fails before it has trained settles nothing.
        """
        first, described = self._place is None, self._described
        try:
            if first:
                self._settle(x)
            assert self._place is not None
            with use_backend(self._place.backend):
                yield self._place
        except Exception:
            if first and not self.history.step_losses:
                self._place, self._described, self._run = None, described, None
                self._position, self._unread = Position(), []
            raise

    def _settle(self, x: Any) -> None:
        asked, device, dtype = self._wanted
        drawn = [p for p in self._described.parameters().values() if hasattr(p, "dtype")]
        if drawn:
            backend, native, dtype = self._where_drawn(drawn)
        elif asked is None and chosen_backend() is None and is_device_array(x):
            backend = backend_of(x)
            native = backend.device(device) if device else backend.device_of(x)
        else:
            backend = get_backend(asked)
            native = backend.device(device)
        dtype = dtype or "float32"
        name = next(n for n, d in backend.devices().items() if d == native)
        net = self._described.init(self.seed, backend=backend, device=name, dtype=dtype)
        with use_backend(backend):
            self._state = initial_state(net, self.optimizer, self.seed)
        self._described = net
        self._place = Place(backend, native, dtype)

    def _where_drawn(self, drawn: list[Array]) -> tuple[Backend, Any, str]:
        """The backend, device and dtype of a network that has its parameters."""
        asked, device, dtype = self._wanted
        backend, native = common_backend(drawn, "the network's parameters")
        if asked is not None:
            wanted = get_backend(asked)
            if wanted.name != backend.name:
                raise MixedBackendsError(
                    f"the network is on {backend.name!r}, the Trainer was given backend "
                    f"{wanted.name!r}; move it with net.to(backend=…)"
                )
            backend = wanted
        if device is not None and backend.device(device) != native:
            raise MixedBackendsError(
                f"the network is on {native}, the Trainer was given device {device!r}; move it "
                "with net.to(device=…)"
            )
        own = str(drawn[0].dtype).rpartition(".")[2]
        if dtype is not None and dtype != own:
            raise TypeError(
                f"the network is {own}, the Trainer was given dtype {dtype!r}; leave it out, or "
                "draw the network with init(dtype=…)"
            )
        return backend, native, own

    def _take_in(self, x: Any, y: Any, x_name: str, y_name: str) -> tuple[Array, Array]:
        """Both arrays where the network is; two samples are tried, so that errors come early."""
        assert self._place is not None
        place = self._place
        data = place.take_in(x, x_name), place.take_in(y, y_name)
        same_length(x, y, (x_name, y_name))
        outputs = self._outputs(data[0][:2, ...], 2)
        if outputs.ndim > 1 and place.backend.xp.isdtype(data[1].dtype, "integral"):
            _check_labels(self.loss, data[1], outputs.shape[1], y_name)
        trial = self.loss(outputs, data[1][:2, ...])
        if tuple(getattr(trial, "shape", (0,))) != ():
            raise TypeError("the loss must return a 0-d array, such as the mean over the batch")
        return data

    def _outputs(self, x: Array, batch_size: int) -> Array:
        net = self._described.bind({**self._state["params"], **self._state["buffers"]})
        count = x.shape[0]
        cuts = range(0, count, batch_size)
        parts = [net(x[i : min(i + batch_size, count), ...]) for i in cuts]
        return backend_of(parts[0]).xp.concat(parts, axis=0)

    def _scores(self, x: Array, y: Array, prefix: str, batch_size: int = 256) -> dict[str, float]:
        outputs = self._outputs(x, batch_size)
        numbers = {f"{prefix}loss": float(to_numpy(self.loss(outputs, y)))}
        host = to_numpy(y), to_numpy(outputs)
        for name, metric in self.metrics.items():
            numbers[f"{prefix}{name}"] = float(metric(*host))
        return numbers

    def _run_epoch(
        self,
        data: tuple[Array, Array],
        batch_size: int,
        bar: Any,
        interrupted: threading.Event,
    ) -> float:
        """What is left of this epoch's steps; the mean loss of all of them."""
        assert self._place is not None
        assert self._run is not None
        place = self._place
        count = data[0].shape[0]
        rows = list(batches(count, batch_size, seed=self.seed, epoch=self.epoch))
        done = self._position.batches
        self._read()
        for chunk in chunks(rows[done:], place.backend.steps_per_call):
            if interrupted.is_set():
                self._read()
                raise KeyboardInterrupt
            self._copy = None
            moved = place.index(np.stack(chunk))  # one transfer a call
            self._state, launched = self._run(self._state, data, moved)
            done += len(chunk)
            self._position = Position(self.epoch, done, batch_size, count)
            self._unread.append(launched)
            self._read(keep=1)
            bar.update(len(chunk))
        self._read()
        weights = [len(r) for r in rows]
        return float(np.average(self.history.step_losses[-len(rows) :], weights=weights))

    def _read(self, keep: int = 0) -> None:
        """Fetch the losses of all calls but the last `keep`, up to the first that is not finite.

        That one stays unread, so that every later call meets it again.
        """
        while len(self._unread) > keep:
            values = to_numpy(self._unread[0]).tolist()
            fine = list(itertools.takewhile(math.isfinite, values))
            self._unread[0] = values[len(fine) :]
            self.history.step_losses += fine
            if self._unread[0]:
                step = len(self.history.step_losses)
                raise NotFiniteError(
                    f"the loss is {self._unread[0][0]} at step {step} (epoch {self.epoch}); the "
                    "parameters are spoilt. Lower the learning rate, or look for extreme numbers "
                    "in the data",
                    step,
                )
            del self._unread[0]


@contextmanager
def _interrupt_between_steps() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that a step is never cut in two; a second one acts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def handler(_number: int, _frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """The metrics by their functions' names, which must differ."""
    names = [getattr(metric, "__name__", None) for metric in metrics]
    for name, metric in zip(names, metrics, strict=True):
        if name is None or name == "loss" or names.count(name) > 1:
            raise ValueError(
                f"Trainer: metrics are recorded under their functions' names, which must differ "
                f"from one another and from 'loss'; got {name or repr(metric)!r}: def a function"
            )
    return dict(zip(map(str, names), metrics, strict=True))


def _pair(validation_data: Any) -> tuple[Any, Any]:
    if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
        raise TypeError(f"validation_data is a pair (x, y); got a {type(validation_data).__name__}")
    return validation_data[0], validation_data[1]


def _check_kinds(net: Any, loss: Any, optimizer: Any, metrics: Any) -> None:
    if not isinstance(net, Module):
        raise TypeError(f"Trainer: net is a {type(net).__name__}; expected a polynet.nn.Module")
    if not callable(loss):
        raise TypeError(
            f"Trainer: loss is {loss!r}; expected a function such as polynet.losses.mse"
        )
    if not isinstance(optimizer, Optimizer):
        given = (
            "the class itself" if isinstance(optimizer, type) else f"a {type(optimizer).__name__}"
        )
        raise TypeError(f"Trainer: optimizer is {given}; expected one such as optim.Adam(lr=1e-3)")
    if callable(metrics) or not all(callable(m) for m in metrics):
        raise TypeError("Trainer: metrics is a list of functions (targets, outputs) -> number")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is a positive integer; got {value!r}")


def _check_labels(loss: Any, labels: Array, classes: int, name: str) -> None:
    """Refuse labels that the loss, with options or without, has no class for."""
    partial = isinstance(loss, functools.partial)
    if (loss.func if partial else loss) not in (
        losses.cross_entropy, losses.nll, losses.multi_margin,
    ):  # fmt: skip
        return
    counted = on_host(labels)
    if partial and loss.keywords.get("ignore_index") is not None:
        counted = counted[counted != loss.keywords["ignore_index"]]
    low, high = counted.min(initial=0), counted.max(initial=0)
    if low < 0 or high >= classes:
        raise ValueError(
            f"{name} holds class {high if high >= classes else low}, the network has {classes} "
            f"outputs: classes count from 0 to {classes - 1}; labels that do not count are "
            "ignore_index= of the loss"
        )
