"""Probes: by hand, against scikit-learn, and labels that stand where the tokens are."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from replication.corpora import HubDataset, PythonSource, TokenFile
from replication.evaluate import probes
from replication.evaluate.downstream import subject
from replication.papers.gao2024.grid import SOURCES

SOURCE = SOURCES["smoke"]


def rows(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of mean 0 and variance 1, four of them heavy-tailed, and one in ten labels that depends on the first."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(8, n, generator=generator)
    z[4:] = z[4:] ** 3
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)
    return z, z[0] + torch.randn(n, generator=generator) > 1.8


def test_both_classes_weigh_the_same_and_knowing_nothing_costs_ln_2():
    y = torch.tensor([True, False, False, False])
    weight = probes.balanced_weights(y)
    assert weight.tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert probes.weighted_bce(torch.zeros(1, 4), y, weight).item() == pytest.approx(math.log(2))


def test_loss_by_hand():
    """Logit ln 3 gives probability 3/4: -ln(3/4) on the positive and -ln(1/4) on the negative, half of each."""
    y = torch.tensor([True, False])
    loss = probes.weighted_bce(torch.full((1, 2), math.log(3)), y, probes.balanced_weights(y))
    assert loss.item() == pytest.approx(0.5 * math.log(4 / 3) + 0.5 * math.log(4), abs=1e-6)


def test_newton_by_hand():
    """z = -1 or 1 with 3 of 4 labels right: the best probability is 3/4, so w = ln 3 and b = 0."""
    z = torch.tensor([[-1.0, -1, -1, -1, 1, 1, 1, 1]])
    y = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0]).bool()
    w, b = probes.logistic_newton(z, y, probes.balanced_weights(y), ridge=0)
    assert (w.item(), b.item()) == (pytest.approx(math.log(3), abs=1e-4), pytest.approx(0, abs=1e-4))


def test_newton_finds_the_minimum_of_scikit_learn():
    z, y = rows(2000)
    weight = probes.balanced_weights(y)
    w, b = probes.logistic_newton(z, y, weight)
    loss = probes.weighted_bce(z * w[:, None] + b[:, None], y, weight)
    for i in range(len(z)):
        reference = LogisticRegression(C=1 / probes.RIDGE, tol=1e-10, max_iter=1000)
        reference.fit(z[i].numpy()[:, None], y.numpy(), sample_weight=weight.numpy())
        expected = probes.weighted_bce(
            torch.from_numpy(reference.decision_function(z[i].numpy()[:, None])).float()[None], y, weight
        )
        assert loss[i].item() == pytest.approx(expected.item(), abs=1e-5)
        assert w[i].item() == pytest.approx(reference.coef_.item(), abs=2e-3)
        assert b[i].item() == pytest.approx(reference.intercept_.item(), abs=2e-3)


def test_newton_does_not_overshoot_where_a_feature_separates_the_classes():
    z, _ = rows(2000)
    y = z[0] > 1.5
    w, b = probes.logistic_newton(z[:1], y, probes.balanced_weights(y))
    assert w.isfinite().all() and w.item() > 5
    assert probes.weighted_bce(z[:1] * w[:, None] + b[:, None], y, probes.balanced_weights(y)).item() < 0.05


def test_first_step_gain_is_half_the_squared_correlation():
    """x = -1, -1, 1, 1 and y the same but for one: the correlation is 1/2 when the classes are equal."""
    x = torch.tensor([[-1.0], [-1], [-1], [-1], [1], [1], [1], [1]])
    y = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0]).bool()
    assert probes.first_step_gain(x, y, torch.ones(1, 1)).item() == pytest.approx(0.5 * 0.5**2)
    y[0] = True  # five of eight: weights make up for it
    weighted = np.cov(x[:, 0], y, aweights=probes.balanced_weights(y), ddof=0)
    correlation = weighted[0, 1] / np.sqrt(weighted[0, 0] * weighted[1, 1])
    gain = probes.first_step_gain(x, y, torch.tensor([[-3.0]]))  # neither sign nor scale of the feature matters
    assert gain.item() == pytest.approx(correlation**2 / 2, abs=1e-6)


def planted(n: int = 3000, d: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two tasks, each readable from one of 40 random directions (numbers 7 and 30) with some noise."""
    generator = torch.Generator().manual_seed(0)
    x, directions = torch.randn(n, d, generator=generator), torch.randn(d, 40, generator=generator)
    noise = torch.randn(n, 2, generator=generator)
    labels = x @ directions[:, [7, 30]] + noise > torch.tensor([1.0, 4.0])
    return x, labels, torch.arange(n) % 2 == 0, directions


def test_the_planted_features_are_found_and_screening_changes_nothing():
    x, labels, train, directions = planted()
    found = probes.probe(x, labels, train, directions, kept=5)
    every = probes.probe(x, labels, train, directions, kept=40)
    assert found.chosen.tolist() == every.chosen.tolist() == [7, 30]
    torch.testing.assert_close(found.test, every.test)
    assert (found.test < 0.45).all()


def test_the_training_half_flatters_and_the_other_half_does_not():
    """Labels without any structure: the minimum over many features is below ln 2 by chance, the held-out loss above."""
    generator = torch.Generator().manual_seed(1)
    x, directions = torch.randn(200, 16, generator=generator), torch.randn(16, 300, generator=generator)
    labels = torch.rand(200, 12, generator=generator) < 0.3
    found = probes.probe(x, labels, torch.arange(200) < 100, directions)
    assert found.train.mean() < math.log(2) - 0.02 and found.test.mean() > math.log(2)


def test_scaling_and_shifting_a_feature_changes_nothing():
    x, labels, train, directions = planted(600)
    found = probes.probe(x, labels, train, directions)
    scaled = probes.probe(x + 3, labels, train, 100 * directions)
    torch.testing.assert_close(found.test, scaled.test, atol=1e-4, rtol=1e-4)


def test_bad_input_is_named():
    x, labels, train, directions = planted(100)
    with pytest.raises(ValueError, match="a row for each of 100, got 99"):
        probes.check(x, labels[1:], train, directions)
    with pytest.raises(ValueError, match="directions must have 12 rows"):
        probes.check(x, labels, train, directions[1:])
    with pytest.raises(ValueError, match="task 1 must have both classes in each half, test has one"):
        probes.probe(x, torch.stack([labels[:, 0], labels[:, 1] & train], dim=1), train, directions)


def test_a_task_needs_enough_of_both_classes_in_each_half():
    train = torch.arange(8) < 4
    rare = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1]).bool()
    even = torch.tensor([1, 1, 0, 0, 0, 0, 1, 1]).bool()
    labels = torch.stack([even, rare, ~rare], dim=1)
    assert probes.has_enough(labels, train, least=2).tolist() == [True, False, False]


def test_labels_stand_at_their_tokens():
    data, model = probes.python_tasks(SOURCE), subject(SOURCE)
    text = SOURCE.corpus.build(model.tokenizer)
    tokens, labels, halves, inside = probes.windows(text, model.tokenizer, SOURCE.context)
    assert data.activations.shape == (inside.sum(), model.width(SOURCE.hook))
    assert labels.shape == (*tokens.shape, len(probes.task_names()))
    comment = labels[..., probes.task_names().index("in_comment")]
    words = [model.tokenizer.decode([token]) for token in tokens[comment]]
    assert any("#" in word for word in words) and not any(word.startswith("import") for word in words)
    activations = model.activations(torch.from_numpy(tokens[:3]), [SOURCE.hook])[SOURCE.hook]
    torch.testing.assert_close(data.activations[: inside[:3].sum()], activations.flatten(0, 1)[inside[:3].flatten()])
    assert not labels[~inside].any() and 0.3 < halves.mean() < 0.7
    assert probes.has_enough(data.labels, data.train).all() and len(data.tasks) == data.labels.shape[1] >= 10


def test_the_labelled_text_is_named_also_where_it_is_not_the_sources_own():
    assert probes.labelled_fingerprint(SOURCE) == SOURCE.fingerprints()["corpus_fingerprint"]
    other = replace(SOURCE, corpus=HubDataset("owner/name", revision="main"))
    assert probes._labelled_text(other) == PythonSource() and probes._labelled_text(SOURCE) == SOURCE.corpus


class Text(TokenFile):
    """Held-out documents in memory."""

    def tokens(self, split):
        return np.concatenate(self.manifest["stream"])


def text_of(*documents) -> Text:
    stream = [np.array([0, *ids]) for ids in documents]
    files = [{"tokens": len(ids), "split": "heldout"} for ids in stream]
    return Text(Path("here"), {"files": files, "stream": stream})


def test_no_window_holds_two_files_and_no_file_is_in_both_halves():
    model = subject(SOURCE)

    def code(line: str, times: int) -> list[int]:
        return model.tokenizer.encode(line * times).ids

    documents = [code("a = 1\n", 50), code("(", 99), code("# b\n", 40), code("x", 1), code("c()\n", 30)]
    tokens, labels, halves, inside = probes.windows(text_of(*documents), model.tokenizer, 16)
    text = [model.tokenizer.decode(row[row > 0].tolist()) for row in tokens]
    kinds = ["a" if "a" in one else "b" if "b" in one else "c" for one in text]  # the unparsable and the short are out
    assert "".join(kinds) == "".join(sorted(kinds)) and set(kinds) == {"a", "b", "c"}
    assert [kinds[i] for i in np.flatnonzero(~halves)] == ["b"] * kinds.count("b")
    assert tokens[0, 0] == 0 and not inside[0, 0] and inside.sum() % 16 == 13
    alone = probes.windows(text_of(documents[0]), model.tokenizer, 16)[2]
    assert sorted(set(alone.tolist())) == [False, True]
    with pytest.raises(ValueError, match="no held-out Python file"):
        probes.windows(text_of(documents[1]), model.tokenizer, 16)


def test_files_are_evenly_spaced_among_all(monkeypatch):
    monkeypatch.setattr(probes, "DOCUMENTS", 3)
    tokenizer = subject(SOURCE).tokenizer
    text = text_of(*(tokenizer.encode(f"{letter} = 1\n" * 20).ids for letter in "abcde"))
    tokens, *_ = probes.windows(text, tokenizer, 16)
    assert {letter for row in tokens for letter in tokenizer.decode(row.tolist()) if letter in "abcde"} == set("ace")
