"""Norms of activations and codes: an autoencoder by hand, verdicts on tables of known answer, smoke rows drawn."""

from itertools import product

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch

from replication import figures
from replication.claims import NoEvidence
from replication.evaluate.norms import Norms, norms_of
from replication.metrics import fvu
from replication.papers.topafa2025 import norms
from replication.results import PRESETS
from replication.sae import ReLU, TopK


def by_hand() -> ReLU:
    """Two latents that read the coordinates of z - b; decoder rows of length 2 and 1, b = (3, 4)."""
    sae = ReLU(2, 2, 0.1, unit_norm=False)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        sae.b_dec.copy_(torch.tensor([3.0, 4.0]))
    return sae


def test_norms_of_an_autoencoder_by_hand():
    """z - b = (1.5, -2): latents (1.5, 0), f = 1.5 times the row's 2, z_hat = (6, 4), error = 1.5^2 + 2^2."""
    found = norms_of(by_hand(), torch.tensor([[4.5, 2.0]]))
    assert found.bias == 5 and found.active.tolist() == [1]
    named = {"f": 3, "centred": 2.5, "centred_hat": 3, "error": 6.25, "z": (4.5**2 + 4) ** 0.5, "z_hat": 52**0.5}
    for name, value in named.items():
        assert getattr(found, name).item() == pytest.approx(value), name
    assert found.f_with_bias.item() == pytest.approx(34**0.5)
    assert found.nmse.item() == pytest.approx(6.25 / 24.25)


def test_the_normalisation_is_folded_back():
    """An autoencoder of activations over 10 has the norms of the raw ones."""
    x = torch.randn(3 * 4096, 6, generator=torch.Generator().manual_seed(0)) * 10
    scaled = TopK(6, 12, 2, generator=torch.Generator().manual_seed(1), normalisation="gemma")
    scaled.fit_normalisation(x)
    scaled.initialise(scaled.normalise(x).x)
    found = norms_of(scaled, x)
    latents = scaled(scaled.normalise(x).x).latents
    torch.testing.assert_close(found.z, x.norm(dim=-1))
    torch.testing.assert_close(found.f, latents.norm(dim=-1) * scaled.input_scale, rtol=1e-4, atol=1e-4)
    recon = scaled.reconstruct(x)
    torch.testing.assert_close(found.error, (x - recon).square().sum(-1), rtol=1e-3, atol=1e-3)
    assert (found.error.sum() / (x - x.mean(0)).square().sum()).item() == pytest.approx(fvu(x, recon).item(), rel=1e-4)


def test_what_has_no_norm_is_refused():
    with pytest.raises(ValueError, match="same for all tokens"):
        norms_of(TopK(4, 8, 2, normalisation="lee"), torch.randn(2, 4))
    with pytest.raises(ValueError, match="transcoder of d_out=3"):
        norms_of(TopK(4, 8, 2, d_out=3), torch.randn(2, 4))


def test_matched_norms():
    """r = 0.5, 1, 2: gaps 3, 0 and 0.75."""
    found = norms.matched_norms(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 2.0]))
    assert (found["r"], found["over"], found["gap"]) == (1, pytest.approx(1 / 3), 0.75)
    assert [found[f"wedge_{c}"] for c in (25, 50, 100)] == pytest.approx([1 / 3, 1 / 3, 2 / 3])


def test_shuffling_the_dictionary_changes_the_error_and_not_the_score():
    sae = by_hand()
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(2))
    swapped = norms.with_shuffled_rows(sae, torch.Generator().manual_seed(1))
    assert torch.equal(swapped.W_dec, torch.eye(2).flip(0))
    x = torch.tensor([[5.0, 6.0], [4.0, 8.0], [7.0, 5.0]])  # equal latents, and different ones
    true, other = norms_of(sae, x), norms_of(swapped, x)
    assert torch.equal(true.f, other.f) and true.error.max() == 0 and other.error.min() == 0 < other.error.max()


def test_the_bias_feature_is_a_floor_and_leaves_the_order():
    one = torch.tensor([1.0])
    found = Norms(one, torch.tensor([0.0, 3.0, 1.0]), one, one, one, one, one.long(), bias=4.0)
    assert found.f_with_bias.tolist() == pytest.approx([4, 5, 17**0.5])
    assert torch.equal(found.f.argsort(), found.f_with_bias.argsort())


def test_pooled_is_the_correlation_of_all_tokens():
    generator = torch.Generator().manual_seed(0)
    layers = [scale * (5 + torch.randn(2, 400, generator=generator)) for scale in (1, 2, 4)]
    layers[0][1] = layers[0][0]  # tracks in the first layer alone
    cells = pd.DataFrame([norms.moments(z, f) for z, f in layers])
    assert norms.pooled(cells) == pytest.approx(norms.pearson(*torch.cat(layers, dim=1)), abs=1e-6)
    strangers = [torch.stack([z, f[torch.randperm(400, generator=generator)]]) for z, f in layers]
    alone = norms.pearson(*torch.cat(strangers, dim=1))
    assert norms.pooled(cells, within=False) == pytest.approx(alone, abs=0.03)
    assert norms.pooled(cells.assign(zf_cov=0.0)) == norms.pooled(cells, within=False) < norms.pooled(cells)


def test_layers_are_counted_from_one():
    assert norms.hooks(2) == ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
    assert [norms.layer_number(hook) for hook in norms.hooks(4)] == [1, 2, 3, 4, 5]


def test_the_released_medians_agree_with_their_summary():
    """The score follows from r for equal medians only; the two agree within rounding and the spread of tokens."""
    table = norms.released()
    assert table.groupby("model").size().to_dict() == {"GPT-2 small": 12, "Gemma Scope 2B": 25}
    assert (abs(1 / table.r**2 - 1) - table["gap"]).abs().max() < 0.15
    for model, cells in table.groupby("model"):
        layers = cells.set_index("layer")
        for line, column in enumerate(("token_nmse", "gap")):
            found = f"{layers[column].idxmin():.0f} / {layers[column].idxmax():.0f}"
            assert found == norms.RELEASED_SUMMARY[model][line]
        assert f"{100 * cells.over.mean():.1f} %" == norms.RELEASED_SUMMARY[model][2]
        assert cells.depth.min() == 0 and cells.depth.max() == 1
    assert table[table.model == "GPT-2 small"]["corr"].mean() == pytest.approx(0.50, abs=0.005)  # in the claim's words


def table(layers: int = 5, seeds: int = 5, **columns) -> pd.DataFrame:
    """Every kind, layer and seed; a column is a value, or a function of (kind, layer, seed)."""
    rows = []
    defaults = {
        "over": lambda kind, layer, seed: 0.02 * layer + 0.001 * seed,
        "z": lambda kind, layer, seed: float(layer),
        "corr": lambda kind, layer, seed: 0.7 + 0.01 * seed,
        "corr_no_bias": 0.7,
        "centred_corr": 0.8,
        "lbo_nmse": lambda kind, layer, seed: (-1) ** layer * 0.1 + 0.01 * seed,
        "token_nmse": lambda kind, layer, seed: 0.1 * layer,
        "gap": lambda kind, layer, seed: 1.0 / layer,
        "z_mean": lambda kind, layer, seed: float(layer),
        "f_mean": lambda kind, layer, seed: 0.8 * layer,
        "z_var": 0.01,
        "f_var": lambda kind, layer, seed: 0.01 + 0.001 * seed,
        "zf_cov": 0.005,
        "sparsity": 16,
        "d": 128,
    }
    defaults |= dict.fromkeys(("centred_over", "untrained_over", "strangers_over"), 0.1) | columns
    for kind, layer, seed in product(norms.KINDS, range(1, layers + 1), range(seeds)):
        values = {name: one(kind, layer, seed) if callable(one) else one for name, one in defaults.items()}
        rows.append({"architecture": kind, "layer": layer, "seed": seed} | values)
    return pd.DataFrame(rows)


def test_z1_is_about_two_thirds_of_the_layers_of_topk():
    evidence = norms.mostly_under_activated(table())
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.082)  # the fourth of five layers
    two_over = table(over=lambda kind, layer, seed: (0.9 if layer > 3 else 0.02) + 0.001 * seed)
    assert norms.mostly_under_activated(two_over).verdict == "not replicated"
    one_over = table(over=lambda kind, layer, seed: (0.9 if layer > 4 else 0.02) + 0.001 * seed)
    assert norms.mostly_under_activated(one_over).verdict == "replicated"
    others = table(over=lambda kind, layer, seed: (0.02 if kind == "topk" else 0.9) + 0.001 * seed)
    evidence = norms.mostly_under_activated(others)
    assert evidence.verdict == "replicated" and "ReLU 90.2%" in evidence.summary and "TopK 2.2%" in evidence.summary


def test_z2_needs_growing_norms_and_every_kind():
    evidence = norms.tracks_over_layers(table())
    assert evidence.verdict == "replicated" and 0.99 < evidence.ours < 1 and "would be ReLU 0.99" in evidence.summary
    assert norms.tracks_over_layers(table(layers=3)).verdict == "void"
    assert norms.tracks_over_layers(table(z=lambda kind, layer, seed: -float(layer))).verdict == "void"
    wide = {"f_var": lambda kind, layer, seed: (1000.0 if kind == "relu" else 0.01) + 0.001 * seed}
    evidence = norms.tracks_over_layers(table(**wide))
    assert evidence.verdict == "partly" and evidence.ours < 0.1  # of the kind that fails
    assert norms.tracks_over_layers(table(f_var=lambda kind, layer, seed: 1000.0 + seed)).verdict == "not replicated"


@pytest.mark.parametrize("level, verdict", [(0.55, "replicated"), (0.3, "not replicated"), (0.49, "partly")])
def test_z3_is_the_mean_within_layers(level, verdict):
    """At 0.49 the mean over seeds is 0.51, and the interval reaches below 0.5."""
    evidence = norms.tracks_per_input(table(corr=lambda kind, layer, seed: level + 0.01 * seed))
    assert evidence.verdict == verdict and evidence.ours == pytest.approx(level + 0.02)


def test_z3_is_partly_where_one_kind_fails():
    evidence = norms.tracks_per_input(table(corr=lambda kind, layer, seed: 0.1 if kind == "relu" else 0.7))
    assert evidence.verdict == "partly" and evidence.ours == pytest.approx(0.1)
    assert "ReLU 0.10, JumpReLU 0.70, TopK 0.70" in evidence.summary


def test_z4_does_not_let_signs_cancel():
    assert norms.differs_from_error(table()).verdict == "replicated"
    evidence = norms.differs_from_error(table(layers=4, lbo_nmse=lambda kind, layer, seed: (-1) ** layer * 0.8))
    assert evidence.verdict == "not replicated" and evidence.ours == pytest.approx(0.8)
    assert "with its sign: ReLU 0.00" in evidence.summary.replace("-0.00", "0.00")


def test_z5_counts_seeds():
    evidence = norms.picks_other_layers(table())
    assert evidence.verdict == "replicated" and evidence.ours == 1
    assert "TopK: 5 and 1" in evidence.summary and "80%" in evidence.summary

    def same_in_two(kind, layer, seed):
        return layer / 10 if seed < 2 else 1.0 / layer

    assert norms.picks_other_layers(table(gap=same_in_two)).verdict == "replicated"  # 3 of 5 seeds

    def same_in_three(kind, layer, seed):
        return layer / 10 if seed < 3 else 1.0 / layer

    assert norms.picks_other_layers(table(gap=same_in_three)).verdict == "not replicated"
    only_topk = table(gap=lambda kind, layer, seed: layer / 10 if kind != "topk" else 1.0 / layer)
    assert norms.picks_other_layers(only_topk).verdict == "partly"


def test_without_a_kind_or_a_layer_there_is_no_evidence():
    rows = table()
    with pytest.raises(NoEvidence, match="k / d below 0.2"):
        norms.mostly_under_activated(table(sparsity=32))
    with pytest.raises(NoEvidence, match="lacks relu"):
        norms.tracks_per_input(rows[rows.architecture != "relu"])
    with pytest.raises(NoEvidence, match="same two or more layers"):
        norms.tracks_per_input(rows[(rows.architecture != "topk") | (rows.layer < 5)])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_layer_has_every_kind(preset):
    runs = norms.NORMS.runs(preset)
    hooks = norms.hooks(norms.GRIDS[preset].blocks)
    seeds = {run.seed for run in runs}
    found = {(run.source.hook, run.architecture, run.seed) for run in runs}
    assert found == set(product(hooks, norms.KINDS, seeds)) and len(runs) == len(found)
    assert all(run.source.skip_first == 1 for run in runs) and len(seeds) == (2 if preset == "smoke" else 5)


@pytest.fixture(scope="module")
def smoke() -> pd.DataFrame:
    runs = [run for run in norms.NORMS.runs("smoke") if run.seed == 0]
    found = list(norms.measure_norms(runs))
    return pd.DataFrame([{"architecture": run.architecture, "seed": run.seed} | row for run, row in found])


def test_smoke_rows_are_consistent(smoke):
    assert len(smoke) == 9 and set(smoke.layer) == {1, 2, 3}
    assert ((smoke["gap"] - smoke.shuffled_gap).abs() < 1e-5).all()  # the score does not look at the dictionary
    assert (smoke.shuffled_token_nmse > smoke.token_nmse).all() and (
        smoke.untrained_token_nmse > smoke.token_nmse
    ).all()
    assert (smoke.f_min >= smoke.bias).all()
    assert ((smoke.wedge_25 <= smoke.wedge_50) & (smoke.wedge_50 <= smoke.wedge_100)).all()
    topk = smoke[smoke.architecture == "topk"]
    assert (topk.l0 <= 8).all() and (smoke.fvu < 1).all()
    medians = [np.median(values) for values in smoke.gap_quantiles]
    assert medians == pytest.approx(smoke["gap"].tolist(), rel=0.05)
    assert smoke.corr_no_bias.between(-1, 1).all() and (smoke.first_share == 1 / 64).all()


@pytest.mark.parametrize("name", norms.FIGURES)
def test_figures_are_drawn_from_smoke_rows(smoke, name, tmp_path):
    _, function, arguments = norms.FIGURES[name]
    figure = figures.named(function)(*arguments(smoke))
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes[0].get_ylabel()
    assert all(axes.lines or axes.patches or axes.collections for axes in figure.axes)


def test_the_summary_has_the_released_and_our_columns(smoke):
    found = norms.summary(smoke)
    assert found.columns.tolist()[1:] == [
        *("GPT-2 small, released", "Gemma Scope 2B, released"),
        *("ReLU, ours", "JumpReLU, ours", "TopK, ours"),
    ]
    assert found.shape == (15, 6) and not found.isna().any().any()
