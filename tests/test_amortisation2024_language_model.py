"""The page on a language model: matching, macro-F1 and verdicts on tables whose answer is known, one run in full."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csc_array

from replication.figures import amortisation_lm as drawn
from replication.fingerprints import reachable, types_of
from replication.papers.amortisation2024 import language_model as page
from replication.sae.relu import ReLU


def table(mlp=0.7, sae=0.6, fista=0.6, spread=0.05, l0=(4.0, 16.0), fista_l0=8.0, explained=40) -> pd.DataFrame:
    """F1 of so many at every L0; latents lie evenly between mean - spread and mean + spread."""
    rows = []
    for seed in range(3):
        cells = [(name, one, f1) for name, f1 in (("mlp", mlp), ("sae", sae)) for one in l0]
        cells.append(("fista", fista_l0, fista))
        for encoder, at, f1 in cells:
            f1s = np.linspace(f1 - spread, f1 + spread, explained).tolist()
            row = {
                "encoder": encoder,
                "seed": seed,
                "sparsity": 1 / at,
                "l0": at,
                "target": 8.0,
                "explained": explained,
            }
            row |= {"f1": f1, "f1s": f1s, "f1s_any": f1s, "f1_chance": 0.5, "fvu": 0.1, "delta_ce": 0.2}
            rows.append(row | {"f1s_untrained": None if encoder == "fista" else [0.5, 0.6]})
    return pd.DataFrame(rows)


def test_macro_f1_is_the_mean_of_both_classes():
    true = np.array([True, True, False, False])
    assert page.macro_f1(true, true) == 1 and page.macro_f1(true, ~true) == 0
    # one of two found, no false alarm: positive 2/(2 + 1), negative 4/(4 + 1)
    assert page.macro_f1(true, np.array([True, False, False, False])) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert page.macro_f1(true, np.zeros(4, dtype=bool)) == pytest.approx(1 / 3)  # says nothing: 0 and 4/(4 + 2)


def test_places_are_the_strongest_one_of_each_block():
    dense = np.zeros((6, 2))
    dense[[0, 1, 4, 5], 1] = [1, 3, 2, 5]  # blocks of two tokens: {0, 1}, {2, 3}, {4, 5}
    active = csc_array(dense)
    assert active.indices[page.places_of(active, 1, 2, 9, active.data)].tolist() == [5, 1]
    assert active.indices[page.places_of(active, 1, 2, 1, active.data)].tolist() == [5]
    assert len(page.places_of(active, 0, 2, 9, active.data)) == 0


def test_negatives_are_places_of_others_where_the_latent_is_silent():
    dense = np.zeros((8, 3))
    dense[[0, 2], 0] = 1
    dense[[2, 4], 1] = 1  # the first place is one of latent 0 too
    dense[[6], 2] = 1
    truth = csc_array(dense)
    f1, (true, told) = page._told(truth, 0, np.array([1, 2]), 2, truth.data, np.array([0, 2, 6]))
    assert true.tolist() == [True, True, False, False] and told.tolist() == [True, True, False, True]
    assert f1 == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_an_encoder_is_read_at_the_target_between_its_runs():
    rows = table(l0=(4.0, 16.0))  # ln 8 is half-way
    rows.loc[rows.l0 == 4, "f1s"] = rows.f1s[rows.l0 == 4].map(lambda f1s: [0.9] * len(f1s))
    [first, *_] = page.at_target(rows, "mlp")
    assert [part.weight for part in first] == pytest.approx([0.5, 0.5])
    assert page.means(page.at_target(rows, "mlp")).tolist() == pytest.approx([0.8] * 3)


def test_nothing_is_extrapolated():
    assert page.at_target(table(l0=(10.0, 16.0)), "sae") == [[], [], []]
    assert page.at_target(table(fista_l0=9.0), "fista") == [[], [], []]
    assert page.at_target(table(explained=10), "mlp") == [[], [], []]
    assert len(page.at_target(table(fista_l0=8.7), "fista")[0]) == 1


def test_a_bootstrap_of_equal_latents_has_no_spread_and_one_of_unequal_seeds_has():
    same = [[page.Part(1.0, np.full(5, 0.7))] for _ in range(3)]
    assert page.resampled([same, same], (1, -1)).tolist() == pytest.approx([0.0] * page.RESAMPLES)
    unequal = [[page.Part(1.0, np.full(5, value))] for value in (0.0, 0.5, 1.0)]
    found = page.resampled([unequal], (1,))
    assert found.mean() == pytest.approx(0.5, abs=0.03) and found.min() == 0 and found.max() == 1
    assert page.resampled([unequal, unequal], (1, -1)).std() < 1e-12  # seeds are in common


@pytest.mark.parametrize(
    "mlp, sae, spread, verdict",
    [
        (0.7, 0.6, 0.05, "replicated"),
        (0.61, 0.6, 0.4, "partly"),  # the interval reaches 0
        (0.5, 0.6, 0.05, "not replicated"),
        (0.59, 0.6, 0.4, "void"),
    ],
)
def test_c18(mlp, sae, spread, verdict):
    evidence = page.mlp_is_interpretable(table(mlp=mlp, sae=sae, spread=spread))
    assert evidence.verdict == verdict and evidence.ours == pytest.approx(mlp - sae)
    assert evidence.low < evidence.ours < evidence.high
    assert "at least 240 explanations" in evidence.summary


def test_c18_is_void_where_l0_is_not_matched_and_needs_seeds():
    for rows in (table(l0=(10.0, 16.0)), table(explained=10)):
        evidence = page.mlp_is_interpretable(rows)
        assert evidence.verdict == "void" and np.isnan(evidence.ours)
        assert "MLP encoder in 3, SAE in 3" in evidence.summary
    with pytest.raises(page.NoEvidence, match="at least 2"):
        page.mlp_is_interpretable(table().query("seed == 0"))


@pytest.mark.parametrize("fista, verdict", [(0.6, "replicated"), (0.8, "not replicated")])
def test_c19(fista, verdict):
    assert page.inference_is_less_interpretable(table(fista=fista)).verdict == verdict
    assert page.inference_is_less_interpretable(table(fista=fista, fista_l0=12.0)).verdict == "void"


def test_an_mlp_encoder_is_two_layers():
    sae = page.MLPEncoder(2, 3, 0.1, hidden=2)
    with torch.no_grad():
        sae.W_hidden.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]))
    # hidden (3, 0) and (0, 3): |x| split by sign, which no linear encoder passes on
    assert sae.encode(torch.tensor([[3.0, 1.0], [-3.0, 1.0]])).tolist() == [[3, 0, 0], [0, 6, 0]]


def test_an_mlp_encoder_starts_as_the_linear_encoder_of_an_sae():
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    mlp = page.MLPEncoder(8, 32, 0.1, hidden=16, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    sae = ReLU(8, 32, 0.1, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    for one in (mlp, sae):
        one.initialise(x)
    torch.testing.assert_close(mlp(x).recon, sae(x).recon, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="hidden must be even"):
        page.MLPEncoder(8, 32, 0.1, hidden=3)


def test_sparse_inference_on_orthonormal_atoms_is_a_soft_threshold():
    sae = ReLU(3, 3, 0.1)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(3))
    found = page.SparseInference(sae, lam=0.5)
    assert found.encode(torch.tensor([[2.0, 0.4, -1.0]])).flatten().tolist() == pytest.approx([1.5, 0, 0], abs=1e-5)


def test_lambda_is_tuned_to_the_number_of_codes():
    sae = ReLU(4, 4, 0.1)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(4))
    x = torch.tensor([[0.8, 0.4, 0.2, 0.1]])
    found = page.tuned(sae, x, 2.0)
    assert (found.encode(x) != 0).sum() == 2 and 0.2 < found.lam < 0.4


def test_promising_codes_are_those_that_separate_a_task():
    labels = torch.tensor([[True], [True], [False], [False]])
    codes = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    before, page.KEPT = page.KEPT, 1
    try:
        assert page.promising(codes, labels).tolist() == [0]
    finally:
        page.KEPT = before


def test_runs_refuse_what_makes_no_sense():
    run = page.encoder_run("smoke", "sae", 0.1, 0)
    with pytest.raises(ValueError, match="encoder must be one of"):
        page.EncoderRun(**vars(run) | {"encoder": "lca"})
    with pytest.raises(ValueError, match="hidden must be positive"):
        page.EncoderRun(**vars(run) | {"encoder": "mlp"})
    with pytest.raises(ValueError, match="architecture must be relu"):
        page.EncoderRun(**vars(run) | {"architecture": "topk", "sparsity": 4})


def test_sae_and_fista_share_a_run():
    sae, fista = (page.encoder_run("smoke", encoder, 0.1, 0) for encoder in ("sae", "fista"))
    assert sae.plain() == fista.plain() and sae != fista
    for preset in page.GRIDS:
        runs = page.encoder_runs(preset)
        assert {run.encoder for run in runs} == set(page.ENCODERS) and {run.seed for run in runs} == set(page.SEEDS)
        assert all(run.source.model in page.BUDGETS for run in runs)


def test_a_row_holds_the_measures_and_their_controls():
    cells = (("sae", 0.1), ("fista", 0.1), ("mlp", 0.1))
    rows = {
        run.encoder: row for run, row in page.measure_encoders([page.encoder_run("smoke", *one, 0) for one in cells])
    }
    assert set(rows) == set(page.ENCODERS)
    for row in rows.values():
        assert {"fvu", "l0", "dead_heldout", "delta_ce", "probe_gain", "nmse_untrained"} <= row.keys()
        assert row["explained"] == len(row["f1s"]) == page.BUDGETS["pygpt-0.5m"].latents
        assert 0 <= row["f1"] <= 1 and row["f1"] == pytest.approx(np.mean(row["f1s"]), abs=1e-4)
        assert 0.3 < row["f1_chance"] < 0.7
    assert "f1_untrained" in rows["sae"] and "f1_untrained" in rows["mlp"] and "f1_untrained" not in rows["fista"]
    assert rows["fista"]["lam"] > 0 and rows["fista"]["l0"] == pytest.approx(6.0, rel=0.3)
    assert all(page.cost(page.encoder_run("smoke", *one, 0)) > 0 for one in cells)


def test_figures_show_what_there_is():
    rows = table()
    means = page.at_equal_l0(rows)
    assert means.f1.tolist() == pytest.approx([0.6, 0.7, 0.6]) and means.published.tolist()[:2] == [0.639, 0.686]
    unmatched = page.at_equal_l0(table(l0=(10.0, 16.0)))
    assert np.isnan(unmatched.f1[0]) and np.isnan(unmatched.low[1]) and unmatched.f1[2] == pytest.approx(0.6)
    for f1 in (means, unmatched):
        drawn.interpretability(page.distributions(rows), f1, 0.5).canvas.draw()
    drawn.fidelity(rows).canvas.draw()
    assert list(dict.fromkeys(page.distributions(rows).name))[:3] == ["SAE", "MLP encoder", "FISTA"]


def test_a_row_depends_on_its_own_source_only():
    names = {name for _, name in reachable(page.measure_encoders, *types_of(page.encoder_runs("smoke")[0]))}
    assert {"explain", "fista", "MLPEncoder", "PythonSource"} <= names
    assert not {"HubDataset", "SOURCES", "GRIDS", "CLAIMS"} & names
