"""LSTM, GRU and ConvLSTM against PyTorch: outputs, last states and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm.bptt import scan, scan_backward, scan_checkpointed, scan_checkpointed_backward
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell, RNNCell
from tinyconvlstm.gradcheck.zoo_cells import randomised
from tinyconvlstm.layers import Bidirectional, Recurrent, Sequential

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

LIMITS = {np.float64: 1e-12, np.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", LIMITS, ids=["float64", "float32"])
T, N, C, F = 7, 3, 4, 5

# Torch's gates come in our order: i, f, g, o of the LSTM; r, z, n of the GRU, whose z we call u.
PEERS: dict[str, Any] = {"RNN": (RNNCell, "RNN"), "LSTM": (LSTMCell, "LSTM"), "GRU": (GRUCell, "GRU")}
KINDS = pytest.mark.parametrize("kind", PEERS)


def close(found: Any, expected: Any, dtype: Any) -> None:
    """Equal within the dtype's limit of the largest value."""
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert found.dtype == expected.dtype == dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=LIMITS[dtype] * max(1.0, np.abs(expected).max()))


def tensor(a: np.ndarray, grad: bool = True) -> Any:
    return torch.from_numpy(a.copy()).requires_grad_(grad)


def copy_weights(cell: Any, module: Any, suffix: str = "") -> None:
    """Our parameters into torch's module; torch has two biases, and b_hn is a part of its second."""
    params = module.state_dict()
    with torch.no_grad():
        params[f"weight_ih_l0{suffix}"].copy_(torch.from_numpy(cell.params["w_x"]))
        params[f"weight_hh_l0{suffix}"].copy_(torch.from_numpy(cell.params["w_h"]))
        params[f"bias_ih_l0{suffix}"].copy_(torch.from_numpy(cell.params["b"]))
        second = params[f"bias_hh_l0{suffix}"].zero_()
        if "b_hn" in cell.params:
            second[2 * F :].copy_(torch.from_numpy(cell.params["b_hn"]))


def torch_grads(module: Any, suffix: str = "") -> dict[str, Any]:
    """Torch's gradients under our names."""
    found = {
        "w_x": getattr(module, f"weight_ih_l0{suffix}").grad,
        "w_h": getattr(module, f"weight_hh_l0{suffix}").grad,
        "b": getattr(module, f"bias_ih_l0{suffix}").grad,
    }
    if isinstance(module, torch.nn.GRU):
        found["b_hn"] = getattr(module, f"bias_hh_l0{suffix}").grad[2 * F :]
    return found


def make(kind: str, rng: np.random.Generator, dtype: Any, **settings: Any) -> tuple[Any, Any]:
    """A random cell and torch's module with the same weights."""
    build, name = PEERS[kind]
    cell = randomised(build(C, F), rng).astype(dtype)
    module = getattr(torch.nn, name)(C, F, dtype=getattr(torch, np.dtype(dtype).name), **settings)
    copy_weights(cell, module)
    return cell, module


def draw(rng: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def states(kind: str, arrays: tuple[Any, ...]) -> Any:
    """Torch's form of a state: (1, N, F), alone or in a pair."""
    expanded = tuple(a[None] for a in arrays)
    return expanded if kind == "LSTM" else expanded[0]


def flat(kind: str, last: Any) -> tuple[Any, ...]:
    return tuple(a[0] for a in (last if kind == "LSTM" else (last,)))


@DTYPES
@KINDS
def test_outputs_states_and_all_gradients_equal_torchs(kind, dtype, rng):
    cell, module = make(kind, rng, dtype)
    xs, dys = draw(rng, dtype, T, N, C), draw(rng, dtype, T, N, F)
    kind_of_state = type(cell.initial_state(xs[0]))
    state = kind_of_state(*(draw(rng, dtype, N, F) for _ in range(cell.states)))
    dlast = kind_of_state(*(draw(rng, dtype, N, F) for _ in range(cell.states)))

    x, start = tensor(xs), tuple(map(tensor, state))
    y, last = module(x, states(kind, start))
    last = flat(kind, last)
    loss = (y * tensor(dys, False)).sum() + sum(
        (a * tensor(d, False)).sum() for a, d in zip(last, dlast, strict=True)
    )
    loss.backward()

    ys, end, tape = scan(cell, xs, state)
    kept = scan_checkpointed(cell, xs, state)[2]
    close(ys, y, dtype)
    for a, b in zip(end, last, strict=True):
        close(a, b, dtype)
    for dxs, dstart, grads in (
        scan_backward(cell, dys, dlast, tape),
        scan_checkpointed_backward(cell, dys, dlast, kept),
    ):
        close(dxs, x.grad, dtype)
        for a, b in zip(dstart, start, strict=True):
            close(a, b.grad, dtype)
        expected = torch_grads(module)
        assert set(grads) == set(expected)
        for name, g in grads.items():
            close(g, expected[name], dtype)


@DTYPES
@pytest.mark.parametrize("lengths", [None, [7, 4, 1]], ids=["whole", "packed"])
@KINDS
def test_bidirectional_and_packed_sequences_equal_torchs(kind, lengths, dtype, rng):
    cell, module = make(kind, rng, dtype, bidirectional=True)
    back = randomised(PEERS[kind][0](C, F), rng).astype(dtype)
    copy_weights(back, module, "_reverse")
    xs, dys = draw(rng, dtype, T, N, C), draw(rng, dtype, T, N, 2 * F)
    x = tensor(xs)
    if lengths is None:
        y, _ = module(x)
    else:
        packed, _ = module(torch.nn.utils.rnn.pack_padded_sequence(x, lengths))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, total_length=T)
    (y * tensor(dys, False)).sum().backward()

    layer = Bidirectional(cell, back)
    ys, saved = layer.forward(xs, lengths=lengths)
    dxs, grads = layer.backward(dys, saved)
    close(ys, y, dtype)
    close(dxs, x.grad, dtype)
    expected = {f"forward.{n}": g for n, g in torch_grads(module).items()}
    expected |= {f"backward.{n}": g for n, g in torch_grads(module, "_reverse").items()}
    assert set(grads) == set(expected)
    for name, g in grads.items():
        close(g, expected[name], dtype)


@DTYPES
@KINDS
def test_final_states_of_packed_sequences_equal_torchs(kind, dtype, rng):
    cell, module = make(kind, rng, dtype)
    xs, lengths = draw(rng, dtype, T, N, C), [2, 7, 4]
    kind_of_state = type(cell.initial_state(xs[0]))
    dlast = kind_of_state(*(draw(rng, dtype, N, F) for _ in range(cell.states)))
    x = tensor(xs)
    _, last = module(torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
    last = flat(kind, last)
    sum((a * tensor(d, False)).sum() for a, d in zip(last, dlast, strict=True)).backward()
    _, end, tape = scan(cell, xs, lengths=lengths)
    for a, b in zip(end, last, strict=True):
        close(a, b, dtype)
    dxs, _, grads = scan_backward(cell, None, dlast, tape)
    close(dxs, x.grad, dtype)
    for name, g in torch_grads(module).items():
        close(grads[name], g, dtype)


def test_a_stack_of_layers_equals_torchs(rng):
    dtype = np.float64
    module = torch.nn.LSTM(C, F, num_layers=2, dtype=torch.float64)
    first, second = randomised(LSTMCell(C, F), rng), randomised(LSTMCell(F, F), rng)
    names = {"w_x": "weight_ih", "w_h": "weight_hh", "b": "bias_ih"}
    with torch.no_grad():
        for k, cell in enumerate((first, second)):
            for ours, theirs in names.items():
                getattr(module, f"{theirs}_l{k}").copy_(torch.from_numpy(cell.params[ours]))
            getattr(module, f"bias_hh_l{k}").zero_()
    xs, dys = draw(rng, dtype, T, N, C), draw(rng, dtype, T, N, F)
    x = tensor(xs)
    y, _ = module(x)
    (y * tensor(dys, False)).sum().backward()
    stack = Sequential(Recurrent(first), Recurrent(second))
    ys, saved = stack.forward(xs)
    dxs, grads = stack.backward(dys, saved)
    close(ys, y, dtype)
    close(dxs, x.grad, dtype)
    for name, g in grads.items():
        layer, _, ours = name.partition(".")
        close(g, getattr(module, f"{names[ours]}_l{layer}").grad, dtype)


# --- convolutional cells: the same equations by torch's conv2d and autograd ---


def conv(x: Any, w: Any, b: Any = None) -> Any:
    """A "same" convolution; the odd pixel of an even kernel is padded at the end."""
    pads = [p for k in reversed(w.shape[2:]) for p in ((k - 1) // 2, k - 1 - (k - 1) // 2)]
    return torch.nn.functional.conv2d(torch.nn.functional.pad(x, pads), w, b)


def conv_lstm(x: Any, state: tuple[Any, ...], p: dict[str, Any]) -> tuple[Any, ...]:
    h, c = state
    z_i, z_f, z_g, z_o = (conv(x, p["w_x"], p["b"]) + conv(h, p["w_h"])).chunk(4, dim=1)
    w_i, w_f, w_o = (0, 0, 0)
    if "w_c" in p:
        w_i, w_f, w_o = p["w_c"] if p["w_c"].ndim == 4 else p["w_c"][..., None, None]
    c_new = torch.sigmoid(z_f + w_f * c) * c + torch.sigmoid(z_i + w_i * c) * torch.tanh(z_g)
    return torch.sigmoid(z_o + w_o * c_new) * torch.tanh(c_new), c_new


def conv_gru(x: Any, state: tuple[Any, ...], p: dict[str, Any]) -> tuple[Any, ...]:
    (h,) = state
    x_r, x_u, x_n = conv(x, p["w_x"], p["b"]).chunk(3, dim=1)
    h_r, h_u, h_n = conv(h, p["w_h"]).chunk(3, dim=1)
    r, u = torch.sigmoid(x_r + h_r), torch.sigmoid(x_u + h_u)
    return ((1 - u) * torch.tanh(x_n + r * (h_n + p["b_hn"][:, None, None])) + u * h,)


def conv_gru_reset_before(x: Any, state: tuple[Any, ...], p: dict[str, Any]) -> tuple[Any, ...]:
    (h,) = state
    x_r, x_u, x_n = conv(x, p["w_x"], p["b"]).chunk(3, dim=1)
    w_r, w_u, w_n = p["w_h"].chunk(3)
    r, u = torch.sigmoid(x_r + conv(h, w_r)), torch.sigmoid(x_u + conv(h, w_u))
    return ((1 - u) * torch.tanh(x_n + conv(r * h, w_n)) + u * h,)


CONVOLUTIONAL: dict[str, Any] = {
    "ConvLSTM": (ConvLSTMCell, {}, conv_lstm),
    "ConvLSTM peephole channel": (ConvLSTMCell, {"peephole": "channel"}, conv_lstm),
    "ConvLSTM peephole map": (ConvLSTMCell, {"peephole": "map", "size": (5, 6)}, conv_lstm),
    "ConvGRU": (GRUCell, {}, conv_gru),
    "ConvGRU reset before": (ResetBeforeGRUCell, {}, conv_gru_reset_before),
}


@DTYPES
@pytest.mark.parametrize("kernel", [(3, 5), (2, 4)], ids=["odd", "even"])
@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_convolutional_cells_equal_the_same_equations_in_torch(kind, kernel, dtype, rng):
    build, settings, step = CONVOLUTIONAL[kind]
    cell = randomised(build(2, 3, kernel, **settings), rng)
    cell = cell.bind({n: 0.6 * a for n, a in cell.params.items()}).astype(dtype)
    shape = (2, 3, 5, 6)
    xs, dys = draw(rng, dtype, 4, 2, 2, 5, 6), draw(rng, dtype, 4, *shape)
    kind_of_state = type(cell.initial_state(xs[0]))
    state = kind_of_state(*(draw(rng, dtype, *shape) for _ in range(cell.states)))
    dlast = kind_of_state(*(draw(rng, dtype, *shape) for _ in range(cell.states)))

    x, start = tensor(xs), tuple(map(tensor, state))
    params = {name: tensor(a) for name, a in cell.params.items()}
    now, shown = start, []
    for frame in x:
        now = step(frame, now, params)
        shown.append(now[0])
    y = torch.stack(shown)
    loss = (y * tensor(dys, False)).sum() + sum(
        (a * tensor(d, False)).sum() for a, d in zip(now, dlast, strict=True)
    )
    loss.backward()

    ys, end, tape = scan(cell, xs, state)
    dxs, dstart, grads = scan_backward(cell, dys, dlast, tape)
    close(ys, y, dtype)
    close(dxs, x.grad, dtype)
    for a, b, d, e in zip(end, now, dstart, start, strict=True):
        close(a, b, dtype)
        close(d, e.grad, dtype)
    assert set(grads) == set(params)
    for name, g in grads.items():
        close(g, params[name].grad, dtype)
