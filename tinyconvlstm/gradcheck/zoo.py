"""The zoo: a small random case of everything in the library that has a hand-written gradient.

`tinyconvlstm gradcheck` runs it. Names read "pair/detail": "conv/2d even kernel", "cell/ConvLSTM 2d
peephole map", so that a part of a name selects a family.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np

from .case import Case
from .zoo_attention import attention_cases
from .zoo_captioner import captioner_cases
from .zoo_cells import cell_cases
from .zoo_clocks import clock_cases
from .zoo_deformable import deformable_cases
from .zoo_layers import layer_cases, model_cases
from .zoo_models import network_cases
from .zoo_ops import op_cases
from .zoo_variants import variant_cases

PARTS: tuple[Callable[[np.random.Generator], list[Case]], ...] = (
    op_cases,
    cell_cases,
    layer_cases,
    model_cases,
    variant_cases,
    network_cases,
    attention_cases,
    deformable_cases,
    clock_cases,
    captioner_cases,
)


def zoo(pattern: str | None = None, *, seed: int = 0) -> list[Case]:
    """All cases, or those whose name fits.

    Args:
        pattern: words that must all occur in a name, in any order, upper or lower case.
        seed: of the random arguments.
    Returns:
        Cases with names that differ.
    Raises:
        ValueError: no name fits; the message lists the closest ones.
    """
    cases = [
        case if "/" in case.name else case._replace(name=case.name.replace(" ", "/", 1))
        for k, part in enumerate(PARTS)
        for case in part(np.random.default_rng([seed, k]))
    ]
    if pattern is None:
        return cases
    words = pattern.lower().split()
    found = [case for case in cases if all(word in case.name.lower() for word in words)]
    if not found:
        raise ValueError(
            f"no gradient check is named {pattern!r}; close names: {', '.join(close_names(pattern, cases))}"
        )
    return found


def close_names(pattern: str, cases: list[Case]) -> list[str]:
    """Up to five names, or families of names, that resemble the pattern."""
    names = {case.name.lower(): case.name for case in cases}
    families = {name.partition("/")[0].lower(): name.partition("/")[0] for name in names.values()}
    known = families | names
    close = difflib.get_close_matches(pattern.lower(), known, n=5, cutoff=0.4)
    return [known[name] for name in close] or sorted(families.values())
