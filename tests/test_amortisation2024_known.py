"""Known codes and known dictionary: rules on tables whose answer is known, costs by hand, and every study once."""

import math

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from replication import figures
from replication.claims import NoEvidence
from replication.papers.amortisation2024 import known
from replication.papers.amortisation2024.known import DATA_SEED, Known

BLANK = {"oracle": 1.0, "oracle_fista": 0.99, "chance_random": 0.4, "chance_shuffled": 0.06}


def table(knows: str, values: dict, half=None, seeds: int = 5) -> pd.DataFrame:
    """One start per data seed. `values`: (method, hidden, steps) -> last MCC, or a curve, step -> MCC."""
    rows = []
    for data_seed in range(DATA_SEED, DATA_SEED + seeds):
        for (method, hidden, steps), value in values.items():
            curve = value if isinstance(value, dict) else {1: value, steps: value}
            run = vars(Known(knows, method, hidden=hidden, steps=steps, data_seed=data_seed))
            last = curve[max(curve)] + 1e-4 * (data_seed - DATA_SEED)
            found = {"mcc": last, "best": last, "half": last if half is None else half}
            rows.append(run | found | {"curve_step": sorted(curve), "curve_mcc": [curve[s] for s in sorted(curve)]})
        rows.append(vars(Known(knows, "none", data_seed=data_seed)) | BLANK)
    return pd.DataFrame(rows)


def codes(sae=0.87, narrow=0.9, wide=0.95, **more) -> pd.DataFrame:
    return table("codes", {("sae", 0, 9): sae, ("mlp", 32, 9): narrow, ("mlp", 1024, 9): wide}, **more)


def dictionary(sae=0.6, narrow=0.7, wide=0.8, ito=0.95) -> pd.DataFrame:
    values = {("sae", 0, 20_000): sae, ("mlp", 32, 9): narrow, ("mlp", 256, 9): wide, ("ito", 0, 20_000): ito}
    return table("dictionary", values)


SAE = {10: 0.6, 700: 0.68, 2900: 0.69, 20_000: 0.6}
ITO = {10: 0.3, 1400: 0.64, 5600: 0.77, 7400: 0.92, 20_000: 0.96}


def test_a_run_refuses_nonsense():
    for wrong in (
        {"knows": "x"},
        {"method": "svd"},
        {"hidden": 3},
        {"steps": 0},
        {"lr": -1.0},
        {"knows": "codes", "method": "ito"},
        {"seed": 1},
    ):
        with pytest.raises(ValueError, match="must be"):
            Known(**{"knows": "dictionary", "method": "sae", "steps": 5} | wrong)


def test_c4_needs_both_leads():
    assert known.mlps_lead(codes()).verdict == "replicated"
    assert known.mlps_lead(codes(narrow=0.875)).verdict == "partly"
    assert known.mlps_lead(codes(narrow=0.8, wide=0.8)).verdict == "not replicated"
    with pytest.raises(NoEvidence, match="SAE"):
        known.mlps_lead(codes().query("method != 'sae'"))


def test_c5_is_an_interval_and_void_while_it_moves():
    assert known.taught_sae_plateau(codes(0.875)).verdict == "replicated"
    assert known.taught_sae_plateau(codes(0.95)).verdict == "not replicated"
    assert known.taught_sae_plateau(codes(0.875, half=0.8)).verdict == "void"


def test_c6_is_an_order_with_a_lead():
    assert known.optimisation_leads(dictionary()).verdict == "replicated"
    assert known.optimisation_leads(dictionary(ito=0.83)).verdict == "partly"
    assert known.optimisation_leads(dictionary(0.9, 0.8, 0.7, 0.6)).verdict == "not replicated"


def test_c7_counts_operations_until_the_level():
    assert known.optimisation_is_cheaper(dictionary(SAE, ito=ITO)).verdict == "replicated"
    assert known.optimisation_is_cheaper(dictionary(SAE, ito={10: 0.3, 20_000: 0.8})).verdict == "not replicated"
    short = dictionary({10: 0.6, 50: 0.7}, ito=ITO)
    assert known.optimisation_is_cheaper(short).verdict == "void"
    curve = pd.DataFrame({"released": [1.0, 3.0], "mcc": [0.5, 0.9]})
    assert known.reach(curve, 0.7) == pytest.approx(2) and math.isnan(known.reach(curve, 0.95))


def test_c8_compares_at_two_budgets():
    assert known.encoders_win_early(dictionary(SAE, ito=ITO)).verdict == "replicated"
    assert known.encoders_win_early(dictionary(SAE, ito=dict(ITO) | {1400: 0.75})).verdict == "partly"
    slow = {10: 0.9, 20_000: 0.9}
    assert known.encoders_win_early(dictionary(slow, ito={10: 0.95, 1400: 0.95, 5600: 0.5, 20_000: 0.5})).verdict
    low = dictionary({10: 0.6, 20_000: 0.6}, ito={10: 0.7, 1400: 0.7, 5600: 0.5, 20_000: 0.5})
    assert known.encoders_win_early(low).verdict == "not replicated"


def test_operations_are_the_published_ones():
    rows = known.curves(dictionary(SAE, ito=ITO))
    sae = rows[(rows.label == "SAE") & (rows.step == 20_000)].released.iloc[0]
    assert sae == 20_000 * 1360 * 1024 + 1024 * (4 * 16 * 8 + 16)  # 2.8e10
    ito = rows[(rows.label == "per-sample Adam") & (rows.step == 20_000)].iloc[0]
    assert ito.released == 1024 * (16 * 8 + 16 + 20_000 * 704) and ito.training == 0  # 1.4e10
    taught = known.curves(codes())
    assert (taught.training < taught.released).all()
    [fista] = {known.inference_flops(known.Known("dictionary", "fista"), 100)}
    assert fista == 100 * (4 * 128 + 6 * 16)


def test_curves_are_logged_at_the_half_and_the_end():
    assert known.logged(20_000)[-1] == 20_000 and 10_000 in known.logged(20_000) and known.logged(1) == [1]


@pytest.fixture(scope="module")
def smoke() -> dict:
    return {
        study.name: pd.DataFrame([vars(run) | found for run, found in study.measure(study.runs("smoke"))])
        for study in (known.CODES_KNOWN, known.DICTIONARY_KNOWN)
    }


def test_oracles_stand_above_chance(smoke):
    for rows in smoke.values():
        blank = rows[rows.method == "none"]
        assert (blank.oracle > 0.999).all() and (blank.oracle_fista > blank.chance_random + 0.2).all()
        assert set(blank.data_seed) == set(rows.data_seed)
        assert known.final_table(rows).method.is_unique and (rows.seconds > 0).all()


def test_fista_comes_close_to_the_oracle(smoke):
    rows = known.curves(smoke["dictionary-known"]).query("label == 'FISTA'")
    means = rows.groupby("step").mcc.mean()
    assert means[500] > 0.95 and means[500] > means[2]


def test_a_run_does_not_depend_on_its_company(smoke):
    run = next(one for one in known.dictionary_runs("smoke") if one.method == "sae" and one.seed > DATA_SEED)
    [(_, alone)] = known.measure([run])
    rows = smoke["dictionary-known"].query("method == 'sae' and data_seed == @run.data_seed and seed == @run.seed")
    np.testing.assert_allclose(alone["curve_mcc"], rows.curve_mcc.iloc[0], atol=1e-5)


@pytest.mark.parametrize("name", known.FIGURES)
def test_figures_draw(name, smoke, tmp_path):
    study, function, arguments = known.FIGURES[name]
    figure = figures.named(function)(*arguments(smoke[study.name]))
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_ylabel() and all(axes.get_xlabel() and axes.lines for axes in figure.axes)


@pytest.mark.parametrize("preset", ["cpu", "gpu", "paper"])
def test_the_authors_data_are_among_ours(preset):
    for runs in (known.codes_runs(preset), known.dictionary_runs(preset)):
        assert DATA_SEED in {run.data_seed for run in runs} and len(set(runs)) == len(runs)
        assert all(known.seconds(run) > 0 for run in runs)
