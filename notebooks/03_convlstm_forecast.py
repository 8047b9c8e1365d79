# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. A ConvLSTM forecasts moving digits
#
# Replace the matrices of an LSTM by convolutions, and its state becomes a stack of images: every pixel has its own
# memory and sees its neighbours'. That is the ConvLSTM of [Shi et al. 2015](https://arxiv.org/abs/1506.04214). In this
# notebook you will
#
# 1. see that an LSTM *is* a ConvLSTM without space,
# 2. work out how far a state can see,
# 3. train a small encoder-forecaster on digits that move and bounce, and
# 4. look at its gates while it watches.

# %%
import time

import numpy as np
from IPython.display import display

from tinyconvlstm import ConvLSTMCell, Forecaster, LSTMCell, MovingDigits, metrics, scan, scan_backward
from tinyconvlstm.models import constant_velocity, copy_last_frame
from tinyconvlstm.models.objective import forecast_loss_backward, forecast_loss_forward
from tinyconvlstm.optim import Adam
from tinyconvlstm.schedules import Cosine
from tinyconvlstm.train import train
from tinyconvlstm.viz.gates import gates_over_time
from tinyconvlstm.viz.loss import loss_curves
from tinyconvlstm.viz.strips import forecast_strip

# %matplotlib inline
rng = np.random.default_rng(0)

# %% [markdown]
# ## From LSTM to ConvLSTM
#
# The equations are the LSTM's, with a convolution $*$ where a matrix product was:
#
# $$ z = w_x * x + w_h * h + b, \quad (i, f, o) = \sigma(z_i, z_f, z_o), \quad g = \tanh(z_g), \quad
#    c' = f \cdot c + i \cdot g, \quad h' = o \cdot \tanh(c'). $$
#
# The gates work element by element and do not care how many axes there are. So there is one cell for all of them:
# the number of entries of `kernel` says how many spatial axes it has, and `()` is the ordinary LSTM. With kernels of
# one pixel, nothing moves between pixels: then a ConvLSTM is an LSTM run at every pixel.

# %%
lstm = LSTMCell(2, 3, rng=1, dtype=np.float64)
pixelwise = ConvLSTMCell(2, 3, (1, 1), dtype=np.float64)
pixelwise = pixelwise.bind({n: p.reshape(pixelwise.params[n].shape) for n, p in lstm.params.items()})

video = rng.standard_normal((4, 1, 2, 5, 6))  # (T, N, C, H, W)
ys, state, tape = scan(pixelwise, video)
one_pixel, _, _ = scan(lstm, video[:, :, :, 2, 3])
np.testing.assert_allclose(ys[:, :, :, 2, 3], one_pixel, atol=1e-14)
print(
    "the state of",
    ys.shape[2],
    "features at each of",
    ys.shape[3] * ys.shape[4],
    "pixels: equal to the LSTM's",
)

# %% [markdown]
# ## How far can it see?
#
# With kernels of size $k_x$ (input) and $k_h$ (state), after $t$ steps a state has seen
# $r = k_x + (t - 1)(k_h - 1)$ pixels across. Larger kernels see further and faster; with $k_h = 1$ it never sees
# more than $k_x$. The gradient tells us exactly which input pixels reach one state pixel:


# %%
def receptive_field(kernel, state_kernel, steps, size=21):
    """Pixels across, of the first frame, that reach the middle of the last state."""
    cell = ConvLSTMCell(1, 2, (kernel, kernel), state_kernel=(state_kernel, state_kernel), dtype=np.float64)
    ys, _, tape = scan(cell, rng.standard_normal((steps, 1, 1, size, size)))
    dys = np.zeros_like(ys)
    dys[-1, :, :, size // 2, size // 2] = 1.0
    dxs, _, _ = scan_backward(cell, dys, None, tape)
    return int((np.abs(dxs[0, 0, 0]).max(axis=0) > 0).sum())


for kernel, state_kernel in ((3, 3), (5, 3), (3, 5), (5, 1)):
    seen = [receptive_field(kernel, state_kernel, t) for t in (1, 2, 3, 4)]
    print(f"input kernel {kernel}, state kernel {state_kernel}: {seen} pixels after 1, 2, 3, 4 steps")
    assert seen == [kernel + (t - 1) * (state_kernel - 1) for t in (1, 2, 3, 4)]

# %% [markdown]
# ## The data
#
# Real handwritten digits, 8 x 8 pixels from the UCI repository, enlarged and sent across a canvas, where they bounce
# off the edges. Training and test use different digits, so what is learned is *motion*, not particular digits.

# %%
settings = {"canvas": (32, 32), "digits": 1, "frames": 20, "speed": (1.0, 2.5), "digit_size": 14}
clips = MovingDigits("train", **settings)
test = MovingDigits("test", **settings).batch(0, 64)  # (T, N, C, H, W)
past, truth = test[:10], test[10:]
print("test clips:", test.shape, test.dtype)
assert not set(clips.glyph_indices) & set(MovingDigits("test", **settings).glyph_indices)

# %% [markdown]
# Two forecasts cost nothing: copy the last frame, or shift it on as it last moved. A model is worth something only if
# it beats the first, and it has understood bouncing only if it beats the second.

# %%
free = {"copy last frame": copy_last_frame(past, 10), "constant velocity": constant_velocity(past, 10)}
display(forecast_strip(past, truth, free, clip=3))

# %% [markdown]
# ## The model
#
# An **encoder** ConvLSTM reads ten frames. A **forecaster** ConvLSTM starts from its final state, without any input,
# and unrolls ten steps; a 1 x 1 convolution turns its hidden state into frames. Frames are cut into patches of
# 4 x 4 pixels, so the state has 8 x 8 positions. The loss is the cross-entropy of every pixel.

# %%
model = Forecaster((48,), size=(32, 32), kernel=3, patch=4, prior=0.05, rng=0)
print(model.summary((10, 8, 1, 32, 32)))

# %%
STEPS = 200


def loss_forward(model, frames, *, train, rng):
    """Nats per pixel of the ten frames that follow."""
    return forecast_loss_forward(model, frames, observed=10, train=train, rng=rng)


def valid(model):
    """The same on test clips."""
    return float(forecast_loss_forward(model, test[:, :16], observed=10)[0])


start = time.perf_counter()
history = train(
    model,
    loss_forward,
    forecast_loss_backward,
    lambda step: clips.batch(step, 8),
    steps=STEPS,
    optimizer=Adam(),
    schedule=Cosine(6e-3, STEPS),
    valid=valid,
    valid_every=25,
    clip_norm=1.0,
    progress=False,
)
display(loss_curves(history.rows))
print(f"loss {history.rows[0]['loss']:.3f} -> {history.rows[-1]['loss']:.3f} nats per pixel")
assert history.rows[-1]["valid"] < 0.85 * history.rows[0]["loss"]

# %% [markdown]
# `tinyconvlstm demo` takes three times as many steps, of a larger model. The forecast:

# %%
forecasts = {"ConvLSTM": model.predict(past, 10), **free}
display(forecast_strip(past, truth, forecasts, clip=3))
scores = {name: metrics.mse(frames, truth) for name, frames in forecasts.items()}
for name, score in scores.items():
    print(f"{name:<18} mean squared error {score:.4f}")
assert scores["ConvLSTM"] < 0.75 * scores["copy last frame"]

# %% [markdown]
# The first frames know where the digit goes; then the forecast blurs, the more the further it looks ahead. A mean
# squared error, like a cross-entropy, is least at the *average* of all futures that are still possible.
#
# ## Inside
#
# What do the gates do while the encoder watches a clip? Every row is one gate of one feature at every position of the
# 8 x 8 grid. Look for the digit's place in the input gate, and for a trail in the cell.

# %%
_, saved = model.forward(past[:, 3:4], horizon=10)
display(gates_over_time(saved.encoder["encoder.0"]))

# %% [markdown]
# And the hidden state of the forecaster, which sees nothing: the digit goes on moving in the dark.

# %%
display(gates_over_time(saved.forecaster["forecaster.0"]))
h = np.stack([step.gates.o * step.gates.tanh_c for step in saved.forecaster["forecaster.0"].steps])
assert np.abs(np.diff(h, axis=0)).mean() > 1e-3  # it moves, although nothing comes in

# %% [markdown]
# **Try it.** (1) Two digits: `digits=2`. Which baseline suffers most, and why? (2) `state_kernel=1`: how does the loss
# change, and what does the receptive field have to do with it? (3) Feed the forecaster its own frames with
# `Forecaster(..., feed=True)`, and teach it with `truth_rate=0.5` in `forecast_loss_forward`.
