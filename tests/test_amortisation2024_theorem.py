"""The theorem's page: matrices whose rank is known, an encoder that is exact, and rules on tables of known answer."""

import math
from dataclasses import asdict, replace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch

from replication import figures
from replication.claims import NoEvidence
from replication.papers.amortisation2024 import theorem
from replication.papers.amortisation2024.theorem import GEOMETRY, PLATEAUS, Geometry, Taught
from replication.synthetic import SparseCodes


def table(study) -> pd.DataFrame:
    return pd.DataFrame([asdict(run) | measured for run, measured in study.measure(study.runs("smoke"))])


@pytest.fixture(scope="module")
def smoke() -> dict[str, pd.DataFrame]:
    return {study.name: table(study) for study in theorem.STUDIES}


def test_crosstalk_of_the_inverse_is_the_identity():
    atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    W = theorem.crosstalk(atoms, torch.linalg.inv(atoms), torch.ones(2))
    torch.testing.assert_close(W, torch.eye(2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_crosstalk_has_units_in_rows():
    """Unit 0 sees 1 of atom 0 and 0.6 of atom 1, and is scaled by 2."""
    atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    W = theorem.crosstalk(atoms, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(W.float(), torch.tensor([[2.0, 1.2], [0.0, 0.8]]))


def test_the_bound_is_that_of_a_projection():
    """The projection on M of N coordinates is as close to the identity as rank M allows."""
    assert theorem.least_departure(16, 8) == pytest.approx(2.8284, abs=1e-4)
    projection = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
    assert torch.linalg.norm(projection - torch.eye(5)).item() == pytest.approx(theorem.least_departure(5, 2))


def test_calibration_is_least_squares():
    latents = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    codes = torch.tensor([[3.0, 1.0], [6.0, 1.0]])
    torch.testing.assert_close(theorem.calibration(codes, latents), torch.tensor([3.0, 0.0]))


def test_codes_that_are_kept_are_those_that_are_drawn():
    data = SparseCodes(6, 4, 2, 8, 8, seed=3)
    for ours, drawn in zip(theorem.draw(data), data.draw(), strict=True):
        torch.testing.assert_close(ours, drawn, atol=0, rtol=0)


def test_the_pseudo_inverse_is_exact_where_there_are_as_many_inputs_as_atoms():
    run = Taught(6, 6, 2, "pseudo-inverse", train=64, test=64, oracle_samples=32, steps=2)
    [(_, measured)] = theorem.measure_taught([run])
    assert measured["mcc_start"] == pytest.approx(1, abs=1e-4)
    assert measured["oracle"] == pytest.approx(1, abs=1e-4)
    assert (measured["rank"], measured["least_departure"]) == (6, 0)


def test_one_input_cannot_tell_two_atoms_apart():
    """Three atoms in two inputs: rank 2, and training from the transpose stays well below the oracle."""
    run = Taught(3, 2, 2, train=256, test=256, oracle_samples=64, steps=200, lr=0.02)
    [(_, measured)] = theorem.measure_taught([run])
    assert measured["rank"] == 2
    assert measured["departure"] >= measured["least_departure"] == 1
    assert measured["mcc"] < 0.99
    assert measured["singular"][2] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("start", "zero", "start must be one of transpose, pseudo-inverse, got 'zero'"),
        ("d_in", 17, "d_in must be between 1 and n_atoms=16, got 17"),
        ("k", 17, "k must be at most"),
        ("steps", 1, "steps must be at least 2, got 1"),
        ("oracle_samples", 0, "oracle_samples must be between 1 and test"),
    ],
)
def test_a_run_refuses_nonsense(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(Taught(16, 8, 3), **{field: value})


def test_geometry_refuses_what_it_cannot_search():
    with pytest.raises(ValueError, match="constants by brute force"):
        Geometry(64, 8, 3, constants=True)
    with pytest.raises(ValueError, match="k must be between 1 and 8, got 9"):
        Geometry(16, 8, 9)


def test_the_default_problem_has_unique_codes_without_isometry():
    [(_, measured)] = theorem.measure_geometry([Geometry(16, 8, 3, test=64, constants=True, data_seed=20240926)])
    assert measured["spark"] == 9 > 2 * 3
    assert measured["delta_2"] < measured["delta_3"] < measured["delta_6"]
    assert measured["delta_6"] > 0.414
    assert measured["delta_2"] == pytest.approx(measured["coherence"])
    assert measured["coherence"] > measured["welch"] == pytest.approx(math.sqrt(8 / 120))
    assert measured["in_cone"] == 2


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu", "paper"])
@pytest.mark.parametrize("study", theorem.STUDIES, ids=lambda study: study.name)
def test_every_preset_lists_runs_with_a_cost(study, preset):
    runs = study.runs(preset)
    assert len({run.data_seed for run in runs}) >= (2 if preset == "smoke" else 5)
    assert all(0 < study.cost(run) < math.inf for run in runs)


def taught_rows(mcc=None, moved=0.0, rank=None, departure=3.0, oracle=1.0, fista=0.99, seeds=5) -> pd.DataFrame:
    """A table as PLATEAUS stores it, N = 4, from the MCC of each M."""
    mcc = {2: 0.8, 3: 0.9, 4: 0.9999} if mcc is None else mcc
    return pd.DataFrame(
        [
            {
                "n_atoms": 4,
                "d_in": d_in,
                "k": k,
                "start": "transpose",
                "data_seed": seed,
                "mcc": value(seed) if callable(value) else value,
                "mcc_half": (value(seed) if callable(value) else value) - moved,
                "mcc_train": 0.9,
                "oracle": oracle,
                "fista": fista,
                "chance": 0.4,
                "rank": float(d_in if rank is None else rank),
                "departure": departure,
                "least_departure": theorem.least_departure(4, d_in),
            }
            for d_in, value in mcc.items()
            for k in (1, 2, 3)
            for seed in range(seeds)
        ]
    )


class TestC1:
    def test_is_replicated(self):
        found = theorem.cannot_be_exact(taught_rows())
        assert found.verdict == "replicated"
        assert found.ours == pytest.approx((0.2 + 0.2 + 0.1) / 3)

    def test_is_partly_replicated_where_the_threshold_is_missed(self):
        assert theorem.cannot_be_exact(taught_rows({2: 0.8, 3: 0.997, 4: 0.9999})).verdict == "partly"
        assert theorem.cannot_be_exact(taught_rows({2: 0.8, 3: 0.9, 4: 0.99})).verdict == "partly"

    def test_is_not_replicated_where_fewer_inputs_do_as_well(self):
        assert theorem.cannot_be_exact(taught_rows({2: 0.8, 3: 0.9999, 4: 0.9998})).verdict == "not replicated"

    def test_asks_for_four_data_seeds_of_five(self):
        def good_in(count):
            return taught_rows({2: 0.8, 3: lambda seed: 0.9 if seed < count else 0.997, 4: 0.9999})

        assert theorem.cannot_be_exact(good_in(4)).verdict == "replicated"
        assert theorem.cannot_be_exact(good_in(3)).verdict == "partly"

    def test_is_void_before_convergence(self):
        found = theorem.cannot_be_exact(taught_rows(moved=0.01))
        assert found.verdict == "void" and "not converged" in found.summary

    def test_takes_the_start_that_fits_better_and_says_what_the_other_gives(self):
        slow = taught_rows({2: 0.8, 3: 0.9, 4: 0.99})
        fast = taught_rows({4: 0.9999}).assign(start="pseudo-inverse", mcc_train=0.99)
        found = theorem.cannot_be_exact(pd.concat([slow, fast], ignore_index=True))
        assert found.verdict == "replicated"
        assert "in 5 of 5 data seeds, from the transpose alone in 0" in found.summary

    def test_needs_its_cells(self):
        with pytest.raises(NoEvidence):
            theorem.cannot_be_exact(taught_rows({4: 0.9999}))
        with pytest.raises(NoEvidence):
            theorem.cannot_be_exact(taught_rows().query("k == 1"))


def test_c2_says_whether_the_problem_is_solvable():
    assert theorem.problem_is_solvable(taught_rows()).verdict == "replicated"
    assert theorem.problem_is_solvable(taught_rows(fista=0.9)).verdict == "not replicated"
    assert theorem.problem_is_solvable(taught_rows(oracle=0.99)).verdict == "not replicated"
    with pytest.raises(NoEvidence):
        theorem.problem_is_solvable(taught_rows().query("k == 1"))


def test_c3_says_whether_rank_and_bound_hold():
    found = theorem.rank_is_bounded(taught_rows())
    assert found.verdict == "replicated"
    assert found.ours == pytest.approx(3 / math.sqrt(2))
    assert theorem.rank_is_bounded(taught_rows(rank=4)).verdict == "not replicated"
    assert theorem.rank_is_bounded(taught_rows(departure=1.2)).verdict == "not replicated"
    with pytest.raises(NoEvidence):
        theorem.rank_is_bounded(taught_rows({4: 0.9}))


@pytest.mark.parametrize("name", theorem.FIGURES)
def test_figures_draw_from_what_is_measured(name, smoke, tmp_path):
    study, function, arguments = theorem.FIGURES[name]
    figure = figures.named(function)(*arguments(smoke[study.name]))
    figure.savefig(tmp_path / "figure.png")
    for axes in figure.axes:
        assert axes.get_xlabel() and (axes.lines or axes.patches)
    assert figure.axes[0].get_ylabel()


def test_rows_are_complete_and_finite(smoke):
    rows = smoke[PLATEAUS.name]
    numbers = rows.select_dtypes("number")
    assert np.isfinite(numbers.to_numpy()).all()
    assert (rows["rank"] == rows.d_in).all()
    assert (rows.departure >= rows.least_departure).all()
    assert len(smoke[GEOMETRY.name]) == len(GEOMETRY.runs("smoke"))
