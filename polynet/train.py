"""Training: the `Trainer`, which repeats the step."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NoReturn

from tqdm import tqdm

from polynet import random
from polynet.arguments import (
    Callback,
    Metric,
    call_each,
    callbacks_in_order,
    check_each,
    check_kinds,
    check_loss,
    metrics_by_name,
)
from polynet.backend import Backend, to_numpy
from polynet.backend.transfer import on_host
from polynet.checkpoint.run import load_run, save_run
from polynet.data import Feed, feed, inputs, is_device_array
from polynet.data.given import with_validation
from polynet.data.named import arrays_of
from polynet.errors import unknown
from polynet.history import History
from polynet.integers import positive
from polynet.interrupt import interrupt_between_steps
from polynet.nn import Module
from polynet.optim import Optimizer
from polynet.optim.checks import number, text_of
from polynet.run import Run
from polynet.scores import AT_ONCE, Loss, outputs_of, scores, whole_batches
from polynet.targets import check_last_layer
from polynet.tensor import told, told_class
from polynet.tree import map as tree_map
from polynet.trial import try_out

__all__ = ["Trainer"]

COMPILE = ("auto", "require")


@told_class
class Trainer:
    """Trains a network: `fit`, `evaluate` and `predict`; `save` and `load` resume a run later.

    `net` may have its parameters already, or be only described. It is not changed; `trainer.net`
    is the trained network. `loss(outputs, targets)` is one of `polynet.losses` or your own.
    `optimizer` is one of `polynet.optim`. `metrics` are functions `(targets, outputs) -> number`
    of NumPy arrays.

    The parameters of a described network are drawn at the first call, from `seed`, on the backend
    given, else on the one chosen, else on that of the data, else on NumPy. `dtype` is "float32" by
    default, or "float64".

    A Trainer works in one thread at a time; a call from a second thread meanwhile raises
    RuntimeError.

    Where the backend can compile, a step runs as one program: NumPy, PyTorch and CUDA capture a
    step and replay it, and JAX compiles it. So layers and the loss run as Python only in the first
    steps with a batch of some shape (on PyTorch without CUDA, in the first 2,000). Only these steps
    print and count. A branch that they took, a random number from Python or NumPy, and a number
    that the loss read from elsewhere stay as they were then. An array from elsewhere must stay
    alive, since a CUDA graph has its address. Take a step's random numbers from `nn.RandomStream`;
    `trainer.loss = loss` compiles anew. A step whose layers or loss prevent all this runs one
    operation at a time, after a warning that says what prevents it. With `compile="require"`, `fit`
    raises NotCompiledError instead, also on a backend that never compiles.

    >>> import numpy as np
    >>> from polynet import Trainer, losses, nn, optim
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> trainer = Trainer(nn.Linear(1, 1), losses.mse, optim.Adam(lr=0.1))
    >>> history = trainer.fit(x, 3 * x + 1, epochs=40)
    >>> history["loss"][-1] < 1e-3
    True
    """

    __slots__ = ("__weakref__", "_metrics", "_run")  # so that setting trainer.lr is an error

    def __init__(
        self,
        net: Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        metrics: Sequence[Metric] = (),
        seed: int = 0,
        backend: str | Backend | None = None,
        device: str | None = None,
        dtype: str | None = None,
        compile: str = "auto",  # noqa: A002 (the field's word for it)
    ) -> None:
        check_kinds(net, loss, optimizer)
        if compile not in COMPILE:
            raise ValueError(unknown("compile", compile, COMPILE))
        random.key(seed)
        self._metrics = metrics_by_name(metrics)
        check_last_layer(net, loss, self.metrics.values())
        where = backend, device, dtype
        self._run = Run(net, loss, optimizer, seed, where, required=compile == "require")

    def __repr__(self) -> str:
        loss = getattr(self.loss, "__name__", None) or text_of(self.loss)
        parts = f"{type(self._run.initial_net).__name__}, {loss}, {self.optimizer!r}"
        return f"<Trainer of {parts}: {self.epoch} epochs>"

    @property
    def loss(self) -> Loss:
        """The loss that training lowers. Setting it compiles the step anew, for the next epoch."""
        return self._run.loss

    @loss.setter
    def loss(self, loss: Loss) -> None:
        check_loss(loss)
        check_last_layer(self._run.initial_net, loss, self.metrics.values())
        self._run.set_loss(loss)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics by name. They may be set to such a dict, or to a list of functions."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Mapping[str, Metric] | Sequence[Metric]) -> None:
        by_name = dict(metrics) if isinstance(metrics, Mapping) else metrics_by_name(metrics)
        check_last_layer(self._run.initial_net, self.loss, by_name.values())
        self._metrics = by_name

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, which cannot be exchanged, since the run's state belongs to it."""
        return self._run.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer) -> None:  # noqa: ARG002 (no other is taken)
        raise AttributeError(
            "the optimizer cannot be exchanged: the state of the run belongs to it. Make a new "
            "Trainer(trainer.net, loss, optimizer, seed=1): with another seed, samples come in "
            "another order. For a learning rate that changes, use one of optim.schedules, which "
            "trainer.lr_factor multiplies"
        )

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return self._run.position.epoch

    @property
    def history(self) -> History:
        """The numbers of the epochs so far."""
        return self._run.history

    @property
    def seed(self) -> int:
        """The seed from which parameters, shuffles and random streams are drawn."""
        return self._run.seed

    @property
    def net(self) -> Module:
        """The network as trained so far: a copy, which further training leaves alone."""
        return self._run.net()

    @property
    def averaged_net(self) -> Module:
        """The network with the parameters that `optim.EMA` averaged so far: a copy.

        Raises RuntimeError where there is no average: without `EMA`, or before the first call.
        """
        averages = self.optimizer.averages(self._run.state.get("optimizer", {}))
        if not averages:
            raise RuntimeError(
                "there are no averaged parameters: wrap the optimizer, optim.EMA(optim.Adam()), "
                "and fit"
            )
        with self._run.at_place():
            return self.net.replace(tree_map(self._run.copied, averages))

    @property
    def lr_factor(self) -> float:
        """The factor that multiplies every learning rate that is a schedule: 1 until it is set.

        It is part of the state: `save` keeps it, and no step is compiled anew when it changes.
        Setting it raises RuntimeError before the first step, TypeError where no rate is a
        schedule, and ValueError for anything but a number of at least 0.
        """
        factors = self.optimizer.lr_factors(self._run.state.get("optimizer", {}))
        return float(to_numpy(factors[0])[0]) if factors else 1.0

    @lr_factor.setter
    def lr_factor(self, factor: float) -> None:
        factor, run = number("lr_factor", factor), self._run
        if run.place is None:
            raise RuntimeError("lr_factor multiplies the rates of a run: there is none before fit")
        if not self.optimizer.lr_factors(run.state["optimizer"]):
            raise TypeError(
                "lr_factor multiplies learning rates that are schedules, and there is none: a "
                "number is compiled into the step. Give lr=optim.schedules.Constant(1e-3)"
            )
        with run.at_place():
            changed = self.optimizer.with_lr_factor(run.state["optimizer"], factor)
            run.replace({**run.state, "optimizer": changed})

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Trainer cannot be copied or pickled: its state may be anywhere, and is its own. "
            "trainer.save(path) writes the run, and load(path) of another Trainer takes it up"
        )

    # The three verbs

    @told
    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        epochs: int = 1,
        batch_size: int | None = None,
        accumulate: int = 1,
        drop_last: bool = False,
        validation_data: Any = None,
        validation_split: float | None = None,
        stratify: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
    ) -> History:
        """Train for `epochs` passes over the samples, which are rows of `x` and `y`.

        A second call goes on where the first ended. Returns the `History` of all calls. Raises
        NotFiniteError at the first loss that is NaN or infinite; such a run cannot go on.

        *Data*: where a sample has several arrays, `x` is a dict of arrays, by the names of the
        arguments of the network's `forward`: `fit({"image": …, "age": …}, y)` calls
        `net(image=…, age=…)`. `y` may be a dict too, and the network may return one. The loss and
        the metrics then get dicts, each in the order of its names.

        Host arrays are checked, cast to the network's dtype and moved to its device; arrays on a
        device must be on this one already. An array that needs none of this is not copied: do not
        change it meanwhile. Instead of `x` and `y`, `x` alone may be a `data.Source`, a function
        `(seed, epoch) -> batches` or a list of batches `(x, y)`. The batches of these, and of an
        `np.memmap`, are made, checked and moved one by one, in a thread beside the step; in a
        browser, which has no threads, between the steps.

        `sample_weight` has a number w for each sample: the loss of a batch is Σwl/Σw, as is that of
        the epoch. Samples to ignore have the weight 0.

        *Steps*: a step takes `accumulate` times `batch_size` samples (by default 1 times 32). Of
        these, `batch_size` at a time go through the network, so only as many need memory. If the
        loss is a mean over samples, the numbers are those of `accumulate * batch_size` samples at
        once, dropout included; but a layer that looks across the batch, such as batch
        normalisation, sees `batch_size` samples. Another loss, such as `cross_entropy` with
        `weight` or `ignore_index`, gives other numbers, after a RuntimeWarning: give
        `sample_weight` in place of these.

        The last step of an epoch has the samples that are left. With `drop_last` it is left out
        where they are fewer than a step takes; they are other samples in every epoch. Use it for a
        layer that needs many samples, such as batch normalisation, or to avoid compiling a step for
        the smaller number.

        *Validation*: `validation_data` is `(x, y)`, `(x, y, sample_weight)`, a list of such
        batches or a source. `validation_split` holds out that share of the samples, drawn by the
        seed; with `stratify`, that share of each class. Loss and metrics are computed on the
        validation data as by `evaluate`, on as many whole batches at a time as have up to 256
        samples, and are named `val_…`; there are no metrics of training batches.

        *Callbacks*: after each epoch, every one of `callbacks` is called with this Trainer, whose
        `history` has the epoch's numbers. Where one returns True, this epoch is the last. Progress
        is shown where there is a terminal, unless `progress` says otherwise.

        *Stopping*: Ctrl-C takes effect between steps, unless the program has a handler of its own
        for it. The next call goes on from there: the first of its `epochs` finishes the interrupted
        one, with the same samples and batches. To stop at another signal, such as SIGTERM, let its
        handler set a flag, and let a callback return True where the flag is set. An exception from
        a handler may interrupt the middle of a step; then there is nothing to `save`, and only
        `load` helps.
        """
        epochs, accumulate = positive("epochs", epochs), positive("accumulate", accumulate)
        batch_size = None if batch_size is None else positive("batch_size", batch_size)
        calls, run = callbacks_in_order(callbacks), self._run
        (x, y, sample_weight), held = with_validation(
            (x, y, sample_weight), validation_data, validation_split,
            seed=self.seed, stratify=stratify,
        )  # fmt: skip
        with run.ready(x) as place:
            data = feed(place, x, y, sample_weight, seed=self.seed)
            size = data.step_size(batch_size, accumulate, drop_last=drop_last)
            held_out = held and feed(place, *held, seed=self.seed, prefix="validation ")
            validated = ("loss", *self.metrics) if held_out else ()
            check_each(calls, self, ["loss", *(f"val_{name}" for name in validated)])
            tried = try_out(
                run.forward(), self.loss, data, held_out, size, accumulate,
                measured=bool(self.metrics),
            )  # fmt: skip
            run.begin(size, accumulate, data.samples)
            steps = data.steps(size)
            total = None if steps is None else epochs * steps - run.position.batches
            with interrupt_between_steps() as interrupted, _bar(total, progress) as bar:
                for _ in range(epochs):
                    self._take_epoch(data, size, bar, interrupted)
                    numbers = self._end_epoch(held_out, tried)
                    bar.set_postfix({k: f"{v:.4g}" for k, v in numbers.items()})
                    ends = call_each(calls, self)
                    if interrupted.is_set():
                        raise KeyboardInterrupt
                    if ends:
                        break
        return self.history

    def _take_epoch(self, data: Feed, size: int, bar: Any, interrupted: threading.Event) -> None:
        """Take the remaining steps of this epoch."""
        run, place = self._run, self._run.place
        assert place is not None
        run.read()
        where = {"epoch": run.position.epoch, "start": run.position.batches}
        with closing(data.calls(size, **where, together=place.backend.steps_per_call)) as calls:
            for call in calls:
                if interrupted.is_set():
                    run.read()
                    raise KeyboardInterrupt
                run.take(call, size, data.samples)
                bar.update(len(call.weights))

    def _end_epoch(self, held_out: Feed | None, tried: int) -> dict[str, float]:
        """Keep the numbers of this epoch, among them those on the validation data."""
        run = self._run
        numbers = {"loss": run.epoch_loss()}
        if held_out:
            at_once = whole_batches(tried)
            measured = scores(run.forward(), held_out, self.loss, self.metrics, at_once)
            numbers |= {f"val_{name}": value for name, value in measured.items()}
        run.end_epoch(numbers)
        return numbers

    @told
    def evaluate(
        self, x: Any, y: Any = None, *, sample_weight: Any = None, batch_size: int = AT_ONCE
    ) -> dict[str, float]:
        """The loss and the metrics by name, on data as `fit` takes them; nothing is trained.

        `batch_size` samples at a time go through the network and the loss; samples that are left
        over join the last batch. The loss is the mean over the batches, each weighted by the number
        of its samples, by their `sample_weight`, or by what `weight` and `ignore_index` of cross
        entropy let count. So a loss that is a mean over samples gives the mean over all samples; a
        loss of pairs sees only the pairs within a batch. Metrics get the targets and outputs of all
        samples at once; without metrics, no outputs are kept. A layer's `RandomStream` draws the
        same numbers every time.
        """
        batch_size = positive("batch_size", batch_size)
        with self._run.ready(x) as place:
            data = feed(place, x, y, sample_weight, seed=self.seed)
            return scores(self._run.forward(), data, self.loss, self.metrics, batch_size)

    @told
    def predict(self, x: Any, *, batch_size: int = AT_ONCE) -> Any:
        """The network's outputs for the rows of `x`, on the host for host data, else on the device.

        Outputs on the host are NumPy arrays, and those on the device are of the kind of `x`. `x`
        may also be a source, whose samples are taken in order, without augmentation, or batches as
        `fit` takes them: a list, a DataLoader or a function, which is called for epoch 0. Of a
        batch `(x, y)` only x is read. A batch of a DataLoader or a function may also be `(x,)` or
        x alone; a list of these is one array, as other nested lists are. Where the network returns
        a dict, so does `predict`. A layer's `RandomStream` draws the same numbers every time. JAX
        compiles the network for each shape, and only then do layers run as Python.
        """
        batch_size = positive("batch_size", batch_size)
        with self._run.ready(x) as place:
            data = inputs(place, x, seed=self.seed)
            outputs = outputs_of(self._run.forward(), data, batch_size)
            here = any(is_device_array(a) for _, a in arrays_of(x))
            return outputs if here else tree_map(on_host, outputs)

    # Weights kept aside

    @property
    def kept(self) -> dict[str, int]:
        """The names of the weights that were kept, each with the number of epochs before that."""
        return {name: epoch for name, (epoch, _) in self._run.kept.items()}

    def keep_weights(self, name: str) -> None:
        """Keep a copy of the present weights under a name, as a part of the run.

        `save` writes it and `load` brings it back; `restore_weights` makes it the network's.
        Raises RuntimeError before the first `fit`, `evaluate` or `predict`.
        """
        self._run.keep_weights(name)

    def restore_weights(self, name: str) -> None:
        """Give the network the weights kept under a name; the optimizer's state stays as it is.

        Raises KeyError for a name under which nothing was kept.
        """
        self._run.restore_weights(name)

    # Stopping, and going on

    def save(self, path: str | os.PathLike[str], *, keep_previous: bool = False) -> None:
        """Write all that the run needs to go on; `load` takes the run up again, on any backend.

        The file is safetensors. It holds every array of the state by its name (`params.…`,
        `buffers.…`, `optimizer.…`, `keys.…`, `step`), the weights kept, the history, the position
        in the data, the seed, the dtype, the optimizer's settings and a checksum.
        `checkpoint.load(path, net)` reads the network alone, and
        `safetensors.torch.load_file(path)` shows everything. The new file replaces the one at
        `path` in one move. With `keep_previous`, the run that was there is first kept as `path` +
        ".previous", if its file is whole.

        Raises RuntimeError before the first `fit`, `evaluate` or `predict`, and after an exception
        in the middle of a step. Raises NotFiniteError after a loss that is not finite, so that
        spoilt parameters never replace a good file.
        """
        run = self._run
        if run.place is None:
            raise RuntimeError(
                "the Trainer has nothing to save yet: its parameters are drawn at the first fit, "
                "evaluate or predict"
            )
        with run.at_place():
            run.read()
            whole = run.state, run.kept, run.history, run.position
            save_run(path, *whole, run.identity(), keep_previous)

    def load(self, path: str | os.PathLike[str], *, or_previous: bool = False) -> None:
        """Take over the run that `save` wrote to `path`; `fit` then goes on where it stopped.

        This Trainer must have the same network, loss, optimizer, seed and dtype as the one that
        saved. The parameters go to this Trainer's backend and device: those it is on, else those it
        was given, else those chosen, else NumPy. With the same data, the numbers are those of a run
        that never stopped. The loss, the layers' settings and the data are not compared.

        With `or_previous`, where the file is missing, torn or tampered with, `load` takes the run
        before it, which `save(path, keep_previous=True)` kept, and a RuntimeWarning says so.

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
        run = self._run
        with run.ready(None, whole=False) as place:
            run.take_over(load_run(path, run.state, place, run.identity(), or_previous))


def _bar(total: int | None, progress: bool | None) -> Any:
    """The progress bar, shown where there is a terminal, unless `progress` says otherwise."""
    hidden = None if progress is None else not progress
    if sys.stderr is None:  # as where Windows gives a program no console
        hidden = True
    return tqdm(total=total, disable=hidden, unit="step")
