"""What is timed: shapes, and the arrays drawn for them. Every contender gets the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One operation at one size; `sizes` are read by name by every contender."""

    name: str
    kind: str  # convlstm, lstm, gru, conv, pool, train
    sizes: dict[str, Any]
    limit: float | None = None  # the ratio to PyTorch to reach

    def arrays(self) -> dict[str, np.ndarray]:
        """Inputs, weights and upstream gradients, float32, the same in every process."""
        return {"convlstm": recurrent, "lstm": recurrent, "gru": recurrent, **PAIRS}.get(self.kind, plain)(
            self
        )

    @property
    def shape(self) -> str:
        """The sizes in words."""
        return ", ".join(
            f"{k} {'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in self.sizes.items()
        )


def sequence(
    kind: str, T: int, N: int, C: int, F: int, S: tuple[int, ...] = (), k: int = 0
) -> dict[str, Any]:
    return {"T": T, "N": N, "C": C, "F": F} | ({"S": S, "k": k} if S else {})


CASES = {
    case.name: case
    for case in (
        Case("S", "convlstm", sequence("", 10, 8, 1, 16, (16, 16), 3), 1.0),
        Case("M", "convlstm", sequence("", 10, 8, 1, 64, (32, 32), 3), 1.0),
        Case("L", "convlstm", sequence("", 10, 4, 64, 64, (64, 64), 3), 1.0),
        Case("Shi", "convlstm", sequence("", 10, 8, 16, 128, (16, 16), 5), 1.2),
        Case("LSTM-16", "lstm", sequence("", 16, 32, 256, 128), 1.2),
        Case("LSTM-50", "lstm", sequence("", 50, 32, 128, 128), 1.2),
        Case("LSTM-100", "lstm", sequence("", 100, 64, 512, 512), 1.2),
        Case("GRU-50", "gru", sequence("", 50, 32, 128, 128), 1.5),
        Case("conv1d", "conv", {"N": 32, "C": 64, "F": 64, "S": (256,), "k": 5}, 1.5),
        Case("conv2d", "conv", {"N": 16, "C": 64, "F": 64, "S": (32, 32), "k": 3}, 1.5),
        Case("conv2d-stride", "conv", {"N": 16, "C": 32, "F": 64, "S": (64, 64), "k": 3, "stride": 2}, 1.5),
        Case("conv3d", "conv", {"N": 4, "C": 16, "F": 32, "S": (16, 32, 32), "k": 3}, 1.5),
        Case("maxpool1d", "pool", {"N": 32, "C": 64, "S": (1024,), "k": 2, "mode": "max"}, 1.5),
        Case("maxpool2d", "pool", {"N": 16, "C": 64, "S": (64, 64), "k": 2, "mode": "max"}, 1.5),
        Case("maxpool3d", "pool", {"N": 4, "C": 32, "S": (16, 32, 32), "k": 2, "mode": "max"}, 1.5),
        Case("avgpool2d", "pool", {"N": 16, "C": 64, "S": (64, 64), "k": 2, "mode": "avg"}, 1.5),
        Case("avgpool3d", "pool", {"N": 4, "C": 32, "S": (16, 32, 32), "k": 2, "mode": "avg"}, 1.5),
        # what the variants of the ConvLSTM are made of, where PyTorch has the same operation
        Case("conv2d-dilated", "conv", {"N": 8, "C": 64, "F": 64, "S": (32, 32), "k": 3, "dilation": 2}, 1.5),
        Case(
            "conv2d-depthwise", "conv", {"N": 16, "C": 64, "F": 64, "S": (32, 32), "k": 3, "groups": 64}, 1.5
        ),
        Case("conv2d-1x1", "conv", {"N": 16, "C": 64, "F": 256, "S": (32, 32), "k": 1}, 1.5),
        Case("layer norm", "layer_norm", {"N": 16, "C": 64, "S": (32, 32)}, 1.5),
        Case("attention", "attention", {"N": 8, "C": 32, "S": (16, 16)}, 1.5),
        Case("sampling", "sampling", {"N": 4, "C": 32, "S": (64, 64)}, 1.5),
        Case(
            "demo step",
            "train",
            {"T": 10, "horizon": 10, "N": 8, "F": 64, "S": (32, 32), "k": 3, "patch": 4},
            1.0,
        ),
    )
}


def recurrent(case: Case) -> dict[str, np.ndarray]:
    """xs, w_x, w_h, b (gates i, f, g, o, or r, u, n) and dys of a recurrent case."""
    rng, s = np.random.default_rng(0), case.sizes
    T, N, C, F, S = s["T"], s["N"], s["C"], s["F"], s.get("S", ())
    K = (s.get("k"),) * len(S)
    blocks = 3 if case.kind == "gru" else 4
    fan = (C + F) * int(np.prod(K, dtype=int))
    return {
        "xs": normal(rng, T, N, C, *S),
        "w_x": normal(rng, blocks * F, C, *K) / np.float32(fan**0.5),
        "w_h": normal(rng, blocks * F, F, *K) / np.float32(fan**0.5),
        "b": normal(rng, blocks * F),
        "dys": normal(rng, T, N, F, *S),
    }


def plain(case: Case) -> dict[str, np.ndarray]:
    """x and dy (and w, b of a convolution); the clips of a training step."""
    rng, s = np.random.default_rng(0), case.sizes
    if case.kind == "train":
        return {"frames": rng.random((s["T"] + s["horizon"], s["N"], 1, *s["S"]), dtype=np.float32)}
    stride = s.get("stride", s["k"] if case.kind == "pool" else 1)
    out = tuple(-(-n // stride) for n in s["S"])
    x = normal(rng, s["N"], s["C"], *s["S"])
    if case.kind == "pool":
        return {"x": x, "dy": normal(rng, s["N"], s["C"], *out)}
    channels = s["C"] // s.get("groups", 1)
    fan = channels * s["k"] ** len(s["S"])
    w = normal(rng, s["F"], channels, *(s["k"],) * len(s["S"])) / np.float32(fan**0.5)
    return {"x": x, "w": w, "b": normal(rng, s["F"]), "dy": normal(rng, s["N"], s["F"], *out)}


def layer_norm(case: Case) -> dict[str, np.ndarray]:
    """x, dy, and gamma and beta over a whole sample."""
    rng, s = np.random.default_rng(0), case.sizes
    shape = (s["C"], *s["S"])
    names = {"x": (s["N"], *shape), "w": shape, "b": shape, "dy": (s["N"], *shape)}
    return {name: normal(rng, *sizes) for name, sizes in names.items()}


def attention(case: Case) -> dict[str, np.ndarray]:
    """q, k, v and dy, (N, C, P) with P positions."""
    rng, s = np.random.default_rng(0), case.sizes
    return {name: normal(rng, s["N"], s["C"], int(np.prod(s["S"]))) for name in ("q", "k", "v", "dy")}


def sampling(case: Case) -> dict[str, np.ndarray]:
    """x, dy, and a place within the frame for every pixel, (N, 2, H, W), rows first."""
    rng, s = np.random.default_rng(0), case.sizes
    at = rng.random((s["N"], 2, *s["S"]), dtype=np.float32)
    at *= np.float32(s["S"][0] - 1)
    x, dy = (normal(rng, s["N"], s["C"], *s["S"]) for _ in range(2))
    return {"x": x, "at": at, "dy": dy}


PAIRS = {"layer_norm": layer_norm, "attention": attention, "sampling": sampling}


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)
