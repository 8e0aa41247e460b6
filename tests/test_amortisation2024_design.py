"""Verdicts on tables whose answer is known, sparsity by hand, smoke rows of every study, figures that draw."""

import builtins

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from replication import figures
from replication.claims import NoEvidence
from replication.papers.amortisation2024 import design
from replication.papers.amortisation2024.design import DesignRun, Trained
from replication.results import PRESETS, provenance
from replication.synthetic import SparseData


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """The smoke rows of every study, measured here."""
    return {
        study.name: pd.DataFrame([vars(run) | measured for run, measured in study.measure(study.runs("smoke"))])
        for study in design.STUDIES
    }


SIZE = {"n_atoms": 16, "d_in": 8, "k": 3, "seed": 0}


def bias_table(sae: float, mlp: float, seeds: int = 5) -> pd.DataFrame:
    """What a bias adds to the MCC of each."""
    return pd.DataFrame(
        [
            SIZE | {"data_seed": seed, "method": method, "bias": bias, "mcc": 0.6 + 0.001 * seed + bias * gain}
            for seed in range(seeds)
            for method, gain in (("sae", sae), ("mlp", mlp))
            for bias in (False, True)
        ]
    )


def test_c15_bias():
    assert design.bias_is_useless(bias_table(0.01, -0.05)).verdict == "replicated"
    assert design.bias_is_useless(bias_table(-0.02, 0.0)).verdict == "replicated"
    assert design.bias_is_useless(bias_table(0.05, -0.05)).verdict == "partly"
    assert design.bias_is_useless(bias_table(0.01, 0.05)).verdict == "not replicated"
    assert design.bias_is_useless(bias_table(0.01, -0.05)).ours == pytest.approx(0.01)
    with pytest.raises(NoEvidence, match="SAE and MLP"):
        design.bias_is_useless(bias_table(0.01, 0.05).query("method == 'sae'"))


def width_table(curve: dict[int, float], seeds: int = 5) -> pd.DataFrame:
    return pd.DataFrame(
        [
            SIZE | {"data_seed": seed, "hidden": hidden, "mcc": mcc + 0.001 * seed}
            for seed in range(seeds)
            for hidden, mcc in curve.items()
        ]
    )


def test_c16_width():
    stored = dict(zip(design.PUBLISHED_WIDTHS.hidden, design.PUBLISHED_WIDTHS["(16, 8, 3)"], strict=True))
    found = design.width_has_an_optimum(width_table(stored))
    assert found.verdict == "replicated" and found.ours == pytest.approx(0.707 - 0.613)
    assert design.width_has_an_optimum(width_table(stored | {512: 0.8})).verdict == "not replicated"
    assert design.width_has_an_optimum(width_table(stored | {64: 0.8})).verdict == "partly"
    with pytest.raises(NoEvidence, match="512"):
        design.width_has_an_optimum(width_table({16: 0.5, 128: 0.6, 256: 0.6}))


def sweep_table(l0: dict[str, float], peak: float = 0.5, seeds: int = 5) -> pd.DataFrame:
    """MCC is largest at the weight `peak`, where L0 is as given."""
    return pd.DataFrame(
        [
            SIZE
            | {"data_seed": seed, "method": method, "l1": w, "true_l0": 0.1875}
            | {"mcc": 0.8 if w == peak else 0.6, design.LOOKED_AT: share if w == peak else 0.01}
            for seed in range(seeds)
            for method, share in l0.items()
            for w in (0.01, 0.5, 5.0)
        ]
    )


def test_c17_peak():
    stored = {"sparse coding": 0.343, "mlp": 0.287}
    found = design.peak_is_dense(sweep_table(stored))
    assert found.verdict == "replicated" and found.ours == pytest.approx(0.287 - 0.1875)
    assert design.peak_is_dense(sweep_table(stored | {"mlp": 0.1})).verdict == "partly"
    assert design.peak_is_dense(sweep_table({"sparse coding": 0.1, "mlp": 0.1})).verdict == "not replicated"
    edge = design.peak_is_dense(sweep_table(stored, peak=5.0))
    assert edge.verdict == "void" and np.isnan(edge.ours)
    with pytest.raises(NoEvidence, match="mlp"):
        design.peak_is_dense(sweep_table({"sparse coding": 0.343}))


def test_the_largest_stay_and_refitting_undoes_shrinkage():
    codes = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    assert design.largest(codes, 2).tolist() == [[0, 3, 2, 0]]
    assert design.largest(codes, 9).tolist() == codes.tolist()
    atoms = torch.eye(4)
    truth = torch.tensor([[2.0, 0, 4.0, 0]] * 2)
    data = SparseData(atoms, truth, truth, truth @ atoms, truth @ atoms)
    shrunk = Trained(truth / 2, atoms)
    as_it_is, refitted = design.errors_at_k(data, shrunk, 2)
    assert as_it_is == pytest.approx((1 + 4) / 4) and refitted == pytest.approx(0, abs=1e-9)
    assert design.errors_at_k(data, shrunk, 1)[1] == pytest.approx(4 / 4)


def test_a_gram_matrix_is_one_on_its_diagonal():
    assert design.gram(torch.tensor([[2.0, 0.0], [1.0, 1.0]])) == [[1.0, 0.707], [0.707, 1.0]]


def choice_rows() -> pd.DataFrame:
    """Two data seeds; small w has the least error as it is, large w after refitting, the middle the best MCC."""
    lines = [(0.01, 0.1, 0.3, 0.5, 0.52), (0.1, 0.2, 0.2, 0.8, 0.78), (1.0, 0.3, 0.1, 0.6, 0.61)]
    names = ("l1", "mse_at_k", "mse_at_k_refitted", "mcc_first_half", "mcc_second_half")
    common = SIZE | {"method": "sae", "mcc_chance": 0.4, "mcc_oracle": 1.0, design.LOOKED_AT: 0.2}
    return pd.DataFrame(
        [common | dict(zip(names, line, strict=True)) | {"data_seed": seed} for seed in (1, 2) for line in lines]
    )


def test_each_criterion_picks_its_own_weight():
    table = design.choices(choice_rows()).groupby("criterion", sort=False)[["l1", "mcc", "q", "lost_to_the_truth"]]
    means = table.mean()
    assert means.l1.tolist() == pytest.approx([0.01, 1.0, 0.1])
    assert means.mcc.tolist() == pytest.approx([0.52, 0.61, 0.78])
    assert means.q.tolist() == pytest.approx([0.2, 0.35, 0.38 / 0.6])
    assert means.lost_to_the_truth.tolist() == pytest.approx([0.26, 0.17, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "vae"}, "method must be one of sae, mlp, sparse coding, got 'vae'"),
        ({"hidden": 32}, "hidden must be at least 1 for the MLP and 0 elsewhere, got 32"),
        ({"method": "sparse coding"}, "test_steps must be at least 1 for sparse coding"),
        ({"method": "sparse coding", "test_steps": 5, "bias": True}, "sparse coding has no bias"),
        ({"l1": -1.0}, "l1 must be at least 0, got -1.0"),
        ({"width": 1}, "width must be at least 2, got 1"),
    ],
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DesignRun(**({"n_atoms": 16, "d_in": 8, "k": 3, "method": "sae", "width": 16} | change))


def test_a_row_does_not_depend_on_its_company():
    runs = design.sparsity_runs("smoke")
    together = dict(design.measure(runs))
    for run, measured in design.measure([runs[0], runs[-1]]):
        assert measured["mcc"] == pytest.approx(together[run]["mcc"], abs=1e-5)
        assert measured["mse"] == pytest.approx(together[run]["mse"], rel=1e-4)


def test_smoke_rows_say_what_they_promise(tables):
    rows = tables["design-sparsity"]
    for low, high in (("mcc_shuffled", "mcc_chance"), ("mcc_chance", "mcc_oracle")):
        assert (rows[low] < rows[high]).all()
    exact = rows[rows.method != "sparse coding"]
    assert (rows[rows.method == "sparse coding"].l0_above_0 == 1).all()  # exp is never 0
    assert (exact.l0_above_0 < 1).all()
    thresholds = rows[list(design.THRESHOLDS)].to_numpy()
    assert (np.diff(thresholds, axis=1) <= 0).all()
    topk = tables["design-topk"]
    assert (topk.l0_above_0 <= topk.top_k / topk.width + 1e-6).all()
    assert set(tables["design-gram"].gram.map(len)) == {8, 16, 32}
    kept = design.inference_topk(rows)
    assert kept.groupby(["method", "l1", "data_seed"]).size().eq(len(design.KEPT)).all()


@pytest.mark.parametrize("study", design.STUDIES, ids=lambda study: study.name)
def test_presets_have_runs_and_columns_of_their_own(study, tables):
    for preset in PRESETS:
        assert study.runs(preset) and sum(map(study.cost, study.runs(preset))) > 0
    run = study.runs("smoke")[0]
    measured = set(tables[study.name].columns) - vars(run).keys()
    assert not measured & provenance().keys() and "seconds" in measured


def test_without_scikit_learn_there_is_a_message(monkeypatch):
    monkeypatch.setattr(design, "find_spec", lambda name: None)
    assert design.scikit_runs("cpu") == []
    assert "not installed" in design.scikit_note(pd.DataFrame())
    real = builtins.__import__

    def absent(name, *arguments, **options):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ModuleNotFoundError, match="scikit-learn is not installed"):
        next(design.measure_scikit([design.ScikitRun(16, 8, 3)]))


@pytest.mark.parametrize("name", design.FIGURES)
def test_figures_draw_from_a_smoke_table(name, tables, tmp_path):
    study, function, arguments = design.FIGURES[name]
    figure = figures.named(function)(*arguments(tables[study.name]))
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_ylabel()
    assert all(axes.get_xlabel() or axes.get_xticklabels() for axes in figure.axes)
    assert all(axes.lines or axes.patches or axes.images or axes.collections for axes in figure.axes)
    plt.close("all")
