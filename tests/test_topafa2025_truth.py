"""Known truth for top-AFA: data and dictionaries by hand, the degenerate optimum, and rules on made-up tables."""

from dataclasses import asdict

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch

from replication import figures
from replication.activations import Lee
from replication.claims import NoEvidence
from replication.evaluate.norms import relative_gap
from replication.papers.topafa2025 import truth
from replication.papers.topafa2025.grid import LAMBDA_TIMES_D
from replication.papers.topafa2025.truth import REFERENCES, TRUTH, VARIANTS, Reference, Superposition
from replication.results import PRESETS
from replication.train import Run

SOURCE = Superposition(8, 32, 2, seed=0)


@pytest.fixture(scope="module")
def smoke() -> pd.DataFrame:
    """The first seed alone: one table of references and runs, as a study stores it."""
    runs = [run for run in TRUTH.runs("smoke") if run.seed == 0]
    rows = [{f: getattr(run, f) for f in asdict(run)} | measured for run, measured in TRUTH.measure(runs)]
    rows = pd.DataFrame(rows)
    return rows.assign(options=rows.options.map(repr, na_action="ignore"))


class TestSuperposition:
    def test_samples_have_one_to_2k_minus_1_atoms_and_k_on_average(self):
        counts = (Superposition(8, 1000, 4).heldout_codes() != 0).sum(-1)
        assert (counts.min(), counts.max()) == (1, 7)
        assert counts.double().mean().item() == pytest.approx(4, abs=0.1)

    def test_codes_are_half_to_three_halves(self):
        codes = SOURCE.heldout_codes()
        active = codes[codes != 0]
        assert 0.5 <= active.min() < 0.51 and 1.49 < active.max() <= 1.5

    def test_heldout_is_codes_times_unit_atoms(self):
        torch.testing.assert_close(SOURCE.atoms().norm(dim=-1), torch.ones(32))
        torch.testing.assert_close(SOURCE.heldout(), SOURCE.heldout_codes() @ SOURCE.atoms())

    def test_batches_follow_their_seed_and_share_the_atoms(self):
        (first,), (again,), (other,) = (list(SOURCE.batches(16, 31, seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other) and first.shape == (16, 8)
        assert not torch.equal(SOURCE.atoms(), Superposition(8, 32, 2, seed=1).atoms())

    def test_one_atom_gives_it_back_scaled(self):
        """k = 1 leaves exactly one atom in each sample."""
        (x,) = Superposition(8, 32, 1).batches(64, 64, seed=0)
        cosines = torch.nn.functional.normalize(x, dim=-1) @ Superposition(8, 32, 1).atoms().T
        torch.testing.assert_close(cosines.amax(-1), torch.ones(64))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"width": 0}, "width must be at least 1, got 0"),
            ({"k": 17}, "2 k - 1 must be at most n_atoms=32, got k=17"),
        ],
    )
    def test_refuses_nonsense(self, change, message):
        with pytest.raises(ValueError, match=message):
            Superposition(**({"width": 8, "n_atoms": 32, "k": 2} | change))


class TestAntipodalBasis:
    def test_has_a_perfect_score_on_any_input(self):
        """Loss and eps_LBO 0 up to float32 weights and L0 = d, on noise that has no structure at all."""
        d_in = 16
        sae = truth.antipodal_basis(d_in, torch.Generator().manual_seed(0)).double()
        x, _ = Lee.apply(torch.randn(256, d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
        recon, latents = sae(x)
        torch.testing.assert_close(recon, x, atol=1e-4, rtol=0)  # a coordinate near 0 may be left out
        assert sae.objective(x, torch.empty(0, dtype=torch.int64)).loss.item() < 1e-12
        assert relative_gap(x.norm(dim=-1), latents.norm(dim=-1)).max().item() < 1e-6
        assert (latents != 0).sum(-1).double().mean().item() == pytest.approx(d_in, abs=0.05)

    def test_is_measured_as_perfect_beside_mcc_at_chance(self):
        found = truth.describe_reference(Reference(Superposition(32, 128, 2), "antipodal basis"))
        assert found["rows"] == 64 and found["antipodal"] == pytest.approx(-1)
        assert max(found["objective"], found["nmse"], found["gap"]) < 1e-5
        assert found["l0_over_d"] == pytest.approx(1, abs=0.01)
        assert found["mcc"] == pytest.approx(truth.chance(Superposition(32, 128, 2), 64, 0), abs=0.05)

    def test_the_truth_itself_scores_worse(self):
        found = truth.describe_reference(Reference(Superposition(32, 128, 4), "truth"))
        assert found["mcc"] == pytest.approx(1) and found["nmse"] < 1e-9 and found["l0_correlation"] == pytest.approx(1)
        assert found["objective"] > 0.01 and found["gap"] > 0.01


def test_the_truth_as_seen_gives_normalised_inputs():
    atoms, codes = truth.as_seen(SOURCE.atoms(), SOURCE.heldout_codes())
    torch.testing.assert_close(codes @ atoms, Lee.apply(SOURCE.heldout())[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(atoms.mean(-1), torch.zeros(32), atol=1e-6, rtol=0)


def test_recovery_counts_signed_cosines():
    """One atom is there, the other only as its opposite, whose best partner is the first row at cosine 0."""
    atoms = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    rows = torch.stack([2 * atoms[0], -atoms[1]])
    found = truth.recovery(atoms, rows)
    assert found["mcc"] == pytest.approx(0.5)
    assert found["mcc_matched"] == pytest.approx(0)  # 1 - 1 with each row used once, or 0 + 0
    assert truth.recovery(atoms, atoms[:1]) == {"mcc": pytest.approx(0.5), "mcc_matched": pytest.approx(0.5)}


def test_lowest_cosines_see_opposites():
    rows = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0]])
    torch.testing.assert_close(truth.lowest_cosines(rows), torch.tensor([-1.0, -1.0, 0.0], dtype=torch.float64))


def test_the_objective_is_error_per_coordinate_and_norm_loss():
    """|x| = 2, |latents| = 1, error 4 over 4 coordinates: 1 + (24 / 4) 1."""
    x, latents = torch.tensor([[2.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0]])
    assert truth.afa_objective(x, torch.zeros(1, 4), latents).item() == pytest.approx(1 + truth.PLAIN / 4)


def test_references_are_named():
    with pytest.raises(ValueError, match="kind must be one of truth, antipodal basis"):
        Reference(SOURCE, "oracle")


def test_every_preset_has_a_grid_of_the_papers_lambdas():
    assert set(truth.GRIDS) == set(PRESETS)
    for preset, (*_, lambdas, seeds) in truth.GRIDS.items():
        assert {truth.PLAIN} <= set(lambdas) <= set(LAMBDA_TIMES_D) and seeds >= (2 if preset == "smoke" else 3)


@pytest.mark.parametrize("preset", ["smoke", "cpu"])
def test_a_preset_has_all_methods_at_every_seed(preset):
    runs = TRUTH.runs(preset)
    _, ks, *_, seeds = truth.GRIDS[preset]
    for seed in range(seeds):
        here = [run for run in runs if run.seed == seed]
        assert all(run.data_seed == run.source.seed == seed for run in here)
        assert {run.kind for run in here if isinstance(run, Reference)} == set(REFERENCES)
        trainings = [run for run in here if isinstance(run, Run)]
        assert {run.source.k for run in trainings if run.sparsity == run.source.k} == set(ks)
        afa = [run for run in trainings if run.architecture == "topafa"]
        assert {run.options for run in afa} >= {tuple(options.items()) for options, *_ in VARIANTS.values()}
        assert {run.normalisation for run in afa} == {"lee", "none"}


def table(mcc=0.4, gap=0.01, l0=70.0, correlation=0.0, antipodal=-0.99, longer=None, spread=0.01) -> pd.DataFrame:
    """d = 64, true k = 4: TopK at three k with MCC 0.9, and top-AFA as told; `longer` overrides of the longer run."""
    rows = []
    for seed in range(3):
        shared = {"seed": seed, "data_seed": seed, "d_in": 64, "k_true": 4, "true_l0": 4.0, "mcc_chance": 0.38}
        shared |= {"kind": np.nan, "normalisation": "lee", "options": "()", "tokens": 100.0, "selected": 0.9}
        rows += [
            shared
            | {
                "architecture": "topk",
                "sparsity": k,
                "l0": k,
                "mcc": 0.9 - 0.001 * k,
                "gap": 0.5 + 0.01 * k + 0.001 * seed,
            }
            | {"l0_correlation": 0.0, "antipodal": -0.4}
            for k in (2, 4, 8, 16)
        ]
        afa = shared | {"architecture": "topafa", "l0_correlation": correlation, "antipodal": antipodal}
        afa |= {"mcc": mcc + spread * seed, "gap": gap + spread * seed / 10, "l0": l0 + seed * spread}
        rows += [afa | {"sparsity": lam / 64} for lam in (24, 48)]
        rows += [afa | {"sparsity": 24 / 64, "tokens": 300.0} | (longer or {})]
        rows += [
            shared | {"kind": "untrained top-AFA", "architecture": np.nan, "mcc": 0.38, "gap": 0.02, "antipodal": -0.4}
        ]
    rows = pd.DataFrame(rows)
    return rows.assign(l0_over_d=rows.l0 / rows.d_in, eps_lbo=rows.gap / 511, nmse=1 / rows.l0)


def test_methods_and_variants_are_named():
    named = truth.with_method(table())
    assert list(named.method[:4].unique()) == ["topk"] and named.method.iloc[7] == "untrained top-AFA"
    assert list(named.variant[4:7]) == ["paper", "paper", "longer"] and list(named.lambda_d[4:6]) == [24, 48]
    raw = truth.with_method(table().assign(normalisation="none", tokens=100.0))
    assert set(raw[raw.method == "topafa"].variant) == {"raw input"}
    for name, (options, normalisation, times) in VARIANTS.items():
        one = table().iloc[[0, 4]].assign(normalisation=normalisation, options=repr(tuple(options.items())))
        one.loc[4, "tokens"] *= times
        assert truth.with_method(one).variant[4] == name


class TestZ6:
    def test_a_score_that_is_lowest_for_the_worst_is_not_replicated(self):
        found = truth.rates_dictionaries(table())
        assert found.verdict == "not replicated" and found.ours > 0
        assert "lowest eps_LBO has MCC 0.4" in found.summary and "chance 0.38" in found.summary

    def test_a_score_that_falls_with_mcc_is_replicated(self):
        rows = table()
        assert truth.rates_dictionaries(rows.assign(eps_lbo=1 - rows.mcc)).verdict == "replicated"

    def test_a_weak_one_is_partly(self):
        """Ranks of MCC 7, 6, 5, 4, 2, 2, 2 and of the score 1, 7, 2, 6, 4, 4, 4: correlation -5 / 26."""
        rows = table(spread=0)
        rows["eps_lbo"] = [0.1, 0.9, 0.2, 0.8, 0.5, 0.5, 0.5, 0.5] * 3
        found = truth.rates_dictionaries(rows)
        assert found.verdict == "partly" and found.ours == pytest.approx(-5 / 26)

    def test_needs_runs(self):
        with pytest.raises(NoEvidence, match="5 trained runs"):
            truth.rates_dictionaries(table().query("sparsity > 3"))


class TestX1:
    def test_needs_both_the_number_and_its_changes(self):
        assert truth.finds_true_l0(table(l0=5.0, correlation=0.6)).verdict == "replicated"
        assert truth.finds_true_l0(table(l0=5.0, correlation=0.1)).verdict == "partly"
        assert truth.finds_true_l0(table(l0=70.0, correlation=0.6)).verdict == "partly"
        assert truth.finds_true_l0(table(l0=70.0)).verdict == "not replicated"
        assert truth.finds_true_l0(table(l0=1.0)).verdict == "not replicated"  # too few is no better than too many

    def test_is_partly_where_only_the_longer_run_has_it(self):
        found = truth.finds_true_l0(table(longer={"l0": 4.0, "l0_correlation": 0.9}))
        assert found.verdict == "partly" and "1.0 times at the closest" in found.summary
        assert found.ours == pytest.approx((70.01 / 4 * 2 + 1) / 3, abs=0.01)


def test_x2_compares_with_topk_at_the_true_k():
    assert truth.finds_dictionary(table()).verdict == "not replicated"
    assert truth.finds_dictionary(table(mcc=0.88)).verdict == "replicated"
    assert truth.finds_dictionary(table(longer={"mcc": 0.9})).verdict == "partly"
    assert truth.finds_dictionary(table(mcc=0.396, spread=0)).ours == pytest.approx(-0.5)
    with pytest.raises(NoEvidence, match="no run of TopK"):
        truth.finds_dictionary(table().query("sparsity != 4"))


def test_x3_asks_for_more_active_latents_than_dimensions():
    assert truth.is_dense(table(l0=70.0)).verdict == "replicated"
    assert (
        truth.is_dense(table(longer={"l0_over_d": 0.9}).assign(l0_over_d=lambda t: t.l0 / 64)).verdict == "replicated"
    )
    assert truth.is_dense(table(longer={"l0": 60.0})).verdict == "partly"
    assert truth.is_dense(table(l0=10.0)).verdict == "not replicated"
    assert "from 1.09 to 0.938" in truth.is_dense(table(longer={"l0": 60.0})).summary


def test_x4_asks_for_opposite_rows():
    assert truth.is_antipodal(table()).verdict == "replicated"
    assert truth.is_antipodal(table(antipodal=-0.5)).verdict == "not replicated"
    assert truth.is_antipodal(table(antipodal=-0.5, longer={"antipodal": -0.95})).verdict == "partly"


def test_the_critiques_leave_weak_norm_losses_out():
    weak = table().assign(sparsity=lambda t: t.sparsity.where(t.architecture == "topk", 6 / 64))
    for rule in (truth.is_dense, truth.is_antipodal):
        with pytest.raises(NoEvidence, match="at least 24"):
            rule(weak)


@pytest.mark.parametrize("name", truth.FIGURES)
def test_figures_draw_from_what_is_measured(name, smoke, tmp_path):
    study, function, arguments = truth.FIGURES[name]
    figure = figures.named(function)(*arguments(smoke))
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_xlabel() and figure.axes[0].get_ylabel() and figure.legends


def test_rows_are_complete_and_finite(smoke):
    trainings = smoke[smoke.architecture.notna()]
    shared = smoke.drop(columns=trainings.columns[smoke.isna().any()])
    assert np.isfinite(shared.select_dtypes("number").to_numpy()).all()
    assert {"mcc", "mcc_chance", "gap", "norm_to_x", "selected", "antipodal"} <= set(shared.columns)
    topk = trainings[trainings.architecture == "topk"]
    assert (topk.l0 <= topk.sparsity).all() and (smoke.true_l0.between(1.5, 2.5)).all()
    assert smoke[smoke.kind == "truth"].mcc.item() == pytest.approx(1) and (trainings.norm_ratio > 0).all()
