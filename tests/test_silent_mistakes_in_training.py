"""What once went wrong in training without a word: each found by a review, now right or refused."""

import signal
from contextlib import suppress
from functools import partial

import numpy as np
import pytest

import polynet
from polynet import Trainer, array_namespace, data, losses, nn, optim
from polynet.errors import MixedBackendsError, NotFiniteError
from polynet.ops import OPS

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(40, 2)).astype("float32")


LABELS = (np.arange(40) >= 38).astype(int)  # of the second class there are two, at the end
WEIGHTED = partial(losses.cross_entropy, weight=[1.0, 5.0])


def masked(outputs, targets):
    xp = array_namespace(outputs)
    there = xp.astype(targets > 0, outputs.dtype)
    return xp.sum(there * xp.square(outputs - targets)) / xp.sum(there)


def unbiased(outputs, targets):
    xp = array_namespace(outputs)
    return xp.sum(xp.square(outputs - targets)) / (outputs.shape[0] - 1)  # NaN of one sample


def of_pairs(outputs, targets):
    xp = array_namespace(outputs)
    first, second = xp.unstack(xp.reshape(outputs - targets, (-1, 2, 2)), axis=1)
    return xp.mean(xp.square(first - second))


NO_MEANS = {
    "weights of classes": (WEIGHTED, LABELS),
    "ignored labels": (partial(losses.cross_entropy, ignore_index=1), LABELS),
    "a sum": (lambda outputs, targets: OPS["sum"]((outputs - targets) ** 2), Y),
    "a masked mean": (masked, Y),
    "NaN of one sample": (unbiased, Y),
    "an error of one sample": (of_pairs, Y),
}


@pytest.mark.parametrize(
    ("loss", "size"),
    [("weights of classes", 1), *((loss, size) for loss in NO_MEANS for size in (2, 10))],
)
def test_parts_whose_losses_do_not_add_up_are_told(loss, size):
    function, y = NO_MEANS[loss]
    given = (data.arrays(X, y),) if size == 10 else (X, y)  # of a source, one step is looked at
    trainer = Trainer(nn.Linear(3, 2), function, optim.SGD(1e-3))
    with (
        pytest.warns(RuntimeWarning, match=r"accumulate=4: .*not the mean.*sample_weight") as found,
        np.errstate(all="ignore"),
        suppress(NotFiniteError),
    ):
        trainer.fit(*given, batch_size=size, accumulate=4, epochs=2)
    assert [w.filename for w in found] == [__file__]


def test_a_step_of_one_part_is_whole_whatever_its_loss():
    trainer = Trainer(nn.Linear(3, 2), WEIGHTED, optim.SGD(1e-3))
    trainer.fit(X, LABELS, batch_size=40, accumulate=2)


def test_weights_of_classes_as_those_of_samples_add_up():
    whole, parts = (
        Trainer(nn.Linear(3, 2), loss, optim.Adam(0.1)) for loss in (WEIGHTED, losses.cross_entropy)
    )
    whole.fit(X, LABELS, batch_size=40, epochs=4)
    weights = np.asarray([1.0, 5.0])[LABELS]
    parts.fit(X, LABELS, sample_weight=weights, batch_size=10, accumulate=4, epochs=4)
    np.testing.assert_allclose(whole.history.step_losses, parts.history.step_losses, rtol=1e-5)


def test_numpy_numbers_as_settings_change_no_dtype():
    lr = np.logspace(-2, -1, 2)[0]
    for optimizer in (
        optim.SGD(lr=lr),
        optim.Adam(lr=lr, betas=[np.float64(0.9), np.float64(0.99)]),
    ):
        trainer = Trainer(nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(lr)), losses.mse, optimizer)
        trainer.fit(X, Y, epochs=2)
        assert {p.dtype for p in trainer.net.parameters().values()} == {np.dtype("float32")}


class TimesRoot(nn.Module):
    """A network that NumPy's number makes float64: in training, or also where it predicts."""

    def __init__(self, always):
        self.layer, self.always = nn.Linear(3, 2), always

    def forward(self, x):
        y = self.layer(x)
        return y * np.sqrt(2.0) if self.always or self.training else y


def root_of_mse(outputs, targets):
    return losses.mse(outputs, targets) * np.sqrt(2.0)


def in_float64(outputs, targets):
    xp = array_namespace(outputs)
    wide = xp.mean(xp.square(xp.astype(outputs, xp.float64) - xp.astype(targets, xp.float64)))
    return xp.astype(wide, xp.float32)


@pytest.mark.parametrize(
    ("net", "loss", "y"),
    [
        (nn.Linear(3, 2), root_of_mse, Y),
        (TimesRoot(always=True), losses.mse, Y),
        (TimesRoot(always=True), losses.cross_entropy, LABELS),
        (TimesRoot(always=False), losses.cross_entropy, LABELS),
    ],
)
def test_a_number_of_numpy_makes_no_step_float64(net, loss, y):
    job = Trainer(net, loss, optim.SGD(), backend="numpy")
    with pytest.raises(
        TypeError,
        match=r"float64.* expected float32.*write float\(np.sqrt\(2\)\)|"
        r"expected float64, as the outputs.*write float\(np.sqrt\(2\)\)",
    ):
        job.fit(X, y)
    assert job.history.step_losses == []
    Trainer(net, loss, optim.SGD(), backend="numpy", dtype="float64").fit(X, y)


def test_a_loss_may_be_computed_in_float64_and_cast_back():
    Trainer(nn.Linear(3, 2), in_float64, optim.SGD(), backend="numpy").fit(X, Y)


def test_labels_beyond_the_index_type_are_refused():
    pytest.importorskip("jax", reason="JAX is not installed")
    import jax

    if jax.config.jax_enable_x64:
        pytest.skip("with 64 bits they fit")
    trainer = Trainer(nn.Linear(3, 2), losses.cross_entropy, optim.SGD(), backend="jax")
    with pytest.raises(ValueError, match="do not fit into int32"):
        trainer.fit(X, np.full(40, 2**32 + 1))


def test_ctrl_c_during_validation_is_not_lost():
    def interrupting(targets, outputs):
        signal.raise_signal(signal.SIGINT)
        return 0.0

    trainer = Trainer(nn.Linear(3, 2), losses.mse, optim.SGD(), metrics=[interrupting])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, Y, validation_data=(X, Y))
    assert len(trainer.history["val_loss"]) == 1


def test_metrics_of_one_name_are_refused():
    for bad in ([lambda t, o: 0.0, lambda t, o: 1.0], [losses_named_loss]):
        with pytest.raises(ValueError, match="must differ"):
            Trainer(nn.Linear(3, 2), losses.mse, optim.SGD(), metrics=bad)


def losses_named_loss(targets, outputs):
    return 0.0


losses_named_loss.__name__ = "loss"


def test_a_drawn_network_is_not_asked_to_be_elsewhere():
    net = nn.Linear(3, 2).init(0)
    with pytest.raises(TypeError, match=r"network is float32.*dtype 'float64'"):
        Trainer(net, losses.mse, optim.SGD(), dtype="float64").fit(X, Y)
    with pytest.raises(ValueError, match="no device 'cuda:7'"):
        Trainer(net, losses.mse, optim.SGD(), device="cuda:7").fit(X, Y)


def test_a_first_call_that_fails_settles_nothing():
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    trainer = Trainer(nn.Linear(3, 2), losses.mse, optim.SGD())
    there = polynet.asarray(X, backend="strict")
    with pytest.raises(ValueError, match="39"):
        trainer.fit(there, polynet.asarray(Y[:-1], backend="strict"))
    trainer.fit(X, Y)
    assert isinstance(trainer.net.weight, np.ndarray)


def test_a_first_call_that_fails_leaves_no_weights():
    job = Trainer(nn.Linear(3, 1), losses.mse, optim.EMA(optim.SGD(), 0.9))
    with pytest.raises(ValueError, match="x has 4 samples, y 3"):
        job.fit(np.ones((4, 3)), np.ones((3, 1)))
    with pytest.raises(RuntimeError, match="there are no averaged parameters"):
        _ = job.averaged_net


@pytest.mark.parametrize("count", [5, 50])
def test_weights_of_other_samples_are_refused_where_some_are_held_out(count):
    job = Trainer(nn.Linear(3, 1), losses.mse, optim.SGD())
    x, y = np.ones((12, 3)), np.ones((12, 1))
    with pytest.raises(ValueError, match=f"x has 12 samples, sample_weight {count}"):
        job.fit(x, y, sample_weight=np.ones(count), validation_split=0.25)


def test_an_epoch_that_weighs_nothing_has_a_loss_of_0():
    """As the mean of nothing has, by the losses' own words."""
    x, y = np.ones((4, 3)), np.ones((4, 1))
    job = Trainer(nn.Linear(3, 1), losses.mse, optim.SGD())
    job.fit(lambda seed, epoch: [(x, y, np.zeros(4) + (epoch == 1))], epochs=2)
    assert job.history["loss"][0] == 0.0 < job.history["loss"][1]


def test_iterators_are_gone_through_once():
    job = Trainer(nn.Linear(3, 1), losses.mse, optim.SGD(), metrics=(m for m in [shifted]))
    assert list(job.metrics) == ["shifted"]
    flip = data.augment.RandomHorizontalFlip()
    assert data.augment.Compose(a for a in [flip]).augmentations == (flip,)
    lr = optim.schedules.Constant(0.5)
    rates = optim.schedules.SequentialLR((s for s in [lr, lr]), [3])
    assert rates.schedulers == (lr, lr)


def shifted(targets, outputs):
    return float((outputs - targets).mean())


def test_dropout_divides_by_what_its_mask_keeps():
    with pytest.raises(ValueError, match="at most"):
        nn.Dropout(1 - 1e-6)
    job = nn.Sequential(nn.Dropout(0.99999 - 2**-16)).init()
    keys = {n: polynet.random.key(0, n) for n in job.streams()}
    step = np.zeros(1, dtype=np.int32)
    with np.errstate(over="ignore"):
        y = job.bind({}, nn.Context(np, step, keys))(np.ones((1000, 2000)))
    assert y.mean() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("given", ["x", "y", "sample_weight"])
@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"backend": "numpy"}, r"{} is on 'strict' .*, the network on 'numpy'"),
        ({"backend": "strict", "device": "cpu"}, r"{} is on 'strict' .*, the network on 'strict'"),
        ({"backend": "strict", "dtype": "float64"}, r"{} is .*float32, the network float64"),
    ],
    ids=["backend", "device", "dtype"],
)
def test_device_arrays_are_neither_moved_nor_converted(there, words, given):
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    host = {"x": X, "y": Y, "sample_weight": np.ones(40, "float32")}
    job = Trainer(nn.Linear(3, 2), losses.mse, optim.SGD(0.1), **there)
    with pytest.raises((MixedBackendsError, TypeError), match=words.format(given)):
        job.fit(**{**host, given: polynet.asarray(host[given], backend="strict")})
    job.fit(**host)
    with pytest.raises((MixedBackendsError, TypeError), match=words.format(given)):
        job.fit(**{**host, given: polynet.asarray(host[given], backend="strict")})
