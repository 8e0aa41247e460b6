"""Evaluating and designing sparse autoencoders by approximating quasi-orthogonality. Sewoong Lee, Adam Davies, Marc E.
Canby, Julia Hockenmaier. arXiv:2503.24277 (2025; COLM 2025).

Claim:    the norm of a dense activation predicts the norm of its sparse code (AFA), which rates autoencoders (ZF plots,
          eps_LBO) and chooses their number of active latents per input (top-AFA), so that k needs no tuning.
Command:  replicate run topafa2025 --preset cpu
Subject:  pygpt-2m (`cpu`), pygpt-7m (`gpu`), GPT-2 small (`paper`), and synthetic data of known truth.
Differs:  the text of the paper was not at hand: definitions and numbers are those of its abstracts, released code,
          notebooks and tables.
"""

from replication.papers.topafa2025 import lm, norms, significance, theory, truth
from replication.papers.topafa2025.grid import KEY as KEY

TITLE = "Evaluating and designing sparse autoencoders by approximating quasi-orthogonality"
PAGES = (theory, norms, lm, significance, truth)
STUDIES = tuple(study for page in PAGES for study in page.STUDIES)
FIGURES = {name: entry for page in PAGES for name, entry in page.FIGURES.items()}
CLAIMS = tuple(
    sorted((claim for page in PAGES for claim in page.CLAIMS), key=lambda claim: (claim.id[-2:], int(claim.id[-1])))
)
