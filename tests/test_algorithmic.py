"""Sequences made by a rule: against a second description of each, written apart from the first."""

import re

import numpy as np
import pytest

from tinyconvlstm.data.algorithmic import (
    BLANK,
    GO,
    ORDER,
    REBER,
    adding,
    copying,
    copying_without_memory,
    reber_batch,
    reber_legal,
    reber_string,
    temporal_order,
)

# the grammar as a regular expression: from the figure's nodes by elimination, not from the table
LOOP = "(?:XT*VP)*(?:S|XT*VV)"
EMBEDDED = re.compile(f"B([TP])B(?:TS*X{LOOP}|PT*V(?:V|P{LOOP}))E\\1E")


def language(longest):
    """All embedded strings of up to `longest` symbols, by filling in the expression's stars."""

    def stars(pieces, room):
        """Repetitions of any of the pieces, in any order, of up to `room` symbols."""
        found, edge = {""}, {""}
        while edge:
            edge = {a + b for a in edge for b in pieces if len(a + b) <= room}
            found |= edge
        return found

    def loop(room):
        cycles = [f"X{'T' * n}VP" for n in range(room)]
        ends = ["S", *(f"X{'T' * n}VV" for n in range(room))]
        return {a + b for a in stars(cycles, room) for b in ends if len(a + b) <= room}

    room = longest - 6
    tails = loop(room)
    inner = {f"T{'S' * n}X{tail}" for n in range(room) for tail in tails}
    inner |= {f"P{'T' * n}V{tail}" for n in range(room) for tail in {"V"} | {f"P{tail}" for tail in tails}}
    strings = {f"B{o}B{middle}E{o}E" for o in "TP" for middle in inner}
    return {string for string in strings if len(string) <= longest}


def test_reber_strings_are_those_of_the_regular_expression():
    rng = np.random.default_rng(0)
    drawn = {reber_string(rng) for _ in range(3000)}
    assert all(EMBEDDED.fullmatch(string) for string in drawn)
    short = language(11)
    assert len(short) == 18
    assert all(EMBEDDED.fullmatch(string) for string in short)
    assert {string for string in drawn if len(string) <= 11} == short  # every short one comes up
    assert min(map(len, drawn)) == 9


def test_reber_branches_are_even():
    rng = np.random.default_rng(1)
    strings = [reber_string(rng) for _ in range(4000)]
    for at in (1, 3):  # the outer letter, the first branch of the inner string
        assert abs(np.mean([string[at] == "T" for string in strings]) - 0.5) < 0.03
    shortest = np.mean([len(string) == 9 for string in strings])  # TXS: 1/2 1/2 1/2; PVV: 1/2 1/2 1/2
    assert abs(shortest - 0.25) < 0.03


def test_legal_symbols_are_the_next_letters_of_the_language():
    strings = language(16)
    prefixes = {string[:n] for string in strings for n in range(len(string) + 1)}
    for string in language(13):  # any legal symbol can be completed within three more
        for t, options in enumerate(reber_legal(string)):
            assert set(options) == {s for s in REBER if string[: t + 1] + s in prefixes}


@pytest.mark.parametrize(
    "string", ["", "BT", "BTBTXSETT", "BTBTXSEPE", "BTBTSXETE", "TTBTXSETE", "BTBTXSETEE"]
)
def test_other_strings_are_refused(string):
    assert not EMBEDDED.fullmatch(string)
    with pytest.raises(ValueError, match="expected an embedded Reber string"):
        reber_legal(string)


def test_reber_batch_spells_the_strings():
    strings = ["BTBTXSETE", "BPBPTTVPSEPE"]
    batch = reber_batch(strings)
    assert batch.xs.shape == (11, 2, 7)
    assert batch.xs.dtype == np.float32
    assert list(batch.lengths) == [8, 11]
    for n, string in enumerate(strings):
        T = len(string) - 1
        assert "".join(REBER[k] for k in batch.xs[:T, n].argmax(axis=1)) == string[:-1]
        assert "".join(REBER[k] for k in batch.following[:T, n]) == string[1:]
        assert (batch.xs[:T, n].sum(axis=1) == 1).all()
        assert not batch.xs[T:, n].any()
        assert not batch.legal[T:, n].any()
        assert all(batch.legal[t, n, batch.following[t, n]] for t in range(T))
        assert "".join(REBER[k] for k in np.flatnonzero(batch.legal[T - 2, n])) == string[1]


@pytest.mark.parametrize("length", [2, 7, 30])
def test_adding_sums_the_marked_numbers(length):
    xs, sums = adding(np.random.default_rng(2), 50, length=length)
    assert xs.shape == (length, 50, 2)
    assert sums.shape == (50, 1)
    assert xs.dtype == sums.dtype == np.float32
    for n in range(50):
        at = [t for t in range(length) if xs[t, n, 1]]
        assert len(at) == 2
        assert at[0] < length // 2 <= at[1]
        assert sums[n, 0] == sum(xs[t, n, 0] for t in at)
    assert set(np.unique(xs[..., 1])) <= {0, 1}
    assert abs(xs[..., 0]).max() <= 1


def test_adding_without_looking_costs_two_thirds():
    xs, sums = adding(np.random.default_rng(3), 20000, length=4)
    last = (xs[2:, :, 0] * xs[2:, :, 1]).sum(axis=0)
    assert abs((sums**2).mean() - 2 / 3) < 0.02
    assert abs(((sums[:, 0] - last) ** 2).mean() - 1 / 3) < 0.02


def test_temporal_order_reads_as_the_rule_says():
    batch = temporal_order(np.random.default_rng(4), 400)
    assert batch.xs.shape == (110, 400, 8)
    first, second, lengths = set(), set(), set()
    for n, length in enumerate(batch.lengths):
        assert not batch.xs[length:, n].any()
        assert (batch.xs[:length, n].sum(axis=1) == 1).all()
        text = "".join(ORDER[k] for k in batch.xs[:length, n].argmax(axis=1))
        found = re.fullmatch("E([abcd]+)([XY])([abcd]+)([XY])([abcd]+)B", text)
        assert found
        assert ["XX", "XY", "YX", "YY"][batch.labels[n]] == found[2] + found[4]
        first.add(found.start(2))
        second.add(found.start(4))
        lengths.add(length)
    assert first == set(range(10, 21))
    assert second == set(range(50, 61))
    assert lengths == set(range(100, 111))
    assert np.bincount(batch.labels).min() > 70


def test_temporal_order_refuses_places_that_overlap():
    for places in [{"first": (3, 30)}, {"second": (50, 99)}, {"first": (0, 4)}, {"length": (40, 41)}]:
        with pytest.raises(ValueError, match="expected growing places"):
            temporal_order(np.random.default_rng(0), 2, **{"first": (10, 20), "second": (25, 40)} | places)


@pytest.mark.parametrize(("delay", "letters"), [(1, 1), (5, 3), (30, 10)])
def test_copying_says_the_letters_again(delay, letters):
    xs, labels = copying(np.random.default_rng(5), 40, delay=delay, letters=letters)
    assert xs.shape == (delay + 2 * letters, 40, 10)
    assert labels.shape == xs.shape[:2]
    assert (xs.sum(axis=2) == 1).all()
    symbols = xs.argmax(axis=2)
    for n in range(40):
        said = list(symbols[:letters, n])
        assert max(said) < BLANK
        blanks = [BLANK] * (delay - 1)
        assert list(symbols[letters:, n]) == [*blanks, GO, *[BLANK] * letters]
        assert list(labels[:, n]) == [BLANK] * (letters + delay) + said


def test_the_memoryless_answer_to_copying():
    _, labels = copying(np.random.default_rng(6), 500, delay=20, letters=5)
    p = np.where(np.arange(30)[:, None] < 25, 1.0, 1 / 8)
    assert (labels[:25] == BLANK).all()
    assert copying_without_memory(20, 5) == pytest.approx(-np.log(p).mean())
    assert copying_without_memory(100) == pytest.approx(10 * np.log(8) / 120)


@pytest.mark.parametrize("draw", [adding, temporal_order, copying])
def test_a_seed_fixes_the_sequences(draw):
    same = [draw(np.random.default_rng([7, split]), 8) for split in (0, 0, 1)]
    for a, b, c in zip(*same, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_bad_sizes_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="length is 1"):
        adding(rng, 3, length=1)
    with pytest.raises(ValueError, match="delay is 0"):
        copying(rng, 3, delay=0)
