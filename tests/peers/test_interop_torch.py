"""Weights read from PyTorch's modules give PyTorch's outputs, and written ones load into them strictly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm import interop
from tinyconvlstm.layers import Conv, Dense

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

LIMITS = {"float64": 1e-12, "float32": 1e-6}
DTYPES = pytest.mark.parametrize("dtype", LIMITS)
T, N, C, F = 6, 3, 4, 5


def close(found: Any, expected: Any, dtype: str) -> None:
    """Equal within the dtype's limit; the values are of order 1."""
    expected = expected.detach().numpy()
    assert found.dtype == expected.dtype == dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=LIMITS[dtype], atol=LIMITS[dtype])


def module(kind: str, dtype: str, *args: Any, **settings: Any) -> Any:
    """A module of torch.nn with random parameters, biases too."""
    torch.manual_seed(11)
    return getattr(torch.nn, kind)(*args, **settings, dtype=getattr(torch, dtype))


READERS: dict[str, Any] = {
    "LSTM": (interop.lstm_from_pytorch, interop.lstm_to_pytorch),
    "GRU": (interop.gru_from_pytorch, interop.gru_to_pytorch),
}
FORMS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "no bias": {"bias": False},
    "three layers": {"num_layers": 3},
    "bidirectional": {"bidirectional": True, "num_layers": 2},
}


@DTYPES
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("form", FORMS)
def test_recurrent(kind, form, dtype, rng):
    theirs = module(kind, dtype, C, F, **FORMS[form])
    xs = rng.standard_normal((T, N, C)).astype(dtype)
    read, write = READERS[kind]
    ours = read(theirs.state_dict())
    expected = theirs(torch.from_numpy(xs))[0]
    close(ours(xs), expected, dtype)

    other = module(kind, dtype, C, F, **{**FORMS[form], "bias": True})
    shaken = ours.bind({k: (a + rng.standard_normal(a.shape)).astype(dtype) for k, a in ours.params.items()})
    other.load_state_dict({k: torch.from_numpy(a) for k, a in write(shaken).items()}, strict=True)
    close(shaken(xs), other(torch.from_numpy(xs))[0], dtype)


def test_an_lstm_that_projects_is_refused():
    theirs = module("LSTM", "float64", C, F, proj_size=2)
    with pytest.raises(ValueError, match="an LSTM with proj_size projects its h"):
        interop.lstm_from_pytorch(theirs.state_dict())


CONVS: dict[str, tuple[int, dict[str, Any]]] = {
    "1d": (1, {"kernel_size": 4, "stride": 3, "padding": 2}),
    "2d": (2, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)}),
    "2d same, even kernel": (2, {"kernel_size": (4, 3), "padding": "same"}),
    "2d same, even and dilated": (2, {"kernel_size": (2, 4), "padding": "same", "dilation": (3, 2)}),
    "2d groups": (2, {"kernel_size": 3, "groups": 2, "bias": False}),
    "2d depthwise": (2, {"kernel_size": 3, "groups": 4, "padding": "valid"}),
    "3d": (3, {"kernel_size": (2, 3, 1), "padding": 1}),
}


@DTYPES
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", CONVS)
def test_convolution(name, dtype, rng):
    rank, settings = CONVS[name]
    theirs = module(f"Conv{rank}d", dtype, 4, 8, **settings)
    x = rng.standard_normal((N, 4, 9, 8, 7)[: 2 + rank]).astype(dtype)
    own = {k: v for k, v in settings.items() if k in ("stride", "padding", "dilation", "groups")}
    ours = interop.conv_from_pytorch(theirs.state_dict(), **own)
    close(ours(x), theirs(torch.from_numpy(x)), dtype)

    state, back = interop.conv_to_pytorch(ours)
    kernel = ours.params["w"].shape[2:]
    other = module(f"Conv{rank}d", dtype, 4, 8, kernel, bias="bias" in state, **back)
    other.load_state_dict({k: torch.from_numpy(a) for k, a in state.items()}, strict=True)
    close(ours(x), other(torch.from_numpy(x)), dtype)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_our_own_convolution_in_pytorch(rng):
    ours = Conv(4, 6, (3, 2), dilation=(1, 3), dtype=np.float64)
    state, settings = interop.conv_to_pytorch(ours)
    other = module("Conv2d", "float64", 4, 6, (3, 2), **settings)
    other.load_state_dict({k: torch.from_numpy(a) for k, a in state.items()}, strict=True)
    x = rng.standard_normal((2, 4, 6, 7))
    close(ours(x), other(torch.from_numpy(x)), "float64")


@DTYPES
def test_linear(dtype, rng):
    theirs = module("Linear", dtype, C, F)
    x = rng.standard_normal((N, C)).astype(dtype)
    ours = interop.dense_from_pytorch(theirs.state_dict())
    assert isinstance(ours, Dense)
    close(ours(x), theirs(torch.from_numpy(x)), dtype)
    theirs.load_state_dict({k: torch.from_numpy(a) for k, a in interop.dense_to_pytorch(ours).items()})


def test_a_part_of_a_larger_state_dict(rng):
    net = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(C, F), "fc": torch.nn.Linear(F, 2)}).double()
    state = net.state_dict()
    lstm = interop.lstm_from_pytorch(state, prefix="lstm.")
    fc = interop.dense_from_pytorch(state, prefix="fc.")
    xs = rng.standard_normal((T, N, C))
    expected = net["fc"](net["lstm"](torch.from_numpy(xs))[0][-1])
    close(fc(lstm(xs)[-1]), expected, "float64")


class Concatenating(torch.nn.Module):  # type: ignore[misc]
    """A ConvLSTM cell with one convolution, as many a repository has it."""

    def __init__(self, kernel: tuple[int, ...], order: str, concat: str, channels: int, bias: bool) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.conv = getattr(torch.nn, f"Conv{len(kernel)}d")(
            channels + F, 4 * F, kernel, padding=padding, bias=bias, dtype=torch.float64
        )
        self.order, self.concat = order, concat

    def forward(self, x: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        h, c = state
        both = torch.cat([x, h] if self.concat == "xh" else [h, x], dim=1)
        z = dict(zip(self.order, torch.split(self.conv(both), F, dim=1), strict=True))
        i, f, o = (torch.sigmoid(z[gate]) for gate in "ifo")
        c = f * c + i * torch.tanh(z["g"])
        return o * torch.tanh(c), c


@pytest.mark.parametrize(("order", "concat"), [("ifog", "xh"), ("ifgo", "hx"), ("gifo", "xh")])
@pytest.mark.parametrize("kernel", [(3,), (5, 3), (1, 3, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_stack_of_cells_that_convolve_both(kernel, order, concat, bias, rng):
    torch.manual_seed(3)
    cells = [Concatenating(kernel, order, concat, channels, bias) for channels in (C, F)]
    net = torch.nn.ModuleDict({"cell_list": torch.nn.ModuleList(cells)})
    xs = rng.standard_normal((4, N, C, *(5, 4, 3)[: len(kernel)]))
    expected = list(torch.from_numpy(xs))
    for cell in cells:
        state = (torch.zeros(N, F, *xs.shape[3:], dtype=torch.float64),) * 2
        for t, x in enumerate(expected):
            state = cell(x, state)
            expected[t] = state[0]
    ours = interop.convlstm_from_pytorch(net.state_dict(), order=order, concat=concat)
    close(ours(xs), torch.stack(expected), "float64")
    if bias:
        written = interop.convlstm_to_pytorch(ours, order=order, concat=concat)
        net.load_state_dict({k: torch.from_numpy(a) for k, a in written.items()}, strict=True)


class Cell(torch.nn.Module):  # type: ignore[misc]
    """A biasless ConvLSTM cell under OpenSTL's names, with two convolutions that nothing calls."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()

        def conv(c: int, f: int) -> Any:
            return torch.nn.Conv2d(c, f, (3, 5), padding=(1, 2), bias=False, dtype=torch.float64)

        self.features = features
        self.conv_x = torch.nn.Sequential(conv(channels, 4 * features))
        self.conv_h = torch.nn.Sequential(conv(features, 4 * features))
        self.conv_o = torch.nn.Sequential(conv(2 * features, features))
        self.conv_last = torch.nn.Conv2d(2 * features, features, 1, bias=False, dtype=torch.float64)

    def forward(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        i, f, g, o = torch.split(self.conv_x(x) + self.conv_h(h), self.features, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


def test_openstl_forecasts(rng):
    """Two channels, patches of 2 x 2 whose channels are counted pixel by pixel, two layers of unequal size."""
    torch.manual_seed(7)
    cells = torch.nn.ModuleList([Cell(8, 3), Cell(3, 4)])
    head = torch.nn.Conv2d(4, 8, 1, bias=False, dtype=torch.float64)
    net = torch.nn.ModuleDict({"cell_list": cells, "conv_last": head})
    clip = rng.random((3, 2, 2, 4, 6))  # (T, N, C, H, W)
    patches = torch.from_numpy(
        clip.reshape(3, 2, 2, 2, 2, 3, 2).transpose(0, 1, 4, 6, 2, 3, 5).reshape(3, 2, 8, 2, 3)
    )
    states = [(torch.zeros(2, cell.features, 2, 3, dtype=torch.float64),) * 2 for cell in cells]
    expected = []
    for t in range(5):
        h = patches[t] if t < 3 else expected[-1]
        for k, cell in enumerate(cells):
            states[k] = cell(h, *states[k])
            h = states[k][0]
        expected.append(head(h))
    frames = (
        torch.stack(expected).detach().numpy().reshape(5, 2, 2, 2, 2, 2, 3)
    )  # (T, N, ph, pw, C, H/2, W/2)
    model = interop.openstl_from_pytorch(net.state_dict(), size=(4, 6), patch=2)
    y, _ = model.forward(clip, horizon=3)
    np.testing.assert_allclose(
        y, frames.transpose(0, 1, 4, 5, 2, 6, 3).reshape(5, 2, 2, 4, 6), rtol=1e-12, atol=1e-12
    )
    back = interop.openstl_to_pytorch(model)
    for key, a in net.state_dict().items():
        np.testing.assert_array_equal(back.pop(key), a.numpy())
    assert not back
