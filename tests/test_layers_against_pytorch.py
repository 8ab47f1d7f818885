"""Layers with windows, norms, lookups and attention beside PyTorch's, over their options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

import numpy as np
import pytest
from beside_pytorch import TOLERANCE, compare, numbers, same, torch, total

from polynet import array_namespace, functional, grad, nn, value_and_grad
from polynet.backend import Backend, to_numpy


def convolutions() -> Iterator[tuple[Any, ...]]:
    for kernel, stride, padding, dilation, groups, bias in product(
        (1, 3, (2, 4)), (1, (2, 3)), (0, (1, 2), "same"), (1, (2, 1)), (1, 2), (True, False)
    ):
        if padding != "same" or stride == 1:
            yield kernel, stride, padding, dilation, groups, bias


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups", "bias"), list(convolutions())
)
def test_conv2d(
    kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, bias: bool, dtype: str
) -> None:
    args = (4, 6, kernel, stride, padding, dilation, groups, bias)
    compare(nn.Conv2d(*args), torch.nn.Conv2d(*args), [numbers(2, 4, 9, 11)], dtype)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", [1, 4])
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, 1), (3, 0), (1, "valid")])
@pytest.mark.parametrize("groups", [1, 3])
def test_conv1d(kernel: int, stride: int, padding: Any, groups: int, dtype: str) -> None:
    args = (3, 6, kernel, stride, padding, 1, groups)
    compare(nn.Conv1d(*args), torch.nn.Conv1d(*args), [numbers(2, 3, 12)], dtype)


def transposed() -> Iterator[tuple[Any, ...]]:
    for kernel, stride, padding, dilation, groups, bias in product(
        (1, 3, (2, 4)), (1, (2, 3)), (0, (1, 2)), (1, (2, 1)), (1, 2), (True, False)
    ):
        for more in (0, 1) if stride != 1 else (0,):
            yield kernel, stride, padding, more, groups, bias, dilation


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("settings", list(transposed()), ids=str)
def test_conv_transpose2d(settings: tuple[Any, ...], dtype: str) -> None:
    ours, theirs = nn.ConvTranspose2d(4, 6, *settings), torch.nn.ConvTranspose2d(4, 6, *settings)
    compare(ours, theirs, [numbers(2, 4, 5, 6)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("settings", [(1,), (4, 2, 1), (3, 2, 0, 1, 3), (2, 1, 0, 1, 1, True, 2)])
def test_conv_transpose1d(settings: tuple[Any, ...], dtype: str) -> None:
    ours, theirs = nn.ConvTranspose1d(3, 6, *settings), torch.nn.ConvTranspose1d(3, 6, *settings)
    compare(ours, theirs, [numbers(2, 3, 5)], dtype)


def test_conv_transpose_is_the_transpose_of_conv() -> None:
    """⟨conv(x), y⟩ = ⟨x, convᵀ(y)⟩, with the same weight."""
    options = {"stride": (3, 2), "dilation": (1, 2), "groups": 2}
    x, y, weight = numbers(2, 4, 9, 8), numbers(2, 6, 4, 2, seed=1), numbers(6, 2, 2, 3, seed=2)
    there = functional.convolution(x, weight, padding=((1, 1), (0, 0)), **options)
    back = functional.convolution_transpose(
        y, weight, padding=(1, 0), output_padding=(0, 1), **options
    )
    assert back.shape == x.shape
    np.testing.assert_allclose(np.sum(there * y), np.sum(x * back), rtol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("padding", [0, 2, (1, 0, 2, 3)])
def test_zero_pad2d(padding: Any, dtype: str) -> None:
    compare(nn.ZeroPad2d(padding), torch.nn.ZeroPad2d(padding), [numbers(2, 3, 4, 5)], dtype)


MAX = [{}, {"dilation": 2}, {"ceil_mode": True}, {"dilation": (1, 2), "ceil_mode": True}]
AVG = [{}, {"count_include_pad": False}, {"ceil_mode": True}]
AVG += [{"count_include_pad": False, "ceil_mode": True}]
POOLS = [(kind, o) for kind, several in (("MaxPool", MAX), ("AvgPool", AVG)) for o in several]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel", [2, 3, (3, 2)])
@pytest.mark.parametrize("stride", [None, 1, (2, 1), (3, 4)])
@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
@pytest.mark.parametrize(("kind", "options"), POOLS)
def test_pooling(
    kind: str, options: dict[str, Any], padding: Any, stride: Any, kernel: Any, dtype: str
) -> None:
    ours, theirs = getattr(nn, f"{kind}2d"), getattr(torch.nn, f"{kind}2d")
    x = np.round(numbers(2, 3, 7, 8))  # with ties
    settings = (kernel, stride, padding)
    compare(ours(*settings, **options), theirs(*settings, **options), [x], dtype)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.MaxPool2d(2), "MaxPool2d(2)"),
        (
            nn.MaxPool1d(3, 2, 1, ceil_mode=True),
            "MaxPool1d(3, stride=2, padding=1, ceil_mode=True)",
        ),
        (nn.MaxPool2d(3, dilation=(1, 2)), "MaxPool2d(3, dilation=(1, 2))"),
        (nn.AvgPool1d(2), "AvgPool1d(2)"),
        (nn.AvgPool2d(2, count_include_pad=False), "AvgPool2d(2, count_include_pad=False)"),
    ],
)
def test_poolings_keep_pytorchs_settings_and_print_those_that_are_given(
    layer: Any, said: str
) -> None:
    theirs = getattr(torch.nn, type(layer).__name__)(2)
    names = {"dilation", "ceil_mode", "count_include_pad"}
    assert {n for n in names if hasattr(layer, n)} == {n for n in names if hasattr(theirs, n)}
    assert repr(layer) == said


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("settings", [(2,), (3, 2, 1), (4, 3, 2), (3, 1)])
@pytest.mark.parametrize(("kind", "options"), [p for p in POOLS if p[1].get("dilation") != (1, 2)])
def test_pooling_of_sequences(
    kind: str, options: dict[str, Any], settings: tuple[int, ...], dtype: str
) -> None:
    ours, theirs = getattr(nn, f"{kind}1d"), getattr(torch.nn, f"{kind}1d")
    x = np.round(numbers(2, 3, 10))
    compare(ours(*settings, **options), theirs(*settings, **options), [x], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [1, 3, 9, (2, 5), (7, None), (None, 4)], ids=str)
@pytest.mark.parametrize("kind", ["Avg", "Max"])
def test_adaptive_pooling(kind: str, size: Any, dtype: str) -> None:
    ours, theirs = (getattr(m, f"Adaptive{kind}Pool2d") for m in (nn, torch.nn))
    compare(ours(size), theirs(size), [np.round(numbers(2, 3, 7, 8))], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [1, 3, 5, 8, 11])
@pytest.mark.parametrize("kind", ["Avg", "Max"])
def test_adaptive_pooling_of_sequences(kind: str, size: int, dtype: str) -> None:
    ours, theirs = (getattr(m, f"Adaptive{kind}Pool1d") for m in (nn, torch.nn))
    compare(ours(size), theirs(size), [np.round(numbers(2, 3, 8))], dtype)


TARGETS: list[dict[str, Any]] = [
    *({"scale_factor": s} for s in (1, 2, 3, 5, 1.5, 2.6, 1 / 2, 0.7, 1 / 3)),
    *({"size": n} for n in (1, 2, 5, 7, 11, 16)),
    *({"scale_factor": s} for s in ((2, 1), (0.5, 1.7), (2.1, 1.2))),
    *({"size": s} for s in ((14, 3), (1, 9))),
]
BLENDED = [("linear", None), ("linear", False), ("linear", True)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("sizes", [(8,), (7, 8)], ids=str)
@pytest.mark.parametrize(("mode", "corners"), [("nearest", None), *BLENDED])
def test_upsample(
    mode: str, corners: Any, sizes: tuple[int, ...], target: dict[str, Any], dtype: str
) -> None:
    if len(sizes) == 1:  # of one for each axis, the last
        target = {n: v[-1] if isinstance(v, tuple) else v for n, v in target.items()}
    elif mode == "linear":
        mode = "bilinear"
    ours, theirs = (m.Upsample(**target, mode=mode, align_corners=corners) for m in (nn, torch.nn))
    compare(ours, theirs, [numbers(2, 3, *sizes)], dtype)


def test_labels_are_read_where_their_images_are() -> None:
    image = np.arange(40.0, dtype="float32").reshape(1, 1, 40)
    for factor in (2, 2.3, 0.3, 7 / 3):
        labels = functional.interpolate(image.astype("int32"), scale_factor=factor)
        assert labels.dtype == "int32"
        np.testing.assert_array_equal(labels, functional.interpolate(image, scale_factor=factor))


def test_a_whole_factor_is_exact() -> None:
    """PyTorch reads the number before, where 41 · float32(1 / 41) is below 1."""
    for factor in (41, 61):
        y = functional.interpolate(np.arange(3.0).reshape(1, 1, 3), scale_factor=factor)
        np.testing.assert_array_equal(y[0, 0], np.repeat(np.arange(3.0), factor))


def test_a_nan_wins_in_max_pool2d() -> None:
    for place in range(4):
        x = np.arange(4.0)
        x[place] = np.nan
        assert np.isnan(nn.MaxPool2d(2)(x.reshape(1, 1, 2, 2))).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [5, (5,), (3, 5)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, True)])
def test_layer_norm(shape: Any, eps: float, affine: bool, bias: bool, dtype: str) -> None:
    args = (shape, eps, affine, bias)
    compare(nn.LayerNorm(*args), torch.nn.LayerNorm(*args), [3 + numbers(4, 3, 5)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [5, (5,), (3, 5)])
@pytest.mark.parametrize("eps", [None, 0.1])
@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm(shape: Any, eps: float | None, affine: bool, dtype: str) -> None:
    args = (shape, eps, affine)
    compare(nn.RMSNorm(*args), torch.nn.RMSNorm(*args), [3 + numbers(4, 3, 5)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 4), (2, 6, 3, 5)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, True)])
def test_group_norm(
    shape: tuple[int, ...], groups: int, eps: float, affine: bool, bias: bool, dtype: str
) -> None:
    ours, theirs = (m.GroupNorm(groups, 6, eps, affine, bias=bias) for m in (nn, torch.nn))
    compare(ours, theirs, [3 + numbers(*shape)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("axes", "shape"), [(1, (2, 3, 5)), (2, (2, 3, 4, 5))])
def test_instance_norm(
    axes: int, shape: tuple[int, ...], affine: bool, eps: float, dtype: str
) -> None:
    ours, theirs = (getattr(m, f"InstanceNorm{axes}d") for m in (nn, torch.nn))
    x = 3 + numbers(*shape)
    compare(ours(3, eps, affine=affine), theirs(3, eps, affine=affine), [x], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(5,), (4, 3), ()])
def test_embedding(shape: tuple[int, ...], dtype: str) -> None:
    rows = np.random.default_rng(3).integers(0, 4, size=shape)
    compare(nn.Embedding(4, 3), torch.nn.Embedding(4, 3), [rows], dtype)


def test_embedding_begins_as_pytorchs_does() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Embedding(100, 100).weight.std().item()
    assert nn.Embedding(100, 100).init(backend="numpy").weight.std() == pytest.approx(theirs, 0.05)


@pytest.mark.parametrize("padding_idx", [0, 2, -1, -4])
def test_embedding_of_padded_sequences(padding_idx: int) -> None:
    ours, theirs = (m.Embedding(4, 3, padding_idx) for m in (nn, torch.nn))
    drawn = ours.init(seed=2, backend="numpy").weight
    assert not drawn[padding_idx].any()
    assert np.count_nonzero(drawn) == 9
    assert ours.padding_idx == theirs.padding_idx
    compare(ours, theirs, [np.asarray([[3, 0, 0], [1, 2, 2]])], "float64")


@pytest.mark.parametrize("code", [2, -2])
def test_no_gradient_changes_padding(code: int, backend: Backend) -> None:
    """Also where it is counted from the end, as Python does."""
    net = nn.Embedding(4, 3, padding_idx=-2).init(seed=2, backend=backend)
    codes = backend.from_host(np.asarray([1, code, 3], dtype="int32"), backend.device(None))
    slope = grad(lambda w: array_namespace(w).sum(net.bind({"weight": w})(codes)))(net.weight)
    np.testing.assert_array_equal(to_numpy(slope)[:, 0], [0, 1, 0, 1])


IGNORE = np.triu(np.ones((5, 5), dtype=bool), 1)
PADDING = np.asarray([[False] * 5, [False, False, False, True, True]])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sources", ["the same", "others", "as many"])
@pytest.mark.parametrize("masks", ["none", "pairs", "scores", "padding", "both"])
def test_multihead_attention(
    masks: str, sources: str, bias: bool, batch_first: bool, dtype: str
) -> None:
    length = 7 if sources == "others" else 5
    shapes = [(2, 5, 8), (2, length, 8), (2, length, 8)]
    xs = [numbers(*s, seed=i) for i, s in enumerate(shapes)]
    if not batch_first:
        xs = [np.swapaxes(x, 0, 1) for x in xs]
    given: dict[str, Any] = {}
    if masks in ("pairs", "both"):
        given["attn_mask"] = np.pad(IGNORE, ((0, 0), (0, length - 5)))
    if masks == "scores":
        given["attn_mask"] = numbers(5, length, seed=9).astype(dtype)
    if masks in ("padding", "both"):
        given["key_padding_mask"] = np.pad(PADDING, ((0, 0), (0, length - 5)))
    ours = nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first)
    theirs = torch.nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first)
    if sources == "the same":
        compare(_Itself(ours), _Itself_torch(theirs), xs[:1], dtype, **given)
    else:
        compare(ours, theirs, xs, dtype, **given)


class _Itself(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def forward(self, x: Any, **masks: Any) -> Any:
        return self.layer(x, x, x, **masks)


def _Itself_torch(layer: Any) -> Any:
    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any, **masks: Any) -> Any:
            return self.layer(x, x, x, **masks)[0]

    return Twin()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_transformer_encoder_layer(
    causal: bool, bias: bool, norm_first: bool, batch_first: bool, activation: str, dtype: str
) -> None:
    settings = {"batch_first": batch_first, "norm_first": norm_first, "bias": bias}
    ours = nn.TransformerEncoderLayer(
        8, 2, 12, activation=getattr(functional, activation), **settings
    )
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation=activation, **settings
    )

    class Masked(nn.Module):
        def __init__(self) -> None:
            self.layer = ours

        def forward(self, x: Any) -> Any:
            return self.layer(x, is_causal=causal)

    class MaskedTwin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = theirs

        def forward(self, x: Any) -> Any:
            return self.layer(x, torch.tensor(IGNORE) if causal else None)

    x = numbers(3, 5, 8) if batch_first else numbers(5, 3, 8)
    compare(Masked(), MaskedTwin(), [x], dtype)


LATER = np.triu(np.ones((5, 7), dtype=bool), 1)
DECODER_MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "pairs": {"tgt_mask": IGNORE, "memory_mask": LATER},
    "scores": {"tgt_mask": numbers(5, 5), "memory_mask": numbers(5, 7)},
    "padding": {
        "tgt_key_padding_mask": PADDING,
        "memory_key_padding_mask": np.pad(PADDING, ((0, 0), (2, 0))),
    },
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masks", DECODER_MASKS)
def test_transformer_decoder_layer(
    masks: str, bias: bool, norm_first: bool, batch_first: bool, activation: str, dtype: str
) -> None:
    settings = {"batch_first": batch_first, "norm_first": norm_first, "bias": bias}
    ours = nn.TransformerDecoderLayer(
        8, 2, 12, activation=getattr(functional, activation), **settings
    )
    theirs = torch.nn.TransformerDecoderLayer(
        8, 2, 12, dropout=0.0, activation=activation, **settings
    )
    xs = [numbers(2, length, 8, seed=length) for length in (5, 7)]
    xs = xs if batch_first else [np.swapaxes(x, 0, 1) for x in xs]
    given = {
        n: m.astype(dtype) if masks == "scores" else m for n, m in DECODER_MASKS[masks].items()
    }
    compare(ours, theirs, xs, dtype, **given)


@pytest.mark.parametrize("part", ["tgt", "memory"])
def test_a_decoder_layer_that_is_causal_sees_no_later_key(part: str) -> None:
    layer = nn.TransformerDecoderLayer(8, 2, batch_first=True).init(0, backend="numpy")
    xs = [numbers(2, length, 8, seed=length).astype("float32") for length in (5, 7)]
    expected = layer(*xs, **{f"{part}_mask": IGNORE if part == "tgt" else LATER})
    np.testing.assert_allclose(layer(*xs, **{f"{part}_is_causal": True}), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sources", [5, 7])
@pytest.mark.parametrize("masks", ["none", "causal", "pairs", "heads", "scores"])
def test_scaled_dot_product_attention(masks: str, sources: int, dtype: str) -> None:
    xs = [numbers(2, 3, n, w, seed=n + w).astype(dtype) for n, w in ((5, 4), (sources, 4))]
    xs.append(numbers(2, 3, sources, 6, seed=2).astype(dtype))
    see = numbers(2, 1, 5, sources, seed=3) > 0
    see[..., 0] = True
    mask = {"pairs": see[0, 0], "heads": see, "scores": numbers(5, sources).astype(dtype)}.get(
        masks
    )
    causal = masks == "causal"
    there = [torch.tensor(x, requires_grad=True) for x in xs]
    outputs = torch.nn.functional.scaled_dot_product_attention(
        *there, None if mask is None else torch.tensor(mask), is_causal=causal
    )
    w = numbers(*outputs.shape, seed=9).astype(dtype)
    (outputs * torch.tensor(w)).sum().backward()
    attend = functional.scaled_dot_product_attention
    same(attend(*xs, mask, is_causal=causal), outputs, dtype)
    slopes = value_and_grad(
        lambda *a: total(attend(*a, mask, is_causal=causal) * w), tuple(range(3))
    )(*xs)[1]
    for slope, x in zip(slopes, there, strict=True):
        same(slope, x.grad, dtype)


F32 = np.ones((2, 4, 5, 6), dtype="float32")


@pytest.mark.parametrize(
    ("make", "x", "said"),
    [
        (lambda: nn.Conv2d(4, 3, 3, (1, 2), padding="same"), None, "Conv2d: .*same.*stride"),
        (lambda: nn.ConvTranspose2d(4, 3, 2, output_padding=1), None, "output_padding is smaller"),
        (lambda: nn.ConvTranspose2d(4, 3, 2, groups=3), None, "3 groups do not divide 4 and 3"),
        (lambda: nn.ConvTranspose1d(4, 3, 2), F32, r"\(batch, 4, width\), got \(2, 4, 5, 6\)"),
        (lambda: nn.ConvTranspose2d(4, 3, 2, padding=3), F32, "its padding leaves nothing"),
        (lambda: nn.MaxPool2d(3, dilation=3), F32, r"\(7, 7\) does not fit into \(5, 6\)"),
        (lambda: nn.MaxPool1d(3, padding=2), None, "at most half of kernel_size 3; got 2"),
        (
            lambda: nn.AdaptiveAvgPool2d((2, 0)),
            None,
            "output_size is an integer from 1 or 2 of them",
        ),
        (lambda: nn.AdaptiveAvgPool1d(2), F32, r"\(batch, channels, width\)"),
        (lambda: nn.AdaptiveMaxPool2d(2), F32[..., :0], r"got \(2, 4, 5, 0\)"),
        (lambda: nn.GroupNorm(3, 4), None, "3 groups do not divide 4 channels"),
        (lambda: nn.GroupNorm(3, 6), F32, r"\(batch, 6, …\), got"),
        (lambda: nn.InstanceNorm2d(4), F32[..., :1, :1], "of several numbers"),
        (lambda: nn.InstanceNorm1d(4), F32, r"\(batch, 4, width\), got"),
        (lambda: nn.RMSNorm(5), F32, r"\(…, 5\), got"),
        (lambda: nn.RMSNorm(0), None, "RMSNorm: normalized_shape has positive sizes; got 0"),
        (
            lambda: nn.TransformerEncoderLayer(6, 2),
            F32,
            r"\(length, batch, 6\), got \(2, 4, 5, 6\)",
        ),
        (lambda: nn.Upsample(), None, "takes one of size and scale_factor; got None and None"),
        (lambda: nn.Upsample(2, 2), None, "takes one of size and scale_factor; got 2 and 2"),
        (lambda: nn.Upsample(2, mode="biliner"), None, "Upsample: unknown mode.*'bilinear'"),
        (lambda: nn.Upsample(2, align_corners=True), None, "mode 'nearest' takes None, not True"),
        (lambda: nn.Upsample(0), None, "size is a positive integer, or one for each .*; got 0"),
        (lambda: nn.Upsample((2, 2, 2)), None, "1 or 2 of them; got \\(2, 2, 2\\)"),
        (lambda: nn.Upsample((2, 2), mode="linear"), None, "1 of them; got \\(2, 2\\)"),
        (lambda: nn.Upsample(scale_factor=0.0), None, "scale_factor is a positive number"),
        (lambda: nn.Upsample(scale_factor=np.inf), None, "scale_factor is a positive number"),
        (lambda: nn.Upsample(scale_factor="2"), None, "scale_factor is a positive number"),
        (lambda: nn.Upsample(2), F32[0, 0], r"width\) or \(batch, channels, height, width\), got"),
        (lambda: nn.Upsample(2, mode="linear"), F32, r"\(batch, channels, width\), got"),
        (lambda: nn.Upsample((2, 2)), F32[0], r"\(batch, channels, height, width\), got"),
        (lambda: nn.Upsample(2), F32[..., :0], r"got \(2, 4, 5, 0\)"),
        (lambda: nn.Upsample(scale_factor=0.1), F32, "0.1 times 5 places leave none"),
        (lambda: nn.ZeroPad2d(-1), None, "padding is an integer from 0 or 4 of them; got -1"),
        (lambda: nn.ZeroPad2d(1), F32[0], r"\(batch, channels, height, width\), got"),
    ],
)
def test_what_cannot_be(make: Any, x: Any, said: str) -> None:
    """What a layer is set to is refused at once (x is None), what comes in when it comes."""
    with pytest.raises(ValueError, match=said) if x is None else nullcontext():
        layer = make().init(0, backend="numpy")
    if x is not None:
        with pytest.raises(ValueError, match=said):
            layer(x)
