"""Inference or dictionary: the parts of the gap by hand, the rule on tables whose answer is known, the matrix once."""

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import pytest

from replication import figures
from replication.claims import NoEvidence
from replication.papers.amortisation2024 import dictionary
from replication.papers.amortisation2024.dictionary import SIZES, Matrix
from replication.results import PRESETS


def table(encoder=0.56, iterated=0.60, sizes=SIZES, seeds=5) -> pd.DataFrame:
    """The SAE's codes and FISTA on its dictionary; oracle .96, chance .40.

    Stored rows have a column `own` too: whether they are of this machine.
    """
    scores = {
        "sae": {"mcc_encoder": encoder, "mcc_fista": iterated, "mcc_omp": iterated + 0.04},
        "true": {"mcc_fista": 0.96, "mcc_fitted": 0.66},
        "random": {"mcc_fista": 0.4},
    }
    return pd.DataFrame(
        [
            {"n_atoms": n, "d_in": m, "k": k, "dictionary": name, "data_seed": seed, "seed": 0, "own": True} | columns
            for n, m, k in sizes
            for seed in range(seeds)
            for name, columns in scores.items()
        ]
    )


def test_runs_refuse_nonsense():
    for wrong in (
        {"dictionary": "svd"},
        {"hidden": 3},
        {"steps": 0},
        {"lr": 0.0},
        {"lista_steps": -1},
        {"fitted_steps": 0},
        {"k": 17},
    ):
        with pytest.raises(ValueError, match="must be"):
            Matrix(**{"dictionary": "sae", "n_atoms": 16, "d_in": 8, "k": 3, "steps": 5} | wrong)


def test_the_gap_splits_into_inference_and_dictionary():
    """Of .96 - .56 = .40, FISTA closes .04, OMP .08, and a ReLU encoder with the true dictionary .10.

    q of the SAE is (.56 - .4) / (.96 - .4).
    """
    rows = table()
    gaps = dictionary.matrix_gaps(rows)
    assert len(gaps) == 10 and gaps.gap.tolist() == pytest.approx([0.4] * 10)
    assert gaps.inference.tolist() == pytest.approx([0.04] * 10) and gaps.share.tolist() == pytest.approx([0.9] * 10)
    assert gaps.best_share.tolist() == pytest.approx([0.8] * 10)
    assert gaps.first_share.tolist() == pytest.approx([0.25] * 10)
    assert dictionary.cells(rows).query("inference == 'encoder'").q.tolist() == pytest.approx([2 / 7] * 10)


def test_the_best_inference_may_be_the_encoder_itself():
    assert dictionary.matrix_gaps(table(iterated=0.5)).best_share.tolist() == pytest.approx([1] * 10)


def test_a_taught_encoder_shows_the_gap_of_the_theorem():
    """Of .96 - .56 = .40 an encoder at .86 leaves .10."""
    keys = ["n_atoms", "d_in", "k", "data_seed"]
    taught = table()[keys].drop_duplicates().assign(mcc_taught=0.86)
    found = dictionary.with_taught(dictionary.matrix_gaps(table()), taught)
    assert found.taught_share.tolist() == pytest.approx([0.75] * 10)


def test_every_data_set_of_the_sae_has_a_taught_encoder():
    found = [columns["mcc_taught"] for _, columns in dictionary.measure_taught(dictionary.taught_runs("smoke"))]
    assert len(found) == 4 and all(0 < one < 1 for one in found)
    with pytest.raises(ValueError, match="steps must be"):
        dictionary.Taught(16, 8, 3, 0, 1e-3)


class TestC20:
    def test_needs_the_share_at_both_sizes(self):
        evidence = dictionary.dictionary_is_the_bottleneck(table())
        assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.9)
        assert "80% if the best inference" in evidence.summary and "25% if the dictionary" in evidence.summary

    def test_is_partly_where_one_size_fails_or_both_are_above_one_half(self):
        mixed = pd.concat([table(sizes=SIZES[:1]), table(iterated=0.9, sizes=SIZES[1:])])
        evidence = dictionary.dictionary_is_the_bottleneck(mixed)
        assert evidence.verdict == "partly" and evidence.ours == pytest.approx(0.15)
        assert dictionary.dictionary_is_the_bottleneck(table(iterated=0.72)).verdict == "partly"

    def test_needs_four_data_seeds_of_five(self):
        for lost, verdict in ((1, "replicated"), (2, "partly")):
            rows = table()
            rows.loc[(rows.dictionary == "sae") & (rows.data_seed < lost), "mcc_fista"] = 0.72
            assert dictionary.dictionary_is_the_bottleneck(rows).verdict == verdict

    def test_can_fail_and_be_void(self):
        assert dictionary.dictionary_is_the_bottleneck(table(iterated=0.9)).verdict == "not replicated"
        assert dictionary.dictionary_is_the_bottleneck(table(encoder=0.97)).verdict == "void"

    def test_one_size_is_no_evidence(self):
        with pytest.raises(NoEvidence, match="every size"):
            dictionary.dictionary_is_the_bottleneck(table(sizes=SIZES[:1]))
        with pytest.raises(NoEvidence, match="2 data seeds"):
            dictionary.dictionary_is_the_bottleneck(table(seeds=1))
        uneven = pd.concat([table(sizes=SIZES[:1]), table(sizes=SIZES[1:], seeds=4)])
        with pytest.raises(NoEvidence, match="every data seed"):
            dictionary.dictionary_is_the_bottleneck(uneven)

    @pytest.mark.parametrize("preset", ["cpu", "gpu"])
    def test_is_judged_at_both_sizes_on_five_data_seeds(self, preset):
        saes = [run for run in dictionary.MATRIX.runs(preset) if run.dictionary == "sae"]
        assert {(run.n_atoms, run.d_in, run.k) for run in saes} == {(16, 8, 3), (64, 16, 3)}
        assert all(len({run.data_seed for run in saes if run.n_atoms == n}) == 5 for n in (16, 64))


@pytest.fixture(scope="module")
def matrix() -> pd.DataFrame:
    study = dictionary.MATRIX
    return pd.DataFrame([vars(run) | found for run, found in study.measure(study.runs("smoke"))])


def test_the_matrix_is_full(matrix):
    found = dictionary.matrix_table(matrix)
    assert set(found.dictionary) == set(dictionary.NAMES.values())
    at_16 = found[found.n_atoms == 16]
    assert set(at_16.inference) == set(dictionary.INFERENCE_NAMES.values())
    exact = at_16[(at_16.dictionary == "true") & (at_16.inference == "l0 oracle")].mcc
    assert exact.item() > 0.999
    assert set(at_16[at_16.inference == "own encoder"].dictionary) == {"SAE", "TopK", "MLP"}
    assert len(at_16[at_16.inference == "ReLU encoder"]) == 7


def test_chance_and_oracle_stand_beside_every_dictionary(matrix):
    found = dictionary.controlled(matrix)
    assert found[["chance", "oracle", "cosine_chance", "pearson_chance", "q"]].notna().all(axis=None)
    assert found[found.dictionary == "true"].q.tolist() == pytest.approx([1] * 4)


@pytest.mark.parametrize("name", dictionary.FIGURES)
def test_figures_draw(name, matrix, tmp_path):
    _, function, arguments = dictionary.FIGURES[name]
    figure = figures.named(function)(*arguments(matrix))
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_ylabel() and figure.axes[0].get_xlabel()


@pytest.mark.parametrize("preset", PRESETS)
def test_grids_have_no_run_twice(preset):
    for study in dictionary.STUDIES:
        grid = study.grid(preset)
        assert len(set(grid)) == len(grid) and all(0 < study.cost(run) < 1e6 for run in grid)
