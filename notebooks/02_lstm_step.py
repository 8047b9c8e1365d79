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
# # 2. The LSTM, one step at a time
#
# An LSTM carries two things from step to step: a hidden state $h$, which it shows, and a cell state $c$, which it
# keeps. Three gates decide what is written, what is kept and what is shown. In this notebook you will
#
# 1. do one step forward on numbers you can follow,
# 2. do it backward by hand, line by line,
# 3. chain three steps: that is backpropagation through time (BPTT),
# 4. see why one step from a zero state is no test, and
# 5. measure how far back a gradient reaches, beside a simple recurrent network.

# %%
import numpy as np
from IPython.display import display
from matplotlib import pyplot as plt

from tinyconvlstm import LSTMCell, RNNCell, scan, scan_backward, scan_truncated_backward
from tinyconvlstm.cells import RNNState
from tinyconvlstm.gradcheck import cell_case, gradcheck
from tinyconvlstm.ops.gates import LSTMState, lstm_gates_backward, lstm_gates_forward
from tinyconvlstm.viz.gates import gates_over_time, gradient_norms

# %matplotlib inline
rng = np.random.default_rng(0)


def sigmoid(z):
    """Between 0 (shut) and 1 (open)."""
    return 1 / (1 + np.exp(-z))


# %% [markdown]
# ## One step forward
#
# A linear map turns the input $x$ and the state $h$ into *pre-activations* $z$, one block for each gate, in the order
# **i, f, g, o**: input gate, forget gate, candidate, output gate. Then
#
# $$ i = \sigma(z_i) \quad f = \sigma(z_f) \quad g = \tanh(z_g) \quad
#    c = f \cdot c_{prev} + i \cdot g \quad o = \sigma(z_o) \quad h = o \cdot \tanh(c). $$
#
# One sample, two features, and $z$ from `linspace`, so that you can check every digit on paper.

# %%
z = np.linspace(-1, 1, 8).reshape(1, 8)  # (N, 4F) with F = 2
c_prev = np.array([[0.5, -0.5]])
z_i, z_f, z_g, z_o = z[:, 0:2], z[:, 2:4], z[:, 4:6], z[:, 6:8]

i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
c = f * c_prev + i * g
h = o * np.tanh(c)
for name, value in {"i": i, "f": f, "g": g, "o": o, "c": c, "h": h}.items():
    print(name, value.round(6))

state, saved = lstm_gates_forward(z, c_prev)
np.testing.assert_allclose(state.h, h)
np.testing.assert_allclose(state.c, c)
np.testing.assert_allclose(h, [[0.155176, -0.072397]], atol=1e-6)

# %% [markdown]
# ## One step backward
#
# Two gradients arrive: $dh$ from the loss and from the next step, $dc$ from the next step. Go through the equations
# from the last to the first. Two facts are all you need: $\sigma' = \sigma(1 - \sigma)$ and $\tanh' = 1 - \tanh^2$.

# %%
dh, dc = np.array([[1.0, -2.0]]), np.array([[0.5, 0.25]])

dz_o = dh * np.tanh(c) * o * (1 - o)  # h = o * tanh(c)
dc_all = dc + dh * o * (1 - np.tanh(c) ** 2)  # c is used twice: by h, and by the next step
dz_f = dc_all * c_prev * f * (1 - f)  # c = f * c_prev + i * g
dz_i = dc_all * g * i * (1 - i)
dz_g = dc_all * i * (1 - g**2)
dc_prev = dc_all * f

dz, dc_prev_library, _ = lstm_gates_backward(LSTMState(dh, dc), saved)
np.testing.assert_allclose(np.concatenate([dz_i, dz_f, dz_g, dz_o], axis=1), dz)
np.testing.assert_allclose(dc_prev, dc_prev_library)
print("dz      ", dz.round(4))
print("dc_prev ", dc_prev.round(4))

# %% [markdown]
# Look at the last line of the derivation: $dc_{prev} = dc \cdot f$. Backward through time, the cell's gradient is
# multiplied by the forget gate and by nothing else. An open gate ($f \approx 1$) lets it through unharmed. That is the
# whole point of the LSTM, and you will see it in a picture below.
#
# ## Three steps: backpropagation through time
#
# A cell knows one step: `project` (everything that does not depend on the state, for all steps at once), `step`, and
# `step_backward`. We loop by hand, and compare with `scan` and `scan_backward`.

# %%
cell = LSTMCell(3, 2, rng=1, dtype=np.float64)
xs = rng.standard_normal((3, 1, 3))  # (T, N, C)
dys = rng.standard_normal((3, 1, 2))  # a gradient arrives at every h

zs, projection = cell.project(xs)  # the input map, for all three steps
state, tape = cell.initial_state(xs[0]), []
for t in range(3):
    state, step_saved = cell.step(zs[t], state)
    tape.append(step_saved)

dstate, dzs = LSTMState(np.zeros((1, 2)), np.zeros((1, 2))), [None] * 3
for t in reversed(range(3)):
    dstate = dstate._replace(h=dstate.h + dys[t])  # from later steps, and from the loss at t
    dzs[t], dstate, _ = cell.step_backward(dstate, tape[t])

dw_h = sum(dz.T @ step.state_map.x for dz, step in zip(dzs, tape, strict=True))  # a plain sum over time
dw_x = sum(dz.T @ x for dz, x in zip(dzs, xs, strict=True))

ys, last, library_tape = scan(cell, xs, cell.initial_state(xs[0]))
dxs, dstart, grads = scan_backward(cell, dys, None, library_tape)
np.testing.assert_allclose(last.h, state.h)
np.testing.assert_allclose(grads["w_h"], dw_h)
np.testing.assert_allclose(grads["w_x"], dw_x)
np.testing.assert_allclose(dstart.c, dstate.c)
print("three steps by hand equal scan and scan_backward")

# %% [markdown]
# Notice what stood *inside* the backward loop: only the state's gradient. The weights' gradients are a sum over time,
# taken once at the end. Only the state recurs.
#
# ## Why one step is no test
#
# Here is a cell with a mistake: it **drops the gradient that arrives at c** from the next step. Checked over one step
# from a zero state, with a loss on $h$ alone, it passes. Checked as `cell_case` does it, over several steps from a
# random state, with gradients on the sequence, the last $h$ and the last $c$, it fails.


# %%
class Forgetful(LSTMCell):
    """An LSTM whose backward pass forgets the cell's gradient."""

    def step_backward(self, dstate, saved):
        """Somebody wrote dc = dh * ... where dc += dh * ... is meant."""
        return super().step_backward(LSTMState(dstate.h, np.zeros_like(dstate.c)), saved)


wrong = Forgetful(3, 2, rng=1, dtype=np.float64)
one_step = xs[:1]
_, _, short_tape = scan(wrong, one_step)
dx, _, _ = scan_backward(wrong, dys[:1], None, short_tape)
eps = 1e-6
numeric = np.zeros_like(one_step)
for index in np.ndindex(*one_step.shape):
    bump = np.zeros_like(one_step)
    bump[index] = eps
    numeric[index] = ((scan(wrong, one_step + bump)[0] - scan(wrong, one_step - bump)[0]) * dys[:1]).sum() / (
        2 * eps
    )
print("weak check, largest error:", f"{np.abs(numeric - dx).max():.1e}")
assert np.abs(numeric - dx).max() < 1e-8  # fooled

report = gradcheck(cell_case("forgetful LSTM", wrong, rng.standard_normal((4, 2, 3))))
print(report.line())
assert not report
assert gradcheck(cell_case("LSTM", cell, rng.standard_normal((4, 2, 3))))

# %% [markdown]
# ## The gates over time
#
# A longer sequence: a spike in the first channel at steps 4 and 14, noise elsewhere. The upper panel shows the gates,
# the lower one the candidate, the cell and what is shown.

# %%
long = 0.2 * rng.standard_normal((24, 1, 3))
long[[3, 13], :, 0] = 3.0
_, _, long_tape = scan(cell, long)
display(gates_over_time(long_tape, feature=0))

# %% [markdown]
# ## How far does a gradient reach?
#
# Put a loss on the last step only, and go back: how large is $\partial L / \partial h_t$, and $\partial L / \partial
# c_t$? We use `step_backward` and write down the norm at every step, for an LSTM and for an Elman RNN
# ($h' = \tanh(w_x x + w_h h + b)$) on the same data.

# %%
T, F = 60, 16
sequence = rng.standard_normal((T, 8, 4))
dlast = rng.standard_normal((8, F))


def reach(cell, start):
    """Norms of the gradient at every step, for a loss on the last h alone; by field of the state."""
    zs, _ = cell.project(sequence)
    state, steps = cell.initial_state(sequence[0]), []
    for t in range(T):
        state, step = cell.step(zs[t], state)
        steps.append(step)
    norms, dstate = [], start
    for t in reversed(range(T)):
        norms.append([np.linalg.norm(d) for d in dstate])
        _, dstate, _ = cell.step_backward(dstate, steps[t])
    return np.array(norms)[::-1].T


zero = np.zeros((8, F))
lstm = reach(LSTMCell(4, F, forget_bias=1.0, rng=2, dtype=np.float64), LSTMState(dlast, zero))
open_lstm = reach(LSTMCell(4, F, forget_bias=3.0, rng=2, dtype=np.float64), LSTMState(dlast, zero))
shut_lstm = reach(LSTMCell(4, F, forget_bias=-1.0, rng=2, dtype=np.float64), LSTMState(dlast, zero))
rnn = RNNCell(4, F, rng=2, dtype=np.float64)
rnn.params["w_h"] *= 0.9
(rnn_h,) = reach(rnn, RNNState(dlast))
figure = gradient_norms(
    {
        "RNN |dL/dh|": rnn_h,
        "LSTM |dL/dh|, forget bias 1": lstm[0],
        "LSTM |dL/dc|, forget bias 1": lstm[1],
        "LSTM |dL/dc|, forget bias 3": open_lstm[1],
        "LSTM |dL/dc|, forget bias -1": shut_lstm[1],
    }
)
display(figure)
assert open_lstm[1][0] > 1e-2 > lstm[1][0] > shut_lstm[1][0]
assert rnn_h[0] < 1e-3 * open_lstm[1][0]

# %% [markdown]
# The forget bias decides: with bias 3 the gates start almost open ($\sigma(3) = 0.95$) and the gradient survives
# sixty steps; with bias -1 they start shut and it dies faster than the RNN's. An LSTM *can* carry a gradient far, it
# does not do so by itself. (And it does nothing against gradients that explode: for these one clips their norm.)
#
# ## Truncated BPTT
#
# Going all the way back costs time and memory. Truncated BPTT stops after $k_2$ steps, every $k_1$ steps. It is
# cheaper, and biased: what lies further back than $k_2$ steps does not learn from the loss. Which inputs receive a
# gradient from a loss on the last step?

# %%
small = LSTMCell(4, F, forget_bias=3.0, rng=2, dtype=np.float64)
ys, _, tape = scan(small, sequence)
dys = np.zeros_like(ys)
dys[-1] = dlast
full = scan_backward(small, dys, None, tape)[0]
cut = {k: scan_truncated_backward(small, dys, None, tape, k1=10, k2=k)[0] for k in (10, 20, 40)}
fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (label, dxs), colour in zip(
    {"full": full, **{f"k2 = {k}": d for k, d in cut.items()}}.items(),
    ("0.6", "#0072b2", "#d55e00", "#009e73"),
    strict=True,
):
    width = 5 if label == "full" else 2
    norms = np.linalg.norm(dxs, axis=(1, 2))
    ax.plot(np.arange(1, T + 1), np.where(norms > 0, norms, np.nan), color=colour, lw=width, label=label)
ax.set_yscale("log")
ax.set_xlabel("step t of the input")
ax.set_ylabel("|dL/dx_t|")
ax.grid(alpha=0.3)
ax.legend(frameon=False)
plt.show()
np.testing.assert_allclose(cut[20][-20:], full[-20:])  # exact within reach ...
assert not cut[20][:-20].any()  # ... and nothing beyond
np.testing.assert_allclose(scan_truncated_backward(small, dys, None, tape, k1=T, k2=T)[0], full)

# %% [markdown]
# **Try it.** (1) Give the RNN an orthogonal state map (remove the factor 0.9): does its gradient still vanish, and
# why? (2) In `Forgetful`, drop $dh$ instead of $dc$: does the weak check notice?
#
# Next: [from LSTM to ConvLSTM](03_convlstm_forecast.ipynb).
