"""Neuron to Graph on latents whose pattern is known, and the measures on numbers that a reader can check."""

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from replication.evaluate import explanations as n2g
from replication.evaluate.downstream import subject
from replication.evaluate.explanations import ANY, START, Bigram, Examples, Explanation, explain
from replication.papers.gao2024.grid import SOURCES, make_run

A, B, C, D, PAD = 0, 1, 2, 3, 9
SOURCE = SOURCES["smoke"]


def examples(*texts: list[int], value: float = 1.0, latent: int = 0) -> Examples:
    """Texts that are active at their last token, padded on the right to one length."""
    width = max(map(len, texts))
    return Examples(
        torch.full((len(texts),), latent),
        torch.tensor([text + [8] * (width - len(text)) for text in texts]),
        torch.tensor([len(text) - 1 for text in texts]),
        torch.full((len(texts),), value),
    )


def latent(fires):
    """An `ActivationOf` from a function of one text that says how active the latent is at its last token."""
    return lambda tokens, latents: torch.tensor([float(fires(text)) for text in tokens.tolist()])


def b_after_a(text):
    return text[-2:] == [A, B]


def test_a_latent_that_fires_on_b_after_a_is_explained_by_that():
    found = explain(latent(b_after_a), examples([C, D, A, B], [A, B]), PAD)[0]
    assert found.trie == {B: {A: {"value": 1.0}}}
    assert found.patterns() == [((A, B), 1.0)]
    assert found.predict(np.array([[A, B, C, A, B, B]])).tolist() == [[0, 1, 0, 0, 1, 0]]


def test_a_token_that_does_not_matter_becomes_a_wildcard():
    found = explain(latent(lambda text: text[-1] == C and text[-3:-2] == [A]), examples([B, A, D, C]), PAD)[0]
    assert found.patterns() == [((A, ANY, C), 1.0)]
    assert [found.at(text) for text in ([A, B, C], [A, C, C], [B, A, C], [A, C], [C])] == [1, 1, 0, 0, 0]


def test_what_fires_on_the_first_token_alone_must_begin_the_text():
    first = explain(latent(lambda text: len(text) == 1), examples([A], [B]), PAD)[0]
    assert first.patterns() == [((START, ANY), 1.0)]
    assert first.predict(np.array([[A, B, C], [C, C, C]])).tolist() == [[1, 0, 0], [1, 0, 0]]


def test_half_of_the_activation_is_enough_for_a_text_and_for_a_token():
    def fires(text):  # 1 with a before b, 0.5 with anything else before it, 0.4 without
        return 0.0 if text[-1] != B else 1.0 if text[-2:-1] == [A] else 0.5 if len(text) > 1 else 0.4

    assert explain(latent(fires), examples([A, B], value=0.8), PAD)[0].patterns() == [((B,), pytest.approx(0.4))]
    # at full strength b alone does not keep half, a b does; without the a exactly half is lost: no wildcard
    assert explain(latent(fires), examples([A, B], value=1.0), PAD)[0].patterns() == [((A, B), 1.0)]


def test_without_a_shorter_text_that_keeps_half_the_whole_text_is_the_pattern():
    found = explain(latent(lambda text: 0.1 * (text == [A, B, C])), examples([A, B, C], value=1.0), PAD)[0]
    assert found.patterns() == [((START, A, B, C), 1.0)]


def test_a_wildcard_stands_for_exactly_one_token():
    """The miss that the released code's own test documents: a latent for c anywhere after a."""
    after_a = latent(lambda text: text[-1] == C and A in text[:-1])
    found = explain(after_a, examples([A, B, C], [B, A, C], [A, C]), PAD)[0]
    assert found.at([A, C]) == found.at([A, D, C]) == 1
    assert found.at([A, B, B, C]) == 0  # where the latent is active


def test_a_choice_is_not_taken_back():
    """A known token goes before a wildcard, also where only the wildcard would have led to a value."""
    explanation = Explanation()
    explanation.insert((B, A, C), 1.0)
    explanation.insert((D, ANY, C), 2.0)
    assert explanation.at([D, B, C]) == 2
    assert explanation.at([D, A, C]) == 0  # matches d * c, but the walk went to a


def test_the_shortest_pattern_on_the_way_gives_the_value_and_a_later_one_replaces_an_equal_one():
    explanation = Explanation()
    explanation.insert((A, B), 1.0)
    explanation.insert((B,), 2.0)
    explanation.insert((B,), 3.0)
    assert explanation.at([A, B]) == 3 and explanation.patterns() == [((B,), 3.0)]


def test_prediction_all_at_once_is_the_walk_at_every_token():
    rng = np.random.default_rng(0)
    for _ in range(30):
        explanation = Explanation()
        for _ in range(8):
            body = [ANY if rng.random() < 0.3 else int(key) for key in rng.integers(0, 4, rng.integers(1, 5))]
            explanation.insert([START, *body] if rng.random() < 0.2 else body, rng.random() + 0.1)
        tokens = rng.integers(0, 4, (5, 9))
        walked = [[explanation.at(text[: end + 1]) for end in range(9)] for text in tokens.tolist()]
        np.testing.assert_array_equal(explanation.predict(tokens), walked)


def test_latents_explained_together_are_those_explained_alone():
    fires = [b_after_a, lambda text: text[-1] == C, lambda text: len(text) == 1]

    def all_of_them(tokens, latents):
        return torch.tensor([float(fires[i](text)) for text, i in zip(tokens.tolist(), latents.tolist(), strict=True)])

    texts = [[D, A, B], [A, B, C], [A]]
    alone = [explain(latent(fires[i]), examples(text), PAD)[0].trie for i, text in enumerate(texts)]
    each = [examples(text, [8] * 3, latent=i) for i, text in enumerate(texts)]  # of one width
    together = Examples(*(torch.cat([part[:1] for part in parts]) for parts in zip(*each, strict=True)))
    assert [explain(all_of_them, together, PAD)[i].trie for i in range(3)] == alone


def test_a_trie_as_plain_dicts():
    explanation = Explanation()
    explanation.insert((START, ANY, B), 0.5)
    start = {"kind": "start", "token": "", "value": 0.5, "before": []}
    middle = {"kind": "any", "token": "", "value": None, "before": [start]}
    last = {"kind": "token", "token": "<1>", "value": None, "before": [middle]}
    assert explanation.to_dict(lambda token: f"<{token}>") == {"value": None, "before": [last]}


def test_scores_by_hand():
    active = csc_array(np.array([[1.0, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1]]))
    simulated = csc_array(np.array([[1.0, 0, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0]]))
    recall, precision, f1 = n2g.scores(simulated, active, [0, 1, 2], np.random.default_rng(0))
    np.testing.assert_allclose(recall, [1, 0, 1 / 3])
    np.testing.assert_allclose(precision, [0.5, np.nan, 1])
    np.testing.assert_allclose(f1, [2 / 3, 0, 0.5])


def test_recall_is_measured_on_sixteen_places():
    active, simulated = csc_array(np.ones((100, 1))), csc_array((np.arange(100) < 50).astype(float)[:, None])
    recalls = [n2g.scores(simulated, active, [0], np.random.default_rng(i)).recall[0] for i in range(200)]
    assert {recall * n2g.EXAMPLES % 1 for recall in recalls} == {0} and np.mean(recalls) == pytest.approx(0.5, abs=0.03)


def test_rescaling_is_least_squares_through_the_origin():
    rng = np.random.default_rng(0)
    simulated, active = rng.random((20, 2)) * (rng.random((20, 2)) < 0.5), rng.random((20, 2))
    simulated = np.column_stack([simulated, np.zeros(20)])
    active = np.column_stack([active, np.ones(20)])
    expected = [np.linalg.lstsq(simulated[:, [i]], active[:, i], rcond=None)[0][0] for i in (0, 1)]
    np.testing.assert_allclose(n2g.rescaling(csc_array(simulated), csc_array(active)), [*expected, 1])


def test_bigrams_by_hand():
    bigram = Bigram.count(np.array([0, 1, 0, 1, 0, 2]), d_vocab=4)
    # 0 begins three pairs, 1 two: p(0), p(1), p(2) are 4/9, 3/9, 1/9. After 0 twice 1 and once 2; the prior counts 2
    expected = -np.log([(2 + 2 * 3 / 9) / (3 + 2), (2 + 2 * 4 / 9) / (2 + 2), (1 + 2 * 1 / 9) / (3 + 2)]).mean()
    assert bigram.loss(np.array([[0, 1, 0, 2]]), prior=2) == pytest.approx(expected)
    # a pair and a first token never seen: the unigram model alone, (0 + 1) / 9
    assert bigram.loss(np.array([[3, 3]]), prior=2) == pytest.approx(np.log(9))


def test_bigram_probabilities_sum_to_one():
    bigram = Bigram.count(np.random.default_rng(0).integers(0, 5, 200), d_vocab=5)
    total = [sum(np.exp(-bigram.loss(np.array([[a, b]]), prior=10)) for b in range(5)) for a in range(5)]
    np.testing.assert_allclose(total, 1)


def test_token_means_by_hand():
    x = torch.tensor([[1.0], [3.0], [8.0]])
    means = n2g.token_means(n2g.Text(torch.tensor([[1, 1, 2]]), x), x, 4)
    torch.testing.assert_close(means, torch.tensor([[4.0], [2.0], [8.0], [4.0]]))


def test_the_pad_token_must_be_one_token():
    assert n2g.pad_token(subject(SOURCE).tokenizer) == subject(SOURCE).tokenizer.token_to_id("Ġ_")
    words = Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    with pytest.raises(ValueError, match="pad must be one token, got 'a b'.*into 2"):
        n2g.pad_token(words, "a b")


@pytest.fixture(scope="module")
def sae():
    sae = make_run("smoke", "topk", 32, 4, 0).build()
    text = n2g.random_text(SOURCE, "train", 16)
    sae.initialise(sae.normalise(text.x).x)
    return sae.eval()


def test_activity_is_the_encoder_on_the_text_and_a_latent_is_one_entry_of_it(sae):
    text = n2g.random_text(SOURCE, "heldout", 4)
    assert text.tokens.shape == (4, 64) and len(text.x) == 256
    found = n2g.activity(sae, text.x)
    with torch.no_grad():
        np.testing.assert_array_equal(found.toarray(), sae.encode(sae.normalise(text.x).x).numpy())
    row, one = 2 * 64 + 30, int(found[[2 * 64 + 30]].tocsr().indices[0])
    value = n2g.latent_of(sae, SOURCE)(text.tokens[2:3, :31], torch.tensor([one]))
    assert value.item() == pytest.approx(found[row, one], abs=1e-5)


def test_examples_are_places_of_activity(sae):
    text = n2g.random_text(SOURCE, "train", 16)
    active = n2g.activity(sae, text.x)
    drawn = n2g.examples(active, text.tokens, [3, 5], np.random.default_rng(0))
    counts = np.minimum(np.diff(active.indptr)[[3, 5]], n2g.EXAMPLES)
    assert np.bincount(drawn.latent.numpy(), minlength=6)[[3, 5]].tolist() == counts.tolist()
    fewer = n2g.examples(active, text.tokens, [3, 5], np.random.default_rng(0), count=2)
    assert fewer.latent.tolist() == [3, 3, 5, 5]
    again = n2g.latent_of(sae, SOURCE)(drawn.tokens[:1, : drawn.end[0] + 1], drawn.latent[:1])
    assert again.item() == pytest.approx(drawn.value[0].item(), abs=1e-5)


def test_texts_of_one_random_order_do_not_overlap():
    first, second = (n2g.random_text(SOURCE, "train", 8, skip).tokens for skip in (0, 8))
    both = n2g.random_text(SOURCE, "train", 16).tokens
    assert torch.equal(torch.cat([first, second]), both)


def test_explained_scores_a_sample_of_latents(sae):
    found = n2g.explained(sae, SOURCE, latents=5, blocks=32, seed=0)
    assert len(found.latents) == len(found.scores.recall) == len(found.density) == 5
    assert found.explanations.keys() == set(found.latents.tolist())
    assert found.l0 == pytest.approx(4, abs=0.1) and 0 < found.explainable <= 1
    text = n2g.random_text(SOURCE, "heldout", 32)
    truth = n2g.activity(sae, text.x).toarray()
    for one, precision, density in zip(found.latents, found.scores.precision, found.density, strict=True):
        predicted = found.explanations[one].predict(text.tokens.numpy()).ravel() > 0
        assert density == pytest.approx((truth[:, one] > 0).mean())
        if predicted.any():
            assert precision == pytest.approx((truth[predicted, one] > 0).mean())


def test_too_little_text_is_one_clear_error(sae):
    with pytest.raises(ValueError, match="no latent is active 16 times in 64 tokens: raise blocks=1"):
        n2g.explained(sae, SOURCE, latents=5, blocks=1, seed=0)


def test_a_simulated_reconstruction_is_the_decoder_on_simulated_latents(sae, monkeypatch):
    tokens = n2g.random_text(SOURCE, "heldout", 2).tokens
    fixed = {3: Explanation({int(tokens[0, 5]): {"value": 0.5}})}
    monkeypatch.setattr(n2g, "explain", lambda *_: fixed)
    monkeypatch.setattr(n2g, "rescaling", lambda *_: np.full(32, 2.0))
    recon = n2g.simulated_reconstruction(sae, SOURCE, tokens, blocks=4, seed=0)
    hit = (tokens == tokens[0, 5]).flatten()
    torch.testing.assert_close(recon[hit], (sae.b_dec + sae.W_dec[3]).detach().expand(int(hit.sum()), -1))
    torch.testing.assert_close(recon[~hit], sae.b_dec.detach().expand(int((~hit).sum()), -1))
