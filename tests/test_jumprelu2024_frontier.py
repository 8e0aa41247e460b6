"""JumpReLU and its rivals: gradients by hand, comparisons at equal L0 and verdicts on tables whose answer is known."""

from dataclasses import asdict
from itertools import product

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch

from replication import figures
from replication.claims import NoEvidence
from replication.papers.jumprelu2024 import frontier
from replication.papers.jumprelu2024.frontier import WithL1, WithoutJump
from replication.results import PRESETS
from replication.sae import load
from replication.sae.jumprelu import JumpReLU

SOURCE = "LanguageModelActivations(model='pygpt-2m', hook='blocks.2.hook_resid_post')"
CONTEXTS = (0.5, 1.5)  # the harm of each context over their mean
BLUR = (0.998, 1.0, 1.002)  # of the harm of JumpReLU, by seed


def table(ratios: dict[str, float], halves: dict[str, float] | None = None, **columns) -> pd.DataFrame:
    """Harm = ratio / L0, a straight line in log-log; L0 of TopK is 8, 16 and 40, of the others 4 and 64. `halves`: the
    ratios of runs with half of the tokens, those of `ratios` for the paper's three unless said otherwise."""
    halves = {name: ratios[name] for name in ("jumprelu", "topk", "gated") if name in ratios} | (halves or {})
    rows = []
    for seed, (tokens, part) in product(range(3), ((1000, ratios), (500, halves))):
        for method, ratio in part.items():
            for l0 in (8, 16, 40) if method == "topk" else (4, 64):
                harm = ratio / l0 * (BLUR[seed] if method == "jumprelu" else 1)
                ablation = method if method in frontier.ABLATIONS else None
                rows.append(
                    {
                        "architecture": "jumprelu" if ablation else method.split("-")[0],
                        "ablation": ablation,
                        "options": "(('ri_l1', True),)" if method == "gated" else "()",
                        "source": SOURCE,
                        "d_sae": 64,
                        "seed": seed,
                        "tokens": tokens,
                        "sparsity": l0,
                        "l0": l0,
                        "delta_ce": harm,
                        "delta_ce_contexts": [harm * one for one in CONTEXTS],
                        "dead": 0.0,
                    }
                    | columns
                )
    return pd.DataFrame(rows)


def elsewhere(ratios: dict[str, float]) -> pd.DataFrame:
    """Another layer, with half of the tokens."""
    ratios = {name: ratios[name] for name in frontier.MAIN}
    rows = table(ratios, ratios, source=SOURCE.replace("2.hook", "3.hook"))
    return rows[rows.tokens == 500]


EQUAL = dict.fromkeys(("jumprelu", "topk", "gated", "gated-original", "relu", "relu-l0", "jumprelu-l1"), 1.0)


def test_methods_and_sites_are_read_from_a_row():
    rows = frontier.with_method(table(EQUAL))
    assert set(rows.method) == set(EQUAL)
    assert set(rows.site) == {"res"} and set(rows.layer) == {2}
    assert set(frontier.longest(rows).tokens) == {1000}
    assert set(frontier.main_methods(rows).method) == set(frontier.MAIN)
    assert set(frontier.two_by_two(rows).method) == set(frontier.TWO_BY_TWO)


class TestGaps:
    def test_g_is_the_log_of_the_ratio_at_equal_l0(self):
        rows = frontier.with_method(table(EQUAL | {"topk": 2.0, "gated": 4.0}))
        rows = frontier.longest(rows)
        for other, ratio in (("topk", 2), ("gated", 4)):
            found = frontier.harm_gap(rows, other)
            assert sorted(set(found.k)) == [8, 16, 40] and len(found) == 9
            np.testing.assert_allclose(found[found.seed == 1].g, -np.log(ratio))

    def test_only_an_ablation_is_taken_at_its_sparsest_run(self):
        """L0 of 20 and 64 instead of 4 and 64: at 8 and 16 the harm stays that at 20, which is 1 / 20."""
        rows = frontier.with_method(table(EQUAL))
        rows = frontier.longest(rows[rows.seed == 1])
        sparse = rows.method.isin(["relu-l0", "relu"]) & (rows.l0 == 4)
        rows = rows.assign(l0=rows.l0.mask(sparse, 20), delta_ce=rows.delta_ce.mask(sparse, 1 / 20))
        assert frontier.harm_gap(rows, "relu").g.isna().tolist() == [True, True, False]
        np.testing.assert_allclose(np.exp(frontier.harm_gap(rows, "relu-l0").g), [20 / 8, 20 / 16, 1])

    def test_resampled_contexts_are_the_same_for_all_methods(self):
        """Harm of all methods is proportional, in every context: only seeds move g, between ln 0.998 and ln 1.002."""
        low, high = frontier.resampled_gap(frontier.longest(frontier.with_method(table(EQUAL))), "topk")
        assert np.log(0.998) - 1e-9 <= low < -0.001 and 0.001 < high <= np.log(1.002) + 1e-9

    def test_a_gap_that_one_context_makes_has_a_wide_interval(self):
        """JumpReLU does most of its harm in one of two contexts: drawn twice, once or never, it has 1.8, 1 or 0.2 times
        the harm of TopK."""
        rows = frontier.longest(frontier.with_method(table(EQUAL)))
        rows["delta_ce_contexts"] = [
            [1.8 * harm, 0.2 * harm] if method == "jumprelu" else [harm, harm]
            for harm, method in zip(rows.delta_ce, rows.method, strict=True)
        ]
        assert frontier.resampled_gap(rows, "topk") == pytest.approx(np.log([0.2, 1.8]), abs=0.003)
        found = frontier.gap_of(rows, "topk")
        assert found.mean == pytest.approx(0, abs=0.001) and (found.low, found.high) == pytest.approx(
            np.log([0.2, 1.8]), abs=0.003
        )

    def test_contexts_without_any_harm_leave_no_interval(self):
        """All of JumpReLU's harm is in one of two contexts, which a quarter of the resamples lack."""
        rows = frontier.longest(frontier.with_method(table(EQUAL)))
        rows["delta_ce_contexts"] = [[2 * harm, 0.0] for harm in rows.delta_ce]
        assert frontier.resampled_gap(rows, "topk") is None
        assert "resamples" in frontier.gap_of(rows, "topk")

    def test_a_seed_without_living_runs_of_a_method_is_left_out(self):
        rows = frontier.longest(frontier.with_method(table(EQUAL)))
        rows["dead"] = ((rows.method == "topk") & (rows.seed == 0)).astype(float)
        assert set(frontier.harm_gap(rows, "topk").seed) == {1, 2}
        assert frontier.gap_of(rows, "topk").points == 6

    def test_an_ablation_is_resampled_at_its_sparsest_run(self):
        """Its one run has L0 64 and a harm of 1 / 64 that stands in at 8, 16 and 40."""
        rows = frontier.with_method(table(EQUAL))
        rows = frontier.longest(rows[(rows.method != "relu-l0") | (rows.l0 == 64)])
        expected = np.log([64 / 8, 64 / 16, 64 / 40]).mean()
        assert frontier.resampled_gap(rows, "relu-l0") == pytest.approx((expected, expected), abs=0.003)
        assert frontier.harm_gap(rows, "relu-l0").g.mean() == pytest.approx(expected, abs=0.003)

    def test_the_last_doubling_by_hand(self):
        rows = frontier.with_method(table(EQUAL, {"jumprelu": 1.5, "topk": 1.2}))
        np.testing.assert_allclose(frontier.last_doubling(rows, "topk"), np.log(1.2 / 1.5))
        np.testing.assert_allclose(frontier.last_doubling(rows, "relu"), np.log(1 / 1.5))
        with pytest.raises(NoEvidence, match="half"):
            frontier.last_doubling(frontier.longest(rows), "topk")

    def test_the_figures_table_has_both_budgets_of_the_place_that_has_two(self):
        found = frontier.gaps(pd.concat([table(EQUAL), elsewhere(EQUAL)]))
        assert set(found.layer) == {2}
        assert set(zip(found.method, found.tokens, strict=True)) == {
            ("topk", 1000), ("topk", 500), ("gated", 1000), ("gated", 500), ("gated-original", 1000)
        }  # fmt: skip

    def test_the_ratio_by_tokens_is_taken_where_every_budget_is_matched(self):
        """With half of the tokens JumpReLU has no run with an L0 below 10, so that k = 8 does not count."""
        rows = table(EQUAL | {"topk": 2.0}, {"jumprelu": 3.0, "topk": 2.0})
        cut = (rows.architecture == "jumprelu") & (rows.tokens == 500) & (rows.l0 == 4)
        rows = rows.assign(l0=rows.l0.mask(cut, 10), delta_ce=rows.delta_ce.mask(cut, 3 / 10))
        assert frontier.gaps(rows).dropna(subset="g").k.min() == 8
        found = frontier.gap_by_tokens(rows)
        found = found[(found.method == "topk") & (found.seed == 1)].set_index("tokens").ratio
        np.testing.assert_allclose(found[[500, 1000]], [3 / 2, 1 / 2])


@pytest.mark.parametrize(
    "ratio, before, verdict",
    [
        (0.9, 0.9, "replicated"),
        (1.02, 1.02, "replicated"),  # not better, but not worse by 5 %
        (1.2, 1.2, "not replicated"),
        (1.2, 1.4, "void"),  # worse, and the gap is closing
        (0.9, 0.7, "void"),  # better, and the lead is melting
        (0.9, 1.2, "replicated"),  # better, and more so with more tokens
    ],
)
def test_j3_allows_five_per_cent_and_checks_the_budget(ratio, before, verdict):
    found = frontier.not_worse_than_topk(table(EQUAL | {"jumprelu": ratio}, {"jumprelu": before}))
    assert found.verdict == verdict and found.ours == pytest.approx(np.log(ratio), abs=1e-4)
    assert ("under-trained" in found.summary) == (verdict == "void")


@pytest.mark.parametrize(
    "long, short, far, verdict, places",
    [
        (1.2, 1.2, 1.0, "not replicated", "1 of 2"),
        (1.2, 1.0, 1.0, "partly", "2 of 2"),
        (1.0, 1.0, 1.2, "partly", "1 of 2"),
        (1.0, 1.0, 1.0, "replicated", "2 of 2"),
    ],
)
def test_j3_asks_for_the_longest_runs_and_for_most_places(long, short, far, verdict, places):
    """The second layer has half of the tokens, so that both are compared with half."""
    rows = pd.concat([table(EQUAL | {"jumprelu": long}, {"jumprelu": short}), elsewhere(EQUAL | {"jumprelu": far})])
    assert set(frontier.every_place(rows).tokens) == {500} and set(frontier.every_place(rows).layer) == {2, 3}
    found = frontier.not_worse_than_topk(rows)
    assert found.verdict == verdict and f"with 500 tokens it holds at {places} sites and layers" in found.summary
    assert found.ours == pytest.approx(np.log(long), abs=1e-4)  # of the longest runs alone


def test_a_place_has_a_number_only_where_l0_is_matched_and_harm_is_done():
    rows = elsewhere(EQUAL | {"topk": 2.0, "gated": 4.0})
    found = frontier.place_table(rows).iloc[0]
    assert found.site == "res" and found.layer == 3
    assert found["harm over that of TopK"].startswith("0.50 [0.50")
    assert found["harm over that of Gated RI-L1"].startswith("0.25 [0.25")
    assert found["harm over that of original Gated"].startswith("1.00 [1.00")
    far = rows.options == "(('ri_l1', True),)"
    apart = rows.assign(l0=rows.l0.mask(far, rows.l0 * 5))  # 20 to 320: one of three L0
    assert frontier.place_table(apart)["harm over that of Gated RI-L1"].tolist() == ["–"]
    assert frontier.place_table(apart)["harm over that of TopK"].tolist() != ["–"]
    harmless = rows.assign(delta_ce=rows.delta_ce.mask((rows.architecture == "jumprelu") & (rows.l0 == 64), -1e-4))
    assert frontier.place_table(harmless).iloc[0, 2:].tolist() == ["–"] * 4
    assert frontier.place_table(rows[rows.seed == 0]).iloc[0, 2:].tolist() == ["–"] * 4


def test_the_ablations_are_compared_where_all_four_methods_are():
    here = table(EQUAL | {"jumprelu": 0.9})
    ratios = {name: EQUAL[name] for name in frontier.MAIN} | {"relu": 0.5}
    both_places = pd.concat([here, table(ratios, source=SOURCE.replace("2.hook", "3.hook"))])
    assert set(frontier.two_by_two(both_places).layer) == {2}
    assert frontier.needs_both(both_places) == frontier.needs_both(here)
    with pytest.raises(NoEvidence, match="relu-l0"):
        frontier.needs_both(both_places[both_places.ablation != "relu-l0"])


def test_j3_says_whether_jumprelu_is_better_outright():
    assert frontier.not_worse_than_topk(table(EQUAL | {"jumprelu": 0.9})).summary.endswith("outright: replicated")
    assert frontier.not_worse_than_topk(table(EQUAL | {"jumprelu": 1.03})).summary.endswith("outright: not replicated")


@pytest.mark.parametrize("gated, original, verdict", [(1.2, 0.8, "replicated"), (0.8, 1.2, "not replicated")])
def test_j2_is_about_ri_l1_and_reports_the_original(gated, original, verdict):
    found = frontier.beats_gated(table(EQUAL | {"gated": gated, "gated-original": original}))
    assert found.verdict == verdict and found.ours == pytest.approx(-np.log(gated), abs=1e-4)
    assert f"{1 / original:.2f} times" in found.summary


def test_j2_is_void_where_nothing_is_matched_or_nothing_is_lost():
    rows = table(EQUAL | {"gated": 1.2})
    far = rows.architecture == "gated"
    assert frontier.beats_gated(rows.assign(l0=rows.l0.mask(far, rows.l0 * 100))).verdict == "void"
    assert frontier.beats_gated(rows.assign(dead=0.9 * far)).verdict == "void"
    assert "do no harm" in frontier.beats_gated(rows.assign(delta_ce=0.0)).summary
    with pytest.raises(NoEvidence, match="lacks"):
        frontier.beats_gated(rows[~far])


ALL_WORSE = EQUAL | {"relu": 1.5, "relu-l0": 1.3, "jumprelu-l1": 1.2}


@pytest.mark.parametrize(
    "change, verdict",
    [
        ({}, "replicated"),
        ({"relu-l0": 0.9}, "partly"),
        ({"relu": 0.9, "relu-l0": 0.9, "jumprelu-l1": 0.9}, "not replicated"),
    ],
)
def test_j4_needs_jumprelu_to_beat_all_three(change, verdict):
    assert frontier.needs_both(table(ALL_WORSE | change)).verdict == verdict


def test_j4_gives_the_number_of_the_closest():
    found = frontier.needs_both(table(ALL_WORSE))
    assert found.ours == pytest.approx(-np.log(1.2), abs=1e-4)
    assert "against relu (replicated)" in found.summary
    losing = table(EQUAL | {"relu": 0.9, "relu-l0": 0.9, "jumprelu-l1": 0.9}, {"jumprelu": 1.3})
    assert frontier.needs_both(losing).verdict == "void"  # JumpReLU alone still gains more than it lacks


@pytest.mark.parametrize(
    "jump, relu, verdict",
    [(1.0, 1.2, "replicated"), (1.0, 1.03, "partly"), (1.1, 1.2, "partly"), (1.1, 1.03, "not replicated")],
)
def test_j5_needs_no_shrinkage_in_one_and_some_in_the_other(jump, relu, verdict):
    rows = frontier.with_method(table(EQUAL))
    gamma = rows.method.map({"jumprelu": jump, "relu": relu}).fillna(1.0) * (1 + 0.001 * rows.seed)
    found = frontier.avoids_shrinkage(rows.assign(gamma=gamma))
    assert found.verdict == verdict and found.ours == pytest.approx(jump, abs=0.002)


def test_best_rescaling_by_hand():
    """Reconstructions that keep half of the distance from the mean are best doubled; the mean itself counts for
    nothing."""
    x = torch.tensor([[4.0, 0.0], [6.0, 2.0]])
    assert frontier.best_rescaling(x, x.mean(0) + (x - x.mean(0)) / 2).item() == pytest.approx(2)
    assert frontier.best_rescaling(x, x).item() == 1


def one_latent(kind: type[JumpReLU], penalty: float, **options) -> JumpReLU:
    """One latent in one dimension, every weight 1, no biases."""
    sae = kind(1, 1, penalty, **options)
    with torch.no_grad():
        for weight in (sae.W_enc, sae.W_dec):
            weight.fill_(1.0)
    return sae


NO_DEAD = torch.empty(0, dtype=torch.int64)


def test_without_a_jump_the_penalty_trains_the_bias_alone():
    """x = 0.01 in a window of 0.1 around 0: dL0/db = 1 / 0.1. The error is 0, so that nothing else moves."""
    sae = one_latent(WithoutJump, 1.0, bandwidth=0.1)
    with torch.no_grad():
        sae.theta_raw.zero_()
    found = sae.objective(torch.tensor([[0.01]]), NO_DEAD)
    found.loss.backward()
    assert found.loss.item() == pytest.approx(1) and found.error.item() == 0
    assert sae.b_enc.grad.item() == pytest.approx(10)
    assert sae.W_enc.grad.item() == 0 and sae.b_dec.grad.item() == 0


def test_without_a_jump_theta_is_0_and_stays_there():
    sae = WithoutJump(4, 8, 1.0)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    sae.initialise(x)
    assert not sae.theta_raw.requires_grad and (sae.theta == 0).all()
    assert torch.equal(sae.encode(x), sae.pre(x).relu())


def test_with_l1_the_penalty_is_the_sum_of_latents():
    """x = 2 passes the threshold of 1: error 0, penalty 0.5 * 2; its derivative in W_enc is 0.5 * x."""
    sae = one_latent(WithL1, 0.5, threshold=1.0)
    found = sae.objective(torch.tensor([[2.0]]), NO_DEAD)
    found.loss.backward()
    assert found.loss.item() == pytest.approx(1) and sae.W_enc.grad.item() == pytest.approx(1)
    assert one_latent(WithL1, 0.5, threshold=3.0).objective(torch.tensor([[2.0]]), NO_DEAD).loss.item() == 4


@pytest.mark.parametrize("kind", frontier.ABLATIONS.values())
def test_an_ablated_sae_is_saved_as_a_jumprelu_sae(kind, tmp_path):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    sae = kind(4, 8, 1.0, generator=torch.Generator().manual_seed(1))
    sae.initialise(x)
    sae.save(tmp_path / "sae.safetensors")
    again = load(tmp_path / "sae.safetensors")
    assert type(again) is JumpReLU
    torch.testing.assert_close(again(x).recon, sae(x).recon)


def test_ablated_runs_refuse_nonsense():
    run = next(run for run in frontier.frontier_runs("smoke") if run.architecture == "jumprelu")
    with pytest.raises(ValueError, match="ablation must be one of jumprelu-l1, relu-l0"):
        frontier.ablated(run, "relu")
    other = next(run for run in frontier.frontier_runs("smoke") if run.architecture == "topk")
    with pytest.raises(ValueError, match="architecture"):
        frontier.ablated(other, "relu-l0")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_first_place_has_every_method_and_budget_the_others_one(preset):
    plan, runs = frontier.PLANS[preset], frontier.FRONTIER.runs(preset)
    assert set(plan.dials) == set(EQUAL)
    assert all(len(dials) >= 2 for method, dials in plan.dials.items() if method not in frontier.ABLATIONS)
    assert all(2 * less == more for more, less in zip(plan.budgets, plan.budgets[1:], strict=False))
    assert plan.elsewhere in plan.budgets
    assert len(set(runs)) == len(runs)
    here = {run.source for run in runs if isinstance(run, frontier.AblatedRun)}
    assert len(here) == 1
    assert {run.tokens for run in runs if run.source in here and run.architecture == "topk"} == set(plan.budgets)
    others = [run for run in runs if run.source not in here]
    assert len({run.source for run in others}) == len(plan.where) - 1
    assert all(run.tokens == plan.elsewhere for run in others)
    settings = sum(len(plan.dials[method]) for method in frontier.MAIN)
    for where in {run.source for run in runs}:
        shared = [run for run in runs if run.source == where and run.tokens == plan.elsewhere and run.seed == 0]
        assert len([run for run in shared if not isinstance(run, frontier.AblatedRun)]) == settings
    assert len({(run.batch, run.normalisation, run.d_sae) for run in runs}) == 1
    assert all(run.seed == run.data_seed for run in runs)


@pytest.fixture(scope="module")
def smoke() -> pd.DataFrame:
    """Rows of the whole study."""
    runs = frontier.FRONTIER.runs("smoke")
    return pd.DataFrame(
        asdict(run) | {"source": repr(run.source), "options": repr(run.options)} | values
        for run, values in frontier.measure_frontier(runs)
    )


@pytest.mark.parametrize("name", frontier.FIGURES)
def test_figures_draw_from_what_is_measured(name, smoke, tmp_path):
    _, function, arguments = frontier.FIGURES[name]
    figure = figures.named(function)(*arguments(smoke))
    figure.savefig(tmp_path / "figure.png")
    for axes in figure.axes:
        assert axes.get_xlabel() and axes.lines


def test_rows_are_finite_and_have_their_controls(smoke):
    columns = ["delta_ce", "kl", "fvu", "gamma", "often", "quite_often", "nmse_untrained", "nmse_pca", "delta_ce_mean"]
    assert np.isfinite(smoke[columns]).all(axis=None)
    assert (smoke.often <= smoke.quite_often).all()
    by_context = np.array(smoke.delta_ce_contexts.tolist())
    assert by_context.shape[1] > 1
    np.testing.assert_allclose(by_context.mean(1), smoke.delta_ce, atol=1e-4)
    topk = smoke[smoke.architecture == "topk"]
    assert (topk.delta_ce < topk.delta_ce_zero).all()
    assert set(frontier.with_method(smoke).method) == set(EQUAL)
