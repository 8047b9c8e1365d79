"""The self-attention ConvLSTM against PyTorch's autograd: outputs, last states and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm.bptt import scan, scan_backward
from tinyconvlstm.cells import InputAttentionLSTMCell, SAConvLSTMCell
from tinyconvlstm.gradcheck.zoo_cells import randomised

from .test_recurrent_torch import DTYPES, close, tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

T, N, C, F, D, H, W = 4, 2, 2, 3, 4, 5, 6


def lstm_step(p: dict[str, Any], x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """Shi et al. 2015, equation 3, without peepholes."""
    conv = torch.nn.functional.conv2d
    z = conv(x, p["w_x"], p["b"], padding="same") + conv(h, p["w_h"], padding="same")
    i, f, g, o = z.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def sa_step(p: dict[str, Any], x: Any, h: Any, c: Any, m: Any) -> tuple[Any, ...]:
    """The plain step, then the memory module with maps of one tap as convolutions."""

    def mix(name: str, a: Any) -> Any:
        bias = p["b_m"] if name == "w_m" else None
        return torch.nn.functional.conv2d(a, p[name][..., None, None], bias)

    def look(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (a.flatten(2) for a in (q, k, v))
        scores = torch.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)
        return torch.bmm(scores, v.transpose(1, 2)).transpose(1, 2).reshape(h.shape)

    h, c = lstm_step(p, x, h, c)
    q = mix("w_q", h)
    seen = (look(q, mix("w_kh", h), mix("w_vh", h)), look(q, mix("w_km", m), mix("w_vm", m)))
    z = mix("w_z", torch.cat(seen, 1))
    i, g, o = mix("w_m", torch.cat((z, h), 1)).chunk(3, 1)
    m = (1 - i.sigmoid()) * m + i.sigmoid() * g.tanh()
    return o.sigmoid() * m, c, m


def attention_step(p: dict[str, Any], x: Any, h: Any, c: Any) -> tuple[Any, ...]:
    """One map of attention over the positions, and the plain step on the weighted frame."""
    conv = torch.nn.functional.conv2d
    a = torch.tanh(conv(x, p["w_xa"], p["b_a"], padding="same") + conv(h, p["w_ha"], padding="same"))
    s = conv(a, p["w_z"], padding="same")
    return lstm_step(p, torch.softmax(s.flatten(2), dim=-1).reshape(s.shape) * x, h, c)


PEERS = {
    "self-attention": (lambda: SAConvLSTMCell(C, F, (3, 3), attention=D), sa_step),
    "input attention": (lambda: InputAttentionLSTMCell(C, F, (3, 3)), attention_step),
}


@DTYPES
@pytest.mark.parametrize("name", PEERS)
def test_a_cell_that_attends_is_autograds(name, dtype, rng):
    build, step = PEERS[name]
    cell = randomised(build(), rng).astype(dtype)
    xs = rng.standard_normal((T, N, C, H, W)).astype(dtype)
    blank = cell.initial_state(xs[0])
    state = type(blank)(*(rng.standard_normal(a.shape).astype(dtype) for a in blank))
    ys, last, tape = scan(cell, xs, state)

    p = {key: tensor(a) for key, a in cell.params.items()}
    xs_t, start = tensor(xs), [tensor(a) for a in state]
    carried, shown = start, []
    for x in xs_t:
        carried = step(p, x, *carried)
        shown.append(carried[0])
    close(ys, torch.stack(shown), dtype)
    for found, expected in zip(last, carried, strict=True):
        close(found, expected, dtype)

    dys = rng.standard_normal(ys.shape).astype(dtype)
    dlast = [rng.standard_normal(a.shape).astype(dtype) for a in last]
    dxs, dstate, grads = scan_backward(cell, dys, type(blank)(*dlast), tape)
    loss = (torch.stack(shown) * torch.from_numpy(dys)).sum()
    for a, d in zip(carried, dlast, strict=True):
        loss = loss + (a * torch.from_numpy(d)).sum()
    loss.backward()
    close(dxs, xs_t.grad, dtype)
    for found, a in zip(dstate, start, strict=True):
        close(found, a.grad, dtype)
    assert grads.keys() == p.keys()
    for key, g in grads.items():
        close(g, p[key].grad, dtype)
    assert all(np.abs(g).max() > 0 for g in grads.values())
