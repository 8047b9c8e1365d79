"""Mistakes in what runs beside a GPU: states at rest, batches made ahead, precisions, published trainings.

Those in the CUDA sources themselves are planted in `test_kernels.py`.
"""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from . import standin, test_captured, test_cli, test_precision, test_prefetch, test_rest
from .killers import test
from .mutation import Killer, Mutant


def on_standin(function: Callable[..., None], *args: Any) -> Killer:
    """A test that needs the stand-in for CuPy."""

    def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            function(*args, standin.install(patch), patch)

    return Killer(f"`{function.__module__.rpartition('.')[2]}.{function.__name__}`", run)


RECORDED = on_standin(test_captured.test_another_device_precision_or_switch_records_again)
HELD = test_prefetch.test_a_dropped_batch_keeps_its_memory_until_its_readers_are_waited_for
LAST_USED = on_standin(test_captured.test_the_graphs_used_last_are_kept)
AHEAD = test(test_prefetch.test_the_same_batches_in_any_order_of_steps, "numpy")
TIES = test(test_precision.test_tf32_keeps_ten_bits_and_rounds_to_nearest_even)
PAPER = test(test_cli.test_the_published_training_is_the_paper_s)
OWN_ZERO = test(test_rest.test_a_users_own_repeated_zero_is_an_array_like_any_other, "numpy")
PARTS_OF_REST = test(test_rest.test_rest_is_known_with_its_parts_and_nothing_else_is, "numpy")
FEW_CLIPS = test(test_precision.test_a_few_clips_of_a_large_set_are_not_all_of_it)
SHARED = test(test_precision.test_parts_of_one_memory_stay_parts_of_one, "numpy")
TF32 = "precision:rounded_to_tf32"

BESIDE = [
    Mutant("a batch made ahead for another step", "data.prefetch:Prefetch.__call__", "self.ahead[0] == step", "step >= 0", AHEAD),
    Mutant("a batch's memory let go at once", "data.prefetch:Prefetch.__call__", "return self.handed", "arrays, self.handed = self.handed, None; return arrays", on_standin(HELD, 1)),
    Mutant("memory let go before a copy that nobody asks for", "data.prefetch:Prefetch.__call__", "wait([self.ahead[1]])", "pass", on_standin(HELD, 5)),
    Mutant("a user's own zeros taken for rest", "cells.maps:at_rest", "_zeros.get(id(h.base)) is h.base", "not any(h.strides)", OWN_ZERO),
    Mutant("rest forgotten", "cells.maps:rest", "_zeros[id(zero)] = zero", "pass", PARTS_OF_REST),
    Mutant("a graph of another device", "kernels:captured", "device.id, ", "", RECORDED),
    Mutant("a graph of another precision", "kernels:captured", "switches(), ", "", RECORDED),
    Mutant("a graph of other kernels", "kernels:captured", "switched_on(), ", "", RECORDED),
    Mutant("the oldest graph dropped, not the one unused for longest", "kernels:captured", "kept.pop(key) if key in kept", "kept[key] if key in kept", LAST_USED),
    Mutant("a large set stored for a few of its clips", "precision:converted", "sum(shown[id(whole)].values()) < whole.nbytes", "False", FEW_CLIPS),
    Mutant("every part stored on its own", "precision:converted", "sum(shown[id(whole)].values()) < whole.nbytes", "True", SHARED),
    Mutant("TF32 with eleven bits", TF32, "0xFFFFE000", "0xFFFFF000", TIES),
    Mutant("TF32 cut off, not rounded", TF32, "bits + np.uint32(0xFFF)", "bits - np.uint32(1)", TIES),
    Mutant("ties away from zero", TF32, "np.uint32(0xFFF)", "np.uint32(0x1000)", TIES),
    Mutant("a published rate that decays", "job:Job.schedule", 'self.decay == "none"', "False", PAPER),
]  # fmt: skip

GPU = {"Beside a GPU": BESIDE}
