"""The self-attention memory: every position looks at all others, in the state and in a memory of it.

Source: Lin, Li, Zheng, Cheng, Yuan 2020, "Self-attention ConvLSTM for spatiotemporal prediction", AAAI.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module
from .activations import sigmoid
from .attention import AttendSaved, attend_backward, attend_forward
from .gates import split


class SelfAttentionWeights(NamedTuple):
    """The weights of `self_attention_forward`, in its order; also their gradients."""

    w_q: Array  # (D, F)
    w_kh: Array  # (D, F)
    w_vh: Array  # (F, F)
    w_km: Array  # (D, F)
    w_vm: Array  # (F, F)
    w_z: Array  # (F, 2F)
    w_m: Array  # (3F, 2F), blocks i', g', o'
    b_m: Array  # (3F,)


class SelfAttentionSaved(NamedTuple):
    """What `self_attention_backward` needs; positions are one axis P."""

    h: Array  # (N, F, P)
    m: Array  # (N, F, P)
    of_h: AttendSaved
    of_m: AttendSaved
    both: Array  # (N, 2F, P), Z_h and Z_m
    read: Array  # (N, 2F, P), Z and h
    i: Array  # (N, F, P)
    g: Array
    o: Array
    m_new: Array
    weights: SelfAttentionWeights


def self_attention_forward(
    h: Array,
    m: Array,
    w_q: Array,
    w_kh: Array,
    w_vh: Array,
    w_km: Array,
    w_vm: Array,
    w_z: Array,
    w_m: Array,
    b_m: Array,
) -> tuple[tuple[Array, Array], SelfAttentionSaved]:
    """Look around in h and in the memory m, renew the memory, and show it.

        q = w_q h         k_h = w_kh h      v_h = w_vh h         at every position by itself
                          k_m = w_km m      v_m = w_vm m
        Z_h = softmax(q^T k_h) v_h          Z_m = softmax(q^T k_m) v_m        over all positions
        Z = w_z (Z_h, Z_m)
        (i', g', o') = w_m (Z, h) + b_m
        m' = (1 - sigmoid(i')) . m + sigmoid(i') . tanh(g')
        h' = sigmoid(o') . m'

    The scores are not divided by sqrt(D).

    Args:
        h, m: (N, F, *S).
        w_q .. b_m: see `SelfAttentionWeights`.
    Returns:
        (h', m'), each (N, F, *S), and what `self_attention_backward` needs.
    Cost: with P = prod(S), 2 P^2 (D + F) multiply-accumulates a clip, and 2 P^2 numbers kept.
    Source: Lin et al. 2020, section "Self-attention memory module".
    """
    xp = array_module(h=h, m=m, w_q=w_q)
    weights = SelfAttentionWeights(w_q, w_kh, w_vh, w_km, w_vm, w_z, w_m, b_m)
    shape, h, m = h.shape, h.reshape(*h.shape[:2], -1), m.reshape(*m.shape[:2], -1)
    q = w_q @ h  # (N, D, P)
    z_h, of_h = attend_forward(q, w_kh @ h, w_vh @ h)
    z_m, of_m = attend_forward(q, w_km @ m, w_vm @ m)
    both = xp.concatenate([z_h, z_m], axis=1)
    read = xp.concatenate([w_z @ both, h], axis=1)
    z_i, z_g, z_o = split(w_m @ read + b_m[:, None], 3)
    i, g, o = sigmoid(z_i), xp.tanh(z_g), sigmoid(z_o)
    m_new = (1 - i) * m + i * g
    saved = SelfAttentionSaved(h, m, of_h, of_m, both, read, i, g, o, m_new, weights)
    return ((o * m_new).reshape(shape), m_new.reshape(shape)), saved


def self_attention_backward(dout: tuple[Array, Array], saved: SelfAttentionSaved) -> tuple[Array, ...]:
    """Gradients of `self_attention_forward`, line by line from the last.

        do = dh' m'               dm' += dh' o                                  h' = o m'
        di = dm' (g - m)          dg = dm' i           dm = dm' (1 - i)         m' = (1 - i) m + i g
        d(Z, h) = w_m^T dz        d(Z_h, Z_m) = w_z^T dZ
        dq, dk_h, dv_h and dq, dk_m, dv_m              two `attend_backward`; q feeds both
        dh += w_q^T dq + w_kh^T dk_h + w_vh^T dv_h     dm += w_km^T dk_m + w_vm^T dv_m

    Args:
        dout: (dh', dm'), each (N, F, *S).
        saved: from `self_attention_forward`.
    Returns:
        dh, dm, each (N, F, *S), and the gradients of the weights in the order of the arguments.
    """
    h, m, of_h, of_m, both, read, i, g, o, m_new, w = saved
    xp, shape = array_module(dout[0], h), dout[0].shape
    dh_new, dm_new = (d.reshape(h.shape) for d in dout)
    dm_new = dm_new + dh_new * o
    dz_i, dz_g = dm_new * (g - m) * i * (1 - i), dm_new * i * (1 - g * g)
    dz = xp.concatenate([dz_i, dz_g, dh_new * m_new * o * (1 - o)], axis=1)  # (N, 3F, P)
    dz_all, dh = split(w.w_m.T @ dz, 2)
    dz_h, dz_m = split(w.w_z.T @ dz_all, 2)
    dq_h, dk_h, dv_h = attend_backward(dz_h, of_h)
    dq_m, dk_m, dv_m = attend_backward(dz_m, of_m)
    dq = dq_h + dq_m
    dh = dh + w.w_q.T @ dq + w.w_kh.T @ dk_h + w.w_vh.T @ dv_h
    dm = dm_new * (1 - i) + w.w_km.T @ dk_m + w.w_vm.T @ dv_m
    pairs = ((dq, h), (dk_h, h), (dv_h, h), (dk_m, m), (dv_m, m), (dz_all, both), (dz, read))
    dws = [(dy @ x.swapaxes(1, 2)).sum(axis=0) for dy, x in pairs]
    return dh.reshape(shape), dm.reshape(shape), *dws, dz.sum(axis=(0, 2))
