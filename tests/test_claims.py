"""Verdicts on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from replication import claims
from replication.claims import (
    Claim,
    Evidence,
    NoEvidence,
    Verdict,
    both,
    interpolate_loglog,
    judge,
    mean_interval,
    verdict,
)
from replication.papers import PAPERS, gao2024

EVIDENCE = {"stale": False, "source": "X(model='toy')", "subject_fingerprint": "a", "corpus_fingerprint": "b"}
CURVE = {"curve_tokens": [1, 2, 4], "curve_error": [0.5, 0.5, 0.5]}


def frontier(ratios=(2.0, 2.02, 1.98), growth: float = 0.0, shift: float = 1.0) -> pd.DataFrame:
    """TopK with NMSE 1 / L0 and ReLU with `ratios[seed]` times that, at two sizes; `shift` moves ReLU's L0 range."""
    rows = []
    for seed, ratio in enumerate(ratios):
        for n in (100, 1000):
            factor = ratio * (n / 100) ** (growth * (1 + 0.01 * seed))
            cell = [{"architecture": "topk", "sparsity": k, "l0": k, "nmse": 1 / k} for k in (4, 8, 16)]
            cell += [
                {"architecture": "relu", "sparsity": 1 / l0, "l0": shift * l0, "nmse": factor / l0} for l0 in (2, 6, 32)
            ]
            rows += [row | {"d_sae": n, "seed": seed} for row in cell]
    return pd.DataFrame([row | CURVE | {"dead": 0.0, "options": "()"} | EVIDENCE for row in rows])


def test_c1_reads_the_gap_at_equal_l0():
    evidence = gao2024.frontier.topk_beats_relu(frontier())
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(np.log(2), abs=0.02)
    assert evidence.low < evidence.ours < evidence.high


def test_c1_other_verdicts():
    assert gao2024.frontier.topk_beats_relu(frontier((0.5, 0.52, 0.48))).verdict == "not replicated"
    assert gao2024.frontier.topk_beats_relu(frontier((1.5, 1.2, 0.9))).verdict == "partly"
    assert gao2024.frontier.topk_beats_relu(frontier((0.7, 0.9, 1.2))).verdict == "void"
    assert gao2024.frontier.topk_beats_relu(frontier(shift=100)).verdict == "void"


def test_c1_is_void_when_the_baseline_collapsed_or_one_more_doubling_would_close_the_gap():
    rows = frontier((1.2, 1.21, 1.19))
    relu = rows.architecture == "relu"
    assert gao2024.frontier.topk_beats_relu(rows).verdict == "replicated"
    assert gao2024.frontier.topk_beats_relu(rows.assign(dead=np.where(relu, 0.9, 0.0))).verdict == "void"
    rows["curve_error"] = [[1.0, 0.7, 0.5] if late else [0.5, 0.5, 0.5] for late in relu]
    assert gao2024.frontier.topk_beats_relu(rows).verdict == gao2024.frontier.gap_grows(rows).verdict == "void"


def test_c2_is_the_slope_of_the_gap():
    evidence = gao2024.frontier.gap_grows(frontier(growth=0.1))
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.1, abs=0.02)
    assert gao2024.frontier.gap_grows(frontier(growth=-0.1)).verdict == "not replicated"
    with pytest.raises(NoEvidence, match="two dictionary sizes"):
        gao2024.frontier.gap_grows(frontier().query("d_sae == 100"))


def two_by_two(dead: dict, nmse: dict) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "seed": seed,
                "tied_init": tied,
                "options": "()" if aux else "(('aux_coefficient', 0.0),)",
                "dead": dead[tied, aux] + 0.001 * seed * aux,
                "nmse": nmse[tied, aux] + 0.001 * seed * tied,
                "stale": False,
                "source": "",
            }
            for seed in range(3)
            for tied in (True, False)
            for aux in (True, False)
        ]
    )


FLAT = dict.fromkeys([(t, a) for t in (True, False) for a in (True, False)], 0.2)


def test_c13_needs_both_fewer_dead_and_a_lower_error():
    better = {(True, True): 0.1, (True, False): 0.2, (False, True): 0.3, (False, False): 0.4}
    worse = {(tied, aux): better[not tied, aux] for tied, aux in better}
    assert gao2024.dead.tied_init_helps(two_by_two(better, better)).verdict == "replicated"
    assert gao2024.dead.tied_init_helps(two_by_two(better, worse)).verdict == "partly"
    assert gao2024.dead.tied_init_helps(two_by_two(worse, worse)).verdict == "not replicated"
    assert gao2024.dead.tied_init_helps(two_by_two(dict.fromkeys(better, 0.0), better)).verdict == "void"
    assert gao2024.dead.tied_init_helps(two_by_two(better, better)).ours == pytest.approx(0.2, abs=0.01)
    with pytest.raises(NoEvidence, match="2 x 2"):
        gao2024.dead.tied_init_helps(two_by_two(FLAT, FLAT).query("tied_init"))


def test_c14_needs_dead_latents_to_revive():
    revived = {(True, True): 0.0, (True, False): 0.3, (False, True): 0.1, (False, False): 0.6}
    assert gao2024.dead.auxk_helps(two_by_two(revived, FLAT)).verdict == "replicated"
    assert gao2024.dead.auxk_helps(two_by_two({**revived, (True, True): 0.4}, FLAT)).verdict == "partly"
    assert gao2024.dead.auxk_helps(two_by_two(dict.fromkeys(FLAT, 0.0), FLAT)).verdict == "void"


def test_c15_compares_neither_with_five_times_both():
    dead = {(True, True): 0.01, (True, False): 0.1, (False, True): 0.1, (False, False): 0.6}
    evidence = gao2024.dead.both_remedies_help(two_by_two(dead, FLAT))
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.545, abs=0.01)
    assert gao2024.dead.both_remedies_help(two_by_two({**dead, (True, True): 0.2}, FLAT)).verdict == "not replicated"
    assert gao2024.dead.both_remedies_help(two_by_two(dict.fromkeys(FLAT, 0.0), FLAT)).verdict == "void"


def test_the_interval_is_students_t():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2, pytest.approx(4.303 / 3**0.5, abs=1e-3)) and mean - low == pytest.approx(
        high - mean
    )
    with pytest.raises(NoEvidence, match="2 seeds"):
        mean_interval([1.0])


def test_judge():
    assert [judge(2, 1, 3), judge(1, -1, 3)] == ["replicated", "partly"]
    assert [judge(-2, -3, -1), judge(-1, -3, 1)] == ["not replicated", "void"]


def test_both():
    assert both("replicated", "replicated") == "replicated" and both("void", "void") == "void"
    assert both("replicated", "not replicated") == both("void", "partly") == "partly"
    assert both("void", "not replicated") == "not replicated"


def test_interpolation_is_linear_in_logs_and_never_extrapolates():
    assert interpolate_loglog([1, 100], [1, 100], [10]) == pytest.approx([10])
    assert np.isnan(interpolate_loglog([1, 100], [1, 100], [0.5, 200])).all()


def claim(test=None, **kwargs) -> Claim:
    return Claim("gao2024-C99", "s", "r", "p", test=test, **kwargs)


def test_without_evidence_nothing_passes():
    passing = claim(lambda rows: Evidence("replicated", 1.0, 0.5, 1.5, "yes"))
    assert verdict(passing, frontier(), "cpu").verdict == "replicated"
    assert verdict(passing, pd.DataFrame(), "cpu").verdict == "not tested"
    assert verdict(passing, frontier(), "smoke").verdict == "not tested"
    assert "3 of 21 rows" in verdict(passing, frontier().head(18), "cpu", missing=3).summary
    mixed = frontier().assign(corpus_fingerprint=["a", "b"] * 18)
    assert "mix 2 values of corpus_fingerprint" in verdict(passing, mixed, "cpu").summary
    untested = verdict(claim(untested="needs GPT-4"), frontier(), "cpu")
    assert untested.verdict == "not tested" and untested.summary == "needs GPT-4" and untested.ours is None


def test_a_verdict_names_its_evidence():
    rows = frontier().assign(stale=True)
    found = verdict(claim(lambda rows: Evidence("partly", 1.0, -0.5, 1.5, "so-so")), rows, "cpu")
    assert found == Verdict(
        "gao2024-C99", "gao2024", "s", "r", "p", "", 1.0, [-0.5, 1.5], "partly", "so-so", "toy", "cpu", 3, True
    )


def test_a_rule_cannot_invent_a_verdict():
    with pytest.raises(ValueError, match="C99.*'passed'"):
        verdict(claim(lambda rows: Evidence("passed", 1.0, 0.0, 2.0, "")), frontier(), "cpu")


def test_gpu_rows_go_before_cpu_rows_where_they_decide(monkeypatch):
    asked = []
    monkeypatch.setattr(
        claims,
        "_rows",
        lambda study, preset, committed: (
            asked.append(preset) or (frontier() if preset == "cpu" else pd.DataFrame(), preset, 0)
        ),
    )
    (found,) = claims.scorecard([claim(lambda rows: Evidence("replicated", 1.0, 0.5, 1.5, ""))], "cpu")
    assert asked == ["gpu", "cpu"] and found.preset == "cpu"


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_of_a_paper_are_complete(paper):
    module = PAPERS[paper]
    assert len({one.id for one in module.CLAIMS}) == len(module.CLAIMS)
    for one in module.CLAIMS:
        assert one.id.startswith(f"{paper}-") and one.statement.endswith(".") and one.rule and one.published
        assert (one.test is None) == bool(one.untested) == (one.study is None)
