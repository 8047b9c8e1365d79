"""Update rules against their equations written out, state and resume, errors, clipping; on all backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm.backend import BackendError, backend_name, to_backend, to_numpy
from tinyconvlstm.optim import SGD, Adam, AdamW, RMSProp, clip_by_norm, clip_by_value
from tinyconvlstm.optimizer import Optimizer, weights_only
from tinyconvlstm.schedules import Exponential

SHAPES = {"encoder.0.w_x": (3, 2, 2), "encoder.0.b": (3,), "head.w": (1, 5), "scale": ()}

MAKERS: dict[str, Any] = {
    "sgd": lambda: SGD(0.1),
    "momentum": lambda: SGD(0.1, momentum=0.8, l2=0.01),
    "nesterov": lambda: SGD(0.1, momentum=0.8, nesterov=True),
    "rmsprop": lambda: RMSProp(0.02, l2=0.1),
    "rmsprop_momentum": lambda: RMSProp(0.02, decay=0.7, momentum=0.6, eps=1e-3),
    "adam": lambda: Adam(0.02, betas=(0.7, 0.8), l2=0.3),
    "adamw": lambda: AdamW(0.02, betas=(0.7, 0.8), weight_decay=0.2),
}


def draw(rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, Any]:
    return {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def by_hand(kind: str, p: float, gradients: list[float]) -> float:
    """Every rule once more, for one number, written plainly."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        if kind == "sgd":
            p = p - 0.1 * g
        elif kind == "momentum":
            m = 0.8 * m + (g + 0.01 * p)
            p = p - 0.1 * m
        elif kind == "nesterov":
            m = 0.8 * m + g
            p = p - 0.1 * (g + 0.8 * m)
        elif kind == "rmsprop":
            g = g + 0.1 * p
            v = 0.9 * v + 0.1 * g**2
            p = p - 0.02 * g / (v**0.5 + 1e-8)
        elif kind == "rmsprop_momentum":
            v = 0.7 * v + 0.3 * g**2
            m = 0.6 * m + g / (v**0.5 + 1e-3)
            p = p - 0.02 * m
        else:
            if kind == "adam":
                g = g + 0.3 * p
            else:
                p = p - 0.02 * 0.2 * p
            m = 0.7 * m + 0.3 * g
            v = 0.8 * v + 0.2 * g**2
            p = p - 0.02 * (m / (1 - 0.7**t)) / ((v / (1 - 0.8**t)) ** 0.5 + 1e-8)
    return p


@pytest.mark.parametrize("kind", MAKERS)
def test_rules_by_hand_and_in_place(kind: str, backend: str, rng: np.random.Generator) -> None:
    start, steps = draw(rng), [draw(rng) for _ in range(5)]
    params = to_backend(start, backend) if backend == "cupy" else {n: p.copy() for n, p in start.items()}
    arrays = dict(params)
    optimizer = MAKERS[kind]()
    for grads in steps:
        moved = to_backend(grads, backend)
        before = {name: to_numpy(g).copy() for name, g in moved.items()}
        optimizer.update(params, moved)
        for name, g in before.items():
            np.testing.assert_array_equal(to_numpy(moved[name]), g)
    assert optimizer.step == 5
    for name, p in params.items():
        assert p is arrays[name]
        expected = np.vectorize(lambda *x: by_hand(kind, x[0], list(x[1:])))(
            start[name], *(g[name] for g in steps)
        )
        np.testing.assert_allclose(to_numpy(p), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("kind", MAKERS)
def test_float32_stays_float32(kind: str, backend: str, rng: np.random.Generator) -> None:
    params, grads = to_backend((draw(rng, np.float32), draw(rng, np.float32)), backend)
    optimizer = MAKERS[kind]()
    optimizer.update(params, grads, lr=np.float64(0.1))
    for x in (*params.values(), *optimizer.state.values()):
        assert x.dtype == np.float32
        assert backend_name(x) == backend


@pytest.mark.parametrize("kind", MAKERS)
def test_exact_resume(kind: str, backend: str, rng: np.random.Generator) -> None:
    """Stopped after 3 steps, saved as NumPy, resumed: bit for bit the uninterrupted run."""
    params = to_backend(draw(rng), backend)
    optimizer = MAKERS[kind]()
    steps = [to_backend(draw(rng), backend) for _ in range(6)]
    for grads in steps[:3]:
        optimizer.update(params, grads)
    saved_params, saved = to_numpy({n: p.copy() for n, p in params.items()}), to_numpy(optimizer.state_dict())
    for grads in steps[3:]:
        optimizer.update(params, grads)
    resumed_params, resumed = to_backend(saved_params, backend), MAKERS[kind]()
    resumed.load_state_dict(saved)
    assert resumed.step == 3
    for grads in steps[3:]:
        resumed.update(resumed_params, grads)
    for name, p in params.items():
        np.testing.assert_array_equal(to_numpy(p), to_numpy(resumed_params[name]))


def test_state_is_flat_and_a_copy(rng: np.random.Generator) -> None:
    params, optimizer = draw(rng), Adam()
    optimizer.update(params, draw(rng))
    state = optimizer.state_dict()
    assert set(state) == {"step", *(f"{slot}.{name}" for slot in "mv" for name in SHAPES)}
    assert int(state["step"]) == 1
    assert state["m.encoder.0.w_x"].shape == (3, 2, 2)
    before = state["m.head.w"].copy()
    twin = Adam()
    twin.load_state_dict(state)
    optimizer.update(params, draw(rng))
    np.testing.assert_array_equal(state["m.head.w"], before)
    np.testing.assert_array_equal(twin.state["m.head.w"], before)
    fresh = Adam()
    fresh.load_state_dict(Adam().state_dict())
    fresh.update(params, draw(rng))
    assert fresh.step == 1


def test_schedule_and_rate_of_one_update(rng: np.random.Generator) -> None:
    start, grads = draw(rng), draw(rng)
    scheduled, given = ({n: p.copy() for n, p in start.items()} for _ in range(2))
    a, b = SGD(Exponential(0.5, 0.5)), SGD(99.0)
    for t in range(3):
        a.update(scheduled, grads)
        b.update(given, grads, lr=0.5 * 0.5**t)
    for name, p in scheduled.items():
        np.testing.assert_array_equal(p, given[name])
        np.testing.assert_allclose(p, start[name] - 0.875 * grads[name], rtol=1e-13)
    b.update(given, grads, lr=0.0)
    np.testing.assert_array_equal(given["head.w"], scheduled["head.w"])


@pytest.mark.parametrize(
    "make", [lambda d: AdamW(0.1, weight_decay=0.5, decayed=d), lambda d: SGD(0.1, l2=0.5, decayed=d)]
)
def test_decay_acts_where_it_is_told_to(make: Any, rng: np.random.Generator) -> None:
    start, grads = draw(rng), {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for decayed in (None, weights_only):
        params = {n: p.copy() for n, p in start.items()}
        make(decayed).update(params, grads)
        for name, p in params.items():
            spared = decayed is not None and name in ("encoder.0.b", "scale")
            np.testing.assert_allclose(p, start[name] * (1 if spared else 0.95), rtol=1e-14)


def test_l2_and_decoupled_decay_are_two_things(rng: np.random.Generator) -> None:
    a = draw(rng)
    b = {n: p.copy() for n, p in a.items()}
    grads = draw(rng)
    Adam(0.1, l2=0.1).update(a, grads)
    AdamW(0.1, weight_decay=0.1).update(b, grads)
    assert np.abs(a["head.w"] - b["head.w"]).max() > 1e-3


def test_update_refuses_what_does_not_fit(rng: np.random.Generator) -> None:
    params, grads = draw(rng), draw(rng)
    untouched = {n: p.copy() for n, p in params.items()}
    optimizer = Adam()
    lacking = {n: g for n, g in grads.items() if n != "scale"} | {"extra": np.zeros(2)}
    with pytest.raises(ValueError, match=r"missing \['scale'\], not expected \['extra'\]"):
        optimizer.update(params, lacking)
    with pytest.raises(
        ValueError, match=r"grads\['head.w'\] is float64 \(5,\), expected .* float64 \(1, 5\)"
    ):
        optimizer.update(params, grads | {"head.w": np.zeros(5)})
    with pytest.raises(ValueError, match=r"grads\['head.w'\] is float32 \(1, 5\), expected"):
        optimizer.update(params, grads | {"head.w": np.zeros((1, 5), "f4")})
    with pytest.raises(ValueError, match=r"grads\['scale'\] is a float, expected an array"):
        optimizer.update(params, grads | {"scale": 1.0})
    with pytest.raises(ValueError, match=r"params\['scale'\] is a float64, expected an array"):
        optimizer.update(params | {"scale": np.float64(1)}, grads)
    with pytest.raises(ValueError, match=r"lr is -0\.1"):
        optimizer.update(params, grads, lr=-0.1)
    with pytest.raises(ValueError, match="lr is nan"):
        optimizer.update(params, grads, lr=float("nan"))
    assert optimizer.step == 0
    for name, p in params.items():
        np.testing.assert_array_equal(p, untouched[name])


def test_update_refuses_other_parameters_than_before(rng: np.random.Generator) -> None:
    params, grads = draw(rng), draw(rng)
    optimizer = SGD(0.1, momentum=0.5)
    optimizer.update(params, grads)
    with pytest.raises(ValueError, match=r"not expected \['m.scale'\]; use one optimizer"):
        optimizer.update(
            {"head.w": params["head.w"]} | {n: params[n] for n in list(SHAPES)[:2]},
            {n: grads[n] for n in list(SHAPES)[:3]},
        )
    wide = {n: np.zeros((2, *p.shape)) for n, p in params.items()}
    with pytest.raises(ValueError, match=r"state 'm.encoder.0.w_x' is float64 \(3, 2, 2\), its parameter is"):
        optimizer.update(wide, wide)
    assert optimizer.step == 1


def test_mixed_backends_are_named(cupy_standin: Any, rng: np.random.Generator) -> None:
    params = draw(rng)
    grads = params | {"scale": cupy_standin.zeros(())}
    with pytest.raises(
        BackendError, match=r"params\['scale'\] is a numpy array .* grads\['scale'\] is a cupy"
    ):
        SGD(0.1).update(params, grads)
    with pytest.raises(BackendError, match="scale is a cupy array"):
        clip_by_norm(grads, 1.0)


def test_load_state_refuses_what_is_not_its_own(rng: np.random.Generator) -> None:
    adam = Adam()
    adam.update(draw(rng), draw(rng))
    state = adam.state_dict()
    with pytest.raises(ValueError, match=r"not one of SGD: step 1, unknown names \['m\.encoder\.0\.b'"):
        SGD(0.1).load_state_dict(state)
    with pytest.raises(ValueError, match="no entry 'step'"):
        Adam().load_state_dict({"m.w": np.zeros(2)})
    with pytest.raises(ValueError, match="not one of Adam: step 3"):
        Adam().load_state_dict({"step": np.array(3)})
    with pytest.raises(ValueError, match="step -1"):
        Adam().load_state_dict(state | {"step": np.array(-1)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-1.0), "lr is -1.0, expected at least 0"),
        (lambda: SGD(0.1, momentum=1.0), "momentum is 1.0, expected at least 0 and below 1"),
        (lambda: SGD(0.1, nesterov=True), "nesterov is True, expected momentum above 0"),
        (lambda: SGD(0.1, l2=-1), "l2 is -1"),
        (lambda: RMSProp(decay=1.5), "decay is 1.5"),
        (lambda: RMSProp(eps=-1e-8), "eps is -1e-08"),
        (lambda: Adam(betas=(0.9, 1.0)), r"betas\[1\] is 1.0"),
        (lambda: AdamW(weight_decay=float("nan")), "weight_decay is nan"),
        (lambda: clip_by_norm({}, 0.0), "max_norm is 0.0, expected a number above 0"),
        (lambda: clip_by_value({}, -1.0), "limit is -1.0"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_base_has_no_rule(rng: np.random.Generator) -> None:
    with pytest.raises(NotImplementedError):
        Optimizer(0.1).update(draw(rng), draw(rng))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_norm(backend: str, dtype: Any, rng: np.random.Generator) -> None:
    values = draw(rng, dtype)
    norm = np.sqrt(sum((g.astype("f8") ** 2).sum() for g in values.values()))
    grads = to_backend(values, backend)
    clipped, found = clip_by_norm(grads, 0.5)
    assert type(found) is float
    assert found == pytest.approx(norm, rel=1e-12)
    for name, g in values.items():
        assert clipped[name].dtype == dtype
        np.testing.assert_allclose(to_numpy(clipped[name]), g * (0.5 / (norm + 1e-6)), rtol=1e-6)
        np.testing.assert_array_equal(to_numpy(grads[name]), g)  # not changed
    _, after = clip_by_norm(clipped, 9.0)
    assert after == pytest.approx(0.5, rel=1e-5)
    kept, _ = clip_by_norm(grads, norm * 1.01)
    assert kept is not grads
    assert all(kept[name] is g for name, g in grads.items())
    assert clip_by_norm({}, 1.0) == ({}, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_norm_that_is_not_finite_is_shown_and_scales_nothing(backend: str, bad: float) -> None:
    grads = to_backend({"a": np.array([1.0, bad]), "b": np.array([3.0])}, backend)
    same, norm = clip_by_norm(grads, 1.0)
    assert not np.isfinite(norm)
    assert same["b"] is grads["b"]


def test_large_float32_gradients_do_not_overflow(backend: str) -> None:
    grads = to_backend({"a": np.array([3e30, 4e30], np.float32)}, backend)
    clipped, norm = clip_by_norm(grads, 1.0)
    assert norm == pytest.approx(5e30, rel=1e-6)
    np.testing.assert_allclose(to_numpy(clipped["a"]), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_value(backend: str, dtype: Any) -> None:
    values = {"a": np.array([-2.0, -0.3, 0.1, 7.0], dtype), "b": np.array(np.nan, dtype)}
    grads = to_backend(values, backend)
    clipped = clip_by_value(grads, 0.25)
    assert to_numpy(clipped["a"]).tolist() == [-0.25, -0.25, np.array(0.1, dtype), 0.25]
    assert clipped["a"].dtype == dtype
    assert np.isnan(float(clipped["b"]))
    np.testing.assert_array_equal(to_numpy(grads["a"]), values["a"])
