"""Training: the `Trainer`, which repeats the step."""

from __future__ import annotations

import math
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NoReturn

from tqdm import tqdm

from polynet import checkpoint, random
from polynet.arguments import (
    Callback,
    Metric,
    by_name,
    call_each,
    check_kinds,
    check_loss,
    in_turn,
    place_for,
    validation,
)
from polynet.backend import Array, Backend, overwritten, to_numpy
from polynet.backend.transfer import on_host
from polynet.data import Feed, Place, feed, hold_out, inputs, is_device_array
from polynet.data.named import arrays_of
from polynet.errors import unknown
from polynet.history import History, Position
from polynet.integers import positive
from polynet.interrupt import interrupt_between_steps
from polynet.nn import Module
from polynet.optim import Optimizer
from polynet.optim.checks import number, said
from polynet.scores import AT_ONCE, Loss, outputs_of, scores, whole_batches
from polynet.step import (
    Kept,
    State,
    check_losses,
    compiled,
    initial_state,
    make_step,
    weights_of,
)
from polynet.targets import check_last_layer
from polynet.tree import map as tree_map
from polynet.trial import try_out
from polynet.unread import Unread

__all__ = ["Trainer"]

COMPILE = ("auto", "require")


class Trainer:
    """Trains a network: `fit`, `evaluate`, `predict`; `save` and `load` stop a run and go on.

    `net` may be described or have its parameters; it stays as it is, and `trainer.net` is the
    trained one. `loss(outputs, targets)` is one of `polynet.losses` or your own; `optimizer` one
    of `polynet.optim`; `metrics` are functions `(targets, outputs) -> number` of NumPy arrays.

    A described network is drawn at the first call, from `seed`, on the backend given, else on
    the one chosen, else on that of the data, else on NumPy; `dtype` is "float32" by default, or
    "float64".

    It works in one thread at a time: in a second one it raises RuntimeError meanwhile.

    Where the backend can, steps run as one program. A step that cannot, for what its layers or
    loss do, runs one operation at a time, after a warning that says what; with
    `compile="require"`, `fit` raises NotCompiledError instead, as on a backend that never can.

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
        self._loss = loss
        self._optimizer = optimizer
        self.metrics = by_name(metrics)
        check_last_layer(net, loss, self.metrics.values())
        self.seed = seed
        self.history = History()
        self._described = net
        self._wanted = (backend, device, dtype)
        self._place: Place | None = None
        self._state: State = {}
        self._position = Position()
        self._kept: Kept = {}
        self._unread = Unread()
        self._copy: Module | None = None
        self._run: Callable[..., Any] | None = None
        self._required = compile == "require"
        self._cut = ""  # what ended a step that had begun to write over the state
        self._part: int | None = None  # the most samples at a time that `_run` was compiled for
        self._busy = threading.RLock()

    def __repr__(self) -> str:
        loss = getattr(self.loss, "__name__", None) or said(self.loss)
        parts = f"{type(self._described).__name__}, {loss}, {self.optimizer!r}"
        return f"<Trainer of {parts}: {self.epoch} epochs>"

    @property
    def loss(self) -> Loss:
        """What is trained on. Setting it compiles the step anew, for the next epoch."""
        return self._loss

    @loss.setter
    def loss(self, loss: Loss) -> None:
        check_loss(loss)
        with self._at_work():
            self._loss, self._run = loss, None

    @property
    def optimizer(self) -> Optimizer:
        """What takes the steps: the one given, to which the run's state belongs."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer) -> None:  # noqa: ARG002 (no other is taken)
        raise AttributeError(
            "the optimizer cannot be exchanged: the state of the run belongs to it. Make a new "
            "Trainer(trainer.net, loss, optimizer, seed=1): with another seed, samples come in "
            "another order. A learning rate that changes is one of optim.schedules, which "
            "trainer.lr_factor multiplies"
        )

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
            with self._at_place():
                arrays = {**self._state["params"], **self._state["buffers"]}
                self._copy = self._described.bind(tree_map(self._copied, arrays))
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
        with self._at_place():
            return self.net.replace(tree_map(self._copied, averages))

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
        with self._at_place():
            changed = self.optimizer.with_lr_factor(self._state["optimizer"], factor)
            self._replace({**self._state, "optimizer": changed})

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Trainer cannot be copied or pickled: its state may be anywhere, and is its own. "
            "trainer.save(path) writes the run, and load(path) of another Trainer takes it up"
        )

    # The three verbs

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

        Of several arrays a sample, `x` is a dict of them, each by the name of an argument of the
        network's `forward`: `fit({"image": …, "age": …}, y)` calls `net(image=…, age=…)`. `y` may
        be a dict, too, and the network may return one: the loss and the metrics are given them,
        each in the order of its names.

        Host arrays are checked, cast to the network's dtype and moved to its device; arrays
        on a device must be there already. One that is as it should be is not copied: leave it
        unchanged meanwhile. Instead of both, `x` may be a `data.Source`, a function
        `(seed, epoch) -> batches` or a list of batches `(x, y)`: these, and a `np.memmap`, are
        made, checked and moved batch by batch, in a thread beside the step.

        A step takes `accumulate` times `batch_size` samples (32), of which `batch_size` at a
        time go through the network: so many need memory, and the numbers are those of
        `accumulate * batch_size` at once, dropout included (a layer that looks across the
        batch, such as batch normalisation, sees a part), if the loss is a mean over samples.
        One that is not, such as `cross_entropy` with `weight` or `ignore_index`, gives others,
        after a RuntimeWarning: give such weights, and zeros for what is ignored, as
        `sample_weight`, which has a number for each sample: a batch's loss is Σwl/Σw, and so is
        the epoch's.

        The last step of an epoch has the samples that are left; with `drop_last` it is left out
        where they are fewer, which are others each epoch: a layer may need many, such as batch
        normalisation, and no step is compiled for their number.

        `validation_data` is `(x, y)`, `(x, y, sample_weight)`, a list of such batches or a source;
        `validation_split` holds out that share of the samples, drawn by the seed, with `stratify`
        in each class. Loss and metrics are computed on these as by `evaluate`, of as many batches
        at a time as have up to 256 samples, and called `val_…`; there are no metrics of training
        batches.
        After each epoch every one of `callbacks` is called with this Trainer, whose `history`
        has the epoch's numbers; where one returns True, this was the last epoch.

        NumPy and CUDA record a step and replay it, JAX compiles it: layers and the loss run as
        Python in the first steps of a batch's shape only. What they print or count, they do then;
        a branch taken, a random number of Python's or NumPy's and a number that the loss reads from
        elsewhere stay as they were then. Random numbers of a step come from `nn.RandomStream`, and
        `trainer.loss = loss` compiles anew.

        A second call of `fit` goes on where the first ended. Progress is shown where there is a
        terminal; `progress` says otherwise.

        Returns the `History` of all calls. Ctrl-C, where the program has no handler of its own for
        it, takes effect between steps, and the next call goes on from there: it finishes the epoch
        that was cut, with the same samples and batches, as the first of its `epochs`. To stop at
        another signal, such as SIGTERM, let its handler set a flag and a callback return True where
        that is set: an exception that a handler raises may cut a step in two, after which there is
        nothing to `save`, and only `load` helps. Raises NotFiniteError at the first loss that is
        NaN or infinite; such a run cannot go on.
        """
        epochs, accumulate = positive("epochs", epochs), positive("accumulate", accumulate)
        batch_size = None if batch_size is None else positive("batch_size", batch_size)
        calls = in_turn(callbacks)
        if validation_split is not None:
            if validation_data is not None:
                raise ValueError("give validation_data or validation_split, not both")
            (x, y, sample_weight), validation_data = hold_out(
                x, y, sample_weight, validation_split, seed=self.seed, stratify=stratify
            )
        elif stratify:
            raise ValueError("stratify is for validation_split: give the share to hold out")
        with self._ready(x) as place:
            data = feed(place, x, y, sample_weight, seed=self.seed)
            size = data.step_size(batch_size, accumulate, drop_last=drop_last)
            held_out = None
            if validation_data is not None:
                given = validation(validation_data)
                held_out = feed(place, *given, seed=self.seed, prefix="validation ")
            measured = bool(self.metrics)
            tried = try_out(
                self._bound(), self.loss, data, held_out, size, accumulate, measured=measured
            )
            self._position.check(size, data.samples)
            self._take_parts(size // accumulate if accumulate > 1 else None)
            getattr(self._compiled(), "refresh", lambda: None)()
            steps = data.steps(size)
            total = None if steps is None else epochs * steps - self._position.batches
            hidden = None if progress is None else not progress
            if sys.stderr is None:  # as where Windows gives a program no console
                hidden = True
            with (
                interrupt_between_steps() as interrupted,
                tqdm(total=total, disable=hidden, unit="step") as bar,
            ):
                for _ in range(epochs):
                    numbers = {"loss": self._run_epoch(data, size, bar, interrupted)}
                    if held_out:
                        at_once = whole_batches(tried)
                        found = scores(self._bound(), held_out, self.loss, self.metrics, at_once)
                        numbers |= {f"val_{name}": value for name, value in found.items()}
                    self.history.record(numbers, self.epoch)
                    self._position = Position(self.epoch + 1)
                    bar.set_postfix({k: f"{v:.4g}" for k, v in numbers.items()})
                    ends = call_each(calls, self)
                    if interrupted.is_set():
                        raise KeyboardInterrupt
                    if ends:
                        break
        return self.history

    def evaluate(
        self, x: Any, y: Any = None, *, sample_weight: Any = None, batch_size: int = AT_ONCE
    ) -> dict[str, float]:
        """The loss and the metrics on the data, as `fit` takes it, by name; nothing is trained.

        `batch_size` samples at a time go through the network and the loss; those that are left are
        joined to the last of them. The mean counts each batch by its samples, or their
        `sample_weight`, or by what `weight` and `ignore_index` of cross entropy let count: of a
        mean it is that of all samples, and a loss of pairs sees those of a batch. Metrics are given
        targets and outputs of all samples at once; without any, no outputs are kept.
        """
        batch_size = positive("batch_size", batch_size)
        with self._ready(x) as place:
            data = feed(place, x, y, sample_weight, seed=self.seed)
            return scores(self._bound(), data, self.loss, self.metrics, batch_size)

    def predict(self, x: Any, *, batch_size: int = AT_ONCE) -> Any:
        """The network's outputs for the rows of `x`: NumPy for host data, else of its kind.

        `x` may be a source too, whose samples come in their order, not augmented. Where the
        network returns a dict, so does this.
        """
        batch_size = positive("batch_size", batch_size)
        with self._ready(x) as place:
            data = inputs(place, x, seed=self.seed)
            outputs = outputs_of(self._bound(), data, batch_size)
            here = any(is_device_array(a) for _, a in arrays_of(x))
            return outputs if here else tree_map(on_host, outputs)

    # Weights kept aside

    @property
    def kept(self) -> dict[str, int]:
        """The names of the weights that were kept, each with how many epochs made them."""
        return {name: epoch for name, (epoch, _) in self._kept.items()}

    def keep_weights(self, name: str) -> None:
        """Keep a copy of the weights as they are now, under a name; it belongs to the run.

        `save` writes it and `load` brings it back; `restore_weights` makes it the network's.
        Raises RuntimeError before the first `fit`, `evaluate` or `predict`.
        """
        if self._place is None:
            raise RuntimeError("the Trainer has no weights yet: they are drawn at the first fit")
        with self._at_place():
            self._kept[name] = self.epoch, tree_map(self._copied, weights_of(self._state))

    def restore_weights(self, name: str) -> None:
        """Take the weights that were kept under a name; the optimizer's state stays as it is.

        Raises KeyError for a name under which nothing was kept.
        """
        if name not in self._kept:
            raise KeyError(unknown("name of kept weights", name, self._kept))
        with self._at_place():
            self._replace({**self._state, **tree_map(self._copied, self._kept[name][1])})
            self._copy = None

    def _replace(self, state: State) -> None:
        """Go on with a state that was changed; a recording has it where it had the last."""
        with self._in_one():
            self._state = getattr(self._run, "replace", lambda _, new: new)(self._state, state)

    def _copied(self, array: Array) -> Array:
        assert self._place is not None
        return self._place.backend.xp.asarray(array, copy=True)

    # Stopping, and going on

    def save(self, path: str | os.PathLike[str], *, keep_previous: bool = False) -> None:
        """Write all that the run needs to go on: `load` takes it up, on any backend.

        The file is safetensors. It holds every array of the state by its name (`params.…`,
        `buffers.…`, `optimizer.…`, `keys.…`, `step`), the weights kept, the history, the position
        in the data, the seed, the dtype, the optimizer's settings and a checksum.
        `checkpoint.load(path, net)` reads the network alone, and
        `safetensors.torch.load_file(path)` shows everything. It replaces what is at `path` in one
        move; with `keep_previous`, the run that was there goes to `path` + ".previous" first, if
        its file is whole.

        Raises RuntimeError before the first `fit`, `evaluate` or `predict`, and where an exception
        cut a step in two, NotFiniteError where training met a loss that is not finite: so spoilt
        parameters replace nothing.
        """
        if self._place is None:
            raise RuntimeError(
                "the Trainer has nothing to save yet: its parameters are drawn at the first fit, "
                "evaluate or predict"
            )
        with self._at_place():
            self._unread.read(self.history, self.epoch)
            checkpoint.save_run(
                path,
                self._state,
                self._kept,
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
        with self._ready(None, whole=False) as place:
            found = checkpoint.load_run(path, self._state, place, self._identity(), or_previous)
            with self._in_one():
                self._state, self._kept, self.history, self._position = found
                self._unread.clear()
                self._copy = None

    def _identity(self) -> dict[str, Any]:
        """What must be equal for one Trainer to go on with the run of another."""
        assert self._place is not None
        kind = type(self.optimizer).__name__
        return {
            "seed": int(self.seed),
            "dtype": self._place.dtype,
            "optimizer": kind,
            **{f"{kind}'s {name}": said(value) for name, value in vars(self.optimizer).items()},
        }

    # How

    @contextmanager
    def _ready(self, x: Any, *, whole: bool = True) -> Iterator[Place]:
        """The place of the network, whose parameters are drawn if they are not yet.

        A first call that fails before it has trained settles nothing.
        """
        with self._at_work():
            first, described = self._place is None, self._described
            try:
                if first:
                    self._settle(x)
                with self._at_place(whole=whole) as place:
                    yield place
            except Exception:
                if first and not self.history.step_losses:
                    self._place, self._described, self._run = None, described, None
                    self._state, self._cut = {}, ""
                    self._position = Position()
                    self._unread.clear()
                    self.history.step_weights.clear()
                raise

    @contextmanager
    def _at_place(self, *, whole: bool = True) -> Iterator[Place]:
        """The place that the network has by now, for new arrays, and for this thread alone.

        And the `whole` state, unless that is to be replaced.
        """
        assert self._place is not None
        with self._at_work(), self._place.active():
            if whole and self._cut:
                raise RuntimeError(
                    f"a step was cut in two by {self._cut}, which left a state that is neither the "
                    "one before it nor the one after; load the run that was saved last, by "
                    "trainer.load(path), or begin anew with another Trainer"
                )
            yield self._place

    @contextmanager
    def _in_one(self) -> Iterator[None]:
        """Within it the run takes a step: what ends that early ends the run, if it left a mark."""
        state, writes = self._state, overwritten()
        self._cut = "an exception"
        try:
            yield
        except BaseException as error:
            as_it_was = self._state is state and overwritten() == writes
            self._cut = "" if as_it_was else type(error).__name__
            raise
        self._cut = ""

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Within it no other thread may use this Trainer; the same one may, as callbacks do."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "this Trainer is at work in another thread; wait until that has done, or make one "
                "for each thread"
            )
        try:
            yield
        finally:
            self._busy.release()

    def _settle(self, x: Any) -> None:
        place = place_for(self._described, x, *self._wanted)
        backend = place.backend
        name = next(n for n, d in backend.devices().items() if d == place.device)
        net = self._described.init(self.seed, backend=backend, device=name, dtype=place.dtype)
        with place.active():
            self._state = initial_state(net, self.optimizer, self.seed)
        self._described, self._place = net, place

    def _bound(self) -> Module:
        """The network as it is now, to look at."""
        return self._described.bind({**self._state["params"], **self._state["buffers"]})

    def _take_parts(self, part: int | None) -> None:
        """From here on at most `part` samples at a time go through the network in a step."""
        if part != self._part:
            self._run, self._part = None, part

    def _compiled(self) -> Callable[..., Any]:
        """The step, compiled where it is another than it was."""
        if self._run is None:
            assert self._place is not None
            backend = self._place.backend
            step = make_step(self._described, self.loss, self.optimizer, backend.xp, self._part)
            step.required = self._required  # type: ignore[attr-defined]
            self._run = compiled(backend, step)
        return self._run

    def _run_epoch(self, data: Feed, size: int, bar: Any, interrupted: threading.Event) -> float:
        """What is left of this epoch's steps; the mean loss of all of them."""
        assert self._place is not None
        done, run = self._position.batches, self._compiled()
        self._unread.read(self.history, self.epoch)
        calls = data.calls(
            size,
            epoch=self.epoch,
            start=done,
            together=self._place.backend.steps_per_call,
        )
        with closing(calls):
            for call in calls:
                if interrupted.is_set():
                    self._unread.read(self.history, self.epoch)
                    raise KeyboardInterrupt
                self._copy = None
                with self._in_one():
                    self._state, launched = run(self._state, call.data, call.rows)
                    check_losses(launched, len(call.weights), self._place.backend)
                    done += len(call.weights)
                    self._position = Position(self.epoch, done, size, data.samples)
                    fetch = self._place.backend.to_host_later(launched)
                    self._unread.add(len(self.history.step_weights), fetch)
                    self.history.step_weights += call.weights
                self._unread.read(self.history, self.epoch, keep=1)
                bar.update(len(call.weights))
        self._unread.read(self.history, self.epoch)
        if not done:
            raise ValueError(f"the data gave no batch in epoch {self.epoch}; expected at least one")
        values, weights = self.history.step_losses[-done:], self.history.step_weights[-done:]
        return math.fsum(map(operator.mul, values, weights)) / (math.fsum(weights) or 1.0)
