"""The gradient check: is a hand-written backward the derivative of its forward?

With random upstream gradients u_k on the outputs y_k the function becomes one number,
L = sum_k <u_k, y_k>, and its gradient is what backward returns. Two numeric derivatives judge it:

    central difference    (L(a + h v) - L(a - h v)) / 2h        errors h^2 and eps |L| / h
    complex step          Im L(a + i h v) / h                   no subtraction, so h = 1e-30 and no rounding

First along one random direction v of all arguments at once: two evaluations whatever the size, for
every output's upstream present and each absent in turn. Then element by element, which names the
culprit. An all-ones upstream would let a softmax pass whose backward returns zeros; float32 would
drown an error of 1e-3 in rounding; both are refused here.

Source: Squire & Trapp 1998, "Using complex variables to estimate derivatives of real functions".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, map_arrays, to_numpy
from .case import Arrays, Case
from .report import Direction, Report, Row

CENTRAL, COMPLEX = "central", "complex"
COMPLEX_STEP = 1e-30
ROUNDING = 1e-2  # of the largest argument's gradient: smaller ones are compared on this scale
KINK = 1e-3  # one-sided slopes that differ by more than this share of the slope are no curvature


def gradcheck(
    case: Case,
    *,
    tolerance: float = 1e-6,
    complex_tolerance: float = 1e-12,
    step: float = 1e-5,
    elements: int = 20,
    seed: int = 0,
) -> Report:
    """Check the gradient of a case.

    Args:
        case: what to check; `pair_case`, `cell_case`, `layer_case` and `loss_case` make one.
        tolerance: largest relative error against central differences.
        complex_tolerance: largest relative error against the complex step (analytic cases only).
        step: h of the central difference, times max(1, |element|).
        elements: elements compared one by one in each argument, drawn at random from larger ones;
            after a failure along a direction all of them are, up to 2000.
        seed: of the random upstream gradients, directions and elements.
    Returns:
        A Report. The relative error is |a - n| / max(|a|, |n|, r), r the root mean square of the
        argument's gradient and at least a hundredth of the largest argument's (a bias before a batch
        norm has the gradient 0, and what backward returns for it is rounding). An element passes when
        it is within the tolerance, or within the rounding error 8 eps sum|u y| / h that a central
        difference cannot avoid.
    Raises:
        TypeError: an argument is not float64; in float32 a central difference carries an error of
            about 1e-2, larger than many mistakes. Or it lies on a GPU.
    """
    refuse_low_precision(case)
    rng = np.random.default_rng(seed)
    before = {name: array.copy() for name, array in case.arrays.items()}
    outputs, saved = case.forward(case.arrays)
    probe = Probe(case, outputs, step)
    upstream = {name: np.asarray(rng.standard_normal(y.shape)) for name, y in probe.base.items()}

    faults: list[str] = []
    again = case.forward(case.arrays)[0]
    changed = [n for n, y in probe.base.items() if not same(y, again[n])]
    faults += [
        f"forward is not repeatable: {n} changed; seed its random numbers in each call" for n in changed
    ]
    given = {name: u.copy() for name, u in upstream.items()}
    grads = {name: copy_of(g) for name, g in case.backward(upstream, saved).items()}
    faults += [f"backward changed its argument d{n}" for n, u in upstream.items() if not same(u, given[n])]
    again = case.backward(upstream, saved)
    faults += [f"backward is not repeatable: d{n} changed" for n in grads if not same(grads[n], again[n])]
    faults += [f"the call changed its argument {n}" for n in before if not same(before[n], case.arrays[n])]
    if set(grads) != set(case.arrays):
        faults.append(f"backward returned gradients of {sorted(grads)}, expected {sorted(case.arrays)}")
        return Report(case.name, [], [], {CENTRAL: tolerance}, faults)
    for name, g in grads.items():
        if g is None:
            faults.append(f"d{name} is None")
        elif np.shape(g) != np.shape(case.arrays[name]):
            faults.append(f"d{name} has shape {np.shape(g)}, {name} has {np.shape(case.arrays[name])}")
    if faults:
        return Report(case.name, [], [], {CENTRAL: tolerance}, faults)

    limits = {CENTRAL: tolerance} | ({COMPLEX: complex_tolerance} if case.analytic else {})
    directions = []
    for label, present in upstream_patterns(upstream):
        g = grads if label == "all" else map_arrays(to_numpy, case.backward(present, saved))
        directions += check_directions(probe, label, present, g, limits, rng)
    if not all(d.passed and not d.kink for d in directions):
        elements = 2000
    rows, points = check_elements(probe, upstream, grads, limits, elements, rng)
    return Report(case.name, directions, rows, limits, faults, points)


class Probe:
    """Numeric derivatives of L = sum_k <u_k, y_k> along a direction."""

    def __init__(self, case: Case, outputs: Arrays, step: float) -> None:
        self.case, self.step = case, step
        self.base = {name: np.array(to_numpy(y)) for name, y in outputs.items()}

    def complex(self, upstream: dict[str, Any], direction: Arrays) -> float:
        """Im L(a + i h v) / h."""
        arrays = {
            name: a + 1j * COMPLEX_STEP * direction[name] if name in direction else a.astype(complex)
            for name, a in self.case.arrays.items()
        }
        outputs = self.case.forward(arrays)[0]
        return (
            sum(float((u * np.imag(outputs[k])).sum()) for k, u in upstream.items() if u is not None)
            / COMPLEX_STEP
        )

    def central(self, upstream: dict[str, Any], direction: Arrays) -> tuple[float, float, bool]:
        """(L(a + h v) - L(a - h v)) / 2h, its rounding error, and whether a kink lies at a.

        The one-sided slopes differ by h L'' where L is smooth, by a constant at a kink; a kink beside a,
        not at it, falls outside a smaller step.
        """
        gaps = []
        for h in (self.step, self.step / 100):
            left, right, noise = self.slopes(upstream, direction, h)
            gaps.append(abs(left - right))
            if not gaps[-1] > KINK * max(abs(left), abs(right)) + 2 * noise:
                return (left + right) / 2, noise, False
        return (left + right) / 2, noise, gaps[1] > gaps[0] / 10 + 2 * noise

    def slopes(self, upstream: dict[str, Any], direction: Arrays, h: float) -> tuple[float, float, float]:
        """The two one-sided differences, and the rounding error of either."""
        plus = self.case.forward(self.moved(direction, h))[0]
        minus = self.case.forward(self.moved(direction, -h))[0]
        right = left = size = 0.0
        for name, u in upstream.items():
            if u is not None:
                y = self.base[name]
                right += float((u * (to_numpy(plus[name]) - y)).sum())
                left += float((u * (y - to_numpy(minus[name]))).sum())
                size += float(np.abs(u * y).sum())
        return left / h, right / h, 8 * np.finfo(float).eps * size / h

    def moved(self, direction: Arrays, h: float) -> Arrays:
        """The arguments, moved by h along the direction."""
        return {n: a + h * direction[n] if n in direction else a for n, a in self.case.arrays.items()}


def upstream_patterns(upstream: Arrays) -> list[tuple[str, dict[str, Any]]]:
    """All outputs with a gradient; then, where there are several, each without one in turn."""
    patterns: list[tuple[str, dict[str, Any]]] = [("all", dict(upstream))]
    if len(upstream) > 1:
        patterns += [(f"all but d{absent}", {**upstream, absent: None}) for absent in upstream]
    return patterns


def check_directions(
    probe: Probe,
    label: str,
    upstream: dict[str, Any],
    grads: Arrays,
    limits: dict[str, float],
    rng: np.random.Generator,
) -> list[Direction]:
    """One directional derivative by each method; a direction through a kink is drawn again.

    Where every direction has a kink, the point itself lies on one: then the elements must decide.
    """
    found = []
    for method, limit in limits.items():
        for _ in range(5):
            direction = {name: rng.standard_normal(np.shape(a)) for name, a in probe.case.arrays.items()}
            analytic = sum(float((grads[name] * v).sum()) for name, v in direction.items())
            if method == COMPLEX:
                numeric, noise, kink = probe.complex(upstream, direction), 0.0, False
            else:
                numeric, noise, kink = probe.central(upstream, direction)
            if not kink:
                break
        size = float(np.sqrt(sum(float((g * g).sum()) for g in grads.values())))  # of a typical direction
        error = relative(analytic, numeric, size)
        passed = relative(analytic, numeric, size, noise) <= limit
        found.append(Direction(label, method, error, analytic, numeric, passed or kink, kink))
    return found


def check_elements(
    probe: Probe,
    upstream: Arrays,
    grads: Arrays,
    limits: dict[str, float],
    elements: int,
    rng: np.random.Generator,
) -> tuple[list[Row], list[tuple[str, float, float]]]:
    """The worst element of every argument by each method, and all pairs for the picture."""
    rows, points = [], []
    sizes = {name: float(np.sqrt(np.mean(g**2))) if g.size else 0.0 for name, g in grads.items()}
    largest = max((s for s in sizes.values() if np.isfinite(s)), default=0.0)
    for name, array in probe.case.arrays.items():
        size = max(sizes[name], ROUNDING * largest)
        chosen = np.arange(array.size)
        if array.size > elements:
            chosen = np.sort(rng.choice(array.size, elements, replace=False))
        for method, limit in limits.items():
            worst, kinks, passed = (-1.0, (0,) * array.ndim, 0.0, 0.0), 0, True
            for flat in chosen:
                index = tuple(int(k) for k in np.unravel_index(flat, array.shape))
                unit = np.zeros_like(array)
                unit[index] = 1.0 if method == COMPLEX else max(1.0, abs(float(array[index])))
                if method == COMPLEX:
                    numeric, noise, kink = probe.complex(upstream, {name: unit}), 0.0, False
                else:
                    numeric, noise, kink = probe.central(upstream, {name: unit})
                    numeric, noise = numeric / unit[index], noise / unit[index]
                if kink:
                    kinks += 1
                    continue
                analytic = float(grads[name][index])
                points.append((name, analytic, float(numeric)))
                passed &= relative(analytic, numeric, size, noise) <= limit
                error = relative(analytic, numeric, size)
                if error > worst[0]:
                    worst = (error, index, analytic, float(numeric))
            error, index, analytic, numeric = worst
            checked = len(chosen) - kinks
            step = index[0] if name in probe.case.sequences and index else None
            passed &= checked > 0 or array.size == 0
            shape = tuple(array.shape)
            rows.append(
                Row(
                    name,
                    shape,
                    method,
                    max(error, 0.0),
                    index,
                    analytic,
                    numeric,
                    step,
                    checked,
                    kinks,
                    passed,
                )
            )
    return rows, points


def relative(analytic: float, numeric: float, size: float, noise: float = 0.0) -> float:
    """|a - n| beyond the noise, against the larger of |a|, |n| and the gradient's typical size."""
    scale = max(abs(analytic), abs(numeric), size)
    if not np.isfinite(analytic + numeric + size):
        return float("inf")
    return max(abs(analytic - numeric) - noise, 0.0) / scale if scale > 0 else 0.0


def same(a: Array, b: Array) -> bool:
    """Equal to the bit, NaN included."""
    if a is None or b is None:
        return a is b
    return bool(np.array_equal(to_numpy(a), to_numpy(b), equal_nan=True))


def copy_of(gradient: Any) -> Any:
    """A copy on the CPU, so that a backward that reuses its result array is found out."""
    return None if gradient is None else np.array(to_numpy(gradient))


def refuse_low_precision(case: Case) -> None:
    """TypeError when an argument is not a float64 array of NumPy, with the reason."""
    for name, array in case.arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"{name} is a {type(array).__module__}.{type(array).__name__}, a gradient check runs on "
                'NumPy arrays; use to_numpy(...), or .to_backend("numpy") on a cell or a layer'
            )
        if str(array.dtype) != "float64":
            raise TypeError(
                f"{name} is {array.dtype}, a gradient check needs float64: in float32 rounding alone leaves "
                "central differences with a relative error near 1e-2, which hides real mistakes. "
                "Convert with .astype(np.float64), on an array, a cell or a layer."
            )
