"""How latents behave: verdicts on tables whose answer is known, and what the studies measure."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from replication.claims import NoEvidence
from replication.figures import named
from replication.papers.jumprelu2024 import behaviour, frontier, scope
from replication.papers.jumprelu2024.grid import SEEDS, SITES

L0S = (4, 8, 16, 32)
COUNTS = {"jumprelu": 12.0, "topk": 11.0, "gated": 8.0}  # above 10 %, times ln L0
SHARES = {"jumprelu": 0.3, "topk": 0.3, "gated": 0.25}  # of 400 latents


def types_table(counts: dict = COUNTS, shares: dict = SHARES, spearman: float = -0.3, p: float = 1e-6) -> pd.DataFrame:
    rows = []
    for seed, name, l0 in product(range(3), counts, L0S):
        rows.append(
            {
                "source": "X(hook='blocks.2.hook_resid_post')",
                "architecture": name,
                "seed": seed,
                "sparsity": 1 / l0,
                "d_sae": 1024,
                "l0": l0 * (1 + 0.001 * (name == "gated")),
                "above_0.1": round(counts[name] * np.log(l0), 0) + seed,
                "scored": 400,
                "interpretable": round(400 * shares[name]) + seed * (name == "jumprelu"),
                "scored_untrained": 400,
                "interpretable_untrained": 0,
                "spearman": spearman + 0.01 * seed,
                "spearman_p": p,
                "spearman_gain": spearman + 0.01 * seed,
                "spearman_gain_p": p,
                "spearman_untrained": 0.05,
                "score_frequent": 0.4,
                "score_others": 0.6,
            }
        )
    return pd.DataFrame(rows)


# J6


def test_counts_at_equal_l0_by_hand():
    """3 at L0 4 and 15 at L0 16: 1 + count is L0, so that at L0 8 it is 7. Nothing is said of L0 2 and 32."""
    l0s, counts = {"jumprelu": (4, 16), "topk": (2, 8, 32)}, {"jumprelu": (3, 15), "topk": (1, 7, 31)}
    rows = pd.DataFrame(
        {"source": "X", "seed": 0, "architecture": name, "l0": l0, "count": count}
        for name in l0s
        for l0, count in zip(l0s[name], counts[name], strict=True)
    )
    found = behaviour.counts_at_equal_l0(rows, "jumprelu", "topk", "count").sort_values("l0")
    assert found.l0.tolist() == pytest.approx([4, 8, 16])
    assert found.jumprelu.tolist() == pytest.approx([3, 7, 15]) and found.topk.tolist() == pytest.approx([3, 7, 15])


@pytest.mark.parametrize(
    "counts, verdict",
    [
        (COUNTS, "replicated"),
        (COUNTS | {"topk": 5.0}, "partly"),
        (COUNTS | {"jumprelu": 60.0}, "partly"),  # more than Gated, and too many
        ({"jumprelu": 4.0, "topk": 4.0, "gated": 8.0}, "partly"),  # fewer than Gated; still few
        ({"jumprelu": 60.0, "topk": 40.0, "gated": 80.0}, "not replicated"),
    ],
)
def test_j6_needs_more_than_gated_and_few_in_all(counts, verdict):
    assert behaviour.more_are_frequent(types_table(counts)).verdict == verdict


def test_j6_counts_latents_of_every_sparsity():
    rows = types_table().assign(d_sae=64)  # L0 / M is 6 % at least
    assert "where the mean frequency" not in behaviour.more_are_frequent(rows).summary
    many = rows.assign(**{"above_0.1": 100 * rows["above_0.1"]})
    assert "not replicated)" in behaviour.more_are_frequent(many).summary


def test_j6_is_void_or_untested_without_a_match():
    apart = types_table()
    apart.loc[apart.architecture == "jumprelu", "l0"] *= 100
    assert behaviour.more_are_frequent(apart).verdict == "void"
    with pytest.raises(NoEvidence, match="gated"):
        behaviour.more_are_frequent(types_table({"jumprelu": 1.0, "topk": 1.0}))


# J7


@pytest.mark.parametrize(
    "spearman, p, verdict",
    [(-0.3, 1e-6, "replicated"), (-0.3, 0.2, "partly"), (-0.012, 1e-6, "partly"), (0.3, 1e-6, "not replicated")],
)
def test_j7_is_about_a_negative_correlation(spearman, p, verdict):
    evidence = behaviour.frequent_are_opaque(types_table(spearman=spearman, p=p))
    assert evidence.verdict == verdict and evidence.ours == pytest.approx(spearman + 0.01)
    assert "of those directions alone +0.05" in evidence.summary
    assert "at L0 4 latents above 10 % score 0.40, the others 0.60" in evidence.summary


def test_j7_is_partly_where_only_the_gain_over_the_control_falls():
    rows = types_table(spearman=0.2)
    rows["spearman_gain"] = -0.3 + 0.01 * rows.seed
    assert behaviour.frequent_are_opaque(rows).verdict == "partly"


def test_j7_needs_scores():
    with pytest.raises(NoEvidence, match="can be scored"):
        behaviour.frequent_are_opaque(types_table().assign(spearman=None))
    rows = types_table().assign(score_frequent=None)
    assert "no latent above 10 % can be scored" in behaviour.frequent_are_opaque(rows).summary


# J8


def test_the_odds_ratio_by_hand():
    """40 % against 25 % at every L0: (0.4 / 0.6) / (0.25 / 0.75) = 2."""
    rows = types_table(shares={"jumprelu": 0.4, "topk": 0.25, "gated": 0.25}).query("seed == 0")
    assert np.exp(behaviour.log_odds_ratio(rows, "jumprelu", "topk")) == pytest.approx(2, rel=1e-6)


def test_the_odds_ratio_is_taken_at_equal_l0():
    """logit P = -2 + 0.5 ln L0 for both, JumpReLU at half of the L0: fewer hits, the same odds."""
    rows = types_table().query("seed == 0 and architecture != 'gated'")
    l0 = rows.l0 / (1 + (rows.architecture == "jumprelu"))
    hits = 1e6 / (1 + np.exp(2 - 0.5 * np.log(l0)))
    rows = rows.assign(l0=l0, scored=1e6, interpretable=hits)
    assert behaviour.log_odds_ratio(rows, "jumprelu", "topk") == pytest.approx(0, abs=1e-6)
    kept = behaviour.comparable(rows, "jumprelu", "topk")
    assert sorted(kept.l0) == [4, 4, 8, 8, 16, 16]


@pytest.mark.parametrize(
    "shares, verdict",
    [
        (SHARES, "replicated"),
        (SHARES | {"jumprelu": 0.5}, "not replicated"),
        (SHARES | {"jumprelu": 0.02, "topk": 0.001}, "void"),  # too few to compare
    ],
)
def test_j8_needs_the_odds_to_be_equal(shares, verdict):
    assert behaviour.types_are_equal(types_table(shares=shares)).verdict == verdict


def test_j8_is_partly_where_the_interval_is_wide():
    rows = types_table()
    rows.loc[rows.architecture == "jumprelu", "interpretable"] += rows.seed.map({0: -20, 1: 0, 2: 20})
    evidence = behaviour.types_are_equal(rows)
    assert evidence.verdict == "partly" and evidence.low < 0.9 < evidence.ours < 1.1 < evidence.high
    assert "against Gated" in evidence.summary and "before training 0.0%" in evidence.summary


def test_within_bounds():
    judged = [behaviour.within(*v, (0.9, 1.1)) for v in ((1, 0.95, 1.05), (1, 0.8, 1.2), (2, 1.5, 3), (1.2, 1.0, 1.4))]
    assert judged == ["replicated", "partly", "not replicated", "void"]


def test_a_rule_of_many_parts():
    yes, half, no, open_ = "replicated", "partly", "not replicated", "void"
    cases = {(yes, yes): yes, (yes, no): half, (half, no): no, (yes, open_): half, (half, open_): half, (no, open_): no}
    assert all(behaviour.all_of(parts) == verdict for parts, verdict in cases.items())


# G4, G10

CONTEXT = 100
POSITIONS = np.arange(1, CONTEXT)
RISING = 0.4 * (1 - np.exp(-POSITIONS / 20))
PEAK = {"early": np.where(POSITIONS == 3, 0.5, RISING), "late": RISING}


def sites_table(first: float = 0.1, res: np.ndarray = RISING, mlp: str = "early", **columns) -> pd.DataFrame:
    """e^S = L0^0.8; r_L0 falls with ln L0, twice as fast at the residual stream."""
    rows = []
    for seed, (site, hook), sparsity in product(range(3), SITES.items(), (1e-3, 3e-3, 1e-2)):
        error = {"attn": RISING, "mlp": PEAK[mlp], "res": res}[site] * (1 + 0.01 * seed)
        error = np.append(first * error[-1], error[1:])
        l0 = 0.05 / sparsity
        ratio = 0.9 - (0.1 if site == "res" else 0.05) * np.log(l0) / (1 + 0.01 * seed)
        rows.append(
            {
                "source": f"X(hook='{hook.format(2)}')",
                "seed": seed,
                "sparsity": sparsity,
                "l0": l0,
                "active_here": l0,
                "position": POSITIONS.tolist(),
                "error_by_position": error.tolist(),
                "variance_by_position": np.full(CONTEXT - 1, 0.5).tolist(),
                "delta_ce_by_position": (0.1 * error[:-1]).tolist(),
                **{f"effective_{side}": l0 ** (0.8 + 0.001 * seed) for side in behaviour.SIDES},
                **{f"ratio_{side}": ratio for side in behaviour.SIDES},
            }
            | columns
        )
    return pd.DataFrame(rows)


def test_curves_are_those_of_the_middle_lambda():
    lines = behaviour.curves(sites_table())
    assert set(lines.l0) == {0.05 / 3e-3} and set(lines.site) == set(SITES)
    assert len(lines) == 9 * (CONTEXT - 1) and lines.delta_ce.isna().sum() == 9
    assert lines.fvu.iloc[0] == pytest.approx(lines.error.iloc[0] / 0.5)


def test_the_shape_of_a_curve_by_hand():
    """Errors 1, 5, 4, 4: first over the mean of the second half 1/4; ranks 1, 4, 2.5, 2.5: Spearman 0.32; peak at 2."""
    curve = pd.DataFrame({"position": [1, 2, 3, 4], "error": [1.0, 5, 4, 4], "fvu": [2.0, 5, 8, 8]})
    found = behaviour.shape_of(curve)
    assert found["first"] == 0.25 and found.first_fvu == 0.25 and found.peak == 2
    assert found.rise == pytest.approx(0.316, abs=0.001)


@pytest.mark.parametrize(
    "table, verdict",
    [
        (sites_table(), "replicated"),
        (sites_table(first=0.8), "partly"),
        (sites_table(mlp="late"), "partly"),
        (sites_table(res=RISING[::-1]), "partly"),
        (sites_table(first=0.8, mlp="late", res=RISING[::-1]), "partly"),  # attention still rises
    ],
)
def test_g4_has_three_parts(table, verdict):
    assert behaviour.early_tokens_are_easy(table).verdict == verdict


def test_g4_reports_the_worst_site_and_needs_all():
    evidence = behaviour.early_tokens_are_easy(sites_table(first=0.8))
    assert evidence.ours == pytest.approx(0.8, abs=0.05) and "largest at position 3 of 100" in evidence.summary
    with pytest.raises(NoEvidence, match="mlp"):
        behaviour.early_tokens_are_easy(sites_table().query("~source.str.contains('mlp')"))


def test_slopes_by_hand():
    found = behaviour.slopes(sites_table()).query("side == 'x' and seed == 0").set_index("site")
    assert found.effective.tolist() == pytest.approx([0.8] * 3)
    assert found.ratio.to_dict() == pytest.approx({"attn": -0.05, "mlp": -0.05, "res": -0.1})


def test_g10_needs_growth_everywhere_and_the_steepest_slope_at_the_residual_stream():
    evidence = behaviour.importance_spreads(sites_table())
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.801)
    assert "res +0.80" in evidence.summary and "-0.099" in evidence.summary
    at_mlp = sites_table()
    at_mlp["source"] = at_mlp.source.replace(
        {"X(hook='blocks.2.hook_resid_post')": "X(hook='blocks.2.hook_mlp_out')"}
        | {"X(hook='blocks.2.hook_mlp_out')": "X(hook='blocks.2.hook_resid_post')"}
    )
    assert behaviour.importance_spreads(at_mlp).verdict == "partly"
    falls = at_mlp.assign(effective_x=1 / at_mlp.effective_x, effective_recon=1 / at_mlp.effective_recon)
    assert behaviour.importance_spreads(falls).verdict == "not replicated"


def test_g10_is_void_out_of_bounds_and_untested_with_one_lambda():
    assert behaviour.importance_spreads(sites_table(ratio_x=1.2)).verdict == "void"
    with pytest.raises(NoEvidence, match="several lambdas"):
        behaviour.importance_spreads(sites_table().query("sparsity == 1e-3"))


# Studies


@pytest.mark.parametrize("preset", ("smoke", "cpu"))
def test_no_sae_is_trained_for_this_page_alone(preset):
    assert set(behaviour.TYPES_STUDY.runs(preset)) <= set(frontier.frontier_runs(preset))
    sites = behaviour.SITES_STUDY.runs(preset)
    assert {run.seed for run in sites} == set(SEEDS) and len(sites) == 9 * len(scope.PLANS[preset].lambdas)
    assert set(sites) <= set(scope.all_seeds(preset))


def rows_of(study) -> pd.DataFrame:
    """One run of each architecture or site, measured."""
    runs = {(run.source, run.architecture): run for run in study.runs("smoke")}
    found = list(study.measure(list(runs.values())))
    return pd.DataFrame(
        [
            values
            | {name: getattr(run, name) for name in ("architecture", "seed", "sparsity", "d_sae")}
            | {"source": repr(run.source)}
            for run, values in found
        ]
    )


@pytest.mark.parametrize("study", behaviour.STUDIES, ids=lambda study: study.name)
def test_what_is_measured_can_be_drawn(study):
    rows = rows_of(study)
    assert ((rows.ratio_x * rows.active_here >= 1) & (rows.ratio_x <= 1)).all()
    if study is behaviour.TYPES_STUDY:
        assert (rows.scored <= rows.d_sae).all() and (rows.score_permuted.abs() < 0.3).all()
        assert all(sum(counts) == n for counts, n in zip(rows.scored_by_frequency, rows.scored, strict=True))
    else:
        assert all(len(row) == 63 for row in rows.error_by_position)
        assert all(len(row) == 62 for row in rows.delta_ce_by_position)
    for owner, function, takes in behaviour.FIGURES.values():
        if owner is study:
            named(function)(*takes(rows)).canvas.draw()


def test_the_middle_one_of_three_layers_is_drawn():
    rows = pd.DataFrame({"source": [f"hook='blocks.{layer}.hook_resid_post'" for layer in (2, 0, 3, 2)]})
    assert behaviour.middle_layer(rows).index.tolist() == [0, 3]
