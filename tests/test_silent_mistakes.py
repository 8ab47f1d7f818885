"""What once went wrong without a word: each found by a review, each now right or refused."""

import contextvars
import threading
from collections import OrderedDict

import numpy as np
import pytest

import polynet
from polynet import Trainer, array_namespace, functional, grad, losses, metrics, nn, optim
from polynet.errors import MixedBackendsError, RecordError

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(40, 2)).astype("float32")


def total(x):
    return array_namespace(x).sum(x)


# Networks


def test_two_draws_of_one_description_are_two_networks():
    class Ensemble(nn.Module):
        def __init__(self, nets):
            self.nets = nets

        def forward(self, x):
            return sum(net(x) for net in self.nets) / len(self.nets)

    base = nn.Linear(3, 2)
    ensemble = Ensemble([base.init(seed) for seed in range(3)])
    trainer = Trainer(ensemble, losses.mse, optim.SGD(lr=0.0))
    before = trainer.predict(X)
    trainer.fit(X, Y)
    assert len(trainer.net.parameters()) == 6
    assert np.array_equal(trainer.predict(X), before)


def test_equal_arrays_for_two_parameters_stay_two():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).init(0)
    zero = np.zeros((3, 3), dtype="float32")
    assert len(net.replace({"0.weight": zero, "1.weight": zero}).parameters()) == 4


def test_layers_in_a_container_of_another_kind_are_refused():
    class Held(nn.Module):
        def __init__(self):
            self.held = OrderedDict(a=nn.Linear(3, 2))

        def forward(self, x):
            return self.held["a"](x)

    with pytest.raises(TypeError, match=r"'held' holds layers in a OrderedDict.*plain"):
        Held().init(0)


def test_two_names_that_are_one_are_refused():
    class Colliding(nn.Module):
        def __init__(self):
            self.by = {1: nn.Linear(3, 2), "1": nn.Linear(3, 2)}

    with pytest.raises(ValueError, match=r"name 'by\.1\.weight'"):
        Colliding().init(0)


def test_parameters_in_a_list_are_refused():
    class Listed(nn.Module):
        def __init__(self):
            self.factors = [nn.Parameter((3,), nn.init.ones)]

    with pytest.raises(TypeError, match="'factors' holds Parameters in a list"):
        Listed()


def test_names_that_module_has_are_refused():
    class Named(nn.Module):
        def __init__(self):
            self.settings = {}

    with pytest.raises(AttributeError, match="'settings'; rename"):
        Named()


def test_a_parameter_of_whole_numbers_is_refused():
    with pytest.raises(ValueError, match="'int32'"):
        nn.Linear(3, 2).init(dtype="int32")
    with pytest.raises(TypeError, match=r"'bias' is float32.*float64"):
        nn.Linear(3, 2).init(0).replace({"bias": np.zeros(2)})


def test_an_initialiser_of_another_shape_is_refused():
    layer = nn.Linear(3, 2, bias_init=lambda _key, _shape: np.zeros(4))
    with pytest.raises(ValueError, match=r"'bias' has shape \(2,\).*\(4,\)"):
        layer.init(0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
@pytest.mark.parametrize("name", ["key_padding_mask", "attn_mask"])
def test_masks_of_whole_numbers_are_refused(name, dtype):
    net = nn.MultiheadAttention(4, 2, batch_first=True).init(seed=0, backend="numpy")
    x = np.ones((2, 3, 4), "float32")
    mask = np.eye(3 if name == "attn_mask" else 2, 3, dtype=dtype)
    with pytest.raises(TypeError, match=f"{name} is {dtype}; expected bool"):
        net(x, x, x, **{name: mask})


# Derivatives


def test_an_outer_gradient_is_not_lost_in_a_function_without_derivative():
    def outer(w):
        def inner(x):
            xp = array_namespace(x)
            inside = xp.astype(x > 0, xp.float64) * w
            return xp.sum(x * x) + xp.sum(x) * xp.sum(xp.unique_values(inside))

        return total(grad(inner)(np.asarray([1.0, 2.0])))

    with pytest.raises(RecordError, match="no derivative of 'unique_values'"):
        grad(outer)(np.asarray([3.0, 5.0]))


@pytest.mark.parametrize(
    ("f", "at", "second"),
    [
        (lambda x: x * functional.sigmoid(x), 0.0, 0.5),
        (lambda x: x * functional.erf(x), 0.5, 2 / np.sqrt(np.pi) * np.exp(-0.25) * (2 - 0.5)),
        (functional.gelu, np.sqrt(0.5), np.exp(-0.25) / np.sqrt(2 * np.pi) * (2 - 0.5)),
    ],
    ids=["sigmoid", "erf", "gelu"],
)
def test_second_derivatives_are_those_of_the_function_not_of_its_rule(f, at, second):
    assert float(grad(grad(f))(np.asarray(at))) == pytest.approx(second, rel=1e-12)


def test_indexing_can_be_differentiated_twice():
    def f(x):
        return total(x[1:] ** 3) + x[0] ** 2 + total(x[::-1] * x)

    slope = grad(lambda x: total(grad(f)(x) * np.asarray([1.0, 2.0, 3.0])))
    x = np.asarray([0.5, -1.0, 2.0])
    expected = [2 * 1 + 2 * 3, 2 * 6 * -1.0 + 2 * 2, 3 * 6 * 2.0 + 2 * 1]
    np.testing.assert_allclose(slope(x), expected)


def test_gradients_have_the_dtype_of_their_argument():
    x = np.ones(2, dtype="float32")
    assert grad(lambda a: total(a * np.ones(2)))(x).dtype == np.float32


def test_lists_and_tuples_of_arrays_are_alike():
    x = np.ones(2)
    slope = grad(lambda a: total(array_namespace(a).concat((a, 2 * a))))(x)
    assert slope.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("one", "other"), [("a.b", ("a", "b")), (1, ("1",))])
def test_names_that_are_written_alike_are_two(one, other):
    """A leaf is known by its keys: {"a.b": x, "a": {"b": y}} has two."""
    x = np.asarray([1.0, 2.0, 3.0])

    def tree(first, second):
        inner = {other[1]: second} if other[1:] else second
        return {one: first, other[0]: inner}

    def second_of(branches):
        return branches[other[0]][other[1]] if other[1:] else branches[other[0]]

    _, pullback = polynet.vjp(lambda p: tree(p * 2, p * 3), x)
    assert np.array_equal(pullback(tree(x, 0 * x))[0], 2 * x)
    assert np.array_equal(pullback(tree(0 * x, x))[0], 3 * x)
    given = tree(x, 10 * x), tree(np.ones(3), np.zeros(3))
    _, tangent = polynet.jvp(lambda p: p[one] ** 2 + second_of(p), (given[0],), (given[1],))
    assert np.array_equal(tangent, 2 * x)


def test_a_matrix_of_numpy_is_no_array_until_it_is_made_one():
    """Its `*` is a product of matrices, of which the gradient was that of a product by element."""
    x = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    matrix = x.view(np.matrix)
    with pytest.raises(TypeError, match=r"numpy\.matrix is not an array of any backend.*convert"):
        grad(lambda a: (a * a)[0, 0])(matrix)
    with pytest.raises(MixedBackendsError, match=r"numpy\.matrix.*polynet\.asarray"):
        grad(lambda a: (a * matrix)[0, 0])(x)
    for made in (polynet.asarray(matrix), polynet.asarray(matrix, copy=False)):
        assert type(made) is np.ndarray
        assert grad(lambda a: (a * a)[0, 0])(made).tolist() == [[2.0, 0.0], [0.0, 0.0]]


def test_whole_numbers_have_bitwise_operators():
    def f(x):
        xp = array_namespace(x)
        whole = xp.asarray([6, 5], dtype=xp.int64)
        found = [
            whole & 3,
            whole | 8,
            whole ^ 1,
            ~whole,
            whole << 1,
            whole >> 1,
            whole // 4,
            3 & whole,
        ]
        assert [[int(v) for v in n] for n in found] == [
            *([2, 1], [14, 13], [7, 4], [-7, -6], [12, 10], [3, 2], [1, 1], [2, 1]),
        ]
        return xp.sum(x)

    grad(f)(np.ones(2))


def test_what_is_returned_shares_no_memory():
    x = np.asarray([1.0, 2.0])
    (value, aux), _ = polynet.value_and_grad(lambda a: (a[0], a), has_aux=True)(x)
    x[0] = 99.0
    assert float(value) == 1.0
    assert aux.tolist() == [1.0, 2.0]


def test_a_tensor_of_an_ended_derivative_is_no_result():
    kept = []
    grad(lambda a: kept.append(a * 2) or a)(np.asarray(1.0))
    with pytest.raises(RecordError, match="has ended"):
        grad(lambda a: kept[0])(np.asarray(1.0))


def test_stop_gradient_takes_trees():
    slope = grad(lambda p: total(polynet.stop_gradient(p)["a"] * p["a"]))({"a": np.asarray([3.0])})
    assert slope["a"].tolist() == [3.0]


def test_a_record_written_by_several_threads_is_whole():
    import sys

    def f(a):
        parts = [None] * 4

        def work(k):
            y = a
            for _ in range(50):
                y = y * 1.0
            parts[k] = total(y)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return parts[0] + parts[1] + parts[2] + parts[3]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            assert grad(f)(np.ones(3)).tolist() == [4.0, 4.0, 4.0]
    finally:
        sys.setswitchinterval(interval)


def test_a_derivative_in_another_thread_that_meets_the_outer_one_is_refused():
    caught = []

    def outer(w):
        def work():
            try:
                grad(lambda x: total(x * w))(np.ones(2))
            except RecordError as error:
                caught.append(str(error))

        own = contextvars.Context()  # free-threaded Python gives a thread a copy of this one
        thread = threading.Thread(target=own.run, args=(work,))
        thread.start()
        thread.join()
        return total(w)

    grad(outer)(np.ones(2))
    assert "copy_context" in caught[0]


# Losses and metrics


def test_large_scores_do_not_cancel():
    scores = functional.log_softmax(np.asarray([[1e7, 1e7]], dtype="float32"))
    np.testing.assert_allclose(scores, np.log(0.5), rtol=1e-6)
    logits = np.asarray([[10001.0, 10000.0, 9999.0]], dtype="float32")
    with_kernel = losses.cross_entropy(logits, np.asarray([0]))
    with polynet.use_backend(polynet.get_backend("numpy").without_kernels()):
        np.testing.assert_allclose(losses.cross_entropy(logits, np.asarray([0])), with_kernel, 1e-6)
        assert np.isfinite(losses.cross_entropy(np.asarray([[0.0, 1.0, -np.inf]]), np.asarray([0])))


def test_small_labels_for_many_classes():
    logits = np.random.default_rng(0).normal(size=(1, 300))
    with polynet.use_backend(polynet.get_backend("numpy").without_kernels()):
        small = losses.cross_entropy(logits, np.asarray([3], dtype=np.uint8))
        assert small == losses.cross_entropy(logits, np.asarray([3]))


def test_accuracy_of_a_column_of_labels_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 1\).*\(2, 3\)"):
        metrics.accuracy(np.asarray([[1], [1]]), np.eye(3)[:2])


def test_targets_of_another_precision_are_refused():
    with pytest.raises(TypeError, match="targets are float64; expected float32"):
        losses.mse(Y, Y.astype("float64"))


# Moving and saving


def test_arrays_and_networks_keep_their_backend():
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    there = nn.Linear(3, 2).init(0, backend="strict")
    moved = there.to(device="cpu").weight
    assert "array_api_strict" in type(moved).__module__
    assert "CPU" in str(moved.device)
    assert "array_api_strict" in type(polynet.asarray(moved, device="device1")).__module__


def test_a_saved_network_comes_back_where_the_network_is(tmp_path):
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    there = nn.Linear(3, 2).init(0, backend="strict")
    polynet.checkpoint.save(tmp_path / "net", there)
    back = polynet.checkpoint.load(tmp_path / "net", there)
    assert "array_api_strict" in type(back.weight).__module__


def test_a_parameter_without_axes_can_be_saved(tmp_path):
    class Shift(nn.Module):
        def __init__(self):
            self.by = nn.Parameter((), nn.init.constant(2.0))

        def forward(self, x):
            return x + self.by

    trainer = Trainer(Shift(), losses.mse, optim.Adam(0.1))
    trainer.fit(X, X, epochs=2)
    polynet.checkpoint.save(tmp_path / "net", trainer.net)
    back = polynet.checkpoint.load(tmp_path / "net", Shift())
    assert back.by.shape == ()
    assert float(back.by) == float(trainer.net.by)


def test_a_network_without_parameters_yet_is_not_saved_or_moved(tmp_path):
    for action in (
        lambda: polynet.checkpoint.save(tmp_path / "net", nn.Linear(3, 2)),
        lambda: nn.Linear(3, 2).to(backend="numpy"),
    ):
        with pytest.raises(RuntimeError, match="no parameters yet"):
            action()


def test_two_backends_in_one_loss_are_refused():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    with pytest.raises(MixedBackendsError, match=r"array_api_strict.*'numpy'"):
        losses.mse(Y, strict.asarray(Y))


def test_numbers_in_another_byte_order_are_taken_as_they_are():
    swapped = np.asarray([1.5, -2.0], dtype=">f4")
    there = polynet.asarray(swapped, backend="numpy")
    assert there.dtype == np.float32
    assert there.dtype.isnative
    assert there.tolist() == [1.5, -2.0]
