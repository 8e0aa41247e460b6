"""Compositions: gradients against autograd, scores by hand, the choice of penalties, and both studies once."""

import math

import matplotlib

matplotlib.use("Agg")

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn.functional import normalize

from replication import figures
from replication.inference import matching_pursuit
from replication.papers.amortisation2024 import compositions
from replication.papers.amortisation2024.compositions import (
    BATCH,
    TUNED_RELU,
    TUNING_SEED,
    UNTUNED,
    UNTUNED_RELU,
    Composition,
    Tied,
)
from replication.results import PRESETS
from replication.sae.jumprelu import jumprelu, step

SHAPE = {"n_atoms": 12, "k": 3, "train": 64, "samples": 64, "lr": 5e-3}


def test_runs_refuse_nonsense():
    for wrong in (
        {"method": "svd"},
        {"lam": 0.0},
        {"inner": 2},
        {"start": "relu"},
        {"start": "mp"},
        {"train": 10},
        {"steps": 0},
        {"start_steps": 3},
        {"lr": 0.0},
        {"k": 40},
    ):
        with pytest.raises(ValueError, match="must be"):
            Composition(**{"method": "relu", "n_atoms": 50, "steps": 5, "lam": 0.1} | wrong)
    assert Composition("none", 100).d_in == 47  # ceil(2 * 10 * ln 10)


def test_atoms_that_never_occur_do_not_count():
    codes = torch.rand(1, 50, 4)
    codes[..., 2:] = 0
    assert compositions.varying_mcc(codes, codes.flip(-1)).item() == pytest.approx(1)


def test_auc_counts_pairs_and_ties_half():
    """Positives .9 and .4, negatives .4, .1: three pairs right, one tie, of four."""
    score, labels = torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([True, True, False, False])
    assert compositions.auc(score, labels) == pytest.approx(3.5 / 4)
    assert compositions.auc(-score, labels) == pytest.approx(0.5 / 4)


def test_a_latent_is_read_with_the_sign_that_it_has_on_known_compositions():
    codes = torch.rand(1, 40, 3, generator=torch.Generator().manual_seed(0))
    latents = torch.stack([torch.rand(1, 40), -codes[..., 0]], -1)
    assert compositions._told(codes, latents, codes, latents) == [1.0]


def test_the_probe_is_logistic_regression():
    """Gradient of the penalised loss is 0, and a linear rule is found."""
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double()
    labels = (x[:, 0] - 0.5 * x[:, 1] + 0.3 * x[:, 2].square()) > 0.2
    w = compositions.logistic(x, labels, ridge=1.0)
    inputs = torch.cat([x, torch.ones(300, 1)], 1)
    slope = inputs.T @ (torch.sigmoid(inputs @ w) - labels.double()) + w
    assert slope.abs().max() < 1e-6 and compositions.auc(x @ w[:-1], labels) > 0.95


@pytest.fixture
def sae() -> tuple[torch.Tensor, Tied]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, BATCH, 6, generator=g)
    D = normalize(torch.randn(2, 12, 6, generator=g), dim=-1)
    return x, Tied(D.mT.clone(), 0.05 * torch.randn(2, 1, 12, generator=g), D)


def leaves(model: Tied) -> dict[str, torch.Tensor]:
    found = {"W": model.W_enc, "b": model.b_enc, "D": model.dictionary}
    found |= {} if model.theta is None else {"theta": model.theta}
    return {name: one.clone().requires_grad_() for name, one in found.items()}


@pytest.mark.parametrize("method", ["relu", "topk", "jumprelu"])
def test_gradients_are_those_of_autograd(sae, method):
    """lam .3 for the first model and .05 for the second; |x - z D|^2 / 2 + lam S(z), mean over the batch."""
    x, model = sae
    lams = torch.tensor([0.3, 0.05]).view(2, 1, 1) * (method != "topk")
    theta = torch.full((2, 1, 12), 0.3) if method == "jumprelu" else None
    model = replace(model, theta=theta, k=3 if method == "topk" else None)
    slopes = {name: torch.zeros_like(one) for name, one in leaves(model).items()}
    compositions.tied_gradient(x, model, lams / BATCH, slopes)
    p = leaves(model)
    for i in range(2):
        pre = x[i] @ p["W"][i] + p["b"][i]
        if method == "jumprelu":
            z = jumprelu(pre, p["theta"][i, 0], compositions.BANDWIDTH)
            size = step(pre, p["theta"][i, 0], compositions.BANDWIDTH).sum()
        else:
            z = model.sparsify(pre[None])[0] if method == "topk" else pre.relu()
            size = z.sum()
        ((x[i] - z @ p["D"][i]).square().sum() / 2 + lams[i].sum() * size).div(BATCH).backward()
    for name, one in p.items():
        assert torch.allclose(one.grad, slopes[name], atol=1e-5), name


def test_gradient_of_a_pursuit_is_that_of_autograd(sae):
    x, model = sae
    D = model.dictionary.clone().requires_grad_()
    left = x
    for _ in range(3):
        c, index = (left @ D.mT).max(-1, keepdim=True)
        d = D.gather(1, index.expand(-1, -1, 6))
        left = left - c.clamp(min=0) * d
    (left.square().sum() / 2 / BATCH).backward()
    slope = torch.zeros_like(D)
    compositions.pursuit_gradient(x, model.dictionary, 3, slope)
    assert torch.allclose(D.grad, slope, atol=1e-6)
    pursued = torch.stack([matching_pursuit(*one, 3) for one in zip(x, model.dictionary, strict=True)])
    assert torch.allclose(x - pursued @ model.dictionary, left, atol=1e-5)


@pytest.mark.parametrize("method", compositions.SAES)
def test_an_sae_is_the_same_in_company_and_has_unit_rows(method):
    data = replace(Composition("topk", 12, 3, train=128, samples=128, steps=1).data()).draw()
    x = data.train_x[None]
    start = compositions.unit_start(*data.atoms.shape, 0)[None]
    alone, _ = compositions.train(method, x, start, 5, 1e-2, [0.1], 3)
    both = x.repeat(2, 1, 1), start.repeat(2, 1, 1)
    company, curve = compositions.train(method, *both, 5, 1e-2, [0.5, 0.1], 3, [0, 5], lambda D: D.sum((1, 2)))
    assert torch.allclose(alone.dictionary[0], company.dictionary[1], atol=1e-6) and set(curve) == {0, 5}
    assert alone.dictionary.norm(dim=-1).allclose(torch.ones(12)) and not torch.allclose(alone.dictionary, start)
    active = (alone.encode(x) > 0).sum(-1)
    assert active.float().mean() > 0 and (method in compositions.PENALISED or active.max() <= 3)


def test_a_start_from_an_sae_does_not_depend_on_the_company():
    warm = Composition("dl-fista", **SHAPE, steps=2, inner=3, start="relu", start_steps=5, lam=UNTUNED)
    sae = Composition("relu", **SHAPE, steps=5, lam=UNTUNED)
    [(_, alone)] = compositions.measure([warm])
    both = dict(compositions.measure([warm, sae]))
    assert alone["fista_ood"] == pytest.approx(both[warm]["fista_ood"], abs=1e-5)


def test_with_the_true_dictionary_new_compositions_are_solved():
    """Oracle: FISTA shrinks and least squares on its support undoes it."""
    data = Composition("none", 20, 3, train=200, samples=200).data().draw()
    [found] = compositions.scores([data], data.atoms[None], data.atoms[None])
    assert found["dict_cosine"] == pytest.approx(1) and found["fista_ood"] > 0.9 and found["refit_ood"] > 0.9
    assert found["fista_auc_ood"] > 0.95


def tuned(best: float) -> pd.DataFrame:
    """ReLU at two penalties on a seed that chooses, where `best` scores higher, and on one that is reported."""
    return pd.DataFrame(
        [
            {"method": "relu", "n_atoms": 50, "k": 10, "train": 100, "lr": 1e-3, "lam": lam, "data_seed": seed}
            | {"start": "random"}
            | {"encoder_id": 0.8 if lam == best else 0.5, "encoder_active_id": active, "encoder_ood": 0.3}
            | {"fista_id": 0.4, "fista_ood": 0.4, "dict_cosine": 0.7}
            for seed in (0, TUNING_SEED)
            for lam, active in ((UNTUNED, 40.0), (0.1, 12.0))
        ]
        + [
            {"method": "none", "n_atoms": 50, "k": 10, "train": 100, "lr": 1e-3, "data_seed": 0}
            | {"fista_id": 0.9, "fista_ood": 0.9, "dict_cosine": 1.0}
            | {f"chance_{name}": 0.2 for name in ("fista_id", "fista_ood", "dict_cosine")}
        ]
    )


def test_penalties_are_chosen_on_other_seeds():
    rows = tuned(best=0.1)
    found = compositions.choices(rows)
    assert found.query("chosen").lam.tolist() == [0.1] and found.query("nearest").lam.tolist() == [0.1]
    rows.loc[rows.data_seed == 0, "encoder_id"] = rows.loc[rows.data_seed == 0, "encoder_id"].iloc[::-1].to_numpy()
    labels = compositions.named(rows).set_index("label")
    assert labels.loc[TUNED_RELU].lam == 0.1 and labels.loc[UNTUNED_RELU].lam == UNTUNED
    assert labels.loc[TUNED_RELU].q_ood == pytest.approx((0.3 - 0.2) / (0.9 - 0.2))


def test_the_untuned_penalty_may_be_the_best():
    labels = compositions.named(tuned(best=UNTUNED)).set_index("label")
    assert labels.lam.tolist() == [UNTUNED] * 2 and set(labels.index) == {TUNED_RELU, UNTUNED_RELU}


def test_no_seed_both_chooses_and_is_reported():
    for preset in PRESETS:
        grid = compositions.COMPOSITIONS.runs(preset)
        chooses = {run.data_seed for run in grid if run.data_seed >= TUNING_SEED}
        reported = {run.data_seed for run in grid} - chooses
        assert chooses and reported and max(reported) < TUNING_SEED


@pytest.fixture(scope="module")
def rows() -> dict[str, pd.DataFrame]:
    return {
        study.name: pd.DataFrame([vars(run) | found for run, found in study.measure(study.runs("smoke"))])
        for study in compositions.STUDIES
    }


def test_chance_and_oracle_stand_beside_compositions(rows):
    found = compositions.named(rows["compositions"])
    ends = ["oracle_id", "oracle_ood", "chance_id", "chance_ood", "chance_cosine", "mcc_id", "mcc_ood"]
    assert found[ends].notna().all(axis=None) and (found.oracle_ood > found.chance_ood).all()
    assert {*compositions.SHOWN, "DL-FISTA from ReLU", "DL-FISTA from TopK"} == set(found.label)
    small = compositions.curve(rows["compositions"])
    assert small.per_atom.nunique() == 2 and small.n_atoms.nunique() == 1


def test_every_reading_stands_beside_probe_and_chance(rows):
    found = compositions.readings(rows["compositions"])
    blank = {"linear probe (labels)": "direct", "random dictionary": "fista", "true dictionary": "fista"}
    assert set(found.source) == {*compositions.SHOWN, *blank}
    for source, way in {"TopK SAE": "direct", "DL-FISTA": "fista", **blank}.items():
        assert found[found.source == source][[f"{way}_id", f"{way}_ood"]].notna().all(axis=None)


def test_only_methods_without_an_encoder_lack_its_codes(rows):
    found = compositions.surgeries(rows["compositions"])
    assert set(found[found.encoder.isna()].method) == {one for one in found.method if one.startswith("DL-FISTA")}
    assert (found.best_lam >= found.same_lam).all()


def test_published_gaps_are_split_the_same_way():
    """TopK at n = 100: .865 - .705 of .986 - .705 is inference, 57 %."""
    stored = compositions.FOLLOW_UP[100]
    encoder, iterated = stored["TopK SAE"]
    assert (iterated - encoder) / (stored["oracle"][1] - encoder) == pytest.approx(0.57, abs=0.005)


def test_the_phase_is_in_units_of_the_boundary(rows):
    """n = 12, k = 3: 3 ln 4 = 4.16 inputs, rounded up to 5; twice that is 9."""
    found = compositions.phases(rows["phase"])
    assert sorted(set(found.ratio)) == pytest.approx([5 / (3 * math.log(4)), 9 / (3 * math.log(4))])
    assert {"oracle", "chance", "TopK SAE", "DL-FISTA", "ReLU SAE, λ = 0.1"} == set(found.label)


@pytest.mark.parametrize("name", compositions.FIGURES)
def test_figures_draw(name, rows, tmp_path):
    study, function, arguments = compositions.FIGURES[name]
    figure = figures.named(function)(*arguments(rows[study.name]))
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_ylabel() and figure.axes[0].get_xlabel()


def test_bars_draw(rows, tmp_path):
    matrix = pd.DataFrame(
        [
            {"n_atoms": 16, "d_in": 8, "k": 3, "dictionary": name, "data_seed": 0, "seed": 0, "mcc_fista": value}
            | ({"mcc_encoder": 0.5} if name == "sae" else {})
            for name, value in (("true", 0.9), ("random", 0.3), ("sae", 0.6))
        ]
    )
    bars = compositions.bars(matrix, rows["compositions"])
    figure = figures.named("amortisation_dictionary.parts")(bars)
    figure.savefig(tmp_path / "figure.png")
    assert len(figure.axes[0].patches) == 2 * len(bars)


@pytest.mark.parametrize("preset", PRESETS)
def test_grids_have_no_run_twice(preset):
    for study in compositions.STUDIES:
        grid = study.grid(preset)
        assert len(set(grid)) == len(grid) and all(0 < study.cost(run) < 1e6 for run in grid)
