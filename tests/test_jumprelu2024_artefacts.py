"""The arithmetic of Gemma Scope by hand, and the tables of the page on formats."""

import tempfile

import numpy as np
import pandas as pd
import pytest
import torch

from replication.figures import artefacts as figures
from replication.formats import FORMATS, save
from replication.papers.jumprelu2024 import artefacts


def test_parameters_by_hand():
    """d = 3, n = 5: two matrices of 15, biases and thresholds of 5 each, b_dec of 3."""
    assert artefacts.parameters(3, 5) == 43
    assert artefacts.parameters(2304, 2**14) * 4 == 302_130_176  # the 302 MB of a 2B file


def test_size_of_a_file_is_exact(tmp_path):
    sae = artefacts.small_sae("jumprelu", "gemma", 0)
    file = save(sae, tmp_path, "gemma-scope")
    assert file.stat().st_size == artefacts.npz_bytes(sae.d_in, sae.d_sae)
    assert artefacts.npz_bytes(2304, 2**16) == artefacts.REPORTED_BYTES


def test_steps_and_flops_by_hand():
    assert [artefacts.steps(tokens) for tokens in (4e9, 8e9, 16e9)] == [976_563, 1_953_125, 3_906_250]
    assert artefacts.training_flops(2, 3, 10) == 720  # 6 weights a matrix, 2 matrices, 2 flops, 3 passes, 10 tokens
    assert artefacts.flops_that_train(2, 3, 10) == pytest.approx(600)
    assert artefacts.training_flops(3584, 2**17, 4096) == pytest.approx(2.309e13, rel=1e-3)
    # 24 flops in half a second on 2 chips of 96 flop/s
    assert artefacts.utilisation(1, 2, 0.5, 2, 1024.0) == pytest.approx(12 * 2 * 4096 / 1024)


def test_activations_by_hand():
    assert artefacts.activation_bytes(3584, 8e9) == 114_688_000_000_000
    assert artefacts.stored_once("2B") == 26 * (2048 + 2304 + 2304) * 8e9 * 4
    assert artefacts.stored_once("9B") == 42 * (4096 + 3584 + 3584) * 8e9 * 4
    extras = 3 * (4608 + 3584 + 2304 + 3584) * 8e9 * 4 + 26 * 2304 * 4e9 * 4
    assert artefacts.stored_in_all() == artefacts.stored_once("2B") + artefacts.stored_once("9B") + extras


def test_counts_by_hand():
    assert artefacts.all_layer_saes() == 3 * (26 + 42) * 2 == 408
    everywhere = 3 * 26 * (2**14 + 2**16) + 3 * 42 * (2**14 + 2**17)
    ladders = 2**15 + 2**17 + 2**18 + 2**19 + 2**15 + 2**16 + 2**18 + 2**19 + 6 * 2**20
    assert artefacts.total_latents() == everywhere + ladders + 3 * 2**17 + 3 * (2**14 + 2**17)
    by_repository = {}
    for part in artefacts.SUITE:
        key = part.model, part.site
        by_repository[key] = by_repository.get(key, 0) + part.files
    by_repository["2B", "res"] += 4  # of token embeddings
    by_repository["9B", "res"] += 4
    assert by_repository == {
        ("2B", "attn"): 260,
        ("2B", "mlp"): 260,
        ("2B", "res"): 316,
        ("2B", "transcoder"): 26,
        ("9B", "attn"): 492,
        ("9B", "mlp"): 492,
        ("9B", "res"): 536,
        ("9B-IT", "res"): 30,
        ("27B", "res"): 18,
    }
    assert artefacts.total_files() == sum(by_repository.values()) == 2430


def test_tokens_follow_the_width():
    assert {part.log2_width: part.tokens for part in artefacts.SUITE} == {
        14: 4e9,
        15: 8e9,
        16: 8e9,
        17: 8e9,
        18: 8e9,
        19: 8e9,
        20: 16e9,
    }


def test_an_agreement_is_judged_by_its_bounds(monkeypatch):
    right = artefacts.Stated("a", "about 10", *artefacts.about(10), 10.9, "m", "")
    wrong = artefacts.Stated("b", "more than 10", *artefacts.more_than(10), 9.9, "", "")
    monkeypatch.setattr(artefacts, "PUBLISHED", (right, wrong))
    table = artefacts.agreement()
    assert list(table.agrees) == ["yes", "no"] and list(table.computed) == ["10.9 m", "9.9"]


def test_the_published_numbers_are_those_released():
    stated = {one.quantity: one for one in artefacts.PUBLISHED}
    assert stated["model flop utilisation, 9B, 131k wide"].computed == pytest.approx(52.1, abs=0.1)
    assert stated["activations of one 9B layer and site"].computed == pytest.approx(104.3, abs=0.1)
    assert stated["activations of all 2B and 9B sites"].computed == pytest.approx(18.4, abs=0.1)
    assert stated["read rate of one 9B SAE"].computed == pytest.approx(1.22, abs=0.01)
    assert stated["latents"].computed == pytest.approx(33.9, abs=0.1)
    assert all(one.low < one.high and one.ingredients for one in artefacts.PUBLISHED)


def test_the_suite_table_and_its_shares():
    table, shares = artefacts.suite_table(), artefacts.by_width()
    assert len(table) == len(artefacts.SUITE)
    assert list(table[(table.model == "9B") & (table.latents == "2^20")]["GB each"]) == ["30.07"]
    np.testing.assert_allclose(shares[["SAEs", "bytes", "training compute"]].sum(), 100)
    assert len(figures.shares(shares).axes[0].patches) == 3 * 7
    assert set(artefacts.assumption()) == {"utilisation at 10 d n", "share of GPT-3 at 10 d n"}


def test_every_round_trip_is_exact_to_rounding(monkeypatch):
    monkeypatch.setattr(artefacts, "SEEDS", (0,))
    table = artefacts.round_trips()
    assert set(zip(table.format, table.written, strict=True)) == {
        (format, name) for format, kind in FORMATS.items() for name in kind.holds
    }
    assert (table[["latents", "reconstructions"]] < 1e-5).all(axis=None)
    assert (table["latents on or off otherwise"] == 0).all()
    grid = artefacts.as_grid(table).set_index("ours")
    assert grid.loc["topafa"].isna().all() and grid.loc["relu", "openai"].startswith("ReLU: ")


def test_a_small_sae_is_sparse_and_away_from_its_start():
    sae, x = artefacts.small_sae("jumprelu", "gemma", 0), artefacts.activations(0)
    latents = sae(sae.normalise(x).x).latents
    assert 0 < (latents != 0).float().mean() < 0.9 and sae.input_scale > 5
    assert all(value.unique().numel() > 1 for value in (sae.b_enc, sae.b_dec, sae.theta))
    assert torch.equal(x, artefacts.activations(0)) and not torch.equal(x, artefacts.activations(1))


def test_contents_are_read_from_the_files_themselves():
    table = artefacts.contents().set_index("format")
    assert set(table.index) == set(FORMATS)
    assert "threshold 512" in table.loc["gemma-scope", "fields of the weights file"]
    assert "'k': 16" in table.loc["openai", "fields of the weights file"]
    assert "W_enc 64×512" in table.loc["saelens", "fields of the weights file"]
    assert table.loc["saelens", "files"] == "cfg.json, sae_weights.safetensors"


def test_every_refusal_is_one_line_without_a_path():
    table = artefacts.refusals()
    assert not (table["the error"] == "accepted").any()
    assert not table["the error"].str.contains("\n").any()
    assert not table["the error"].str.contains(tempfile.gettempdir()).any()


def test_scientific_notation():
    assert [artefacts.scientific(value) for value in (0, 3.4e-7, 1e-12, 2.0)] == ["0", "3×10⁻⁷", "1×10⁻¹²", "2×10⁰"]


def test_the_verdict_counts_what_agrees():
    runs = artefacts.ARITHMETIC.runs("cpu")
    rows = pd.DataFrame([{"quantity": run.quantity, **found} for run, found in artefacts.recompute(runs)])
    assert len(rows) == len(artefacts.PUBLISHED)
    found = artefacts.adds_up(rows)
    assert found.verdict == ("replicated" if rows.agrees.all() else "partly")
    assert artefacts.adds_up(rows.assign(agrees=[False, *[True] * (len(rows) - 1)])).verdict == "partly"
    assert artefacts.adds_up(rows.assign(agrees=False)).verdict == "not replicated"
