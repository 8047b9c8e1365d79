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
# # 1. A convolution is a matrix product
#
# A convolution slides a small kernel over an image and takes a weighted sum at every position. If we copy every
# window into a column of a matrix, all those sums become **one matrix product**. That is `im2col`, and it is how
# this library computes every convolution. In this notebook you will
#
# 1. lay windows over an image and see them become columns,
# 2. compute a convolution as $Y = W\,\mathrm{cols} + b$,
# 3. derive its backward pass by hand, and
# 4. check that gradient with numbers, and see how a careless check can be fooled.

# %%
import numpy as np
from IPython.display import display
from matplotlib import pyplot as plt

from tinyconvlstm.gradcheck import Case, gradcheck, pair_case
from tinyconvlstm.ops import Window, col2im, conv_backward, conv_forward, im2col, softmax_forward
from tinyconvlstm.viz.patches import patches_as_columns

# %matplotlib inline
rng = np.random.default_rng(0)

# %% [markdown]
# ## Windows become columns
#
# A tiny image with the numbers 0 to 19, and a window of $2 \times 3$ taps. A coloured window on the left is the
# column of the same colour on the right, read row by row.

# %%
image = np.arange(20.0).reshape(4, 5)
display(patches_as_columns(image, Window((2, 3))))

# %% [markdown]
# The window has $2 \cdot 3 = 6$ taps, and it fits in $(4 - 2 + 1)(5 - 3 + 1) = 9$ places: so the matrix is
# $6 \times 9$. In general, along each axis,
#
# $$ \mathrm{out} = \left\lfloor \frac{\mathrm{size} + \mathrm{before} + \mathrm{after}
#    - \mathrm{dilation}\,(\mathrm{kernel} - 1) - 1}{\mathrm{stride}} \right\rfloor + 1 .$$
#
# `Window` holds what you choose, and `over(sizes)` works out the rest. Stride skips windows, padding lets them hang
# over the edge, dilation spreads the taps:

# %%
geometry = Window((2, 2), stride=(2, 1), padding=((1, 0), (0, 0)), dilation=(1, 2)).over((4, 5))
print(geometry)
assert geometry.out == (2, 3)
display(patches_as_columns(image, Window((2, 2), stride=(2, 1), padding=((1, 0), (0, 0)), dilation=(1, 2))))

# %% [markdown]
# ## The product
#
# With $C$ channels, a column holds the window's taps of all channels: $C \cdot \prod K$ numbers. A kernel for one
# output feature is a row of the same length. $F$ kernels make the matrix $W$ of shape $(F,\; C\prod K)$, and
#
# $$ Y = W\,\mathrm{cols} + b, \qquad (F,\,P) = (F,\,C\textstyle\prod K)\;(C\prod K,\,P), \quad P = \prod S_{out}. $$
#
# Let us do this by hand and compare it with `conv_forward`, and with the definition written as loops.

# %%
x = rng.standard_normal((1, 2, 4, 5))  # (N, C, H, W)
w = rng.standard_normal((3, 2, 2, 3))  # (F, C, *K)
b = rng.standard_normal(3)  # (F,)

window = Window((2, 3))
cols = im2col(x, window.over(x.shape[2:]))  # (N, C * K, P)
by_hand = w.reshape(3, -1) @ cols[0] + b[:, None]  # (F, P)
y, saved = conv_forward(x, w, b, window=window)

loops = np.zeros((3, 3, 3))
for f in range(3):
    for i in range(3):
        for j in range(3):
            loops[f, i, j] = b[f] + (w[f] * x[0, :, i : i + 2, j : j + 3]).sum()

print("columns", cols.shape, " W", w.reshape(3, -1).shape, " Y", by_hand.shape)
np.testing.assert_allclose(by_hand.reshape(3, 3, 3), y[0])
np.testing.assert_allclose(loops, y[0])

# %% [markdown]
# The kernel was not flipped: this is *cross-correlation*, which every framework calls convolution. True convolution
# flips the kernel first; on a kernel that is not symmetric the two differ:

# %%
flipped, _ = conv_forward(x, w[:, :, ::-1, ::-1], b, window=window)
print("largest difference after flipping:", np.abs(flipped - y).max().round(2))
assert np.abs(flipped - y).max() > 0.1

# %% [markdown]
# ## Backward, by hand
#
# Somebody hands us $dY$, the gradient of a loss with respect to $Y$: we want it with respect to $x$, $w$ and $b$.
# $Y$ is *linear* in each of them, so there is no calculus left, only transposes:
#
# $$ dW = dY\,\mathrm{cols}^T, \qquad d\mathrm{cols} = W^T dY, \qquad db_f = \sum_p dY_{f,p}. $$
#
# What remains is to get from $d\mathrm{cols}$ to $dx$. A pixel was copied into several columns, so its gradient is the
# **sum** over all the places it was copied to. That is `col2im`.

# %%
dy = rng.standard_normal(y.shape)
dY = dy.reshape(3, -1)  # (F, P)

dw = (dY @ cols[0].T).reshape(w.shape)
dcols = w.reshape(3, -1).T @ dY  # (C * K, P)
dx = col2im(dcols[None], window.over(x.shape[2:]))
db = dY.sum(axis=1)

for mine, theirs in zip((dx, dw, db), conv_backward(dy, saved), strict=True):
    np.testing.assert_allclose(mine, theirs)
print("dx, dw and db equal the library's")

# %% [markdown]
# How many times was each pixel read? Send ones through `col2im`, and see: corners once, the middle six times.

# %%
ones = np.ones((1, 6, 9))
counts = col2im(ones, window.over((4, 5)))[0, 0]
fig, ax = plt.subplots(figsize=(4, 3), layout="constrained")
ax.imshow(counts, cmap="Blues", vmin=0)
for (r, c), v in np.ndenumerate(counts):
    ax.text(c, r, f"{v:.0f}", ha="center", va="center", color="w" if v > 3 else "k")
ax.set_title("in how many windows is a pixel?")
ax.set_axis_off()
plt.show()
assert counts[0, 0] == 1
assert counts.max() == 6

# %% [markdown]
# `im2col` and `col2im` are each other's **adjoint** (one is the transpose of the other, written as a matrix). That
# can be tested without any convolution: for all $x$ and $c$,
#
# $$ \langle \mathrm{im2col}(x),\, c \rangle = \langle x,\, \mathrm{col2im}(c) \rangle . $$

# %%
shape = Window((2, 3), stride=2, padding="same").over((4, 5))
columns = im2col(x, shape)
c = rng.standard_normal(columns.shape)
left, right = (columns * c).sum(), (x * col2im(c, shape)).sum()
print(f"{left:.12f}\n{right:.12f}")
np.testing.assert_allclose(left, right)

# %% [markdown]
# ## Is the gradient right?
#
# A derivative can be estimated from two evaluations. The **central difference** has an error that falls with $h^2$,
# until rounding takes over. The **complex step** evaluates the function at $x + ih$ and takes the imaginary part:
# nothing is subtracted, so $h$ may be as small as one likes. Let us measure the error of both against the exact
# derivative of the loss $L = \langle u, \tanh(\mathrm{conv}(x, w)) \rangle$ along one direction.

# %%
u = rng.standard_normal(y.shape)
v = rng.standard_normal(w.shape)


def loss(weights):
    """<u, tanh(conv(x, w))>, in the dtype of the weights."""
    dtype = np.result_type(weights, np.float32)
    real = np.float32 if dtype == np.float32 else np.float64
    out, _ = conv_forward(x.astype(real), weights, b.astype(real), window=window)
    return (u.astype(real) * np.tanh(out)).sum()


exact = (conv_backward(u * (1 - np.tanh(y) ** 2), saved)[1] * v).sum()
steps = 10.0 ** np.arange(-1, -16, -0.5)
w32, v32 = w.astype(np.float32), v.astype(np.float32)
errors = {
    "central, float32": [
        abs((loss(w32 + np.float32(h) * v32) - loss(w32 - np.float32(h) * v32)) / (2 * h) - exact)
        for h in steps
    ],
    "central, float64": [abs((loss(w + h * v) - loss(w - h * v)) / (2 * h) - exact) for h in steps],
    "complex step": [abs(loss(w + 1j * h * v).imag / h - exact) for h in steps],
}
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (label, error), colour in zip(errors.items(), ("#d55e00", "#0072b2", "#009e73"), strict=True):
    ax.loglog(steps, np.maximum(np.abs(error) / abs(exact), 1e-17), "o-", ms=4, label=label, color=colour)
ax.invert_xaxis()
ax.set_xlabel("step h")
ax.set_ylabel("relative error of the derivative")
ax.grid(alpha=0.3)
ax.legend(frameon=False)
plt.show()

best = {label: np.min(error) / abs(exact) for label, error in errors.items()}
assert best["complex step"] < 1e-14
assert 1e-13 < best["central, float64"] < 1e-8
assert best["central, float32"] > 1e-6

# %% [markdown]
# Read the picture from left to right. Both central differences improve at first, then rounding spoils them: in
# float32 long before a mistake of one part in a thousand could be seen. So a check belongs in float64, and
# `gradcheck` refuses float32. It tests a random direction first, then elements one by one, so that it can name
# a culprit.

# %%
report = gradcheck(pair_case("conv", conv_forward, conv_backward, {"x": x, "w": w, "b": b}, window=window))
print(report)
assert report

# %% [markdown]
# ## How to fool a gradient check
#
# The check needs *some* gradient arriving at the output. Many use all ones, because then $L$ is just the sum. But
# the outputs of a softmax always sum to one: their sum does not change, whatever the input, and a backward pass that
# returns **zeros** passes.

# %%
logits = rng.standard_normal((2, 5))


def lazy_backward(dp, saved):
    """A softmax backward that does nothing."""
    return np.zeros_like(logits)


h = 1e-5


def total(values):
    """The loss with an all-ones upstream gradient: the sum of all outputs."""
    return softmax_forward(values)[0].sum()


bumps = h * np.eye(10).reshape(10, 2, 5)
numeric = np.array([(total(logits + bump) - total(logits - bump)) / (2 * h) for bump in bumps])
print("all-ones upstream: largest disagreement with the lazy backward", np.abs(numeric - 0).max())
assert np.abs(numeric).max() < 1e-9  # fooled

report = gradcheck(pair_case("lazy softmax", softmax_forward, lazy_backward, {"x": logits}))
print(report.line())
print("culprit:", report.culprits[0].argument, "at", report.culprits[0].at)
assert not report  # random upstream gradients are not fooled

# %% [markdown]
# ## Try it
#
# 1. Break `conv_backward` on purpose. The function below has a typical mistake: find it with the report, then mend
#    it. (The assertion says that the broken one must fail.)
# 2. What does `Window(3, padding="same", stride=2)` give for an image of 7 x 8 pixels? Work it out before you run it.


# %%
def broken_backward(dy, saved):
    """Somebody forgot that a pixel lies in several windows."""
    dx, dw, db = conv_backward(dy, saved)
    return dx / np.maximum(counts, 1), dw, db


broken = gradcheck(
    pair_case("broken conv", conv_forward, broken_backward, {"x": x, "w": w, "b": b}, window=window)
)
display(broken.draw())
plt.close("all")
assert not broken
assert {row.argument for row in broken.culprits} == {"x"}  # the report names the argument that is wrong
assert Window(3, padding="same", stride=2).over((7, 8)).out == (4, 4)
assert isinstance(pair_case("conv", conv_forward, conv_backward, {"x": x, "w": w}), Case)

# %% [markdown]
# **What you have seen.** A convolution is a matrix product on patches. Its backward pass is three transposes and a
# sum over windows. A gradient check with random upstream gradients, in float64, tells you whether you got it right.
# Next: [the LSTM, one step at a time](02_lstm_step.ipynb).
