"""Costs by hand and by torch's counter, codes whose quality is known, figures from a smoke table."""

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from replication import figures
from replication.inference import flops
from replication.papers.amortisation2024 import compute
from replication.papers.amortisation2024.compute import CodesRun, TimedRun
from replication.results import PRESETS, provenance


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """The smoke rows of both studies, measured here."""
    return {
        study.name: pd.DataFrame([vars(run) | measured for run, measured in study.measure(study.runs("smoke"))])
        for study in compute.STUDIES
    }


def test_cost_of_pursuit_and_of_the_oracle_by_hand():
    one = compute.omp_inference(d_in=2, n=3, k=1)
    assert (one.matmul, one.other) == (2 * 2 * 3 + 4 * 2 + 2 * 2, 3 + 1)
    pair = compute.oracle_inference(d_in=2, n=3, k=2)  # 3 supports of one atom, 3 of two
    assert pair.matmul == 4 * 2 * 1 * 3 + 4 * 2 * 2 * 3
    assert pair.other == (3 * 2 + 1) * 3 + (3 * 2 + 2) * 3


def test_codes_are_priced_without_the_decoder():
    assert compute.code_cost("sae", 8, 16, 3, 0).of(1) == 2 * 8 * 16 + 16
    assert compute.code_cost("sae", 8, 16, 3, 0).of(1) + 2 * 8 * 16 == flops.sae_inference(8, 16).of(1)
    assert compute.code_cost("mlp", 8, 16, 3, 32).of(1) == 2 * 8 * 32 + 32 + 2 * 32 * 16 + 16
    assert compute.code_cost("shuffled codes", 8, 16, 3, 0) is None
    dear = [compute.code_cost(m, 8, 16, 3, e).of(1) for m, e in (("omp", 3), ("oracle", 0), ("optimisation", 10_000))]
    assert dear == sorted(dear)


def test_ratios_of_the_released_formulas():
    values = list(compute.ratios().values())
    assert values == pytest.approx([13_334, 115.8, 59.23, 29.39, 0.496, 0.651], rel=1e-3)


def test_formulas_agree_with_the_counter(tables):
    times = tables["compute-times"]
    for kind in ("step", "sample"):
        rows = times.dropna(subset=f"{kind}_counted")
        assert len(rows) == {"step": 3, "sample": 5}[kind]
        pd.testing.assert_series_equal(rows[f"{kind}_counted"], rows[f"{kind}_products"], check_names=False)
    step = compute.sparse_coding_slip(times).set_index("method")
    assert step.released_over_corrected["sparse coding"] > 5  # 64 samples; 59 at 1,024
    assert 1 < step.corrected_over_counted["sparse coding"] < 1.2


def test_times_are_positive_and_ratios_theirs(tables):
    times = tables["compute-times"]
    for name in ("ms_step", "us_sample"):
        rows = times.dropna(subset=name)
        assert (rows[name] > 0).all()
        assert (rows[name] / rows[f"{name}_sae"]).to_numpy() == pytest.approx(rows[f"{name}_ratio"].to_numpy())
    assert times[times.method == "sparse coding"].us_sample.isna().all()


def test_codes_are_ordered_as_they_must_be(tables):
    rows = compute.with_quality(tables["compute-codes"])
    mcc = rows.groupby(["method", "effort"]).mcc.mean()
    assert mcc["oracle", 0] == pytest.approx(1, abs=1e-3)
    assert mcc["omp", 1] < mcc["omp", 2] < mcc["omp", 3] < 1
    assert mcc["fista", 5] < mcc["fista", 50]
    assert mcc["shuffled codes", 0] < mcc["random dictionary", 50] < mcc["fista", 50]
    quality = rows.groupby("method").q.mean()
    assert quality["oracle"] == pytest.approx(1) and quality["random dictionary"] == pytest.approx(0, abs=1e-6)
    assert (rows.mcc_best >= rows.mcc).all()
    assert rows[rows.method == "omp"].active.max() <= 3 / 16 + 1e-6


def test_a_row_does_not_depend_on_its_company():
    runs = [run for run in compute.codes_runs("smoke") if run.method in ("sae", "optimisation", "fista")]
    together = dict(compute.measure_codes(runs))
    alone = dict(compute.measure_codes(runs[:1] + runs[-1:]))
    for run, measured in alone.items():
        assert measured["mcc"] == pytest.approx(together[run]["mcc"], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "svm"}, "method must be one of sae.*got 'svm'"),
        ({"method": "fista"}, "effort must be at least 1 for fista, got 0"),
        ({"method": "sae"}, "steps must be at least 1 for sae, got 0"),
        ({"method": "oracle", "samples": 1}, "samples must be at least 2, got 1"),
    ],
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CodesRun(**({"n_atoms": 16, "d_in": 8, "k": 3} | change))


def test_nonsense_is_refused_before_it_is_timed():
    with pytest.raises(ValueError, match="effort must be at least 1 for lista, got 0"):
        TimedRun(16, 8, 3, "lista")


@pytest.mark.parametrize("study", compute.STUDIES, ids=lambda study: study.name)
def test_presets_have_runs_and_columns_of_their_own(study, tables):
    for preset in PRESETS:
        assert study.runs(preset) and sum(map(study.cost, study.runs(preset))) > 0
    run, measured = next(iter(study.measure(study.runs("smoke")[:1])))
    assert not measured.keys() & (vars(run).keys() | provenance().keys()) and "seconds" in measured


@pytest.mark.parametrize("name", compute.FIGURES)
def test_figures_draw_from_a_smoke_table(name, tables, tmp_path):
    study, function, arguments = compute.FIGURES[name]
    figure = figures.named(function)(*arguments(tables[study.name]))
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_ylabel()
    assert all(axes.get_xlabel() and (axes.lines or axes.patches) for axes in figure.axes)
    plt.close("all")
