"""The page on N, M and K: controls, the published table, and rules on tables of known answer."""

import math
from dataclasses import asdict, replace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from replication import figures
from replication.claims import NoEvidence
from replication.papers.amortisation2024 import grid_of_sizes as grid
from replication.papers.amortisation2024.grid_of_sizes import GRID, Cell

CELL = Cell(16, 8, 3, "sae", steps=10, lr=1e-2)


@pytest.fixture(scope="module")
def smoke() -> pd.DataFrame:
    return pd.DataFrame([asdict(run) | measured for run, measured in GRID.measure(GRID.runs("smoke"))])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "vae", "method must be one of sae, mlp, sc, none, got 'vae'"),
        ("steps", 1, "steps at least 2, got 1"),
        ("lr", 0.0, "lr must be positive and finite, got 0.0"),
        ("l1", math.nan, "l1 must be positive and finite, got nan"),
        ("k", 17, "k must be at most n_atoms=16, got 17"),
    ],
)
def test_a_run_refuses_nonsense(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(CELL, **{field: value})


def test_the_paper_preset_is_the_papers_grid():
    runs = GRID.runs("paper")
    trained = [run for run in runs if run.method != "none"]
    cells = {(run.n_atoms, run.d_in, run.k) for run in runs}
    assert len(cells) == 36 and set(grid.PUBLISHED) == {cell for cell in cells if cell[2] < 15}
    assert len(trained) == 36 * 3 * 3
    assert {run.steps for run in trained} == {50_000}
    assert {(run.method, run.lr) for run in trained} == {("sae", 1e-3), ("mlp", 1e-3), ("sc", 3e-3)}


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu", "paper"])
def test_every_preset_lists_runs_with_a_cost(preset):
    assert all(0 < GRID.cost(run) < math.inf for run in GRID.runs(preset))


def test_a_run_does_not_depend_on_its_company(smoke):
    run = GRID.runs("smoke")[0]
    [(_, alone)] = GRID.measure([run])
    together = smoke[(smoke[list(asdict(run))] == pd.Series(asdict(run))).all(axis=1)]
    assert together.latent_mcc.item() == pytest.approx(alone["latent_mcc"], abs=1e-4)


def test_controls_bracket_the_methods(smoke):
    found = grid.scored(smoke)
    assert len(found) == 3 * len(smoke[smoke.method == "none"])
    assert (found.oracle > found.chance).all()
    q = (found.latent_mcc - found.chance) / (found.oracle - found.chance)
    np.testing.assert_allclose(found.q, q)
    assert np.isfinite(
        found[["latent_mcc", "latent_half", "latent_fista", "dict_pearson", "mse", "active"]].to_numpy()
    ).all()


def test_the_line_of_the_published_plots():
    cells = pd.DataFrame({"n_atoms": [16, 16, 64], "d_in": [10, 11, 18], "k": 3})
    assert grid.above_the_line(cells).tolist() == [False, True, False]
    lines = grid.boundaries(pd.DataFrame({"n_atoms": [16, 64]}), 3)
    drawn = lines[lines.boundary == "2 K ln(N/K)"]
    np.testing.assert_allclose(drawn.d_in, 6 * np.log(drawn.n_atoms / 3))


def test_published_differences_are_those_of_the_stored_table(smoke):
    table = grid.differences(smoke.assign(k=3), 3).set_index(["origin", "n_atoms", "d_in", "method"]).difference
    assert table["published", 64, 32, "sc"] == pytest.approx(0.371)
    assert table["published", 16, 16, "mlp"] == pytest.approx(-0.088)
    ours = smoke[(smoke.n_atoms == 8) & (smoke.d_in == 4)].groupby("method").latent_mcc.mean()
    assert table["ours", 8, 4, "sc"] == pytest.approx(ours.sc - ours.sae)


def test_the_summary_sets_ours_beside_published_and_controls():
    line = grid.summary(grid_rows()).set_index(["n_atoms", "d_in"]).loc[(64, 32)]
    assert (line["sc, published"], line["sae, published"]) == (0.918, 0.547)
    assert (line["oracle"], line["chance"], line["sae, q"]) == (0.99, 0.3, pytest.approx(0.2 / 0.69))


def grid_rows(sae=None, sc=None, oracle=None, seeds=3) -> pd.DataFrame:
    """A table as GRID stores it, K = 3. Arguments: functions of (N, M, data seed)."""
    sae = sae or (lambda n, m, seed: 0.95 if m >= n else 0.3 if m == 8 else 0.5)
    sc = sc or (lambda n, m, seed: 0.97 if m >= n else 0.4 if m == 8 else 0.9)
    oracle = oracle or (lambda n, m, seed: 0.9 if m == 8 and n >= 32 else 0.99)
    rows = []
    for n in (16, 32, 64):
        for m in (8, 16, 32):
            for seed in range(seeds):
                cell = {"n_atoms": n, "d_in": m, "k": 3, "data_seed": seed, "seed": seed}
                scores = {"sae": sae(n, m, seed), "mlp": 0.4, "sc": sc(n, m, seed)}
                rows += [cell | {"method": one, "latent_mcc": v, "latent_half": v, "dict_cosine": 0.7}
                         for one, v in scores.items()]  # fmt: skip
                control = {"oracle": oracle(n, m, seed), "chance": 0.3, "shuffled": 0.06}
                control |= {"dict_pearson_chance": 0.6, "dict_cosine_chance": 0.6}
                rows.append(cell | {"method": "none"} | control)
    return pd.DataFrame(rows)


class TestC12:
    def test_is_replicated(self):
        found = grid.gap_follows_the_line(grid_rows())
        assert found.verdict == "replicated"
        assert found.ours == pytest.approx(0.4)

    def test_is_partly_replicated_where_square_cells_differ(self):
        rows = grid_rows(sae=lambda n, m, seed: 0.8 if m >= n else 0.5)
        assert grid.gap_follows_the_line(rows).verdict == "partly"

    def test_is_partly_replicated_where_one_lead_is_small(self):
        rows = grid_rows(sc=lambda n, m, seed: 0.97 if m >= n else 0.6)
        assert grid.gap_follows_the_line(rows).verdict == "partly"

    def test_is_not_replicated_where_the_sae_leads(self):
        rows = grid_rows(sc=lambda n, m, seed: 0.97 if m >= n else 0.4)
        assert grid.gap_follows_the_line(rows).verdict == "not replicated"

    def test_needs_its_cells(self):
        with pytest.raises(NoEvidence, match="M >= N"):
            grid.gap_follows_the_line(grid_rows().query("d_in < n_atoms"))
        with pytest.raises(NoEvidence, match="no SAE and sparse coding"):
            grid.gap_follows_the_line(grid_rows().query("method != 'sc'"))


class TestC13:
    def test_is_replicated(self):
        found = grid.oracle_follows_the_line(grid_rows())
        assert found.verdict == "replicated"
        assert "(16, 8, 3)" in found.summary and "(64, 16, 3)" in found.summary

    def test_is_partly_replicated_where_few_inputs_suffice(self):
        rows = grid_rows(oracle=lambda n, m, seed: 0.96 if m == 8 else 0.99)
        assert grid.oracle_follows_the_line(rows).verdict == "partly"

    def test_is_not_replicated_where_the_line_separates_nothing(self):
        rows = grid_rows(oracle=lambda n, m, seed: 0.99 if m == 8 else 0.9)
        assert grid.oracle_follows_the_line(rows).verdict == "not replicated"

    def test_needs_its_cells(self):
        with pytest.raises(NoEvidence):
            grid.oracle_follows_the_line(grid_rows().query("n_atoms == 16"))


class TestC21:
    def test_is_replicated_at_chance(self):
        found = grid.chance_explains_the_rest(grid_rows())
        assert (found.verdict, found.ours) == ("replicated", pytest.approx(0))

    def test_is_not_replicated_well_above_chance(self):
        rows = grid_rows(sae=lambda n, m, seed: 0.6)
        assert grid.chance_explains_the_rest(rows).verdict == "not replicated"

    def test_needs_controls_and_cells(self):
        with pytest.raises(NoEvidence, match="no oracle and chance"):
            grid.chance_explains_the_rest(grid_rows().query("method != 'none' or data_seed > 0"))
        with pytest.raises(NoEvidence, match="no SAE at"):
            grid.chance_explains_the_rest(grid_rows().query("n_atoms < 64"))


@pytest.mark.parametrize("name", grid.FIGURES)
def test_figures_draw_from_what_is_measured(name, smoke, tmp_path):
    _, function, arguments = grid.FIGURES[name]
    figure = figures.named(function)(*arguments(smoke))
    figure.savefig(tmp_path / "figure.png")
    for axes in figure.axes:
        assert axes.get_xlabel() and (axes.lines or axes.patches)
    assert figure.axes[0].get_ylabel()
