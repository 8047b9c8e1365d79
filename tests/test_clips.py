"""Clips as volumes: factorised and inflated convolutions, alignment of rates."""

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.layers import (
    Activation,
    Conv,
    FactorisedConv,
    LayerNorm,
    Pool,
    Sequential,
    ToFrames,
    ToVolume,
    inflated,
)
from tinyconvlstm.ops.align import align_steps_backward, align_steps_forward, overlaps


def test_volume_and_frames_are_inverse(rng):
    x = rng.standard_normal((4, 2, 3, 5, 6))
    volume, saved = ToVolume().forward(x)
    assert volume.shape == (2, 3, 4, 5, 6)
    assert np.array_equal(volume[1, 2, 3], x[3, 1, 2])
    frames, _ = ToFrames().forward(volume)
    assert np.array_equal(frames, x)
    assert np.array_equal(ToVolume().backward(volume, saved)[0], x)
    assert ToVolume().cost(x.shape).out == volume.shape
    assert ToFrames().cost(volume.shape).out == x.shape


def test_volume_of_a_sequence_without_time_says_so(rng):
    with pytest.raises(ValueError, match="there is no time axis"):
        ToVolume().forward(rng.standard_normal((4, 2)))


@pytest.mark.parametrize(
    ("channels", "features", "kernel"), [(3, 8, (3, 3, 3)), (16, 5, (5, 3, 2)), (2, 4, (2, 3))]
)
def test_factorised_conv_has_the_middle_of_the_paper_and_no_more_weights_than_the_full_one(
    channels, features, kernel
):
    layer = FactorisedConv(channels, features, kernel)
    k_t, k_s = kernel[0], int(np.prod(kernel[1:]))
    middle = (k_t * k_s * channels * features) // (k_s * channels + k_t * features)
    assert layer.params["space.w"].shape == (middle, channels, 1, *kernel[1:])
    assert layer.params["time.w"].shape == (features, middle, k_t, *(1 for _ in kernel[1:]))
    weights = sum(a.size for n, a in layer.params.items() if n.endswith(".w"))
    full = features * channels * k_t * k_s
    assert full - (k_s * channels + k_t * features) < weights <= full


def test_factorised_conv_without_the_relu_is_a_full_convolution_with_the_product_kernel(rng):
    layer = FactorisedConv(2, 3, (3, 2, 3), dtype=np.float64)
    x = rng.standard_normal((2, 2, 4, 5, 6))
    space, time = layer.parts["space"], layer.parts["time"]
    y = time(space(x))
    full = Conv(2, 3, (3, 2, 3), dtype=np.float64)
    w = np.einsum("fmt,mchw->fcthw", time.params["w"][..., 0, 0], space.params["w"][:, :, 0])
    full = full.bind(
        {"w": w, "b": time.params["b"] + time.params["w"][..., 0, 0].sum(axis=2) @ space.params["b"]}
    )
    assert np.allclose(y, full(x), rtol=0, atol=1e-12)


def test_factorised_conv_needs_space():
    with pytest.raises(ValueError, match="at least one spatial axis"):
        FactorisedConv(2, 3, (3,))


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_an_inflated_network_answers_a_static_clip_as_the_first_answers_its_frame(rng, backend, frames):
    net = Sequential(
        Conv(2, 3, (3, 2), rng=0, dtype=np.float64),
        Activation("relu"),
        Pool("max", 2),
        Conv(3, 4, 3, stride=2, padding=1, dilation=2, rng=1, dtype=np.float64),
        Activation("tanh"),
        Pool("avg", (2, 1), ceil=True),
    )
    net = net.bind({n: a + 0.1 * rng.standard_normal(a.shape) for n, a in net.params.items()})
    net = net.to_backend(backend)
    image = rng.standard_normal((2, 2, 13, 12))
    clip = np.repeat(image[:, :, None], 11, axis=2)
    y, ys = (
        to_numpy(net(to_backend(image, backend))),
        to_numpy(inflated(net, frames)(to_backend(clip, backend))),
    )
    assert ys.shape[2] == 11 - 2 * (frames - 1)
    assert np.allclose(ys, y[:, :, None], rtol=0, atol=1e-12)
    moving = to_numpy(inflated(net, frames)(to_backend(rng.standard_normal(clip.shape), backend)))
    assert frames == 1 or not np.allclose(moving[:, :, 0], y)


def test_inflated_leaves_the_first_network_alone(rng):
    conv = Conv(2, 3, (3, 2))
    before = conv.params["w"].copy()
    three = inflated(conv, 4)
    assert three.params["w"].shape == (3, 2, 4, 3, 2)
    assert three.params["w"].dtype == np.float32
    assert np.array_equal(conv.params["w"], before)
    assert conv.window.kernel == (3, 2)


def test_inflated_refuses_what_it_cannot_inflate():
    with pytest.raises(ValueError, match="layer is a LayerNorm"):
        inflated(LayerNorm((3,)), 2)
    with pytest.raises(ValueError, match="depends on the size"):
        inflated(Conv(1, 1, 3, stride=2), 2)
    with pytest.raises(ValueError, match="frames is 0"):
        inflated(Conv(1, 1, 3), 0)


@pytest.mark.parametrize(("old", "new"), [(7, 3), (3, 7), (12, 4), (4, 12), (5, 1), (1, 5), (6, 6)])
def test_alignment_is_the_mean_of_what_overlaps(rng, backend, old, new):
    x = rng.standard_normal((old, 2, 3))
    y, saved = align_steps_forward(to_backend(x, backend), steps=new)
    fine = np.repeat(x, new, axis=0)  # old * new steps: every border lies on one
    assert np.allclose(to_numpy(y), fine.reshape(new, old, 2, 3).mean(axis=1), rtol=0, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    dx = to_numpy(align_steps_backward(to_backend(dy, backend), saved))
    assert np.isclose((dy * to_numpy(y)).sum(), (dx * x).sum(), rtol=1e-12)
    assert np.allclose(overlaps(old, new).sum(axis=1), 1, rtol=0, atol=1e-15)


def test_alignment_to_the_same_rate_changes_nothing(rng):
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    assert align_steps_forward(x, steps=5)[0] is x
    assert align_steps_forward(x, steps=3)[0].dtype == np.float32
    with pytest.raises(ValueError, match="steps is 0"):
        align_steps_forward(x, steps=0)
