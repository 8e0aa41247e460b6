"""Explanations of latents by token patterns: Neuron to Graph (N2G), as released with Gao et al. 2024 (sec. 4.3).

An explanation is found by running the language model on short pieces of text in which a latent was active, and is
judged by how well it predicts, from tokens alone, where the latent is active in other text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csc_array, hstack
from tokenizers import Tokenizer

from replication.activations import LanguageModelActivations
from replication.evaluate.downstream import heldout_blocks, subject
from replication.sae import SAE
from replication.shapes import Float, Int, Tensor

ANY, START, VALUE = "*", "^", "value"
PAD_TEXT = " _"  # what a token is replaced with to see whether it matters: token 4808 of GPT-2 in the released code
KEPT = 0.5  # share of an activation that a shortened text must keep, and that removing a salient token must destroy
EXAMPLES = 16  # places that an explanation is built from, and as many others that its recall is measured on
AT_ONCE = 2**15  # tokens per forward pass
CHUNK = 8192  # rows encoded at once
BIGRAM_TOKENS = 2**25
PRIORS = (1, 10, 100, 1000)  # tokens that the unigram model counts for in the bigram model


@dataclass(frozen=True)
class Explanation:
    """Patterns of tokens that end where a latent is active, as a trie over reversed text.

    `trie` maps the last token of a pattern, or ANY, to the trie of what stands before it. At the end of a pattern,
    `trie[VALUE]` is the activation that the pattern stands for; one that holds only at the start of a text ends in
    START: `trie[START][VALUE]`.
    """

    trie: dict = field(default_factory=dict)

    def insert(self, pattern: Sequence[int | str], value: float) -> None:
        """Add a pattern in reading order, of tokens and ANY, after START if it must begin the text. One that is there
        already gets the new value."""
        node = self.trie
        for key in reversed(pattern):
            node = node.setdefault(key, {})
        node[VALUE] = value

    def at(self, tokens: Sequence[int]) -> float:
        """Simulated activation at the last token: walk backwards until a node has a value; 0 where the walk fails.

        A token that the node knows goes before ANY, and the choice is not taken back.
        """
        node = self.trie
        for token in reversed(tokens):
            node = node.get(token, node.get(ANY))
            if node is None:
                return 0.0
            if VALUE in node:
                return node[VALUE]
        return node.get(START, {}).get(VALUE, 0.0)

    def predict(self, tokens: Int[np.ndarray, "texts pos"]) -> Float[np.ndarray, "texts pos"]:
        """`at` of every token of every text, all at once."""
        values = np.zeros(tokens.shape)
        todo = [(self.trie, *np.indices(tokens.shape).reshape(2, -1), 0)]
        while todo:  # a node, the (text, position) whose walks stand there, and how many tokens they have read
            node, text, end, depth = todo.pop()
            if VALUE in node:
                values[text, end] = node[VALUE]
                continue
            over = end < depth
            values[text[over], end[over]] = node.get(START, {}).get(VALUE, 0.0)
            text, end = text[~over], end[~over]
            read = tokens[text, end - depth]
            keys = [key for key in node if key not in (ANY, START)]
            known = np.isin(read, keys)
            if ANY in node:
                todo.append((node[ANY], text[~known], end[~known], depth + 1))
            text, end, read = text[known], end[known], read[known]
            for key in keys:
                todo.append((node[key], text[read == key], end[read == key], depth + 1))
        return values

    def patterns(self) -> list[tuple[tuple[int | str, ...], float]]:
        """(pattern in reading order, value) of every pattern that a walk can reach."""
        return list(_patterns(self.trie, ()))

    def to_dict(self, name: Callable[[int], str] = str) -> dict:
        """The trie as plain nested dicts, ready for JSON: {"value": float or None, "before": [node, ...]}, and in every
        node but the root "kind" ("token", "any" or "start") and "token" (its `name`; empty for the other two)."""
        return _as_dict(self.trie, name)


def _patterns(node: dict, after: tuple) -> Iterator[tuple[tuple[int | str, ...], float]]:
    if VALUE in node:
        yield after, node[VALUE]
        return
    for key, below in node.items():
        yield from _patterns(below, (key, *after))


def _as_dict(node: dict, name: Callable[[int], str]) -> dict:
    kinds = {ANY: "any", START: "start"}
    before = [
        {"kind": kinds.get(key, "token"), "token": "" if key in kinds else name(key)} | _as_dict(below, name)
        for key, below in node.items()
        if key != VALUE
    ]
    return {"value": node.get(VALUE), "before": before}


class Examples(NamedTuple):
    """Places where a latent was active, one row each."""

    latent: Int[Tensor, " examples"]
    tokens: Int[Tensor, "examples context"]
    end: Int[Tensor, " examples"]
    """Position of the active token."""
    value: Float[Tensor, " examples"]
    """Its activation there."""


ActivationOf = Callable[[Int[Tensor, "batch pos"], Int[Tensor, " batch"]], Float[Tensor, " batch"]]
"""(tokens, latent) -> activation of latent[i] at the last token of tokens[i]."""


def explain(activation_of: ActivationOf, examples: Examples, pad: int) -> dict[int, Explanation]:
    """Neuron to Graph for every latent among the examples at once. Per example, `value` being its activation:

    1. the shortest piece of text that ends at the active token and keeps half of `value` (the whole text if none does);
    2. if with `pad` in front it no longer keeps half of `value`, the pattern must begin the text;
    3. each of its tokens in turn is replaced by `pad`: one whose loss costs less than half of the piece's activation
       becomes a wildcard;
    4. the pattern is inserted into the latent's trie, with the piece's activation.
    """
    latent, tokens, end, value = examples
    length, kept = _shortest(activation_of, examples)
    found: list[tuple[tuple, float]] = [((), 0.0)] * len(latent)
    for size in length.unique().tolist():
        rows = (length == size).nonzero().squeeze(1)
        piece = _endings(tokens[rows], end[rows], size)
        padded = torch.cat([torch.full_like(piece[:, :1], pad), piece], dim=1)
        anywhere = activation_of(padded, latent[rows]) >= KEPT * value[rows]
        without = piece.repeat_interleave(size, 0)
        without[torch.arange(len(without)), torch.arange(size).repeat(len(piece))] = pad
        left = activation_of(without, latent[rows].repeat_interleave(size)).view(-1, size)
        wildcard = 1 - left / kept[rows, None] < KEPT
        for row, *parts in zip(*(part.tolist() for part in (rows, piece, wildcard, anywhere)), strict=True):
            found[row] = _pattern(*parts), kept[row].item()
    explanations = {one: Explanation() for one in latent.tolist()}
    for one, (pattern, activation) in zip(latent.tolist(), found, strict=True):
        explanations[one].insert(pattern, activation)
    return explanations


def _pattern(tokens: list[int], wildcard: list[bool], anywhere: bool) -> tuple[int | str, ...]:
    body = tuple(ANY if wild else token for token, wild in zip(tokens, wildcard, strict=True))
    return body if anywhere else (START, *body)


def _endings(tokens: Int[Tensor, "rows context"], end: Int[Tensor, " rows"], size: int) -> Int[Tensor, "rows {size}"]:
    """The `size` tokens of each row up to and including its `end`."""
    return tokens.gather(1, end[:, None] + torch.arange(1 - size, 1, device=end.device))


def _shortest(activation_of: ActivationOf, examples: Examples) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Per example, the size of the shortest piece of text that keeps half of the activation, and what it keeps."""
    latent, tokens, end, value = examples
    length, kept = end + 1, value.clone()
    open_ = torch.arange(len(latent), device=end.device)
    for size in range(1, tokens.shape[1] + 1):
        open_ = open_[end[open_] >= size - 1]
        if not len(open_):
            break
        activation = activation_of(_endings(tokens[open_], end[open_], size), latent[open_])
        enough = activation >= KEPT * value[open_]
        length[open_[enough]], kept[open_[enough]] = size, activation[enough]
        open_ = open_[~enough]
    return length, kept


class Text(NamedTuple):
    """Text with the activations of a language model on it."""

    tokens: Int[Tensor, "blocks context"]
    x: Float[Tensor, "n d"]
    """At the source's hook, a row per token, in the order of the text."""


def pad_token(tokenizer: Tokenizer, text: str = PAD_TEXT) -> int:
    """The token that stands for "something else". ValueError where the tokenizer splits `text`."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) != 1:
        raise ValueError(f"pad must be one token, got {text!r}, which this tokenizer turns into {len(ids)}")
    return ids[0]


@lru_cache(maxsize=4)
def random_text(source: LanguageModelActivations, split: str, blocks: int, skip: int = 0, device: str = "cpu") -> Text:
    """`blocks` random blocks of a split after the first `skip` of the same random order; all there are if fewer."""
    model = subject(source, device)
    text = source.corpus.build(model.tokenizer).blocks(split, source.context)
    chosen = np.random.default_rng(0).permutation(len(text))[skip : skip + blocks]
    return read(source, torch.from_numpy(text[chosen].astype("int64")), device)


def read(source: LanguageModelActivations, tokens: Int[Tensor, "blocks context"], device: str = "cpu") -> Text:
    """Text of a source with its activations, in float32."""
    model, step = subject(source, device), max(1, AT_ONCE // tokens.shape[1])
    x = [model.activations(part, [source.hook])[source.hook].flatten(0, 1) for part in tokens.split(step)]
    return Text(tokens, torch.cat(x))


def latent_of(sae: SAE, source: LanguageModelActivations, device: str = "cpu") -> ActivationOf:
    """What `explain` asks for, by a forward pass of the source's language model up to its hook."""
    model = subject(source, device)

    @torch.no_grad()
    def activation_of(tokens: Tensor, latent: Tensor) -> Tensor:
        found, step = [], max(1, AT_ONCE // tokens.shape[1])
        for part, wanted in zip(tokens.split(step), latent.split(step), strict=True):
            x = model.activations(part, [source.hook])[source.hook][:, -1]
            latents = sae.encode(sae.normalise(x).x)
            found.append(latents.gather(1, wanted[:, None].to(x.device)).squeeze(1).cpu())
        return torch.cat(found)

    return activation_of


@torch.no_grad()
def activity(sae: SAE, x: Float[Tensor, "n d"]) -> csc_array:
    """(n, d_sae) latents of every row, as a sparse matrix that is quick to read by latent."""
    places, latents, values = [], [], []
    for begin in range(0, len(x), CHUNK):
        dense = sae.encode(sae.normalise(x[begin : begin + CHUNK]).x)
        place, latent = dense.nonzero(as_tuple=True)
        places.append((place + begin).cpu())
        latents.append(latent.cpu())
        values.append(dense[place, latent].cpu())
    entries = torch.cat(values).numpy(), (torch.cat(places).numpy(), torch.cat(latents).numpy())
    return csc_array(entries, shape=(len(x), sae.d_sae))


def simulate(explanations: dict[int, Explanation], tokens: Int[Tensor, "blocks context"], d_sae: int) -> csc_array:
    """(n, d_sae) simulated latents on the tokens, zero for those without an explanation; not yet on a scale."""
    text, empty = tokens.numpy(), csc_array((tokens.numel(), 1))
    columns = [
        csc_array(explanations[one].predict(text).reshape(-1, 1)) if one in explanations else empty
        for one in range(d_sae)
    ]
    return hstack(columns, format="csc")


def examples(
    active: csc_array,
    tokens: Int[Tensor, "blocks context"],
    latents: Iterable[int],
    rng: np.random.Generator,
    count: int = EXAMPLES,
) -> Examples:
    """Up to `count` random places of each latent's activity, with the blocks that they lie in."""
    chosen = {one: _random_entries(active, one, rng)[:count] for one in latents}
    entries = np.concatenate([*chosen.values(), np.empty(0, dtype=np.int64)])
    place = torch.from_numpy(active.indices[entries].astype("int64"))
    return Examples(
        latent=torch.tensor([one for one, of in chosen.items() for _ in of], dtype=torch.int64),
        tokens=tokens[place // tokens.shape[1]],
        end=place % tokens.shape[1],
        value=torch.from_numpy(active.data[entries]),
    )


def _random_entries(active: csc_array, latent: int, rng: np.random.Generator) -> np.ndarray:
    """Indices into `active.data` of up to EXAMPLES entries of one column, without replacement."""
    first, last = active.indptr[latent : latent + 2]
    return first + rng.permutation(last - first)[:EXAMPLES]


class Scores(NamedTuple):
    """How well an explanation predicts, one entry per latent."""

    recall: np.ndarray
    """Share of up to EXAMPLES random places of activity that are predicted."""
    precision: np.ndarray
    """Share of the places predicted in all the text where the latent is active; NaN where nothing is predicted."""
    f1: np.ndarray
    """2 recall precision / (recall + precision); 0 where both are 0 or nothing is predicted."""


def scores(simulated: csc_array, active: csc_array, latents: Iterable[int], rng: np.random.Generator) -> Scores:
    """Recall, precision and F1 of simulated against true activity on the same text; values are not compared.

    Every latent must be active somewhere in it. An explanation that predicts nothing has a recall of 0.
    """
    found = []
    for one in latents:
        predicted = simulated.indices[slice(*simulated.indptr[one : one + 2])]
        true = active.indices[slice(*active.indptr[one : one + 2])]
        recall = np.isin(active.indices[_random_entries(active, one, rng)], predicted).mean()
        precision = np.isin(predicted, true).mean() if len(predicted) else np.nan
        f1 = 2 * recall * precision / (recall + precision) if recall > 0 else 0.0
        found.append((recall, precision, f1))
    return Scores(*np.array(found, dtype=float).reshape(-1, 3).T)


class Explained(NamedTuple):
    """Some latents of an SAE with their explanations and what these are worth; arrays have an entry per latent."""

    latents: np.ndarray
    explanations: dict[int, Explanation]
    scores: Scores
    density: np.ndarray
    """Share of tokens on which the latent is active: also the precision of predicting places at random."""
    l0: float
    explainable: float
    """Share of all latents with EXAMPLES places of activity in both texts, of which these are a sample."""


def explained(
    sae: SAE, source: LanguageModelActivations, latents: int, blocks: int, seed: int, device: str = "cpu"
) -> Explained:
    """Explain a random sample of latents on `blocks` blocks of training text, score them on as many held-out ones.

    Sampled are latents that are active at EXAMPLES or more places in either text. `seed` draws latents and places, not
    the text.
    """
    rng = np.random.default_rng(seed)
    built, heldout = (random_text(source, split, blocks, device=device) for split in ("train", "heldout"))
    active, truth = activity(sae, built.x), activity(sae, heldout.x)
    enough = (np.diff(active.indptr) >= EXAMPLES) & (np.diff(truth.indptr) >= EXAMPLES)
    if not enough.any():
        raise ValueError(f"no latent is active {EXAMPLES} times in {len(built.x):,} tokens: raise blocks={blocks}")
    chosen = np.sort(rng.permutation(enough.nonzero()[0])[:latents])
    explanations = explain(
        latent_of(sae, source, device),
        examples(active, built.tokens, chosen.tolist(), rng),
        pad_token(subject(source, device).tokenizer),
    )
    simulated = simulate(explanations, heldout.tokens, sae.d_sae)
    return Explained(
        chosen,
        explanations,
        scores(simulated, truth, chosen.tolist(), rng),
        np.diff(truth.indptr)[chosen] / len(heldout.x),
        truth.nnz / len(heldout.x),
        enough.mean().item(),
    )


def rescaling(simulated: csc_array, active: csc_array) -> Float[np.ndarray, " d_sae"]:
    """E[s a] / E[s^2] per latent: the factor on simulated activations s that brings them nearest to the true ones a
    (least squares; sec. 4.4). 1 where nothing is simulated."""
    power = simulated.multiply(simulated).sum(0)
    return np.divide(simulated.multiply(active).sum(0), power, out=np.ones_like(power), where=power > 0)


@torch.no_grad()
def simulated_reconstruction(
    sae: SAE,
    source: LanguageModelActivations,
    tokens: Int[Tensor, "texts context"],
    blocks: int,
    seed: int,
    device: str = "cpu",
    places: int = EXAMPLES,
) -> Float[Tensor, "n d_in"]:
    """recon = b_dec + sum_i f_i s_i W_dec[i] on `tokens`, normalised: latents as their explanations predict them.

    Every latent that is active in `blocks` blocks of training text is explained from up to `places` places there; the
    factors f are fitted by `rescaling` on as many other blocks of training text.
    """
    rng = np.random.default_rng(seed)
    built, other = (random_text(source, "train", blocks, skip, device) for skip in (0, blocks))
    active = activity(sae, built.x)
    alive = np.diff(active.indptr).nonzero()[0].tolist()
    explanations = explain(
        latent_of(sae, source, device),
        examples(active, built.tokens, alive, rng, places),
        pad_token(subject(source, device).tokenizer),
    )
    factors = rescaling(simulate(explanations, other.tokens, sae.d_sae), activity(sae, other.x))
    dictionary = factors[:, None] * sae.W_dec.cpu().numpy()
    recon = torch.from_numpy(simulate(explanations, tokens, sae.d_sae) @ dictionary)
    return sae.b_dec + recon.to(device, torch.float32)


def token_means(text: Text, x: Float[Tensor, "n d"], d_vocab: int) -> Float[Tensor, "d_vocab d"]:
    """Mean of the rows of x at each token; the mean of all rows for a token that the text does not have."""
    tokens = text.tokens.flatten().to(x.device)
    count = torch.bincount(tokens, minlength=d_vocab)[:, None]
    total = x.new_zeros(d_vocab, x.shape[1]).index_add(0, tokens, x)
    return torch.where(count > 0, total / count.clamp(min=1), x.mean(0))


class Bigram(NamedTuple):
    """p(b | a) = (count(a b) + prior p(b)) / (count(a) + prior),   p(b) = (count(b) + 1) / (pairs + d_vocab).

    Counts of single tokens are those of the first tokens of the pairs.
    """

    d_vocab: int
    codes: Int[np.ndarray, " pairs"]
    """a d_vocab + b of every pair seen, ascending."""
    pairs: Int[np.ndarray, " pairs"]
    """How often."""
    singles: Int[np.ndarray, " d_vocab"]

    @classmethod
    def count(cls, tokens: Int[np.ndarray, " n"], d_vocab: int) -> "Bigram":
        codes, pairs = np.unique(tokens[:-1] * d_vocab + tokens[1:], return_counts=True)
        return cls(d_vocab, codes, pairs, np.bincount(tokens[:-1], minlength=d_vocab))

    def loss(self, tokens: Int[np.ndarray, "blocks context"], prior: float) -> float:
        """Mean -ln p(next token | token) within blocks, in nats."""
        a, b = tokens[:, :-1].ravel(), tokens[:, 1:].ravel()
        code = a * self.d_vocab + b
        at = np.searchsorted(self.codes, code).clip(max=len(self.codes) - 1)
        together = np.where(self.codes[at] == code, self.pairs[at], 0)
        alone = (self.singles[b] + 1) / (self.singles.sum() + self.d_vocab)
        return -np.log((together + prior * alone) / (self.singles[a] + prior)).mean().item()


@lru_cache(maxsize=4)
def bigram_loss(source: LanguageModelActivations, blocks: int) -> float:
    """Loss of a bigram model on the first held-out blocks, in nats per predicted token.

    It counts up to BIGRAM_TOKENS training tokens but for the last fiftieth, on which the best of PRIORS is chosen.
    """
    model = subject(source)
    text = source.corpus.build(model.tokenizer).blocks("train", source.context)
    text = text[: BIGRAM_TOKENS // source.context].astype(np.int64)
    kept = len(text) - max(1, len(text) // 50)
    bigram = Bigram.count(text[:kept].ravel(), model.d_vocab)
    prior = min(PRIORS, key=lambda one: bigram.loss(text[kept:], one))
    return bigram.loss(heldout_blocks(source, blocks).numpy(), prior)
