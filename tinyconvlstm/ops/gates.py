"""Gate arithmetic of LSTM and GRU: everything in a cell except its linear maps.

The pre-activations z arrive from any linear map, dense or convolutional, with any number of spatial
axes; so one pair serves LSTM and ConvLSTM in 1, 2 and 3 dimensions. All work is element by element.

Sources: Hochreiter & Schmidhuber 1997 with the forget gate of Gers, Schmidhuber & Cummins 2000;
peepholes: Gers, Schraudolph & Schmidhuber 2002; in the convolutional LSTM: Shi et al. 2015, arXiv
1506.04214, equation 3. GRU: Cho et al. 2014, arXiv 1406.1078, equations 5 to 8.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import kernels
from ..backend import Array, array_module
from .activations import sigmoid, sigmoid_in_place

GATES = ("i", "f", "g", "o")  # input, forget, candidate, output: the order of the 4F gate channels
GRU_GATES = ("r", "u", "n")  # reset, update, candidate: the order of the 3F gate channels
PEEPHOLES = ("i", "f", "o")  # the gates that look at the cell: the order of w_c's first axis


class LSTMState(NamedTuple):
    """What an LSTM carries from step to step; also the gradient with respect to it."""

    h: Array  # (N, F, *S) hidden state, the output
    c: Array  # (N, F, *S) cell state


class LSTMGatesSaved(NamedTuple):
    """Gates and cell of one step, each (N, F, *S), in the order in which they were computed."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    tanh_c: Array
    c_prev: Array
    w_c: Array | None
    gates: Array  # (N, 4F, *S), the block of which i, f, g, o are views


def lstm_gates_forward(
    z: Array, c_prev: Array, w_c: Array | None = None, *, in_place: bool = False
) -> tuple[LSTMState, LSTMGatesSaved]:
    """One step of the LSTM's gates from their pre-activations.

        z_i, z_f, z_g, z_o = z
        i = sigmoid(z_i + w_ci * c_prev)
        f = sigmoid(z_f + w_cf * c_prev)
        g = tanh(z_g)
        c = f * c_prev + i * g
        o = sigmoid(z_o + w_co * c)          the output gate peeps at the new cell
        h = o * tanh(c)

    Args:
        z: (N, 4F, *S), gates in GATES order.
        c_prev: (N, F, *S).
        w_c: peephole weights in PEEPHOLES order: None, (3, F) per channel, or (3, F, *S) a full map.
        in_place: write the gates over z, for a caller who made z and needs it no more.
    Returns:
        LSTMState(h, c), each (N, F, *S), and what `lstm_gates_backward` needs.
    Source: Shi et al. 2015, equation 3.
    """
    xp = array_module(z=z, c_prev=c_prev, w_c=w_c)
    if kernels.usable(z, c_prev, w_c):
        gates, c, tanh_c, h = kernels.lstm_gates_forward(z, c_prev, w_c)
        return LSTMState(h, c), LSTMGatesSaved._make((*split(gates, 4), c, tanh_c, c_prev, w_c, gates))
    kind = xp.result_type(z, c_prev) if w_c is None else xp.result_type(z, c_prev, w_c)
    gates = z if in_place and z.dtype == kind else z.astype(kind)
    F = c_prev.shape[1]
    i, f, g, o = split(gates, 4)  # views: every line below works in place
    if w_c is not None:
        peephole = along_features(w_c, z)  # of i, f and o
        i_beside_f = in_two(gates, F)
        i_beside_f += peephole[:2] * c_prev[:, None]
    i_and_f, i_to_g = gates[:, : 2 * F], gates[:, : 3 * F]  # neighbours: one call for all of them
    i_and_f *= 0.5
    xp.tanh(i_to_g, out=i_to_g)
    i_and_f *= 0.5
    i_and_f += 0.5
    c = xp.multiply(f, c_prev, out=xp.empty_like(f))  # as the gates lie in memory
    c += i * g
    if w_c is not None:
        o += peephole[2] * c
    o *= 0.5
    sigmoid_in_place(o)
    tanh_c = xp.tanh(c)
    return LSTMState(o * tanh_c, c), LSTMGatesSaved(i, f, g, o, c, tanh_c, c_prev, w_c, gates)


class LSTMSlopes(NamedTuple):
    """What a step's dz is for each unit of dc and of dh: known before these are."""

    dz: Array  # (N, 4F, *S): dz_i, dz_f and dz_g for dc, dz_o for dh
    dc: Array  # (N, F, *S): dc for dh


def lstm_slopes(saved: LSTMGatesSaved, out: Array) -> LSTMSlopes:
    """The derivatives of `lstm_gates_forward` that no gradient enters; of several steps at once, as one batch.

        dz_i / dc = g i (1 - i)      dz_f / dc = c_prev f (1 - f)      dz_g / dc = i (1 - g^2)
        dz_o / dh = tanh(c) o (1 - o)                                  dc / dh = o (1 - tanh(c)^2)

    Args:
        saved: from `lstm_gates_forward`; c and w_c are not read.
        out: (N, 4F, *S); where the slopes of dz are written.
    Returns:
        The slopes of dz (`out`) and of dc (N, F, *S).
    """
    i, f, g, o, _, tanh_c, c_prev, _, gates = saved
    xp, F = array_module(gates, c_prev), f.shape[1]
    dz_i, dz_f, dz_g, dz_o = split(out, 4)
    # s - s^2 of a sigmoid and 1 - g^2 of the tanh; then factor by factor, in place
    xp.multiply(gates, gates, out=out)
    xp.subtract(gates[:, : 2 * F], out[:, : 2 * F], out=out[:, : 2 * F])
    xp.subtract(1, dz_g, out=dz_g)
    xp.subtract(o, dz_o, out=dz_o)
    dz_i *= g
    dz_f *= c_prev
    dz_g *= i
    dz_o *= tanh_c
    dc = tanh_c * tanh_c
    xp.subtract(1, dc, out=dc)
    dc *= o
    return LSTMSlopes(out, dc)


def lstm_gates_backward(
    dstate: LSTMState, saved: LSTMGatesSaved, slopes: LSTMSlopes | None = None
) -> tuple[Array, Array, Array | None]:
    """Gradients of the gate arithmetic, from the last line of the forward pass to the first.

        dz_o = dh * tanh(c) * o (1 - o)              h = o * tanh(c),  o = sigmoid(z_o + w_co c)
        dc  += dh * o * (1 - tanh(c)^2)  + w_co dz_o
        dz_f = dc * c_prev * f (1 - f)               c = f * c_prev + i * g
        dz_i = dc * g * i (1 - i)
        dz_g = dc * i * (1 - g^2)
        dc_prev = dc * f  + w_ci dz_i + w_cf dz_f

    Args:
        dstate: LSTMState(dh, dc) from later steps and from the loss, each (N, F, *S).
        saved: from `lstm_gates_forward`.
        slopes: of this step, where the caller has them; dz is written over them.
    Returns:
        dz (N, 4F, *S) in GATES order, dc_prev (N, F, *S), dw_c of w_c's shape or None.
    """
    _, f, _, _, c, tanh_c, c_prev, w_c, gates = saved
    dh, dc = dstate
    xp = array_module(dh=dh, dc=dc, c_prev=c_prev)
    if kernels.usable(dh, dc, gates, c_prev, w_c):
        dz, dc_prev = kernels.lstm_gates_backward(dh, dc, gates, tanh_c, c_prev, w_c)
        return dz, dc_prev, peephole_gradient(dz, saved)
    F, dh, dc = c.shape[1], laid_as(c, dh), laid_as(c, dc)
    if slopes is None:
        out = xp.empty_like(gates, dtype=xp.result_type(dh, dc, gates))
        slopes = lstm_slopes(saved, out)
    dz, through_h = slopes
    dz_o = dz[:, 3 * F :]
    dz_o *= dh
    dc = dc + dh * through_h
    if w_c is not None:
        w_ci, w_cf, w_co = along_features(w_c, c)
        dc += w_co * dz_o
    dz_ifg = dz[:, : 3 * F].reshape(len(dz), 3, *c.shape[1:])  # (N, 3, F, *S)
    dz_ifg *= dc[:, None]
    dc_prev = dc * f
    if w_c is None:
        return dz, dc_prev, None
    dc_prev += w_ci * dz[:, :F]
    dc_prev += w_cf * dz[:, F : 2 * F]
    return dz, dc_prev, peephole_gradient(dz, saved)


def peephole_gradient(dz: Array, saved: LSTMGatesSaved) -> Array | None:
    """dw_c of w_c's shape from dz (N, 4F, *S): each weight's gradient over all that share it, or None."""
    c, c_prev, w_c = saved.c, saved.c_prev, saved.w_c
    if w_c is None:
        return None
    F = c.shape[1]
    shared = tuple(range(3, c.ndim + 1)) if w_c.ndim == 2 else ()  # axes along which a weight is the same
    of_i_and_f = (in_two(dz, F) * c_prev[:, None]).sum((0, *shared))
    of_o = (dz[:, None, 3 * F :] * c[:, None]).sum((0, *shared))
    return array_module(dz).concatenate([of_i_and_f, of_o])


def in_two(z: Array, features: int) -> Array:
    """The gates i and f of z (N, 4F, *S), on an axis of their own: (N, 2, F, *S), a view."""
    return z[:, : 2 * features].reshape(len(z), 2, features, *z.shape[2:])


class GRUGatesSaved(NamedTuple):
    """Gates of one step, each (N, F, *S)."""

    r: Array
    u: Array
    n: Array
    z_hn: Array  # the state's part of the candidate, before the reset gate
    h_prev: Array


def gru_gates_forward(z_x: Array, z_h: Array, h_prev: Array) -> tuple[Array, GRUGatesSaved]:
    """One step of the GRU's gates, reset gate applied after the state map.

        r = sigmoid(z_xr + z_hr)
        u = sigmoid(z_xu + z_hu)
        n = tanh(z_xn + r * z_hn)
        h = (1 - u) * n + u * h_prev

    Args:
        z_x: (N, 3F, *S) from the input, in GRU_GATES order.
        z_h: (N, 3F, *S) from the state.
        h_prev: (N, F, *S).
    Returns:
        h (N, F, *S) and what `gru_gates_backward` needs.
    Source: the "reset after" form of cuDNN and PyTorch; Cho et al. 2014, equations 5 to 8, up to the
        place of r.
    """
    xp = array_module(z_x=z_x, z_h=z_h, h_prev=h_prev)
    if kernels.usable(z_x, z_h, h_prev):
        r, u, n, h = kernels.gru_gates_forward(z_x, z_h, h_prev)
        return h, GRUGatesSaved(r, u, n, split(z_h, 3)[2], h_prev)
    (z_xr, z_xu, z_xn), (z_hr, z_hu, z_hn) = split(z_x, 3), split(z_h, 3)
    r = sigmoid(z_xr + z_hr)
    u = sigmoid(z_xu + z_hu)
    n = xp.tanh(z_xn + r * z_hn)
    h = (1 - u) * n + u * h_prev
    return h, GRUGatesSaved(r, u, n, z_hn, h_prev)


def gru_gates_backward(dh: Array, saved: GRUGatesSaved) -> tuple[Array, Array, Array]:
    """Gradients of `gru_gates_forward`.

        dz_xn = dh * (1 - u) * (1 - n^2)        dz_hn = dz_xn * r
        dz_u  = dh * (h_prev - n) * u (1 - u)   the same for both maps
        dz_r  = dz_xn * z_hn * r (1 - r)        the same for both maps
        dh_prev = dh * u                        the direct path only; the map's part comes from dz_h

    Args:
        dh: (N, F, *S).
        saved: from `gru_gates_forward`.
    Returns:
        dz_x (N, 3F, *S), dz_h (N, 3F, *S), dh_prev (N, F, *S).
    """
    r, u, n, z_hn, h_prev = saved
    xp = array_module(dh=dh, h_prev=h_prev)
    if kernels.usable(dh, r, u, n, z_hn, h_prev):
        return kernels.gru_gates_backward(dh, r, u, n, z_hn, h_prev)
    dz_n = dh * (1 - u) * (1 - n * n)
    dz_u = dh * (h_prev - n) * u * (1 - u)
    dz_r = dz_n * z_hn * r * (1 - r)
    dz_x = xp.concatenate([dz_r, dz_u, dz_n], axis=1)
    dz_h = xp.concatenate([dz_r, dz_u, dz_n * r], axis=1)
    return dz_x, dz_h, dh * u


class GRUResetSaved(NamedTuple):
    """Reset and update gate, each (N, F, *S)."""

    r: Array
    u: Array
    h: Array


def gru_reset_forward(z: Array, h: Array) -> tuple[tuple[Array, Array], GRUResetSaved]:
    """The first half of a GRU step with the reset gate before the state map.

        r, u = sigmoid(z_r), sigmoid(z_u)
        v = r * h                               what the candidate's state map will see

    Args:
        z: (N, 2F, *S), input and state parts already added.
        h: (N, F, *S), as the maps see it.
    Returns:
        (u, v), each (N, F, *S), and what `gru_reset_backward` needs.
    Source: Cho et al. 2014, equations 5, 6 and 8.
    """
    r, u = split(sigmoid(z), 2)
    return (u, r * h), GRUResetSaved(r, u, h)


def gru_reset_backward(dy: tuple[Array, Array], saved: GRUResetSaved) -> tuple[Array, Array]:
    """Gradients of `gru_reset_forward`.

        dz_u = du * u (1 - u)     dz_r = dv * h * r (1 - r)     dh = dv * r

    Args:
        dy: (du, dv), each (N, F, *S).
        saved: from `gru_reset_forward`.
    Returns:
        dz (N, 2F, *S), dh (N, F, *S).
    """
    (du, dv), (r, u, h) = dy, saved
    xp = array_module(du=du, dv=dv, h=h)
    dz = xp.concatenate([dv * h * r * (1 - r), du * u * (1 - u)], axis=1)
    return dz, dv * r


class GRUUpdateSaved(NamedTuple):
    """Candidate, update gate and state, each (N, F, *S)."""

    n: Array
    u: Array
    h_prev: Array


def gru_update_forward(z_n: Array, u: Array, h_prev: Array) -> tuple[Array, GRUUpdateSaved]:
    """The second half: the candidate, and the state moved towards it.

        n = tanh(z_n)
        h = (1 - u) * n + u * h_prev

    Args:
        z_n, u, h_prev: (N, F, *S).
    Returns:
        h (N, F, *S) and what `gru_update_backward` needs.
    Source: Cho et al. 2014, equations 7 and 8.
    """
    n = array_module(z_n=z_n, u=u, h_prev=h_prev).tanh(z_n)
    return (1 - u) * n + u * h_prev, GRUUpdateSaved(n, u, h_prev)


def gru_update_backward(dh: Array, saved: GRUUpdateSaved) -> tuple[Array, Array, Array]:
    """Gradients of `gru_update_forward`.

        dz_n = dh * (1 - u) * (1 - n^2)     du = dh * (h_prev - n)     dh_prev = dh * u

    Args:
        dh: (N, F, *S).
        saved: from `gru_update_forward`.
    Returns:
        dz_n, du, dh_prev, each (N, F, *S).
    """
    n, u, h_prev = saved
    return dh * (1 - u) * (1 - n * n), dh * (h_prev - n), dh * u


def laid_as(like: Array, x: Array) -> Array:
    """x, with its numbers in memory in the order of `like`: matrices by rows and by columns mix badly."""
    if x.ndim != 2 or x.flags.c_contiguous == like.flags.c_contiguous or not like.flags.f_contiguous:
        return x
    return array_module(x).asfortranarray(x)


def split(z: Array, parts: int) -> tuple[Array, ...]:
    """z (N, parts * F, *S) as `parts` views (N, F, *S)."""
    features = z.shape[1] // parts
    return tuple([z[:, k * features : (k + 1) * features] for k in range(parts)])


def along_features(w_c: Array, z: Array) -> Array:
    """Peephole weights (3, F) or (3, F, *S), shaped to multiply arrays (N, F, *S)."""
    return w_c.reshape(*w_c.shape, *(1,) * (z.ndim - w_c.ndim))
