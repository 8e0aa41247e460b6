"""Verdicts on shrinkage and progressive codes, from tables whose answer is known; each measure on a smoke run."""

import numpy as np
import pandas as pd
import pytest

from replication.papers.gao2024 import codes
from replication.papers.gao2024.codes import DOWNSTREAM_AT, MULTIPLES
from replication.papers.gao2024.grid import SEEDS, make_run
from replication.store import trained

RELU = ((0.3, 6.0), (0.1, 20.0), (0.05, 60.0))  # lambda and L0: the last above a quarter of the width


def refined_rows(
    ratio: dict | None = None, change: dict | None = None, errors: dict | None = None, **same
) -> pd.DataFrame:
    """Three seeds of TopK at k = 8 and 16 and of ReLU at RELU. `errors`: (before, after); ReLU 0.4 -> 0.3, TopK 0.2."""
    ratio = {"relu": 1.5, "topk": 1.01} | (ratio or {})
    change = {"relu": 0.06, "topk": 0.02} | (change or {})
    errors = {"relu": (0.4, 0.3), "topk": (0.2, 0.18)} | (errors or {})
    rows = []
    for seed in range(3):
        for name, cells in (("topk", ((8.0, 8.0), (16.0, 16.0))), ("relu", RELU)):
            for dial, l0 in cells:
                jitter = 1 + 0.001 * seed
                row = {"architecture": name, "sparsity": dial, "l0": l0, "seed": seed, "d_in": 128, "d_sae": 1024}
                row |= {"ratio": ratio[name] * jitter, "change": change[name] * jitter}
                row |= dict(zip(("nmse", "nmse_refined"), (e * jitter for e in errors[name]), strict=True))
                row |= {"delta_ce": 0.5, "delta_ce_refined": 0.4, "nmse_rescaled": 0.3, "nmse_pca": 0.5}
                row |= {"nmse_untrained": 0.7, "nmse_untrained_refined": 0.6, "optimality_gap": 1e-7, "dead": 0.0}
                row |= {"ratio_untrained": 1.25}
                rows.append(row | same)
    return pd.DataFrame(rows)


def test_c21_wants_large_ratios_for_relu_none_for_topk_and_smaller_changes():
    evidence = codes.relu_shrinks(refined_rows())
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(1.5, abs=0.01)
    assert "3.0 times" in evidence.summary
    assert "ReLU: 1.50 to 1.50; TopK: 1.01 to 1.01; untrained: 1.25" in evidence.summary
    assert codes.relu_shrinks(refined_rows(ratio={"topk": 1.2})).verdict == "partly"
    assert codes.relu_shrinks(refined_rows(change={"topk": 0.1})).verdict == "partly"
    wrong = refined_rows(ratio={"relu": 1.0, "topk": 1.2}, change={"topk": 0.1})
    assert codes.relu_shrinks(wrong).verdict == "not replicated"


def test_c21_is_void_without_a_sound_pair():
    assert codes.relu_shrinks(refined_rows(dead=0.9)).verdict == "void"
    assert codes.relu_shrinks(refined_rows(optimality_gap=1e-3)).verdict == "void"
    assert codes.relu_shrinks(refined_rows().query("architecture == 'topk'")).verdict == "void"


def test_c21_a_single_setting_that_fails_makes_it_partly():
    rows = refined_rows()
    rows.loc[rows.sparsity == 0.3, "ratio"] = 1.04
    assert codes.relu_shrinks(rows).verdict == "partly"


def test_c22_is_the_share_of_the_gap():
    """ReLU 0.4 -> 0.3 and TopK 0.2: half of the gap of 0.2."""
    evidence = codes.gap_closes_in_part(refined_rows())
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.5, abs=1e-6)
    assert "from 0.400 to 0.300 and TopK's from 0.200 to 0.180, that of an untrained" in evidence.summary
    assert "from 0.700 to 0.600 (means over L0 = 8, 16)" in evidence.summary
    closed = codes.gap_closes_in_part(refined_rows(errors={"relu": (0.4, 0.1)}))
    assert closed.verdict == "not replicated" and closed.ours == pytest.approx(1.5, abs=1e-6)


def test_c22_looks_below_a_quarter_of_the_width_and_where_topk_is_ahead():
    assert codes.gap_closes_in_part(refined_rows(errors={"relu": (0.19, 0.1)})).verdict == "void"
    assert codes.gap_closes_in_part(refined_rows(d_in=16)).verdict == "void"  # only L0 = 6 would be below 4
    narrow = refined_rows(d_in=48)  # below 12: one ReLU run is left, and one run is no frontier
    assert codes.gap_closes_in_part(narrow).verdict == "void"


def test_nothing_is_extrapolated():
    rows = refined_rows()
    outside = codes.at_equal_l0(rows[(rows.sparsity != 16) & (rows.sparsity != 0.3)], ["change"])
    assert outside.empty  # k = 8 is below the L0 of every ReLU run that is left
    some = rows[~((rows.seed == 2) & (rows.sparsity == 16))]
    assert set(codes.at_equal_l0(some, ["change"]).sparsity) == {8}  # k = 16 is not matched by every seed


def time_rows(topk, multi, jump_topk=1.2, jump_multi=1.0, reached=1.0) -> pd.DataFrame:
    """Three seeds, k = 4 and 8. `topk`, `multi`: multiple -> NMSE; `jump_...`: NMSE of one threshold over it."""
    rows = []
    for seed in range(3):
        for k in (4.0, 8.0):
            for options, error, jump in (("()", topk, jump_topk), ("(('multi_weight', 0.125),)", multi, jump_multi)):
                ks = [max(round(m * k), 1) for m in MULTIPLES]
                nmse = [error(m) * (1 + 0.001 * seed) for m in MULTIPLES]
                row = {"architecture": "topk", "options": options, "sparsity": k, "seed": seed, "dead": 0.0}
                row |= {"l0": k, "d_in": 128, "d_sae": 1024, "k_test": ks, "threshold": [0.1] * len(ks)}
                row |= {"l0_topk": [reached * one for one in ks], "nmse_topk": nmse, "nmse_pca": [0.5] * len(ks)}
                row |= {"l0_jump": ks, "nmse_jump": [jump * one for one in nmse], "l0_untrained": ks}
                row |= {"nmse_untrained": [0.9] * len(ks), "delta_ce_topk": [0.5] * len(DOWNSTREAM_AT)}
                rows.append(row)
    relu = pd.DataFrame([rows[0] | {"architecture": "relu", "sparsity": 0.1, "seed": seed} for seed in range(3)])
    return pd.concat([pd.DataFrame(rows), relu], ignore_index=True)


def valley(best: float, end: float):
    """NMSE 0.3 at `best` times k, 1 at k / 4 and `end` at 6k, linear between."""
    return lambda m: float(np.interp(m, [0.25, best, 6], [1, 0.3, end]))


FALLING = valley(6, 0.3)


def test_c23_wants_the_minimum_just_above_k_and_a_rise_by_4k():
    evidence = codes.topk_overfits_k(time_rows(valley(1.5, 2), FALLING))
    assert evidence.verdict == "replicated" and "smallest at 1.5 to 1.5 times k" in evidence.summary
    at_k, at_4k = valley(1.5, 2)(1), valley(1.5, 2)(4)
    assert evidence.ours == pytest.approx(at_4k / at_k)
    assert codes.topk_overfits_k(time_rows(valley(0.75, 2), FALLING)).verdict == "partly"  # worse by 4k, best below k
    assert codes.topk_overfits_k(time_rows(FALLING, FALLING)).verdict == "not replicated"
    assert codes.topk_overfits_k(time_rows(valley(1.5, 2), FALLING).assign(dead=0.9)).verdict == "void"


def test_what_a_seed_is_judged_at_is_chosen_without_it():
    """Every seed has its own dip of 2 among columns of 1: chosen on the others, it is missed."""
    own = pd.DataFrame([[-2.0, 1, 1], [1, -2, 1], [1, 1, -2]], columns=[2, 4, 8])
    assert codes.chosen_on_others(own).tolist() == [4, 2, 2]
    assert codes.left_out(own).tolist() == [1, 1, 1]
    shared = pd.DataFrame([[3.0, 1, 2], [3, 1.5, 1.4], [3, 1, 2]], columns=[2, 4, 8])
    assert codes.left_out(shared).tolist() == [1, 1.5, 1]  # 4 for all, also for the seed that is lowest at 8
    with pytest.raises(codes.NoEvidence, match="at least 2 of them, found 1"):
        codes.chosen_on_others(own.head(1))


def test_c23_chooses_the_multiple_above_k_on_other_seeds():
    """At 1.5k NMSE is 0.3, at 2k 0.489, at k 0.58. One seed of three is 0.01 at 2k: that makes the others look there,
    where ln(0.58 / 0.489) is left of their gain, and counts for nothing in the seed itself."""
    rows = time_rows(valley(1.5, 2), FALLING)
    lucky = rows.architecture.eq("topk") & rows.options.eq("()") & rows.seed.eq(0)
    for row in rows[lucky].index:
        rows.at[row, "nmse_topk"] = [0.01 if m == 2 else e for m, e in zip(MULTIPLES, rows.nmse_topk[row], strict=True)]
    gain = np.log(0.58 / np.array([0.3, valley(1.5, 2)(2), valley(1.5, 2)(2)])).mean()
    evidence = codes.topk_overfits_k(rows)
    assert evidence.verdict == "partly" and f"it is {-100 * np.expm1(-gain):.1f} % below" in evidence.summary


def test_c23_and_c24_are_void_where_fewer_latents_are_positive_than_are_kept():
    """Else an error that cannot change any more would count as one that does not rise."""
    short = time_rows(valley(1.5, 2), FALLING, reached=0.9)
    for rule in (codes.topk_overfits_k, codes.multi_topk_is_progressive):
        evidence = rule(short)
        assert evidence.verdict == "void" and "0.90 to 0.90 of k or 2k or 4k" in evidence.summary


def test_c24_wants_no_rise_up_to_4k_and_a_small_cost_at_k():
    evidence = codes.multi_topk_is_progressive(time_rows(FALLING, FALLING))
    assert evidence.verdict == "replicated" and evidence.ours == 0 and "1.00 times" in evidence.summary
    bumpy = codes.multi_topk_is_progressive(time_rows(FALLING, lambda m: FALLING(m) * (1.5 if m == 4 else 1)))
    expected = 1.5 * FALLING(4) / FALLING(3) - 1
    assert bumpy.verdict == "partly" and bumpy.ours == pytest.approx(expected)
    costly = codes.multi_topk_is_progressive(time_rows(FALLING, lambda m: 1.5 * FALLING(m)))
    assert costly.verdict == "partly" and "1.50 times" in costly.summary
    worst = codes.multi_topk_is_progressive(time_rows(FALLING, lambda m: 1 + m))
    assert worst.verdict == "not replicated"
    beyond = time_rows(FALLING, lambda m: FALLING(m) if m <= 4 else 9.0)  # what happens above 4k does not count
    assert codes.multi_topk_is_progressive(beyond).verdict == "replicated"


def test_c25_wants_a_cost_after_topk_and_none_after_multi_topk():
    evidence = codes.one_threshold_after_multi(time_rows(FALLING, FALLING))
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(1.2)
    assert evidence.summary == "at 2k and 4k: 1.20 and 1.20 after TopK, 1.00 and 1.00 after Multi-TopK"
    assert codes.one_threshold_after_multi(time_rows(FALLING, FALLING, jump_topk=1.0)).verdict == "partly"
    both_wrong = time_rows(FALLING, FALLING, jump_topk=1.0, jump_multi=1.3)
    assert codes.one_threshold_after_multi(both_wrong).verdict == "not replicated"
    unreached = codes.one_threshold_after_multi(time_rows(FALLING, FALLING, reached=0.9))
    assert unreached.verdict == "void" and "0.90 to 1.00" in unreached.summary


def test_holds_is_judge_with_two_ends():
    def of(*means):
        return codes.holds(pd.DataFrame({i: [m, m + 0.01, m - 0.01] for i, m in enumerate(means)}), above=0, most=1)[0]

    assert [of(0.5), of(0.5, 1.1), of(0.99), of(1.2), of(-0.2), of(1.005)] == [
        "replicated",
        "partly",
        "partly",
        "not replicated",
        "not replicated",
        "void",
    ]


def test_curves_have_one_line_per_multiple():
    points = codes.curves(time_rows(FALLING, FALLING))
    assert len(points) == len(MULTIPLES) * 15 and set(points.series) == {"topk", "multi", "relu"}
    assert points.nmse_topk.dtype == float
    line = points[(points.series == "topk") & (points.sparsity == 8) & (points.multiple == 4) & (points.seed == 0)]
    assert line.k_test.item() == 32 and line.nmse_topk.item() == FALLING(4)


def test_downstream_points_pair_losses_with_their_multiples():
    rows = time_rows(FALLING, FALLING)
    rows["delta_ce_topk"] = [[i, i + 100] for i in range(len(rows))]
    points = codes.downstream_points(rows)
    assert len(points) == 2 * len(rows) and set(points.multiple) == set(DOWNSTREAM_AT)
    first = points[points.series.eq("topk") & points.sparsity.eq(4) & points.seed.eq(1)].set_index("multiple")
    assert first.delta_ce.to_dict() == {1: 4, 4: 104} and first.nmse[4] == pytest.approx(1.001 * FALLING(4))


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu", "paper"])
def test_grids(preset):
    refined, kept = codes.refinement_runs(preset), codes.test_time_runs(preset)
    assert {run.seed for run in refined} == {run.seed for run in kept} == set(SEEDS)
    plain = [run for run in kept if not run.options]
    assert set(plain) <= set(refined)  # nothing but Multi-TopK is trained for the second study
    assert {dict(run.options)["multi_weight"] for run in kept if run.options} == {0.125}


def test_measures_on_one_run_of_each():
    one = next(trained([make_run("smoke", "topk", 64, 4, 0)]))
    found = codes.refinement(one)
    assert found["l0"] == pytest.approx(4, abs=0.01) and found["d_in"] == 64
    assert found["nmse_refined"] < found["nmse"] and found["nmse_untrained_refined"] < found["nmse_untrained"]
    assert found["nmse_rescaled"] <= found["nmse"] + 1e-6 and found["ratio_untrained"] > 0
    assert found["optimality_gap"] < 1e-6 and found["delta_ce"] < found["delta_ce_mean"]
    found = codes.at_test_time(one)
    assert found["k_test"] == [1, 2, 3, 4, 5, 6, 8, 12, 16, 24]
    np.testing.assert_allclose(found["l0_jump"], found["l0_topk"], rtol=0.1)
    assert found["nmse_topk"][:4] == sorted(found["nmse_topk"][:4], reverse=True)
    assert len(found["delta_ce_topk"]) == len(DOWNSTREAM_AT)
