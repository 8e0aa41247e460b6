"""Codes for a dictionary: exact, iterated, pursued, optimised sample by sample, or amortised in an encoder; their cost.

A method takes x (samples, d_in) and a dictionary (n, d_in) and gives codes (samples, n), all non-negative; those of
`proximal` and `descent` take many models at once in leading dimensions. `amortised` trains encoders, `dictionaries` and
`sparse_coding` learn the dictionary, `flops` counts operations.
"""

from replication.inference import flops
from replication.inference.amortised import (
    Encoder,
    Fitted,
    Models,
    authors_known_codes_start,
    authors_start,
    fit_autoencoders,
    fit_codes,
    fit_encoders,
    stack,
    start,
)
from replication.inference.descent import (
    SparseCoding,
    authors_dictionaries,
    optimise,
    optimise_curve,
    sparse_coding,
)
from replication.inference.dictionaries import Learned, dl_fista
from replication.inference.proximal import LISTA, fista, ista, lam_of_weight
from replication.inference.pursuit import l0_oracle, matching_pursuit, omp, refit

__all__ = [
    "LISTA",
    "Encoder",
    "Fitted",
    "Learned",
    "Models",
    "SparseCoding",
    "authors_dictionaries",
    "authors_known_codes_start",
    "authors_start",
    "dl_fista",
    "fista",
    "fit_autoencoders",
    "fit_codes",
    "fit_encoders",
    "flops",
    "ista",
    "l0_oracle",
    "lam_of_weight",
    "matching_pursuit",
    "omp",
    "optimise",
    "optimise_curve",
    "refit",
    "sparse_coding",
    "stack",
    "start",
]
