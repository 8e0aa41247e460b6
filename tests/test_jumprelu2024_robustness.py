"""Robustness: contexts, sessions and kinds of text by hand, splices that change what they should, verdicts on known
tables."""

import copy
from dataclasses import replace
from itertools import product

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch

from replication import figures
from replication.activations import Pairs
from replication.claims import verdict
from replication.evaluate.downstream import subject
from replication.evaluate.splicing import spliced
from replication.papers.jumprelu2024 import robustness as page
from replication.papers.jumprelu2024.grid import SEEDS, source
from replication.results import PRESETS
from replication.sae.jumprelu import JumpReLU
from replication.train import Run

LAMBDAS = (1e-3, 3e-3, 8e-3)


@pytest.fixture(scope="module")
def where():
    return source("smoke", "res", 1)


@pytest.fixture(scope="module")
def tokens(where):
    return page.heldout_contexts(where, 0)


class TestContexts:
    def test_seeds_have_contexts_of_their_own(self):
        contexts = np.arange(24, dtype=np.uint16).reshape(12, 2)
        chosen = [page.of_seed(contexts, seed, 2)[:, 0].tolist() for seed in SEEDS]
        assert chosen == [[0, 14], [4, 18], [8, 22]]  # rows 0, 2, 4, 7, 9, 11 in turn

    def test_with_few_of_them_each_seed_takes_what_there_is(self):
        assert [len(page.of_seed(np.zeros((5, 2), dtype=np.uint16), seed, 4)) for seed in SEEDS] == [2, 2, 1]


class TestSplices:
    def test_an_identity_changes_nothing_and_a_mean_harms(self, where, tokens):
        model = subject(where)
        alone = page.loss_behind(where, model, tokens)
        assert page.loss_behind(where, model, tokens, page.in_place(where, lambda x: x)) == pytest.approx(alone)
        mean = page.at_its_mean(page.activations_behind(where, model, tokens))
        assert page.loss_behind(where, model, tokens, page.in_place(where, mean)) > alone + 0.1

    def test_agrees_with_the_harm_that_other_pages_measure(self, where):
        model, text = subject(where), where.corpus.build(subject(where).tokenizer).blocks("heldout", where.context)
        tokens = torch.from_numpy(text[page.spread(len(text), 8)].astype(np.int64))
        patches = page.in_place(where, torch.relu)
        ours = page.loss_behind(where, model, tokens, patches) - page.loss_behind(where, model, tokens)
        assert ours == pytest.approx(spliced(where, torch.relu, 8)["delta_ce"], rel=1e-4)

    def test_the_mlp_itself_is_a_perfect_transcoder(self, tokens):
        targets = source("smoke", "mlp", 1)
        pairs = Pairs(replace(targets, hook="blocks.1.mlp.hook_in"), targets)
        model = subject(targets)
        mlp = copy.deepcopy(model.module.transformer.h[1].mlp)  # the model's own carries the hooks
        alone = page.loss_behind(targets, model, tokens)
        assert page.loss_behind(targets, model, tokens, page.across(pairs, mlp)) == pytest.approx(alone, abs=1e-5)
        zero = page.loss_behind(targets, model, tokens, page.across(pairs, torch.zeros_like))
        same = page.loss_behind(targets, model, tokens, page.in_place(targets, torch.zeros_like))
        assert zero == pytest.approx(same) and zero > alone

    def test_rescaling_and_back_is_the_same_as_a_larger_constant(self):
        sae = JumpReLU(4, 8, 1e-3, normalisation="gemma", threshold=0.05, generator=torch.Generator().manual_seed(0))
        sae.input_scale.fill_(3.0)
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
        twice = page.rescaled(sae, 2.0)(x)
        sae.input_scale.fill_(1.5)
        assert torch.allclose(twice, sae.reconstruct(x), atol=1e-6)


class TestPrecision:
    def test_a_threshold_in_bfloat16_stops_at_a_power_of_two(self):
        paths = page.thresholds_in(steps=1000)
        last = paths[paths.step == 1000].set_index(["precision", "start"]).theta
        assert last["bfloat16", 0.001] == 2**-5  # spacing above it 2^-12, half of it 1.2e-4 > 7e-5
        assert last["float32", 0.001] == pytest.approx(0.071, abs=1e-4)
        assert last["bfloat16", 1.1] == 1.1015625  # the nearest to 1.1: it never moves
        assert last["float32", 1.1] == pytest.approx(1.17, abs=1e-3)

    def test_decisions_that_differ_are_counted_by_hand(self):
        sae = JumpReLU(1, 3, 1e-3)
        low = JumpReLU(1, 3, 1e-3)
        with torch.no_grad():
            for one, thetas in ((sae, [0.5, 0.5, 2.0]), (low, [0.5, 1.5, 2.0])):
                one.W_enc.fill_(1)
                one.theta_raw.copy_(torch.tensor(thetas))
        # pre = 1: latents 0 and 1 against latent 0; pre = 3: all three in both
        assert page.decisions_that_differ(sae, low, torch.tensor([[1.0], [3.0]])) == pytest.approx(1 / 5)


class TestKindsOfText:
    @pytest.mark.parametrize(
        "name, kind",
        [
            ("test/test_json.py", "tests"),
            ("numpy/core/tests/test_x.py", "tests"),
            ("numpy/core/x.py", "numerical"),
            ("http/client.py", "web"),
            ("ssl.py", "web"),
            ("argparse.py", "library"),
            ("testing.py", "library"),
        ],
    )
    def test_files(self, name, kind):
        assert page.domain_of_file(name) == kind

    def test_contexts_are_judged_by_their_text_first(self):
        """Three whole contexts of four tokens and a rest: all docstring; numbers in brackets; three of four in them."""
        labels = {name: np.zeros(14, dtype=bool) for name in ("in_docstring", "in_comment", "number", "in_string")}
        depth = np.zeros(14, dtype=np.int32)
        labels["in_docstring"][:3] = True
        labels["in_string"][:3] = True
        labels["number"][[4, 6, 8, 10]] = True
        depth[4:11] = 1
        found = page.domains_of_contexts(labels | {"paren_depth": depth}, 4, "argparse.py")
        assert found == ["prose", "tables", "library"]


class TestSessions:
    TEXT = '''def f():
    """Doubles.

    >>> f(2)
    4
    >>> f(
    ...     3)
    6

    Not this.
    >>> f("a")
    'aa'
    """
'''

    def test_are_cut_by_hand(self):
        assert page.sessions(self.TEXT) == [">>> f(2)\n4\n>>> f(\n...     3)\n6", ">>> f(\"a\")\n'aa'"]

    def test_none_without_a_prompt(self):
        assert page.sessions("x = 1 >> 2\n") == []

    def test_tuning_lowers_the_loss_on_what_it_sees_and_is_repeatable(self, where):
        blocks = np.tile(np.arange(1, 17, dtype=np.uint16), (4, 1))
        losses = [
            page.tune(copy.deepcopy(subject(where).module).requires_grad_(True), blocks, 6, 4, 5e-3, seed=0)
            for _ in range(2)
        ]
        assert losses[0] == losses[1]
        assert losses[0][-1] < losses[0][0] - 0.5


def test_grids_ask_for_nothing_but_the_suite_and_transcoders():
    suite = set(page.scope.all_seeds("smoke"))
    assert set(page.residual("smoke")) <= set(page.residual_and_mlp("smoke")) <= suite
    others = [run for run in page.across_the_mlp("smoke") if run not in suite]
    mlp = page.suite_cells("smoke", ("mlp",))
    assert all(run.source.paired and not run.tied_init for run in others)
    for name in ("tokens", "batch", "d_sae", "seed", "lr"):
        assert sorted(getattr(run, name) for run in others) == sorted(getattr(run, name) for run in mlp)


def test_every_preset_has_a_plan():
    assert {source(preset, "res", 0).model for preset in PRESETS} == set(page.PLANS)


# ----------------------------------------------------------------------------------------------------------- verdicts


def judged(number: str, rows: pd.DataFrame):
    [claim] = [claim for claim in page.CLAIMS if claim.id.endswith(number)]
    return verdict(claim, rows.assign(stale=False), "cpu")


def grid_rows(**columns) -> pd.DataFrame:
    """A row per seed and lambda, L0 = 60, 25, 8 times 1, 1.02, 1.04 by seed."""
    rows = [
        {"seed": seed, "sparsity": sparsity, "l0": l0 * (1 + 0.02 * seed)}
        for seed, (sparsity, l0) in product(SEEDS, zip(LAMBDAS, (60, 25, 8), strict=True))
    ]
    hook = "LanguageModelActivations(model='pygpt-2m', hook='blocks.2.hook_resid_post')"
    return pd.DataFrame(rows).assign(source=hook, **columns)


def precision_rows(change: float) -> pd.DataFrame:
    return grid_rows(
        ce_fp32=2.0, ce_bf16=2.001, delta_ce_fp32=0.2, delta_ce_bf16=0.2 + change, delta_ce_bf16_sae=0.2,
        decisions_differ=0.01,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change, expected, outcome",
    [(0.004, 0.4, "replicated"), (-0.0005, 0.05, "replicated"), (0.03, 3, "not replicated")],
)
def test_low_precision(change, expected, outcome):
    """0.004 nats are 40 % of the 5 % of 0.2 that are allowed."""
    found = judged("G5", precision_rows(change))
    assert found.verdict == outcome
    assert found.ours == pytest.approx(expected)


def test_of_a_small_harm_a_thousandth_of_a_nat_is_allowed():
    rows = precision_rows(0.0005).assign(delta_ce_fp32=0.002, delta_ce_bf16=0.0025)
    assert judged("G5", rows).ours == pytest.approx(0.5)


def domain_rows(harm: dict[str, float], ce: dict[str, float]) -> pd.DataFrame:
    rows = grid_rows()
    lines = [
        [
            {"domain": name, "contexts": 9, "l0": row.l0, "fvu": 0.1, "ce": ce.get(name, 2.0),
             "delta_ce": harm.get(name, 0.3) * (1 + 0.01 * row.seed) / row.l0, "delta_ce_mean": 1.0}
            for name in page.DOMAINS
        ]
        for row in rows.itertuples()
    ]  # fmt: skip
    return rows.assign(domains=lines)


def test_kinds_of_text():
    harm = {"tables": 0.1, "prose": 0.9}
    found = judged("G6", domain_rows(harm, {}))
    assert found.verdict == "replicated"
    assert found.ours == pytest.approx(np.log(3), abs=0.01)
    assert judged("G6", domain_rows({"tables": 0.9, "prose": 0.1}, {})).verdict == "not replicated"
    assert judged("G6", domain_rows({"tables": 0.1, "prose": 0.2}, {})).verdict == "partly"
    # three times the harm on text on which the model's own loss is six times as large: not the largest share
    assert judged("G6", domain_rows(harm, {"prose": 12.0})).verdict == "partly"
    # the largest share, but not the most nats
    assert judged("G6", domain_rows({"tables": 0.1, "prose": 0.25}, {"prose": 1.0})).verdict == "partly"
    # the most nats, but neither share is where it should be
    assert judged("G6", domain_rows({"tables": 0.4, "prose": 0.5}, {"prose": 5.0})).verdict == "not replicated"


def test_a_kind_without_text_is_void():
    rows = domain_rows({}, {})
    rows["domains"] = rows.domains.map(lambda lines: [one for one in lines if one["domain"] != "web"])
    found = judged("G6", rows)
    assert found.verdict == "void" and "web" in found.summary


def tuned_rows(harm: float, fvu: float, gain: float = 0.3, **others) -> pd.DataFrame:
    """Curves y = 1 / L0; those of base SAEs `harm` and `fvu` times as high as the reference."""
    rows = grid_rows()
    noise = 1 + 0.01 * rows.seed
    columns = {
        "delta_ce": harm * noise / rows.l0, "fvu": fvu * noise / rows.l0,
        "l0_reference": rows.l0, "delta_ce_reference": 1 / rows.l0, "fvu_reference": 1 / rows.l0,
        "l0_before": rows.l0, "delta_ce_before": 1 / rows.l0, "fvu_before": 1 / rows.l0,
        "l0_rescaled": 0.95 * rows.l0 + 0.01 * rows.seed, "delta_ce_rescaled": harm / rows.l0 / 0.95,
        "fvu_rescaled": fvu * noise / rows.l0 / 0.95, "norm_ratio": 0.9, "moved": 0.1,
        "ce_before": 2.0 + gain, "ce": 2.0,
    }  # fmt: skip
    return rows.assign(**(columns | others))


@pytest.mark.parametrize(
    "harm, fvu, outcome",
    [(1.1, 1.2, "replicated"), (1.1, 1.0, "partly"), (1.5, 2.0, "partly"), (1.5, 1.2, "not replicated")],
)
def test_transfer(harm, fvu, outcome):
    found = judged("G7", tuned_rows(harm, fvu))
    assert found.verdict == outcome
    assert found.ours == pytest.approx(np.log(harm) + 0.01, abs=0.002)


def test_nothing_to_transfer_is_void():
    for number in ("G7", "G8"):
        found = judged(number, tuned_rows(1.1, 1.2, gain=0.01))
        assert found.verdict == "void" and "nothing to transfer" in found.summary


def test_rescaling():
    same = tuned_rows(1.1, 1.2)
    found = judged("G8", same)
    assert found.verdict == "replicated"
    assert found.ours == pytest.approx(0, abs=1e-3)
    helped = same.assign(fvu_rescaled=0.8 * same.fvu_rescaled)
    assert judged("G8", helped).verdict == "partly"
    up = helped.assign(l0_rescaled=1.05 * same.l0 - 0.01 * same.seed)
    assert judged("G8", up).verdict == "not replicated"
    assert judged("G8", same.assign(norm_ratio=1.001)).verdict == "void"


def across_rows(harm: float, transcoder_gain: float = 0.1) -> pd.DataFrame:
    """Transcoders `harm` times as harmful; ln(training error) fell by 0.1 (SAEs) over the last doubling."""
    saes = grid_rows(nmse_pca=0.1, delta_ce_mean=1.0)
    saes = saes.assign(delta_ce=1 / saes.l0, fvu=2 / saes.l0)
    both = [saes, saes.assign(source="Pairs(inputs=...)", delta_ce=harm * (1 + 0.01 * saes.seed) / saes.l0)]
    for part, gain in zip(both, (0.1, transcoder_gain), strict=True):
        part["curve_tokens"] = [[1, 2]] * len(part)
        part["curve_error"] = [[0.1 * np.exp(gain), 0.1]] * len(part)
    return pd.concat(both, ignore_index=True)


@pytest.mark.parametrize("harm, outcome", [(1.5, "replicated"), (0.7, "not replicated")])
def test_transcoders(harm, outcome):
    found = judged("G9", across_rows(harm))
    assert found.verdict == outcome
    assert found.ours == pytest.approx(np.log(harm) + 0.01, abs=0.002)


def test_under_trained_transcoders_are_void():
    assert judged("G9", across_rows(1.1, transcoder_gain=0.5)).verdict == "void"
    assert judged("G9", across_rows(0.7, transcoder_gain=0.5)).verdict == "not replicated"


def test_every_figure_draws_a_known_table():
    tables = {
        page.PRECISION: precision_rows(0.004),
        page.OTHER_TEXT: domain_rows({"tables": 0.1}, {}),
        page.TUNED: tuned_rows(1.1, 1.2),
        page.ACROSS: across_rows(1.5),
    }
    for study, function, takes in page.FIGURES.values():
        assert figures.named(function)(*takes(tables[study])).axes
    assert figures.named("jumprelu_robustness.thresholds")(page.thresholds_in(steps=50)).axes


def test_every_run_of_a_study_is_a_training_run():
    assert all(isinstance(run, Run) for study in page.STUDIES for run in study.runs("smoke"))
