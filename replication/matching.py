"""How much of a known truth a model found: scores of matched latents and of matched dictionary rows, and their chance.

Leading dimensions are models: tensors (..., samples, width) give scores (...). Everything is computed in float64. MCC
is the mean correlation coefficient; 1 = found, and what a trivial model scores is far from 0 in few dimensions, so that
every number here stands beside its chance row.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from replication.shapes import Float, Tensor

CONSTANT = 1e-12  # a latent of less variance than this correlates with nothing (released code of O'Neill et al. 2024)
MATCHINGS = ("hungarian", "greedy")


def correlations(
    truth: Float[Tensor, "*models samples n_true"], found: Float[Tensor, "*models samples n_found"]
) -> Float[Tensor, "*models n_true n_found"]:
    """Pearson correlation of every column of `truth` with every column of `found`; 0 where one is constant."""
    return _standardised(truth).mT @ _standardised(found)


def latent_mcc(
    codes: Float[Tensor, "*models samples n_atoms"], latents: Float[Tensor, "*models samples d_sae"]
) -> Float[Tensor, "*models"]:
    """Mean |Pearson| of codes and latents over samples, each code with one latent (O'Neill et al. 2024).

    The assignment is the best one (Hungarian); where widths differ it is greedy, and the mean is over the narrower of
    the two. Constant latents score 0. Chance: `shuffled_mcc`, and inference with a random dictionary.
    """
    scores = correlations(codes, latents).abs()
    return matched_mean(scores, "hungarian" if scores.shape[-1] == scores.shape[-2] else "greedy")


def signed_mcc(
    codes: Float[Tensor, "*models samples n_atoms"], latents: Float[Tensor, "*models samples n_atoms"]
) -> Float[Tensor, "*models"]:
    """Mean signed Pearson correlation of code j and latent j, unmatched: for models that were taught the codes.

    (O'Neill et al. 2024, known codes.) Chance: 0. Constant latents score 0.
    """
    return (_standardised(codes) * _standardised(latents)).sum(-2).mean(-1)


def dictionary_mcc(
    atoms: Float[Tensor, "*models n_atoms d_in"],
    rows: Float[Tensor, "*models d_sae d_in"],
    matching: str = "hungarian",
) -> Float[Tensor, "*models"]:
    """Mean |Pearson| of atoms and dictionary rows across their d_in entries: "dictionary MCC" of O'Neill et al. 2024.

    Entries are centred, so this is no cosine, and in few dimensions chance is high: two random dictionaries of 16 rows
    in 8 dimensions score 0.66, and 0.64 with matching="greedy". The released code picks pairs greedily and then matches
    what it picked by Hungarian: with equal widths that is Hungarian, and so are the stored values.
    """
    return matched_mean(correlations(atoms.mT, rows.mT).abs(), matching)


def dictionary_cosine(
    atoms: Float[Tensor, "*models n_atoms d_in"], rows: Float[Tensor, "*models d_sae d_in"]
) -> Float[Tensor, "*models"]:
    """Mean |cosine| of atoms and dictionary rows under the best assignment (Hungarian). Zero rows score 0.

    Two random dictionaries of 16 rows in 8 dimensions score 0.62. Where widths differ the mean is over the narrower.
    """
    unit = [torch.nn.functional.normalize(one.double(), dim=-1) for one in (atoms, rows)]
    return matched_mean((unit[0] @ unit[1].mT).abs(), "hungarian")


def matched_mean(scores: Float[Tensor, "*models a b"], matching: str = "hungarian") -> Float[Tensor, "*models"]:
    """Mean score of the pairs of a one-to-one assignment of the narrower side.

    "hungarian": the assignment of the largest mean. "greedy": the largest score first, its row and column removed,
    and again.
    """
    if matching not in MATCHINGS:
        raise ValueError(f"matching must be one of {sorted(MATCHINGS)}, got {matching!r}")
    assign = linear_sum_assignment if matching == "hungarian" else _greedy
    table = scores.detach().cpu().double().numpy()
    flat = table.reshape(-1, *table.shape[-2:])
    means = [one[assign(-one)].mean() for one in flat]
    return torch.tensor(np.array(means).reshape(table.shape[:-2]), dtype=torch.float32)


def matched(scores: Float[Tensor, "a b"]) -> tuple[list[int], list[int]]:
    """Row and column of each pair of the assignment with the largest mean score (Hungarian)."""
    rows, columns = linear_sum_assignment(-scores.detach().cpu().double().numpy())
    return rows.tolist(), columns.tolist()


def shuffled_mcc(codes: Float[Tensor, "samples n_atoms"], generator: torch.Generator) -> Float[Tensor, ""]:
    """A chance row: `latent_mcc` of codes with codes of the same law, each atom's samples in an order of its own."""
    order = torch.rand(codes.shape, generator=generator).argsort(0)
    return latent_mcc(codes, codes.gather(0, order))


def normalised_score(score: float | Tensor, chance: float | Tensor, oracle: float | Tensor) -> float | Tensor:
    """q = (m - chance) / (oracle - chance): 0 = chance, 1 = as good as the best inference with the true dictionary."""
    return (score - chance) / (oracle - chance)


def _standardised(columns: Tensor) -> Tensor:
    """Columns centred over samples and divided by their norm; those of variance below CONSTANT become 0."""
    centred = columns.double()
    centred = centred - centred.mean(-2, keepdim=True)
    squares = centred.square().sum(-2, keepdim=True)
    return torch.where(squares < CONSTANT * columns.shape[-2], 0, centred / squares.clamp(min=1e-300).sqrt())


def _greedy(cost: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows and columns of the pairs: the least cost first, its row and column removed, and again."""
    left = cost.copy()
    pairs = []
    for _ in range(min(cost.shape)):
        row, column = np.unravel_index(np.argmin(left), left.shape)
        pairs.append((int(row), int(column)))
        left[row], left[:, column] = np.inf, np.inf
    rows, columns = zip(*pairs, strict=True)
    return list(rows), list(columns)
