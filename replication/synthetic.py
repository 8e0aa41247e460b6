"""Data with known truth: unit atoms, sparse codes, and when the codes can be recovered at all.

The truth has *atoms*, the rows of `atoms` (n_atoms, d_in), and *codes* (samples, n_atoms): x = codes @ atoms, without
noise and without offset. In the notation of O'Neill et al. 2024 n_atoms is N, d_in is M, and k, the number of active
atoms of a sample, is K.
"""

import itertools
import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linprog

from replication.shapes import Bool, Float, Tensor

MOST_SUBSETS = 100_000  # sets of atoms that a search by brute force goes through; more are refused


class SparseData(NamedTuple):
    """One draw of `SparseCodes`."""

    atoms: Float[Tensor, "n_atoms d_in"]
    train_codes: Float[Tensor, "train n_atoms"]
    test_codes: Float[Tensor, "test n_atoms"]
    train_x: Float[Tensor, "train d_in"]
    test_x: Float[Tensor, "test d_in"]


@dataclass(frozen=True)
class SparseCodes:
    """Exactly k of n_atoms codes active, each |N(0, 1)|; Gaussian directions as atoms (O'Neill et al. 2024, its code).

    `draw` is that code's data set of the same seed, number by number: its order of draws, from numpy's legacy generator
    for codes and torch's CPU generator for atoms. Default sizes and seed are those of its known-codes experiment.
    """

    n_atoms: int
    d_in: int
    k: int
    train: int = 1024
    test: int = 1024
    seed: int = 20240625

    def __post_init__(self):
        _refuse_nonsense(self, least={"n_atoms": 1, "d_in": 1, "k": 1, "train": 1, "test": 0, "seed": 0})
        if self.k > self.n_atoms:
            raise ValueError(f"k must be at most n_atoms={self.n_atoms}, got {self.k}")

    def draw(self) -> SparseData:
        """Atoms (n_atoms, d_in) of norm 1, codes and x = codes @ atoms of the training and of the test samples."""
        legacy = np.random.RandomState(self.seed)
        codes = np.zeros((self.train + self.test, self.n_atoms))
        for sample in codes:  # one by one: the order of draws is part of the data set
            values = np.abs(legacy.normal(0, 1, self.n_atoms))
            active = legacy.choice(self.n_atoms, self.k, replace=False)
            sample[active] = values[active]
        codes = torch.tensor(codes, dtype=torch.float32)
        atoms = random_dictionary(self.n_atoms, self.d_in, torch.Generator().manual_seed(self.seed))
        x = codes @ atoms
        return SparseData(atoms, codes[: self.train], codes[self.train :], x[: self.train], x[self.train :])


class CompositionData(NamedTuple):
    """One draw of `Compositions`: training and validation samples of known compositions, test samples of new ones."""

    atoms: Float[Tensor, "n_atoms d_in"]
    train_codes: Float[Tensor, "train n_atoms"]
    val_codes: Float[Tensor, "train n_atoms"]
    ood_codes: Float[Tensor, "train n_atoms"]
    train_x: Float[Tensor, "train d_in"]
    val_x: Float[Tensor, "train d_in"]
    ood_x: Float[Tensor, "train d_in"]

    @staticmethod
    def labels(codes: Float[Tensor, "samples n_atoms"]) -> Bool[Tensor, " samples"]:
        """What a probe has to tell: whether atom 0 is active with more than 0.5."""
        return codes[:, 0] > 0.5


@dataclass(frozen=True)
class Compositions:
    """Atom 0 meets half of the others in training and the other half only in the OOD test (Barin Pacela et al. 2026).

    Codes are U(0, 1) on exactly k atoms. In training and validation one half of the samples, by coin, hold atom 0 with
    k - 1 of the atoms 1 .. n_atoms - n_atoms // 2 - 1, the others k of the atoms 1 .. n_atoms - 1; in the OOD test
    every sample holds atom 0 with k - 1 of the last n_atoms // 2. Each atom has been seen, its company not.
    `d_in` is by default ceil(2 k ln(n_atoms / k)); each of the three sets has `samples` samples. Numpy's legacy
    generator draws atoms, then codes, as in the released code.
    """

    n_atoms: int
    k: int = 10
    d_in: int | None = None
    samples: int = 2500
    seed: int = 0

    def __post_init__(self):
        if self.d_in is None and 0 < self.k < self.n_atoms:
            object.__setattr__(self, "d_in", math.ceil(drawn_boundary(self.n_atoms, self.k)))
        _refuse_nonsense(self, least={"n_atoms": 2, "k": 1, "d_in": 1, "samples": 1, "seed": 0})
        partners = min(self.n_atoms - self.n_atoms // 2 - 1, self.n_atoms // 2)
        if self.k - 1 > partners:
            raise ValueError(f"k must be at most {partners + 1} where n_atoms={self.n_atoms}, got {self.k}")

    def draw(self) -> CompositionData:
        """Atoms of norm 1, the codes and x = codes @ atoms of the three sets."""
        legacy = np.random.RandomState(self.seed)
        atoms = legacy.normal(0, 1, (self.d_in, self.n_atoms)).T
        atoms = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
        known = np.array([self._known(legacy) for _ in range(2 * self.samples)])
        new = np.array([self._with_atom_0(legacy, self.n_atoms - self.n_atoms // 2) for _ in range(self.samples)])
        sets = [known[: self.samples], known[self.samples :], new]
        tensors = [torch.tensor(one, dtype=torch.float32) for one in (*sets, *(codes @ atoms for codes in sets))]
        return CompositionData(torch.tensor(atoms, dtype=torch.float32), *tensors)

    def _known(self, legacy: np.random.RandomState) -> np.ndarray:
        if legacy.binomial(n=1, p=0.5):
            return self._with_atom_0(legacy, 1, self.n_atoms - self.n_atoms // 2)
        return self._sample(legacy, legacy.choice(np.arange(1, self.n_atoms), self.k, replace=False))

    def _with_atom_0(self, legacy: np.random.RandomState, first: int, end: int | None = None) -> np.ndarray:
        partners = legacy.choice(np.arange(first, end or self.n_atoms), self.k - 1, replace=False)
        return self._sample(legacy, np.concatenate([np.zeros(1, dtype=int), partners]))

    def _sample(self, legacy: np.random.RandomState, active: np.ndarray) -> np.ndarray:
        codes = np.zeros(self.n_atoms)
        codes[active] = legacy.uniform(0, 1, self.k)
        return codes


def random_dictionary(n_atoms: int, d_in: int, generator: torch.Generator) -> Float[Tensor, "n_atoms d_in"]:
    """Gaussian directions: rows N(0, I) divided by their norms. The truth's own law, so its chance level as well."""
    atoms = torch.randn(n_atoms, d_in, generator=generator)
    return atoms / torch.linalg.norm(atoms, dim=1, keepdim=True)


def drawn_boundary(n_atoms: int, k: int) -> float:
    """2 K ln(N/K), natural logarithm: the recovery boundary as the figures of O'Neill et al. 2024 draw it, in d_in."""
    return 2 * k * math.log(_ratio(n_atoms, k))


def natural_boundary(n_atoms: int, k: int) -> float:
    """K ln(N/K), natural logarithm: the bound M >= K log(N/K) of the theorem with its constant 1, in d_in."""
    return k * math.log(_ratio(n_atoms, k))


def binary_boundary(n_atoms: int, k: int) -> float:
    """K log2(N/K), binary logarithm: the same bound in bits, about the information in a support, in d_in."""
    return k * math.log2(_ratio(n_atoms, k))


def coherence(atoms: Float[Tensor, "n_atoms d_in"]) -> float:
    """mu = max over i != j of |a_i . a_j|, atoms at unit norm. Pursuit is sure for k < (1 + 1/mu) / 2 (Tropp 2004)."""
    gram = torch.nn.functional.normalize(atoms.double(), dim=-1)
    gram = gram @ gram.T
    return gram.fill_diagonal_(0).abs().max().item()


def welch_bound(n_atoms: int, d_in: int) -> float:
    """sqrt((N - M) / (M (N - 1))), the least coherence of N unit atoms in M dimensions (Welch 1974); 0 for N <= M."""
    return math.sqrt(max(n_atoms - d_in, 0) / (d_in * max(n_atoms - 1, 1)))


def spark(atoms: Float[Tensor, "n_atoms d_in"], tolerance: float = 1e-6) -> int:
    """The smallest number of linearly dependent atoms, by brute force; n_atoms + 1 if all are independent.

    A k-sparse code is the only one of its x if 2 k < spark (Donoho and Elad 2003). Atoms count as dependent if the
    smallest singular value of the set is at most `tolerance` times the largest. ValueError above MOST_SUBSETS sets of
    one size.
    """
    n_atoms, d_in = atoms.shape
    for size in range(1, min(n_atoms, d_in) + 1):
        singular = torch.linalg.svdvals(atoms.double()[_subsets(n_atoms, size)])
        if (singular[:, -1] <= tolerance * singular[:, 0].clamp(min=1e-300)).any():
            return size
    return min(n_atoms, d_in) + 1


def in_general_position(atoms: Float[Tensor, "n_atoms d_in"]) -> bool:
    """Whether every min(d_in, n_atoms) atoms are linearly independent: spark as large as it can be."""
    return spark(atoms) == min(atoms.shape) + 1


def isometry_constant(atoms: Float[Tensor, "n_atoms d_in"], k: int) -> float:
    """delta_k, the least delta with (1 - delta)|s|^2 <= |s @ atoms|^2 <= (1 + delta)|s|^2 for every k-sparse s.

    By brute force: over all sets of k atoms, the largest distance from 1 of an eigenvalue of their Gram matrix. l1
    minimisation is sure for delta_2k < 0.414 (Candes 2008). ValueError above MOST_SUBSETS sets.
    """
    if not 1 <= k <= len(atoms):
        raise ValueError(f"k must be between 1 and n_atoms={len(atoms)}, got {k}")
    chosen = atoms.double()[_subsets(len(atoms), k)]
    return (torch.linalg.eigvalsh(chosen @ chosen.mT) - 1).abs().max().item()


def in_cone_of_others(atoms: Float[Tensor, "n_atoms d_in"]) -> Bool[Tensor, " n_atoms"]:
    """Which atoms are non-negative combinations of the others, by linear programming.

    One linear unit and a ReLU are exact for codes of one active atom if and only if no atom is: w_i . a_i = 1 and
    w_i . a_j <= 0 for all other j is then solvable (the remark on K = 1, which the theorem leaves out).
    """
    rows = atoms.double().numpy()
    inside = [
        linprog(np.zeros(len(rows) - 1), A_eq=np.delete(rows, i, 0).T, b_eq=rows[i], method="highs").status == 0
        if len(rows) > 1
        else False
        for i in range(len(rows))
    ]
    return torch.tensor(inside)


def _ratio(n_atoms: int, k: int) -> float:
    if not 1 <= k <= n_atoms:
        raise ValueError(f"k must be between 1 and n_atoms={n_atoms}, got {k}")
    return n_atoms / k


def _subsets(n_atoms: int, size: int) -> Tensor:
    """(subsets, size) indices of all sets of `size` atoms."""
    if math.comb(n_atoms, size) > MOST_SUBSETS:
        raise ValueError(f"n_atoms={n_atoms} has {math.comb(n_atoms, size):,} sets of {size}; at most {MOST_SUBSETS:,}")
    return torch.tensor(list(itertools.combinations(range(n_atoms), size)))


def _refuse_nonsense(data, least: dict[str, int]) -> None:
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{field.name} must be an integer, got {value!r}")
        if value < least[field.name]:
            raise ValueError(f"{field.name} must be at least {least[field.name]}, got {value}")
