"""Claims of the suite on tables that a reader can check; what is measured on one SAE; the position that is left out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from replication import figures, results, store
from replication.claims import NoEvidence
from replication.evaluate import splicing
from replication.evaluate.downstream import ByBlock
from replication.evaluate.splicing import behind_the_first, spliced
from replication.papers.jumprelu2024 import scope
from replication.papers.jumprelu2024.grid import LAMBDAS, LAYERS, SEEDS, SITES, jumprelu_run, source
from replication.results import PRESETS, compute, table
from replication.sae import JumpReLU, released_form

CURVE = {"curve_tokens": [1, 2, 4], "curve_error": [0.4, 0.2, 0.1]}
HARM = {"attn": 0.1, "mlp": 0.2, "res": 1.0}


def suite_table(harm=None, fvu=None, ablation=None, seeds=(0, 1, 2), layers=(0, 1)) -> pd.DataFrame:
    """delta LM loss = harm / L0 and FVU = fvu / L0 at L0 of 8, 16 and 32; the ablation of a site harms as stated."""
    harm, fvu = harm or HARM, fvu or dict.fromkeys(SITES, 1.0)
    ablation = ablation or {"attn": 1.0, "mlp": 1.0, "res": 4.0}
    return pd.DataFrame(
        {
            "source": f"X(hook='{pattern.format(layer)}')",
            "d_sae": 512,
            "sparsity": 1 / l0,
            "seed": seed,
            "normalisation": "gemma",
            "l0": float(l0),
            "l0_untrained": 200.0,
            "delta_ce": harm[site] / l0 * (1 + 0.01 * seed),
            "delta_ce_mean": ablation[site],
            "fvu": fvu[site] / l0 * (1 + 0.01 * seed),
        }
        for layer in layers
        for seed in seeds
        for site, pattern in SITES.items()
        for l0 in (8, 16, 32)
    )


class TestG1:
    def test_reads_site_and_layer_from_the_hook(self):
        rows = scope.with_ablated(suite_table(layers=(11,)))
        assert set(zip(rows.site, rows.layer, strict=True)) == {(site, 11) for site in SITES}
        assert rows.ablated.iloc[0] == pytest.approx(0.1 / 8)

    def test_compares_at_equal_l0(self):
        gaps = scope.site_gaps(suite_table())
        np.testing.assert_allclose(gaps[gaps.other == "attn"].harm, np.log(10))
        np.testing.assert_allclose(gaps[gaps.other == "mlp"].harm, np.log(5))
        np.testing.assert_allclose(gaps.fvu, 0, atol=1e-12)
        np.testing.assert_allclose(gaps[gaps.other == "attn"].ablated, np.log(10 / 4))

    def test_holds_where_the_residual_stream_is_harmed_most(self):
        rows = suite_table()
        evidence = scope.residual_harms_more(rows.assign(delta_ce=rows.delta_ce * (1 + 0.01 * rows.seed * rows.l0)))
        assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(np.log(50) / 2, abs=0.01)
        assert "4 of 4 pairs" in evidence.summary

    def test_fails_where_it_is_harmed_least(self):
        # FVU is comparable, which is half of the claim
        assert scope.residual_harms_more(suite_table({"attn": 1, "mlp": 1, "res": 0.1})).verdict == "partly"
        both = suite_table({"attn": 1, "mlp": 1, "res": 0.1}, {"attn": 1, "mlp": 1, "res": 5})
        assert scope.residual_harms_more(both).verdict == "not replicated"

    def test_is_partly_where_fvu_is_not_comparable_or_one_site_differs(self):
        assert scope.residual_harms_more(suite_table(fvu={"attn": 1, "mlp": 1, "res": 2.5})).verdict == "partly"
        assert scope.residual_harms_more(suite_table({"attn": 0.1, "mlp": 1.5, "res": 1})).verdict == "partly"

    def test_is_void_where_sites_matter_equally_or_nothing_is_matched(self):
        assert scope.residual_harms_more(suite_table(ablation=dict.fromkeys(SITES, 1.0))).verdict == "void"
        rows = suite_table()
        rows.loc[rows.source.str.contains("resid"), "l0"] *= 100
        assert scope.residual_harms_more(rows).verdict == "void"

    def test_a_loss_that_does_not_rise_is_no_logarithm(self):
        rows = suite_table()
        rows.loc[rows.source.str.contains("hook_z") & (rows.l0 == 16), "delta_ce"] = -0.001
        gaps = scope.site_gaps(rows)
        np.testing.assert_allclose(gaps[gaps.other == "attn"].harm, np.log(10))  # interpolated from 8 and 32

    def test_layers_with_one_seed_are_shown_and_not_in_the_interval(self):
        rows = suite_table()
        once = suite_table({"attn": 1, "mlp": 1, "res": 2}, seeds=(0,), layers=(2,))
        evidence = scope.residual_harms_more(pd.concat([rows, once], ignore_index=True))
        assert evidence.ours == pytest.approx(np.log(50) / 2) and "6 of 6 pairs" in evidence.summary


def ladder_table(factor=0.8, median=-0.3, frequent=3, curves=None) -> pd.DataFrame:
    """Every doubling of the width multiplies delta LM loss by `factor` and adds `median` to log10 frequency."""
    return pd.DataFrame(
        {
            "source": f"X(hook='{SITES['res'].format(2)}')",
            "d_sae": d_sae,
            "sparsity": 1 / l0,
            "seed": seed,
            "normalisation": "gemma",
            "l0": float(l0),
            "live": d_sae,
            "delta_ce": factor**step / l0 * (1 + 0.001 * seed * step),
            "delta_ce_mean": 1.0,
            "fvu": 1 / l0,
            "frequency_median": -1 + (median + 0.001 * seed) * step,
            "above_0.1": frequent - (step == 2) * seed,
            **(CURVE | ({"curve_error": curves[step]} if curves else {})),
        }
        for step, d_sae in enumerate((256, 512, 1024))
        for seed in (0, 1, 2)
        for l0 in (8, 16, 32)
    )


class TestG2:
    def test_is_the_mean_ratio_of_consecutive_widths(self):
        evidence = scope.wider_is_better(ladder_table())
        assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(np.log(0.8), abs=0.002)
        assert "512/256: 0.80, 1,024/512: 0.80" in evidence.summary

    def test_fails_where_wider_is_worse_and_is_done(self):
        assert scope.wider_is_better(ladder_table(1.2)).verdict == "not replicated"

    def test_is_void_where_wider_is_worse_and_unfinished(self):
        curves = [[0.4, 0.2, 0.19], [0.4, 0.2, 0.19], [0.4, 0.2, 0.1]]
        assert scope.unfinished(ladder_table(curves=curves)) == pytest.approx(np.log(1.9))
        assert scope.wider_is_better(ladder_table(1.2, curves=curves)).verdict == "void"
        assert scope.wider_is_better(ladder_table(0.8, curves=curves)).verdict == "replicated"

    def test_is_partly_where_one_doubling_is_worse(self):
        rows = ladder_table(0.5)
        rows.loc[rows.d_sae == 1024, "delta_ce"] *= 2.1
        assert scope.wider_is_better(rows).verdict == "partly"

    def test_needs_widths_and_a_common_range(self):
        rows = ladder_table()
        with pytest.raises(NoEvidence, match="several widths"):
            scope.wider_is_better(rows[rows.d_sae == 256])
        rows["l0"] *= rows.d_sae.map({256: 1, 512: 10, 1024: 100})
        assert scope.wider_is_better(rows).verdict == "void"


class TestG3:
    def test_is_the_slope_per_doubling_beside_that_of_the_mean(self):
        evidence = scope.frequencies_fall(ladder_table())
        assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(-0.299)
        assert "-0.30)" in evidence.summary  # of L0 / live latents: log10(1/2)
        assert "3 of 256, 3 of 512, 2 of 1,024" in evidence.summary

    @pytest.mark.parametrize(
        "median, frequent, verdict", [(-0.3, 2, "partly"), (0.3, 3, "partly"), (0.3, 2, "not replicated")]
    )
    def test_needs_a_falling_median_and_frequent_latents(self, median, frequent, verdict):
        # of the widest, the last seed has two frequent latents fewer
        assert scope.frequencies_fall(ladder_table(median=median, frequent=frequent)).verdict == verdict


def settings_table(spread=1.2, raw=20.0) -> pd.DataFrame:
    rows = suite_table(layers=(0, 1, 2))
    rows["l0"] *= np.where(rows.source.str.contains("hook_z"), spread + 0.01 * rows.seed, 1)
    plain = rows[(rows.seed == 0) & (rows.sparsity == 1 / 16)].copy()
    plain["l0"] = np.where(plain.source.str.contains("hook_z"), raw, 1.0)
    return pd.concat([rows, plain.assign(normalisation="none")], ignore_index=True)


class TestG11:
    def test_is_the_largest_ratio_of_one_lambda(self):
        evidence = scope.settings_fit(settings_table())
        assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(np.log(1.21), abs=1e-4)
        assert "up to 1.2 over" in evidence.summary and "is 20.0 without normalisation and 1.2 with" in evidence.summary

    def test_fails_where_sites_need_their_own_settings(self):
        assert scope.settings_fit(settings_table(spread=4)).verdict == "not replicated"

    def test_is_partly_where_the_control_or_one_run_fails(self):
        assert scope.settings_fit(settings_table(raw=5.0)).verdict == "partly"
        assert scope.settings_fit(settings_table().assign(l0_untrained=35.0)).verdict == "partly"
        rows = settings_table()
        once = suite_table(seeds=(0,), layers=(3,)).assign(l0=lambda rows: rows.l0 / 3)
        assert scope.settings_fit(pd.concat([rows, once], ignore_index=True)).verdict == "partly"

    def test_needs_its_control(self):
        with pytest.raises(NoEvidence, match="without normalisation"):
            scope.settings_fit(suite_table())


@pytest.mark.parametrize(
    "error, flips, verdict",
    [(1e-6, 0, "replicated"), (1e-6, 1, "partly"), (1e-6, 1000, "not replicated"), (1e-4, 0, "not replicated")],
)
def test_g12_needs_a_small_error_and_the_same_latents(error, flips, verdict):
    rows = suite_table().assign(fold_error=error, fold_flips=0, fold_flips_double=0)
    rows["fold_error"] *= 1 + 0.1 * rows.seed
    rows.loc[0, "fold_flips"] = flips
    evidence = scope.fold_is_exact(rows)
    assert evidence.verdict == verdict and evidence.ours == pytest.approx(np.log10(1.1 * error), abs=0.01)


def hand_made() -> JumpReLU:
    """d_in 2, two latents: each coordinate of (x / 2 - b_dec), kept above 0.25; b_dec = (0.5, 0)."""
    sae = JumpReLU(2, 2, 1.0, threshold=0.25, normalisation="gemma").eval()
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
        sae.b_dec.copy_(torch.tensor([0.5, 0.0]))
        sae.input_scale.fill_(2.0)
    return sae


@torch.no_grad()
def test_the_released_form_of_a_hand_made_sae():
    raw = torch.tensor([[3.0, 1.0], [1.2, 0.4]])  # scaled: (1.5, 0.5), (0.6, 0.2); centred: (1, 0.5), (0.1, 0.2)
    form = released_form(hand_made())
    assert form["threshold"].tolist() == [0.5, 0.5] and form["b_enc"].tolist() == [-1.0, 0.0]
    for found in (scope.normalised_forward(hand_made(), raw), scope.released_forward(form, raw)):
        assert found.active.tolist() == [[True, True], [False, False]]
        torch.testing.assert_close(found.recon, torch.tensor([[3.0, 1.0], [1.0, 0.0]]))
    exact = scope.fold(hand_made(), raw)
    assert exact["fold_error"] < 1e-6 and exact["fold_flips"] == exact["fold_flips_double"] == 0


def test_the_fold_is_compared_where_the_same_latents_are_active(monkeypatch):
    raw = torch.tensor([[3.0, 1.0], [1.2, 0.4]])
    monkeypatch.setattr(
        scope, "released_form", lambda sae: released_form(sae) | {"threshold": torch.tensor([0.5, 9.0])}
    )
    found = scope.fold(hand_made(), raw)  # the second latent of the first token is lost
    assert found["fold_flips"] == found["fold_flips_double"] == 1 and found["fold_error"] < 1e-6


def test_firing_counts_live_latents_alone():
    found = scope.firing(torch.tensor([0.0, 0.001, 0.02, 0.5]))
    assert found["live"] == 3 and found["above_0.1"] == 1 and found["above_0.01"] == 2
    assert found["frequency_median"] == pytest.approx(np.log10(0.02)) and sum(found["frequency_histogram"]) == 3
    assert scope.firing(torch.zeros(4))["live"] == 0


def test_position_0_is_left_as_it_is():
    where = replace(source("smoke", "res", 0), context=4, tokens=8, heldout_tokens=8)
    rows = torch.arange(8.0)[:, None]
    assert behind_the_first(where, torch.zeros_like)(rows).flatten().tolist() == [0, 0, 0, 0, 4, 0, 0, 0]
    all_positions = replace(where, skip_first=0)
    assert behind_the_first(all_positions, torch.zeros_like)(rows).count_nonzero() == 0


def test_the_harm_is_averaged_over_the_predictions_that_change(monkeypatch):
    where = source("smoke", "res", 0)
    found = ByBlock(*(torch.tensor(values) for values in ([3.0, 2.0], [0.62, 0.0], [0.31, 0.0])))
    monkeypatch.setattr(splicing, "by_block", lambda *_: found)
    ce, rise, kl = splicing._harm(where, torch.zeros_like, 2, "cpu")  # of 63 predictions 62 change
    torch.testing.assert_close(torch.stack([ce, rise, kl]), torch.tensor([[3.0, 2.0], [0.63, 0.0], [0.315, 0.0]]))


def test_the_harm_of_each_context_is_on_request_and_its_mean_is_the_harm():
    where, half = source("smoke", "attn", 1), lambda x: 0.5 * x
    found = spliced(where, half, blocks=3, by_context=True)
    assert found.pop("delta_ce_contexts") == pytest.approx(splicing._harm(where, half, 3, "cpu").delta_ce, abs=1e-6)
    assert found == spliced(where, half, blocks=3)


def test_an_identity_does_no_harm_and_controls_do():
    found = spliced(source("smoke", "attn", 1), lambda x: x, blocks=2)
    assert abs(found["delta_ce"]) < 1e-6 and min(found["delta_ce_zero"], found["delta_ce_mean"]) > 0.05


@pytest.mark.parametrize("preset", PRESETS)
def test_the_suite_has_every_layer_site_and_lambda_once(preset):
    plan, runs = scope.PLANS[preset], scope.suite(preset)
    where = [(run.source.hook, run.d_sae, run.sparsity) for run in runs]
    assert len(set(where)) == len(where)
    cells = {(pattern.format(layer), plan.width) for layer in LAYERS[preset] for pattern in SITES.values()}
    assert cells <= {(hook, width) for hook, width, _ in where} and set(plan.lambdas) <= set(LAMBDAS[preset])
    assert len(runs) == len(plan.lambdas) * (len(cells) + len(plan.ladder) - 1)
    assert plan.width in plan.ladder and plan.ladder_layer in plan.seeded and set(plan.seeded) <= set(LAYERS[preset])
    settings = {(run.lr, run.tokens, run.batch, run.options, run.normalisation, run.beta1) for run in runs}
    assert len(settings) == 1 and {run.source.skip_first for run in runs} == {1}
    lines = scope.table_one(preset)
    assert lines.SAEs.sum() == len(runs)


def test_seeds_and_control_come_on_top():
    runs = scope.NORMALISED.runs("cpu")
    assert {run.seed for run in scope.SUITE.runs("cpu")} == set(SEEDS) and set(scope.SUITE.runs("cpu")) < set(runs)
    assert sum(run.normalisation == "none" for run in runs) == 6


def test_durations_follow_the_tokens():
    run = jumprelu_run("cpu", source("cpu", "res", 2), 64, 1e-3, 0, tokens=2**16)
    assert (run.lr_warmup, run.sparsity_warmup, run.dead_after) == (2**16 // 20, 2**15, 2**13)


def test_a_row_has_what_figures_and_claims_read(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "CACHE", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "committed")
    monkeypatch.setattr(store, "CACHE", tmp_path)
    monkeypatch.setattr(scope, "spliced", lambda where, reconstruct, device: spliced(where, reconstruct, 2, device))
    small = replace(
        scope.NORMALISED,
        grid=lambda preset: [
            replace(run, tokens=2**11, sparsity_warmup=0, lr_warmup=0)
            for run in scope.with_unnormalised("smoke")
            if run.seed == 0 and "blocks.1." in run.source.hook
        ],
    )
    compute(small, "smoke", report=lambda line: None)
    rows = table(small, "smoke")
    for _, function, arguments in scope.FIGURES.values():
        figures.named(function)(*arguments(rows)).canvas.draw()
    assert list(scope.ablations(rows).site) == sorted(SITES)
    assert (rows.fold_error < 1e-5).all() and (rows.fold_flips_double == 0).all()
