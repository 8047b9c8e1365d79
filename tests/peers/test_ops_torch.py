"""Every operation that PyTorch has too: outputs and all gradients, float64 to 1e-12 and float32 to 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import ops
from tinyconvlstm.ops import Window

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
functional = torch.nn.functional

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


def draw(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def agree(
    noun: str, arrays: list[np.ndarray], theirs: Callable[..., Any], dtype: Any, *data: Any, **settings: Any
) -> None:
    """y and the gradient of every array equal PyTorch's, each error measured by the largest number there.

    Args:
        noun: of the pair.
        arrays: what is differentiated; moved to PyTorch and given to `theirs`.
        theirs: PyTorch's function of those arrays.
        data: further positional arguments of ours, not differentiated.
    """
    arrays = [a.astype(dtype) for a in arrays]
    y, saved = getattr(ops, f"{noun}_forward")(*arrays, *data, **settings)
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = theirs(*tensors)
    dy = np.random.default_rng(99).standard_normal(np.shape(y)).astype(dtype)
    grads = getattr(ops, f"{noun}_backward")(dy, saved)
    expected.backward(torch.tensor(dy))
    found = [y, *(grads if type(grads) is tuple else (grads,))]
    wanted = [expected.detach().numpy(), *(t.grad.numpy() for t in tensors)]
    for got, want in zip(found, wanted, strict=True):
        assert np.shape(got) == want.shape
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[dtype] * max(1.0, np.abs(want).max()))


# --- convolution ---

CONV = [  # x, w, stride, padding, dilation, groups
    ((3, 4, 11), (6, 4, 3), 2, 1, 1, 1),
    ((2, 6, 9), (4, 3, 4), 1, 3, 2, 2),
    ((2, 3, 7, 10), (5, 3, 3, 2), (2, 1), (1, 0), (1, 2), 1),
    ((2, 6, 7, 5), (9, 2, 2, 3), (1, 2), (2, 1), (2, 1), 3),
    ((2, 4, 5, 6), (4, 1, 3, 3), 1, 1, 1, 4),
    ((2, 3, 5, 6, 4), (4, 3, 3, 2, 2), (1, 2, 1), (1, 0, 1), (2, 1, 1), 1),
    ((1, 4, 4, 3, 5), (6, 2, 2, 3, 1), 2, 1, 1, 2),
]


@both_dtypes
@pytest.mark.parametrize(("x", "w", "stride", "padding", "dilation", "groups"), CONV)
def test_conv(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, dtype: Any) -> None:
    theirs = (functional.conv1d, functional.conv2d, functional.conv3d)[len(x) - 3]
    agree(
        "conv",
        draw(1, x, w, w[:1]),
        lambda x, w, b: theirs(x, w, b, stride, padding, dilation, groups),
        dtype,
        window=Window(w[2:], stride, padding, dilation),
        groups=groups,
    )


@pytest.mark.parametrize(("x", "w", "dilation"), [((2, 3, 8), (4, 3, 3), 2), ((2, 3, 6, 7), (5, 3, 2, 4), 1)])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_conv_same(x: Any, w: Any, dilation: int) -> None:
    theirs = (functional.conv1d, functional.conv2d)[len(x) - 3]
    agree(
        "conv",
        draw(2, x, w, w[:1]),
        lambda x, w, b: theirs(x, w, b, 1, "same", dilation),
        np.float64,
        window=Window(w[2:], 1, "same", dilation),
    )


TRANSPOSE = [  # x, w, stride, padding, dilation, groups, output_padding
    ((3, 4, 6), (4, 5, 3), 2, 1, 1, 1, 1),
    ((2, 6, 5), (6, 2, 4), 1, 2, 2, 2, 1),
    ((2, 3, 4, 6), (3, 5, 3, 2), (2, 3), (1, 0), (1, 2), 1, (1, 2)),
    ((2, 6, 5, 3), (6, 3, 2, 3), (1, 2), (1, 1), (2, 1), 3, (0, 1)),
    ((2, 3, 4, 3, 5), (3, 4, 3, 2, 2), (1, 2, 1), (1, 0, 1), (2, 1, 1), 1, (1, 1, 0)),
    ((1, 4, 3, 2, 4), (4, 3, 2, 3, 1), 2, (0, 1, 0), 1, 2, 1),
]


@both_dtypes
@pytest.mark.parametrize(("x", "w", "stride", "padding", "dilation", "groups", "extra"), TRANSPOSE)
def test_conv_transpose(
    x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, extra: Any, dtype: Any
) -> None:
    rank = len(x) - 2
    theirs = getattr(functional, f"conv_transpose{rank}d")
    agree(
        "conv_transpose",
        draw(3, x, w, (w[1] * groups,)),
        lambda x, w, b: theirs(x, w, b, stride, padding, extra, groups, dilation),
        dtype,
        window=Window(w[2:], stride, padding, dilation),
        groups=groups,
        output_padding=extra,
    )


@both_dtypes
def test_linear(dtype: Any) -> None:
    agree("linear", draw(4, (2, 3, 5), (4, 5), (4,)), functional.linear, dtype)


# --- pooling ---

POOLS = [  # x, kernel, stride, padding
    ((2, 3, 11), 3, 2, 1),
    ((2, 3, 10), 2, 3, 0),
    ((2, 3, 9, 8), (3, 2), (2, 3), (1, 1)),
    ((2, 3, 7, 10), (2, 4), (1, 2), (0, 2)),
    ((1, 2, 6, 5, 7), (2, 3, 2), (2, 2, 3), (1, 1, 0)),
]
either_mode = pytest.mark.parametrize("ceil", [False, True])


@both_dtypes
@either_mode
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("x", "kernel", "stride", "padding"), POOLS)
def test_max_pool(
    x: Any, kernel: Any, stride: Any, padding: Any, dilation: int, ceil: bool, dtype: Any
) -> None:
    theirs = getattr(functional, f"max_pool{len(x) - 2}d")
    agree(
        "max_pool",
        draw(5, x),
        lambda x: theirs(x, kernel, stride, padding, dilation, ceil_mode=ceil),
        dtype,
        window=Window(kernel, stride, padding, dilation, ceil),
    )


@either_mode
def test_max_pool_with_ties_and_nan(ceil: bool) -> None:
    x = np.round(1.5 * draw(6, (2, 3, 9, 8))[0])
    x[0, 1, 4, 3] = x[1, 2, 0, 0] = np.nan
    y, saved = ops.max_pool_forward(x, window=Window(3, 2, 1, ceil=ceil))
    tensor = torch.tensor(x, requires_grad=True)
    expected = functional.max_pool2d(tensor, 3, 2, 1, ceil_mode=ceil)
    np.testing.assert_array_equal(y, expected.detach().numpy())
    dy = draw(7, y.shape)[0]
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(ops.max_pool_backward(dy, saved), tensor.grad.numpy(), atol=1e-13)


@both_dtypes
@either_mode
@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize(("x", "kernel", "stride", "padding"), POOLS)
def test_avg_pool(
    x: Any, kernel: Any, stride: Any, padding: Any, count: bool, ceil: bool, dtype: Any
) -> None:
    theirs = getattr(functional, f"avg_pool{len(x) - 2}d")
    agree(
        "avg_pool",
        draw(8, x),
        lambda x: theirs(x, kernel, stride, padding, ceil, count),
        dtype,
        window=Window(kernel, stride, padding, ceil=ceil),
        count_include_pad=count,
    )


@both_dtypes
@pytest.mark.parametrize("sizes", [(5,), (4, 7), (3, 2, 5)])
def test_global_pools(sizes: Any, dtype: Any) -> None:
    rank = len(sizes)
    for noun, name in [("global_max_pool", "max"), ("global_avg_pool", "avg")]:
        theirs = getattr(functional, f"adaptive_{name}_pool{rank}d")
        agree(noun, draw(9, (2, 3, *sizes)), lambda x, theirs=theirs: theirs(x, 1).flatten(1), dtype)


# --- normalisation ---


@both_dtypes
@pytest.mark.parametrize("sizes", [(), (5,), (4, 3), (2, 3, 4)])
def test_batch_norm_in_training(sizes: Any, dtype: Any) -> None:
    shape = (4, 6, *sizes)
    agree(
        "batch_norm",
        draw(10, shape, (6,), (6,)),
        lambda x, g, b: functional.batch_norm(x, None, None, g, b, training=True, eps=1e-3),
        dtype,
        eps=1e-3,
    )


@both_dtypes
@pytest.mark.parametrize("sizes", [(), (5,), (4, 3), (2, 3, 4)])
def test_batch_norm_in_inference(sizes: Any, dtype: Any) -> None:
    mean, var = draw(11, (6,), (6,))
    mean, var = mean.astype(dtype), (var**2 + 0.2).astype(dtype)
    running = torch.tensor(mean), torch.tensor(var)
    agree(
        "batch_norm_inference",
        draw(12, (4, 6, *sizes), (6,), (6,)),
        lambda x, g, b: functional.batch_norm(x, *running, g, b, training=False),
        dtype,
        mean=mean,
        var=var,
    )


def test_running_statistics_from_what_batch_norm_saves() -> None:
    x, gamma, beta = draw(13, (4, 6, 3, 5), (6,), (6,))
    theirs = torch.nn.BatchNorm2d(6, momentum=0.3, dtype=torch.float64)
    theirs(torch.tensor(x))
    _, saved = ops.batch_norm_forward(x, gamma, beta)
    unbiased = saved.var * saved.members / (saved.members - 1)
    np.testing.assert_allclose(0.3 * saved.mean, theirs.running_mean.numpy(), atol=1e-14)
    np.testing.assert_allclose(0.7 + 0.3 * unbiased, theirs.running_var.numpy(), rtol=1e-13)


@both_dtypes
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layer_norm(axes: int, dtype: Any) -> None:
    shape = (3, 4, 2, 5)
    last = shape[-axes:]
    agree(
        "layer_norm",
        draw(14, shape, last, last),
        lambda x, g, b: functional.layer_norm(x, last, g, b, 1e-3),
        dtype,
        eps=1e-3,
    )


@both_dtypes
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("sizes", [(5,), (4, 3), (2, 3, 4)])
def test_group_norm(sizes: Any, groups: int, dtype: Any) -> None:
    agree(
        "group_norm",
        draw(15, (3, 6, *sizes), (6,), (6,)),
        lambda x, g, b: functional.group_norm(x, groups, g, b),
        dtype,
        groups=groups,
    )


# --- activations ---

ACTIVATIONS: list[tuple[str, Callable[[Any], Any], dict[str, Any]]] = [
    ("sigmoid", torch.sigmoid, {}),
    ("tanh", torch.tanh, {}),
    ("relu", torch.relu, {}),
    ("leaky_relu", functional.leaky_relu, {}),
    ("leaky_relu", lambda x: functional.leaky_relu(x, 0.3), {"slope": 0.3}),
    ("gelu", functional.gelu, {}),
    ("gelu", lambda x: functional.gelu(x, approximate="tanh"), {"approximate": "tanh"}),
    ("softmax", lambda x: torch.softmax(x, 1), {}),
    ("softmax", lambda x: torch.softmax(x, 2), {"axis": -1}),
    ("log_softmax", lambda x: torch.log_softmax(x, 1), {}),
    ("log_softmax", lambda x: torch.log_softmax(x, 0), {"axis": 0}),
]


@both_dtypes
@pytest.mark.parametrize(("noun", "theirs", "settings"), ACTIVATIONS)
def test_activation(noun: str, theirs: Any, settings: dict[str, Any], dtype: Any) -> None:
    agree(noun, [3 * draw(16, (4, 5, 6))[0]], theirs, dtype, **settings)


@both_dtypes
def test_embedding(dtype: Any) -> None:
    indices = np.array([[4, 0, 4, 2], [1, 4, 0, 0]])
    (w,) = (a.astype(dtype) for a in draw(17, (6, 3)))
    y, saved = ops.embedding_forward(indices, w)
    tensor = torch.tensor(w, requires_grad=True)
    expected = functional.embedding(torch.tensor(indices), tensor)
    dy = draw(18, y.shape)[0].astype(dtype)
    expected.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y, expected.detach().numpy())
    np.testing.assert_allclose(ops.embedding_backward(dy, saved), tensor.grad.numpy(), rtol=TOLERANCE[dtype])


@both_dtypes
def test_patches_are_pixel_shuffle(dtype: Any) -> None:
    x, y = draw(19, (2, 3, 4, 6), (2, 12, 2, 3))
    agree("space_to_depth", [x], lambda x: functional.pixel_unshuffle(x, 2), dtype, patch=2)
    agree("depth_to_space", [y], lambda y: functional.pixel_shuffle(y, 2), dtype, patch=2)


# --- losses ---


def reduced(losses: Any, mask: np.ndarray | None, reduction: str) -> Any:
    """PyTorch's element-wise losses, masked and reduced."""
    if mask is not None:
        losses = losses[torch.tensor(np.broadcast_to(mask, tuple(losses.shape)).copy())]
    return losses.mean() if reduction == "mean" else losses.sum()


LOSSES: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
    ("mse", functional.mse_loss, {}),
    ("mae", functional.l1_loss, {}),
    ("huber", functional.huber_loss, {}),
    (
        "huber",
        lambda y, t, reduction: functional.huber_loss(y, t, reduction=reduction, delta=0.4),
        {"delta": 0.4},
    ),
    ("binary_cross_entropy", functional.binary_cross_entropy_with_logits, {}),
]
masked_or_not = pytest.mark.parametrize("masked", [False, True])
either_reduction = pytest.mark.parametrize("reduction", ["mean", "sum"])


@both_dtypes
@masked_or_not
@either_reduction
@pytest.mark.parametrize(("noun", "theirs", "settings"), LOSSES)
def test_loss(noun: str, theirs: Any, settings: Any, reduction: str, masked: bool, dtype: Any) -> None:
    (y,) = draw(20, (3, 4, 5))
    target = np.random.default_rng(21).random(y.shape).astype(dtype)
    mask = np.random.default_rng(22).random((3, 1, 5)) > 0.4 if masked else None
    agree(
        noun,
        [y],
        lambda y: reduced(theirs(y, torch.tensor(target), reduction="none"), mask, reduction),
        dtype,
        target,
        mask=mask,
        reduction=reduction,
        **settings,
    )


@both_dtypes
@masked_or_not
@either_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("sizes", [(), (4,), (3, 2)])
def test_cross_entropy(
    sizes: Any, soft: bool, smoothing: float, reduction: str, masked: bool, dtype: Any
) -> None:
    rng = np.random.default_rng(23)
    labels = rng.integers(0, 5, (6, *sizes))
    if soft:
        labels = np.moveaxis(rng.dirichlet(np.ones(5), (6, *sizes)), -1, 1).astype(dtype)
    mask = rng.random((6, *sizes)) > 0.4 if masked else None

    def theirs(x: Any) -> Any:
        losses = functional.cross_entropy(
            x, torch.tensor(labels), reduction="none", label_smoothing=smoothing
        )
        return reduced(losses, mask, reduction)

    agree(
        "cross_entropy",
        draw(24, (6, 5, *sizes)),
        theirs,
        dtype,
        labels,
        mask=mask,
        label_smoothing=smoothing,
        reduction=reduction,
    )
