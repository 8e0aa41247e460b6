"""Significance and description length: the released numbers recomputed, and verdicts on tables of known answer."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from test_topafa2025_lm import D_SAE, table

from replication import figures
from replication.claims import NoEvidence
from replication.papers.topafa2025 import lm, published, significance


def test_welch_by_hand():
    """Means 1 apart, variances 2 and 6, n = 4 and 8: t = -1 / sqrt(2/4 + 6/8) = -1 / sqrt 1.25."""
    t, p = significance.welch(0.0, 2.0, 4, 1.0, 6.0, 8)
    assert t == pytest.approx(-1 / 1.25**0.5) and 0.3 < p < 0.5


def test_description_length_has_the_notebooks_sanity_value():
    assert significance.description_length(65, 25000) == pytest.approx(1404.63, abs=0.005)


def test_released_t_tests_follow_from_their_moments():
    found = significance.released_tests()
    assert len(found) == 6 and found.t.to_numpy() == pytest.approx(found.t_released.to_numpy(), abs=0.15)
    assert (np.log10(found.p) - np.log10(found.p_released)).abs().max() < 0.3
    assert found.cohen_d.to_numpy() == pytest.approx([-0.82, -0.55, -0.74, -0.74, -0.60, -0.66], abs=0.03)
    assert found.gap.to_numpy() == pytest.approx([-0.136, -0.113, -0.075, -0.075, -0.101, -0.114], abs=1e-3)


def test_released_description_lengths_follow_from_released_l0():
    found = significance.released_lengths()
    assert found.bits.to_numpy() == pytest.approx(found.bits_released.to_numpy(), rel=1e-4)
    assert found.nmse.to_numpy() == pytest.approx(found.nmse_released.to_numpy())
    assert found[found.method == "topafa"].ratio.to_list() == pytest.approx([1.99, 1.89, 2.15], abs=0.005)


def test_twelve_of_fifteen_released_runs_are_dominated():
    found = significance.released_frontier()
    assert len(found) == 15 and found.free.sum() == 3
    assert set(zip(found.layer[found.free], found.dial[found.free].round(), strict=True)) == {(6, 24), (8, 32), (8, 48)}
    assert (found.l0_over_d[found.free] > 1).all()
    assert significance.released_frontier_table()["with L0 < d"].iloc[-1] == 0


def test_a6_needs_a_lower_error_over_seeds_in_every_layer():
    better = significance.beats_significantly(table(afa=(1.5, 1.2, 0.8, 1.1, 1.2)))
    assert better.verdict == "replicated" and better.ours == pytest.approx(np.log10(0.8 / 0.99), abs=0.01)
    assert significance.beats_significantly(table(afa=(2,) * 5)).verdict == "not replicated"
    falling = table(afa=(2,) * 5)
    falling["curve_error"] = [[2.0, 1.0, 0.5]] * len(falling)
    assert significance.beats_significantly(falling).verdict == "not replicated"
    rows = table(afa=(1.5, 1.2, 0.8, 1.1, 1.2))
    afa = rows.architecture == "topafa"
    noisy = rows.assign(lee_nmse=rows.lee_nmse * np.where(afa, rows.seed.map({0: 0.7, 1: 1.0, 2: 1.4}), 1))
    assert significance.beats_significantly(noisy).verdict in ("partly", "void")


def test_a_test_over_steps_finds_seeds_significant():
    """Seeds differ by 1 % and minibatches by 1 %: over 100 of them that is a t of 7, between seeds of one setting."""
    alarms = significance.placebo(table())
    assert (alarms.p < 0.05).all() and alarms.t.abs().median() == pytest.approx(7, abs=1)
    assert len(alarms) == 3 * 15 * 3
    steps = significance.step_tests(table())
    assert len(steps) == 9 and steps.reach.to_numpy() == pytest.approx(1.96 * 2**0.5 * 1e-3, rel=0.05)
    quiet = significance.alarms_table(table().assign(step_var=1.0))
    assert quiet["p < 0.05"].str.startswith("0 ").all()


def test_a9_compares_lengths_at_equal_tolerance():
    """The best top-AFA (NMSE 0.99e-3 at 2.5 d) against the shortest baseline within 1.1 times it: k = 171."""
    evidence = significance.shorter_code(table())
    assert evidence.verdict == "not replicated" and evidence.ours == pytest.approx(np.log10(2.5 * 128 / 171))
    short = significance.shorter_code(table(afa_l0=(0.5, 0.6, 0.7, 0.8, 0.9)))
    assert short.verdict == "replicated"
    unreached = significance.shorter_code(table(afa=(0.1,) * 5))
    assert unreached.verdict == "void" and "no baseline" in unreached.summary


def test_the_shortest_baseline_may_be_slightly_worse():
    rows = lm.plain(table())
    here = rows[(rows.layer == 1) & (rows.seed == 0)]
    assert significance.shortest(here, 0.95e-3).sparsity == 171
    assert significance.shortest(here, 1e-9) is None


def test_tables_can_be_read():
    rows = table()
    assert list(significance.tests_table(rows).layer) == ["1", "2", "3"]
    assert len(significance.released_tests_table()) == 6 and len(significance.released_lengths_table()) == 9
    picks = significance.picks(significance.means(rows))
    assert (picks.groupby("layer").kind.value_counts()[:, "lowest NMSE"] == 3).all()
    assert significance.means(rows).bits.iloc[0] == pytest.approx(11 * (published.BITS + np.log2(D_SAE)))


def test_one_seed_is_no_evidence():
    for claim in significance.CLAIMS:
        with pytest.raises(NoEvidence):
            claim.test(table(seeds=1))


@pytest.mark.parametrize("name", significance.FIGURES)
def test_figures(name):
    _, function, take = significance.FIGURES[name]
    figure = figures.named(function)(*take(table()))
    assert all(axes.get_xlabel() for axes in figure.axes)
