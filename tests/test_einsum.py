"""Sums of products beside NumPy's and PyTorch's: values, gradients, and how they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from properties.linear_algebra import PROPERTIES

from polynet import array_namespace, grad, hessian, value_and_grad
from polynet.backend import Backend, to_numpy
from polynet.errors import RecordError
from polynet.functional import einsum
from polynet.testing.samples import Sample
from polynet.testing.suite.cases import to_backend, weights

SIZES = dict(zip("abcdhijkoqB", (2, 3, 4, 2, 3, 3, 4, 2, 5, 2, 3), strict=True))

LETTERS = """
    ij,jk->ik  ij,jk->ki  ij,jk  ji,jk->ik  ij,kj->ik  ij,kj->ki  ba  ab  ab->ab  ab->ba  ab->
    ab->b  abc->ca  abc->  aab->ab  iij->j  aa  aa->a  aaa  aaa->a  abab->ab  abba  abba->ba  a,a
    a,a->a  a,b->ab  a,b->ba  a,b  a,b->  ab,ab  ab,ab->ab  ab,ab->b  ab,ba->  a,b,c->cab
    ab,bc,cd->ad  ab,cd,bc->ad  bi,oij,bj->bo  ij,ij,ij->i  a,ab,b->  bqhd,bkhd->bhqk
    bhqk,bkhd->bqhd  bhqd,bhkd->bhqk  bij,bjk->bik  bij,bj->bi  bij,bjk->ikb  abi,ci->abc
    aab,bcc->ac  aij,bjk->  aBc,cB->aB  ij,,jk->ik  ,ab  ,  hi,ij,jh
""".split()

CASES = [(e, [tuple(SIZES[a] for a in t) for t in e.split("->")[0].split(",")]) for e in LETTERS]
CASES += [
    ("...", [(2, 3)]),
    ("...->...", [()]),
    ("i...->...", [(2, 3, 4)]),
    ("...ij->...ji", [(2, 3, 4)]),
    ("i...i", [(3, 2, 3)]),
    ("i...i->...i", [(3, 2, 3)]),
    ("...ij,...jk->...ik", [(2, 3, 4), (4, 5)]),
    ("...ij,...jk", [(5, 1, 2, 3), (4, 3, 2)]),
    ("...i,...i->...", [(3, 1, 4), (2, 4)]),
    ("...,i->...i", [(2, 3), (4,)]),
    ("i...,j...->ij...", [(2, 3), (4, 3)]),
    ("a...b,b...c->...ac", [(2, 5, 3), (3, 4, 1, 2)]),
    (" i j , j k  -> i k ", [(2, 3), (3, 4)]),
    ("... i, i -> ...", [(2, 3), (3,)]),
    ("ij,jk->ik", [(2, 1), (3, 4)]),
    ("ij,jk->ik", [(1, 3), (3, 1)]),
    ("ij,ij->ij", [(1, 4), (3, 1)]),
    ("ii,i->i", [(1, 1), (3,)]),
    ("i,i->", [(1,), (3,)]),
    ("ij,jk->ik", [(2, 0), (0, 3)]),
    ("ij,jk->ik", [(0, 2), (2, 3)]),
    ("ii->i", [(0, 0)]),
    ("i,i", [(1,), (0,)]),
]
IDS = [f"{equation} {shapes}" for equation, shapes in CASES]


def made(shapes: list[tuple[int, ...]], dtype: str = "float64") -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.asarray(rng.normal(size=shape) * 3).astype(dtype) for shape in shapes]


def test_there_are_enough() -> None:
    assert len(LETTERS) >= 50
    assert len(CASES) >= 70


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int8", "complex64"])
@pytest.mark.parametrize(("equation", "shapes"), CASES, ids=IDS)
def test_values_are_numpys(equation: str, shapes: list[Any], dtype: str) -> None:
    arrays = made(shapes, dtype)
    y, expected = einsum(equation, *arrays), np.asarray(np.einsum(equation, *arrays))
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    rtol = {"float32": 1e-4, "complex64": 1e-4, "float64": 1e-12}.get(dtype, 0)
    np.testing.assert_allclose(y, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("equation", "shapes"), CASES, ids=IDS)
def test_values_are_the_same_on_every_backend(
    backend: Backend, equation: str, shapes: list[Any]
) -> None:
    arrays = made(shapes, "float32")
    y = einsum(equation, *(to_backend(a, backend, "float32") for a in arrays))
    assert backend.is_array(y)
    np.testing.assert_allclose(to_numpy(y), np.einsum(equation, *arrays), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("equation", "shapes"), CASES, ids=IDS)
def test_gradients_are_pytorchs(equation: str, shapes: list[Any]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    arrays = made(shapes)
    there = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = torch.einsum(equation, *there)
    w = weights(tuple(expected.shape))
    (expected * expected * torch.tensor(w)).sum().backward()

    def objective(given: list[Any]) -> Any:
        y = einsum(equation, *given)
        return array_namespace(y).sum(y * y * w)

    value, slopes = value_and_grad(objective)(arrays)
    np.testing.assert_allclose(value, np.sum(expected.detach().numpy() ** 2 * w), rtol=1e-12)
    for slope, x in zip(slopes, there, strict=True):
        assert slope.shape == tuple(x.shape)
        np.testing.assert_allclose(slope, x.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_second_derivatives() -> None:
    """Σ x_i A_ij x_j has the Hessian A + Aᵀ."""
    a, x = made([(4, 4), (4,)])
    found = hessian(lambda x: einsum("i,ij,j->", x, a, x))(x)
    np.testing.assert_allclose(found, a + a.T, rtol=1e-12)


def test_any_equation() -> None:
    @settings(max_examples=100, deadline=None, database=None)
    @given(PROPERTIES["einsum"])
    def holds(sample: Sample) -> None:
        y, expected = einsum(*sample.args), np.einsum(*sample.args)
        assert (y.dtype, y.shape) == (expected.dtype, np.shape(expected))
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)

    for k in range(4):
        seed(k)(holds)()


class Counted:
    """NumPy, of whose functions is known which ran, and how much came of each."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.largest = 0

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if name == "bool":
            return function

        def call(*args: Any, **options: Any) -> Any:
            y = function(*args, **options)
            self.ran.append(name)
            self.largest = max(self.largest, y.size)
            return y

        return call


@pytest.mark.parametrize(
    ("equation", "shapes", "ran"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)], "matmul"),
        ("ij,kj->ik", [(2, 3), (4, 3)], "permute_dims matmul"),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)], "permute_dims matmul"),
        ("bqhd,bkhd->bhqk", [(2, 4, 3, 5), (2, 6, 3, 5)], "permute_dims permute_dims matmul"),
        ("bsi,oi->bso", [(2, 3, 4), (5, 4)], "reshape permute_dims matmul reshape"),
        ("i,i->", [(3,), (3,)], "matmul"),
        ("ij,ij->", [(2, 3), (2, 3)], "reshape reshape matmul"),
        ("ij->ji", [(2, 3)], "permute_dims"),
        ("ij->i", [(2, 3)], "sum"),
        ("ij,j->ij", [(2, 3), (3,)], "permute_dims reshape multiply permute_dims"),
    ],
)
def test_a_matrix_product_is_one(equation: str, shapes: list[Any], ran: str) -> None:
    xp, arrays = Counted(), made(shapes)
    y = einsum.definition(xp, equation, *arrays)
    assert xp.ran == ran.split()
    assert xp.largest <= max(y.size, *(a.size for a in arrays))


def test_the_cheapest_pair_comes_first() -> None:
    """From left to right, "ab,cd,bc->ad" would make an array of all four axes."""
    xp, arrays = Counted(), made([(9, 9)] * 3)
    einsum.definition(xp, "ab,cd,bc->ad", *arrays)
    assert xp.largest == 81
    xp, arrays = Counted(), made([(9,), (9,), (9, 9)])
    einsum.definition(xp, "a,b,ab->", *arrays)
    assert xp.largest == 9


A = np.ones((2, 3))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (("ij,jk->ik", A, A), ValueError, "'j' has one length; got 3 in array 0 and 2 in array 1"),
        (("...,...", A, A.T), ValueError, r'axis -2 of "\.\.\." has one length; got 2 in array 0'),
        (("ii", A), ValueError, "'i' twice in array 0 is a diagonal, of one length; got 2 and 3"),
        (("ii,i", A[:1], A[0]), ValueError, "'i' twice in array 0 .* got 1 and 3"),
        (("ij->ik", A), ValueError, "'k' of the result is in no array"),
        (("ij->ii", A), ValueError, "'i' stands twice in the result"),
        (("ij,jk->ik", A), ValueError, "is of 2 arrays, between commas; got 1"),
        (("ij", A, A), ValueError, "is of 1 arrays, between commas; got 2"),
        (("ijk", A), ValueError, "array 0, 'ijk', has 2 dimensions; expected 3"),
        (("i", A), ValueError, "array 0, 'i', has 2 dimensions; expected 1"),
        (("...ijk", A), ValueError, "has 2 dimensions; expected 3 or more"),
        (("...j->j", A), ValueError, r'the result lacks the axes of "\.\.\.": "->\.\.\.j"'),
        (("i$", A), ValueError, r"expected letters, .* got 'i\$' in 'i\$'"),
        (("i0", A), ValueError, "expected letters, .* got 'i0'"),
        (("ij->i->", A), ValueError, "expected letters, .* got 'i->'"),
        (("ij->i,j", A), ValueError, "expected letters, .* got 'i,j'"),
        (("..ij", A), ValueError, r"expected letters, .* got '\.\.ij'"),
        (("i...j...", A), ValueError, "expected letters"),
        ((A, A), TypeError, r'expected an equation, such as "ij,jk->ik", .* got a ndarray first'),
        (("ij,j", A, [1.0, 2.0, 3.0]), TypeError, "array 1 is a list: polynet.asarray"),
        ((",ij", 2.0, A), TypeError, "array 0 is a float"),
        (("ij", A > 0), TypeError, r"array 0 is bool: .*xp\.astype"),
        (("ij",), TypeError, "expected at least one array"),
    ],
)
def test_what_cannot_be(given: tuple[Any, ...], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        einsum(*given)


def test_that_of_the_library_names_ours() -> None:
    with pytest.raises(RecordError, match=r"'einsum' yet; polynet\.functional\.einsum has one"):
        grad(lambda x: array_namespace(x).einsum("ij->", x))(A)
