"""Fidelity against sparsity: verdicts on tables whose answer is known, and what the study measures."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from replication.claims import NoEvidence
from replication.papers.gao2024 import frontier
from replication.papers.gao2024.grid import GRIDS, SEEDS
from replication.results import PRESETS

CURVE = {"curve_tokens": [1, 2, 4], "curve_error": [0.5, 0.5, 0.5]}
DIALS = {"topk": (4, 8, 16), "gated": (2, 32), "prolu-ste": (2, 32), "prolu-relu": (2, 32)}


def table(ratios: dict[str, float], harm: dict[str, float] | None = None, **columns) -> pd.DataFrame:
    """NMSE = ratio / L0, a straight line in log-log; delta CE = harm x NMSE^2. Seeds differ by under two percent."""
    harm = dict.fromkeys(ratios, 1.0) | (harm or {})
    rows = []
    for seed, (method, ratio) in product(range(3), ratios.items()):
        for l0 in DIALS[method]:
            nmse = ratio * (1 + 0.002 * seed * (method != "topk")) / l0
            architecture, _, gradient = method.partition("-")
            rows.append(
                {
                    "architecture": architecture,
                    "options": f"(('gradient', '{gradient}'),)" if gradient else "()",
                    "d_sae": 64,
                    "seed": seed,
                    "sparsity": l0,
                    "l0": l0,
                    "nmse": nmse,
                    "delta_ce": harm[method] * (1 + 0.01 * seed * (method == "topk")) * nmse**2,
                    "dead": 0.0,
                }
                | CURVE
                | columns
            )
    return pd.DataFrame(rows)


def test_the_gradient_of_prolu_is_part_of_the_method():
    rows = table({"topk": 1, "prolu-ste": 1, "prolu-relu": 1})
    assert set(frontier.with_method(rows).method) == {"topk", "prolu-ste", "prolu-relu"}


def test_values_at_equal_l0_are_interpolated_and_never_extrapolated():
    rows = table({"topk": 1, "gated": 2})
    rows = rows[~((rows.architecture == "topk") & (rows.l0 == 16))]
    rows.loc[(rows.architecture == "topk") & (rows.l0 == 8), "l0"] = 64
    found = frontier.at_equal_l0(rows).query("seed == 0")
    assert list(found.l0) == [4, 64] and list(found.topk) == [1 / 4, 1 / 8]
    assert found.gated.iloc[0] == pytest.approx(2 / 4) and np.isnan(found.gated.iloc[1])
    assert frontier.error_gap(rows, "gated").gap.iloc[0] == pytest.approx(np.log(2))
    assert frontier.error_gap(rows, "relu").gap.isna().all()
    assert frontier.at_equal_l0(rows.assign(dead=0.9)).empty


LIKE_GATED = {"topk": 1, "gated": 1.02, "prolu-ste": 1.3, "prolu-relu": 1.2}


@pytest.mark.parametrize(
    "ratios, verdict",
    [
        (LIKE_GATED, "replicated"),
        (LIKE_GATED | {"prolu-ste": 0.7}, "partly"),  # half of the claim holds
        (LIKE_GATED | {"gated": 1.2}, "partly"),
        (LIKE_GATED | {"gated": 0.7}, "partly"),  # far from equal, to the other side
        ({"topk": 1, "gated": 1.5, "prolu-ste": 0.7, "prolu-relu": 0.7}, "not replicated"),
    ],
)
def test_c3_needs_gated_to_be_close_and_prolu_to_be_worse(ratios, verdict):
    assert frontier.topk_equals_gated_and_beats_prolu(table(ratios)).verdict == verdict


def test_c3_with_one_gradient_of_prolu_is_no_easier():
    one = table({name: ratio for name, ratio in LIKE_GATED.items() if name != "prolu-ste"})
    assert frontier.topk_equals_gated_and_beats_prolu(one).verdict == "replicated"
    better = table({"topk": 1, "gated": 1.02, "prolu-relu": 0.7})
    assert frontier.topk_equals_gated_and_beats_prolu(better).verdict == "partly"


def test_c3_reports_the_distance_from_gated():
    evidence = frontier.topk_equals_gated_and_beats_prolu(table(LIKE_GATED))
    assert evidence.ours == pytest.approx(np.mean([0.02, 0.02204, 0.02408]), abs=1e-6)
    assert evidence.low < evidence.ours < evidence.high < 0.05


def test_c3_is_void_or_untested_without_evidence():
    unmatched = table(LIKE_GATED)
    unmatched.loc[unmatched.architecture != "topk", "l0"] *= 100
    assert frontier.topk_equals_gated_and_beats_prolu(unmatched).verdict == "void"
    collapsed = table(LIKE_GATED)
    collapsed.loc[collapsed.architecture != "topk", "dead"] = 0.9
    assert frontier.topk_equals_gated_and_beats_prolu(collapsed).verdict == "void"
    with pytest.raises(NoEvidence, match="no ProLU"):
        frontier.topk_equals_gated_and_beats_prolu(table({"topk": 1, "gated": 1.02}))


def test_c4_is_the_coefficient_of_topk_at_equal_error():
    """All methods have delta CE = NMSE^2, TopK half of it: the coefficient is ln 1/2 whatever the errors are."""
    rows = table({"topk": 1, "gated": 1.5, "prolu-ste": 2}, {"topk": 0.5})
    evidence = frontier.topk_harms_less(rows)
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(np.log(0.5) + 0.01, abs=0.002)
    assert "0.50 times" in evidence.summary and "power 2.00" in evidence.summary
    assert frontier.topk_harms_less(table({"topk": 1, "gated": 1.5}, {"topk": 2.0})).verdict == "not replicated"


def test_c4_is_partly_where_seeds_disagree_and_void_where_nothing_is_matched():
    rows = table({"topk": 1, "gated": 1.5})
    rows.loc[rows.architecture == "topk", "delta_ce"] *= rows.seed.map({0: 0.5, 1: 0.6, 2: 1.1})
    assert frontier.topk_harms_less(rows).verdict == "partly"
    rows.loc[rows.architecture == "gated", "l0"] *= 100
    assert frontier.topk_harms_less(rows).verdict == "void"


def recovery(recovered: float, share: float) -> pd.DataFrame:
    rows = table({"topk": 1}).assign(loss_recovered=0.5, compute_share=0.01)
    best = rows.l0 == 16
    rows.loc[best, "loss_recovered"] = recovered + 0.001 * rows.seed[best]
    rows.loc[best, "compute_share"] = share + 0.01 * rows.seed[best]
    return rows


@pytest.mark.parametrize(
    "recovered, share, verdict",
    [
        (0.97, 0.1, "replicated"),
        (0.9495, 0.1, "partly"),  # above 95 % on average, not with its interval
        (0.97, 0.485, "partly"),  # less than half of the compute, not with its interval
        (0.97, 0.8, "not replicated"),
        (0.90, 0.1, "void"),
    ],
)
def test_c33_needs_much_recovered_at_little_compute(recovered, share, verdict):
    assert frontier.recovery_is_lenient(recovery(recovered, share)).verdict == verdict


def test_c33_names_its_autoencoder_and_needs_a_record_of_the_language_model():
    evidence = frontier.recovery_is_lenient(recovery(0.97, 0.1))
    assert evidence.ours == pytest.approx(0.11)
    assert evidence.summary.startswith("topk with 64 latents and dial 16 recovers 97.1 %")
    assert "11 % of its training" in evidence.summary
    with pytest.raises(NoEvidence, match="no record"):
        frontier.recovery_is_lenient(recovery(0.97, 0.1).assign(compute_share=None))


def test_the_language_models_own_curve_ends_at_no_rise():
    curve = frontier.own_training(pd.DataFrame({"source": ["X(model='pygpt-2m')"] * 2}))
    assert curve.share.iloc[-1] == 1 and curve.rise.iloc[-1] == 0 and curve.rise.iloc[0] > 4
    assert frontier.own_training(pd.DataFrame({"source": ["X(model='a/b')"]})).empty


@pytest.mark.parametrize("preset", PRESETS)
def test_every_method_has_several_settings_and_all_seeds(preset):
    runs = frontier.FRONTIER.runs(preset)
    large = [run for run in runs if run.d_sae == max(GRIDS[preset][0])]
    found = {(run.architecture, run.options) for run in large}
    named = [frontier.METHODS[method] for method in frontier.LAMBDAS[preset]]
    assert found == {(name, tuple(options.items())) for name, options in named} | {("topk", ()), ("relu", ())}
    assert {"gated", "prolu-relu"} <= set(frontier.LAMBDAS[preset]) <= set(frontier.METHODS)
    for kind in found:
        mine = [run for run in large if (run.architecture, run.options) == kind]
        assert len({run.sparsity for run in mine}) >= 2 and {run.seed for run in mine} == set(SEEDS)
    assert all(run.sparsity_warmup == run.tokens // 4 for run in runs if run.architecture != "topk")


def test_a_row_has_reconstruction_downstream_loss_and_controls():
    run = frontier.FRONTIER.runs("smoke")[0]
    ((measured, values),) = frontier.measure_fidelity([run])
    assert measured == run
    assert {"nmse", "nmse_untrained", "ce", "delta_ce", "kl", "delta_ce_zero", "delta_ce_mean", "dead"} <= values.keys()
    assert 0 < values["delta_ce"] < values["delta_ce_zero"] and 0 < values["compute_share"] < 1
