"""Compute-optimal inference and provable amortisation gap in sparse autoencoders. Charles O'Neill, Alim Gumran,
David Klindt. arXiv:2411.13117 (2024; ICML 2025). With its follow-up, Stop probing, start coding (Barin Pacela et al.,
arXiv:2603.28744, 2026).

Claim:    a linear-nonlinear encoder cannot recover sparse codes that are recoverable (amortisation gap), and encoders
          with more compute per sample recover them better.
Command:  replicate run amortisation2024 --preset cpu
Subject:  synthetic sparse codes of known truth; on the last page pygpt-2m (`cpu`), pygpt-7m (`gpu`).
Differs:  the text of the paper was not at hand: definitions are those of the authors' released code and stored results.
"""

from replication.papers.amortisation2024 import (
    compositions,
    compute,
    design,
    dictionary,
    grid_of_sizes,
    known,
    language_model,
    theorem,
    unknown,
)
from replication.papers.amortisation2024.grid import KEY as KEY

TITLE = "Compute-optimal inference and provable amortisation gap in sparse autoencoders"
PAGES = (theorem, known, unknown, compute, grid_of_sizes, dictionary, compositions, design, language_model)
STUDIES = tuple(study for page in PAGES for study in page.STUDIES)
FIGURES = {name: entry for page in PAGES for name, entry in page.FIGURES.items()}
CLAIMS = tuple(
    sorted((claim for page in PAGES for claim in page.CLAIMS), key=lambda claim: int(claim.id.split("-C")[1]))
)
