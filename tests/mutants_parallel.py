"""Mistakes in threads: parts that are left behind, settings that are lost."""
# ruff: noqa: E501

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import Any

from . import test_parallel
from .killers import test
from .mutation import Killer, Mutant


def with_two(function: Callable[..., None], *args: Any) -> Killer:
    """A test that needs BLAS at two threads."""

    def run() -> None:
        threads = _thread._count()
        with test_parallel.two_threads() as found:
            try:
                test(function, *args, blas_at_two=found).run()
            finally:
                test_parallel.check_no_thread_is_left(threads)  # what a mutant left running

    return Killer(f"`test_parallel.{function.__name__}`", run)


CTRL_C = with_two(test_parallel.test_ctrl_c_is_raised_after_all_parts_have_ended, [2])
NO_START = with_two(
    test_parallel.test_where_a_thread_does_not_start_the_others_are_waited_for,
    test_parallel.interrupted_while_starting,
)
MEANWHILE = with_two(test_parallel.test_a_setting_made_during_a_call_holds_after_it)
FORKED = with_two(test_parallel.test_a_process_forked_during_a_call_has_blas_for_itself, False)

CORE = test(test_parallel.test_a_part_leaves_the_core_of_the_thread_that_started_it, 0)
TURNS = test(test_parallel.test_turns_at_pythons_lock_are_short_while_parts_run, 0.005)
ANY = with_two(test_parallel.test_blas_is_held_by_calls_of_any_thread)

LEFT = [
    Mutant("BLAS given back by the first call that ends", "parallel:parts_at_work", "_holders == 0:\n                    give_back", "True:\n                    give_back", ANY),
    Mutant("Ctrl-C does not wait for the parts", "parallel:run_parts", "interrupt = error", "raise", CTRL_C),
    Mutant("a thread runs that Ctrl-C found starting", "parallel:run_parts", "given_up = True", "pass", NO_START),
    Mutant("a part stays on the core where it began", "parallel:PartThread.run", "leave(busy)", "pass", CORE),
    Mutant("a setting lost for BLAS during a call", "parallel:set_threads", "_found.update(numbers)", "pass", MEANWHILE),
    Mutant("BLAS stays at one thread", "parallel:give_back", "set_blas(_found)", "pass", MEANWHILE),
    Mutant("BLAS of a forked process stays at one thread", "parallel:begin_alone", "give_back()", "pass", FORKED),
    Mutant("Python's turns stay short", "parallel:give_back", "sys.setswitchinterval(_turn)", "pass", TURNS),
    Mutant("longer turns that were chosen meanwhile lost", "parallel:give_back", "sys.getswitchinterval() <= TURN", "True", TURNS),
]  # fmt: skip

PARALLEL = {"Threads": LEFT}
