"""What the dashboard says of a latent, on numbers that a reader can check; that arbitrary code stays text in it."""

import base64
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from sklearn.metrics import f1_score
from torch.nn.functional import cross_entropy

from replication import dashboard_html
from replication.evaluate import dashboard
from replication.evaluate.downstream import heldout_blocks, subject
from replication.evaluate.explanations import Examples, Explanation
from replication.papers.gao2024 import latents
from replication.papers.gao2024.grid import SOURCES, make_run
from replication.sae import architecture
from replication.train import Trained

SOURCE = SOURCES["smoke"]
NASTY = [
    "</script><script>alert(1)</script>",
    "\"'`\\",
    "<img src=x onerror=alert(1)>",
    "\u2028\u202e",
    "é</style>",
    "&lt;",
]


def text(tokens: list[list[int]], labels=None) -> dashboard.Text:
    n = np.size(tokens)
    labels = np.zeros((n, 0), dtype=bool) if labels is None else np.array(labels, dtype=bool)
    return dashboard.Text(
        torch.tensor(tokens),
        torch.zeros(n, 2),
        document=np.arange(n) // 8,
        paths=[f"{i}.py" for i in range(n // 8 + 1)],
        labels=labels,
        known=np.ones(n, dtype=bool),
        tasks=tuple("abcdefg"[: labels.shape[1]]),
    )


def activity(columns: list[dict[int, float]], n: int) -> csc_array:
    """Latents as {place: activation}."""
    found = np.zeros((n, len(columns)), dtype=np.float32)
    for latent, column in enumerate(columns):
        for place, value in column.items():
            found[place, latent] = value
    return csc_array(found)


@pytest.fixture(scope="module")
def sae():
    return architecture("topk")(64, 32, 4, generator=torch.Generator().manual_seed(0), normalisation="gao")


# Where a latent is active


def test_bins_are_half_octaves_below_the_largest_activation():
    counts = dashboard.histogram(np.array([1.0, 0.8, 0.7, 0.5, 0.49, 1e-9]), largest=1.0)
    assert counts[-5:].tolist() == [0, 0, 2, 1, 2]  # up to 1/2: 0.5 and 0.49; up to 0.707: 0.7; up to 1: 0.8 and 1
    assert counts[0] == 1 and counts.sum() == 6 and len(counts) == dashboard.BINS


def test_top_contexts_are_of_different_blocks_and_endings():
    tokens = [[1, 2, 3, 4], [1, 2, 9, 9], [5, 6, 7, 8]]
    #         0.9 at block 0; the same ending at block 1; 0.4 and 0.5 at block 2; a last position never counts
    active = activity([{1: 0.9, 5: 0.8, 8: 0.4, 9: 0.5, 11: 1.0}], 12)
    found = list(dashboard.contexts_of(active, 0, text(tokens), np.random.default_rng(0)))
    top = [(one.block, one.position, one.value) for one in found if one.kind == 0]
    assert top == [(0, 1, pytest.approx(0.9)), (2, 1, pytest.approx(0.5))]
    assert found[1].active == [0, 40, 1, 50, 3, 99] and found[1].document == 1  # parts of 99 of the largest, 1.0
    assert {(one.block, one.position) for one in found if one.kind > 0} == {(1, 1), (2, 0)}


def test_random_contexts_come_from_each_quarter():
    tokens = np.arange(64 * 4).reshape(64, 4).tolist()
    active = activity([{4 * i: i + 1.0 for i in range(64)}], 256)
    found = list(dashboard.contexts_of(active, 0, text(tokens), np.random.default_rng(0)))
    assert [one.value for one in found if one.kind == 0] == [64, 63, 62, 61, 60, 59]
    for kind in range(1, 5):
        values = [one.value for one in found if one.kind == kind]
        assert len(values) == dashboard.RANDOM and all(16 * (kind - 1) < value <= 16 * kind for value in values)


def test_a_latent_that_is_never_active_has_no_contexts():
    assert not list(dashboard.contexts_of(activity([{}], 8), 0, text([[1] * 8]), np.random.default_rng(0)))


def test_f1_of_a_latent_and_by_chance():
    """Active on 2 of 8 tokens, a property on 4, both on 2: precision 1, recall 1/2, F1 2/3; by chance 2 (1 token)/6."""
    labels = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]]).T
    found = dashboard.follows(activity([{0: 0.1, 1: 3.0}, {}], 8), text([[0] * 8], labels))
    assert [float(score[0, 0]) for score in found] == pytest.approx([2 / 3, 1 / 3, 1, 1 / 2])
    assert found.gain[0].tolist() == pytest.approx([1 / 3, -1 / 4])
    assert not found.f1[1].any() and np.isfinite(found.gain).all()


def test_f1_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, on = rng.random((200, 3)) < 0.3, rng.random(200) < 0.2
    found = dashboard.follows(csc_array(on[:, None].astype(np.float32)), text([[0] * 200], labels))
    assert found.f1[0] == pytest.approx([f1_score(labels[:, i], on) for i in range(3)])


def test_tokens_without_labels_do_not_count():
    one = text([[0] * 8], np.array([[1, 1, 0, 0, 0, 0, 0, 0]]).T)._replace(known=np.arange(8) < 4)
    found = dashboard.follows(activity([{0: 1.0, 1: 1.0, 6: 1.0}], 8), one)
    assert found.precision[0, 0] == 1 and found.f1[0, 0] == 1


def test_properties_have_plain_names():
    assert dashboard.plain_name("in_docstring") == "docstring"
    assert dashboard.plain_name("paren_depth>=2") == "brackets around, at least 2"
    assert all(dashboard.plain_name(task) for task in dashboard.task_names())


def test_tokens_are_spelled_out():
    model = subject(SOURCE)
    texts = dashboard.token_texts(model.tokenizer, model.d_vocab)
    assert len(texts) == model.d_vocab and texts[0] == "<|endoftext|>" and " in" in texts and "\n" in texts
    assert "\\xe2" in texts  # a byte that is no character on its own
    ids = model.tokenizer.encode("def f(x):\n\treturn 'é'", add_special_tokens=False).ids
    assert "".join(texts[token] for token in ids) == "def f(x):\n\treturn 'é'" or "\\x" in "".join(
        texts[t] for t in ids
    )


def test_a_context_knows_its_file_and_its_labels():
    found = dashboard.held_out(SOURCE)
    assert found.tokens.numel() == len(found.x) == len(found.document) == len(found.labels) == len(found.known)
    assert found.paths[found.document[-1]].endswith(".py") and found.known.all()
    texts = np.array(dashboard.token_texts(subject(SOURCE).tokenizer, 8192))[found.tokens.flatten().numpy()]
    keywords = found.labels[:, found.tasks.index("keyword")]
    assert {"return", "import"} <= {one.strip() for one in texts[keywords]} and keywords.mean() < 0.1


# What it writes, and what its removal costs


def test_scores_of_tokens_by_hand():
    """d = (3, 1, -1) has mean 1: centred (2, 0, -2), with gain (1, 1, 2): (2, 0, -4). Logits 2, 0, -4; mean -2/3."""
    scores = dashboard.vocabulary_scores(torch.tensor([[3.0, 1, -1]]), torch.tensor([1.0, 1, 2]), torch.eye(3))
    logits = np.array([2.0, 0, -4])
    assert scores[0].tolist() == pytest.approx((logits - logits.mean()) / logits.std(ddof=1))


def test_scores_are_the_models_own_at_its_last_hook(sae):
    """There, half of logits(d) - logits(-d) is the direct effect, bias removed, divided by the norm."""
    model, last = subject(SOURCE), f"blocks.{subject(SOURCE).n_layers - 1}.hook_resid_post"
    d = sae.W_dec[:1].detach()
    ends = [model.logits(torch.zeros(1, 1).long(), {last: lambda x, s=s: (s * d).expand_as(x)}) for s in (1e3, -1e3)]
    effect = (ends[0] - ends[1])[0, 0] / 2
    [ours] = dashboard.vocabulary_scores(d, *dashboard.unembedding(model))
    assert torch.allclose(ours, (effect - effect.mean()) / effect.std(), atol=1e-3)


def test_shares_of_all_latents_make_up_the_reconstruction(sae):
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(1)) * 5
    parts = dashboard.latent_share(sae, x.expand(32, -1), torch.arange(32))
    normalised, _, undo = sae.normalise(x)
    centre = undo(sae.b_dec.expand_as(normalised))
    assert torch.allclose(parts.sum(0, keepdim=True) + centre, sae.reconstruct(x), atol=1e-4)


def test_removal_is_the_difference_of_two_losses(sae):
    """Checked against one whole block at a time, neither sorted nor cut."""
    model, tokens = subject(SOURCE), heldout_blocks(SOURCE, 3)
    x = model.activations(tokens, [SOURCE.hook])[SOURCE.hook]
    end = torch.tensor([40, 3, 17])
    active = sae.encode(sae.normalise(x[torch.arange(3), end]).x).argmax(-1)
    removed, random = dashboard.removal(sae, SOURCE, Examples(active, tokens, end, torch.ones(3)))
    for i in range(3):

        def without(x, i=i):
            changed = x.clone()
            changed[:, end[i]] -= dashboard.latent_share(sae, x[:, end[i]], active[i : i + 1])
            return changed

        clean, patched = (model.logits(tokens[i : i + 1], patch)[0, end[i]] for patch in ({}, {SOURCE.hook: without}))
        following = tokens[i, end[i] + 1]
        assert removed[i].item() == pytest.approx(
            (cross_entropy(patched, following) - cross_entropy(clean, following)).item(), abs=1e-4
        )
    assert (random != 0).all() and not torch.allclose(removed, random)


def test_removing_a_latent_that_is_not_active_costs_nothing(sae):
    tokens = heldout_blocks(SOURCE, 1)
    x = subject(SOURCE).activations(tokens, [SOURCE.hook])[SOURCE.hook][:, 5]
    off = sae.encode(sae.normalise(x).x).argmin(-1)
    costs = dashboard.removal(sae, SOURCE, Examples(off, tokens, torch.tensor([5]), torch.ones(1)))
    assert torch.cat(costs).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_the_patterns_of_the_largest_activations_are_kept():
    explanation = Explanation()
    for token in range(7):
        explanation.insert((1, "*", token), token / 10)
    explanation.insert(("^", 9), 5.0)
    found = dashboard.patterns_of(explanation)
    assert found[0] == [5.0, ["^", 9]] and found[1] == [0.6, [1, "*", 6]] and len(found) == dashboard.PATTERNS


# All of it, on an SAE that was not trained


@pytest.fixture(scope="module")
def run():
    return make_run("smoke", "topk", 32, 4, seed=0)


@pytest.fixture(scope="module")
def found(sae, run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dashboard, "TOKENS", 2**11)
        other = architecture("topk")(64, 32, 4, generator=torch.Generator().manual_seed(1), normalisation="gao")
        return json.loads(json.dumps(dashboard.describe(Trained(run, sae, other, torch.zeros(64), {}))))


def test_every_latent_is_described_with_its_controls(found):
    assert [one["number"] for one in found["sae"]["latents"]] == list(range(32))
    assert len(found["drawn"]) == len(found["untrained"]["latents"]) == dashboard.SHOWN
    assert np.mean([one["density"] for one in found["sae"]["latents"]]) == pytest.approx(4 / 32, rel=0.01)  # k / n
    for one in found["sae"]["latents"] + found["untrained"]["latents"]:
        values = [context[4] for context in one["contexts"] if context[0] == 0]
        assert all(a >= b for a, b in pairwise(values)) and len(one["promoted"]) == dashboard.WRITTEN
        assert (one["removed"] is None) == (not values) == (not one["patterns"])
        assert sum(one["histogram"]) == pytest.approx(one["density"] * np.size(found["tokens"]), abs=0.5)


def test_the_row_is_a_summary_of_it(found):
    row = latents.summary(found)
    assert row["latents"] == 32 and row["heldout_tokens_read"] == 2**11
    assert all(np.isfinite(value) for value in row.values())
    costs = [one["removed"] for one in found["sae"]["latents"] if one["removed"] is not None]
    assert row["removed"] == pytest.approx(np.mean(costs)) and 0 <= row["removed_above"] <= 1


def test_what_was_found_is_kept(monkeypatch, tmp_path, run):
    made = []
    monkeypatch.setattr(dashboard, "CACHE", tmp_path)
    monkeypatch.setattr(dashboard, "trained", lambda runs: iter(runs))
    monkeypatch.setattr(dashboard, "describe", lambda one: made.append(one) or {"seen": len(made)})
    assert dashboard.described(run) == dashboard.described(run) == {"seen": 1}


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu", "paper"])
def test_one_autoencoder_of_the_frontier_is_shown(preset):
    from replication.papers.gao2024.frontier import frontier_runs

    assert set(latents.latents_runs(preset)) <= set(frontier_runs(preset))


# Its files, and its latents on a page


@pytest.fixture
def nasty(found):
    """The same with a vocabulary that tries to break out, every token a piece of it."""
    vocabulary = [NASTY[token % len(NASTY)] for token in range(len(found["vocabulary"]))]
    labels = [one | {"name": f"{one['name']}<b>"} for one in found["labels"]]
    return found | {"vocabulary": vocabulary, "files": [f"{path}<i>" for path in found["files"]], "labels": labels}


def data(path) -> object:
    """What a script hands to the dashboard."""
    name, content = re.fullmatch(
        r'dashboard\.receive\("([\w-]+)",(.*)\);\n', path.read_text(encoding="ascii"), re.S
    ).groups()
    assert name == path.stem
    return json.loads(content)


def test_scripts_hold_nothing_that_ends_them(nasty, tmp_path):
    dashboard_html.write(nasty, "one", "page", tmp_path)
    files = {path.stem: path for path in (tmp_path / "one").glob("*.js")}
    assert files.keys() == {"meta", "text", "latents-0000"}
    assert not any("<" in path.read_text() for path in files.values())
    assert data(files["meta"])["vocabulary"] == nasty["vocabulary"]
    assert data(files["latents-0000"]) == nasty["sae"]["latents"]


def test_the_page_of_the_dashboard_asks_for_nothing_from_elsewhere(found, tmp_path):
    address = dashboard_html.write(found, "one", "gao2024-latents", tmp_path)
    page = (tmp_path / "one" / "index.html").read_text()
    assert not re.search(r"https?://|//\w", page) and "../../../book/gao2024-latents.html" in page
    assert address.endswith("/one/index.html")
    for name in re.findall(r'(?:src|href)="\.\./([\w.]+)"', page):
        assert (dashboard_html.ASSETS / name).is_file()


def test_the_text_can_be_read_back(found, tmp_path):
    dashboard_html.write(found, "one", "page", tmp_path)
    stored = data(tmp_path / "one" / "text.js")
    raw = np.frombuffer(base64.b64decode(stored["data"]), dtype=f"<u{stored['bytes']}")
    assert raw.reshape(-1, 64).tolist() == found["tokens"]


def test_a_dashboard_replaces_the_one_before(found, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "latents-0099.js").write_text("old")
    dashboard_html.write(found, "one", "page", tmp_path)
    assert not (tmp_path / "one" / "latents-0099.js").exists()


def test_the_index_has_an_entry_per_latent(found):
    meta = dashboard_html.meta(found)
    assert len(meta["names"]) == 32 + dashboard.SHOWN and meta["names"][-1].startswith("u")
    assert all(len(column) == len(meta["names"]) for column in meta["index"].values())
    assert sum(meta["densities"]["counts"]) == meta["n"] == 32
    one = found["sae"]["latents"][5]
    assert meta["index"]["on"][5] == sorted({found["tokens"][c[1]][c[2]] for c in one["contexts"] if c[0] == 0})


def test_densities_by_hand():
    """Never active; below the first edge, 1e-4, and in its bin; 1 in the last."""
    counts = dashboard_html.densities([0.0, 0.0, 1e-6, 1.2e-4, 1.0])
    assert counts[:3] == [2, 2, 0] and counts[-1] == 1 and len(counts) == len(dashboard_html.EDGES) + 1


def test_code_stays_text_on_a_page(nasty):
    shown = "".join(
        view.data
        for view in (
            dashboard_html.cards(nasty, "a.html", nasty["drawn"]),
            dashboard_html.cards(nasty, "a.html", of="untrained"),
            dashboard_html.labels_table(nasty, "a.html"),
            dashboard_html.door(nasty, "a.html"),
        )
    )
    ours = "link article h3 a p ol li span code mark b div table thead tbody tr th td"
    assert set(re.findall(r"</?([a-z]+\d?)", shown)) <= set(ours.split())
    assert "&lt;script&gt;" in shown and "onerror=alert(1)&gt;" in shown and "\u202e" not in shown
    assert "<b>" not in shown.replace("<b>Open", "") and shown.count('class="latent"') == 2 * dashboard.SHOWN


@pytest.mark.parametrize(
    "text, shown",
    [
        ("\n        ", "↵········"),
        (" the", " the"),
        (" ", "·"),
        ("a  b", "a··b"),
        ("\t\r", "⇥␍"),
        ("\x0f\u202e", "\\x0f\\x202e"),
    ],
)
def test_white_space_and_controls_are_visible(text, shown):
    assert dashboard_html.visible(text) == shown


def test_the_best_latents_of_properties_are_named_once_and_in_order():
    def label(latent, f1, share=0.1):
        return {"latent": latent, "scores": [f1, 0.1, 0.5, 0.5], "share": share}

    labels = [label(3, 0.3), label(5, 0.9), label(5, 0.8), label(7, 0.5), label(9, 1.0, share=0)]
    assert dashboard_html.best_of_labels({"labels": labels}, 2) == [5, 7]
