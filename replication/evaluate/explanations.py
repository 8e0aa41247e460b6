"""Explanations of latents by token patterns: Neuron to Graph (N2G), as released with Gao et al. 2024 (sec. 4.3).

An explanation is found by running the language model on short pieces of text in which a latent was active, and is
judged by how well it predicts, from tokens alone, where the latent is active in other text.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from replication.activations import LanguageModelActivations
from replication.evaluate.downstream import subject
from replication.sae import SAE
from replication.shapes import Float, Int, Tensor

ANY, START, VALUE = "*", "^", "value"
PAD_TEXT = " _"  # what a token is replaced with to see whether it matters: token 4808 of GPT-2 in the released code
KEPT = 0.5  # share of an activation that a shortened text must keep, and that removing a salient token must destroy
AT_ONCE = 2**15  # tokens per forward pass


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
            for key, below in node.items():
                if key not in (ANY, START):
                    chosen = read == key
                    todo.append((below, text[chosen], end[chosen], depth + 1))
            if ANY in node:
                rest = ~np.isin(read, [key for key in node if key not in (ANY, START)])
                todo.append((node[ANY], text[rest], end[rest], depth + 1))
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
