"""Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders. Senthooran Rajamanoharan, Tom
Lieberum, Nicolas Sonnerat, Arthur Conmy, Vikrant Varma, Janos Kramar, Neel Nanda. arXiv:2407.14435 (2024). With Gemma
Scope: open sparse autoencoders everywhere all at once on Gemma 2 (Lieberum et al., arXiv:2408.05147, 2024).

Claim:    one learned threshold per latent, trained by straight-through estimators on the number of active latents,
          reconstructs at least as faithfully as TopK and better than Gated at equal sparsity; a suite of such
          autoencoders over every layer and site of a language model behaves regularly over sites, widths and depth.
Command:  replicate run jumprelu2024 --preset cpu
Subject:  pygpt-2m (`cpu`), pygpt-7m (`gpu`), GPT-2 small (`paper`).
Differs:  models of 2 to 7 million parameters instead of Gemma 2; Python source instead of web text; dictionaries of
          hundreds to thousands of latents; wider windows and faster thresholds, which runs this short need. Of the
          first paper only parts were at hand.
"""

from replication.papers.jumprelu2024 import artefacts, behaviour, frontier, robustness, scope, why
from replication.papers.jumprelu2024.grid import KEY as KEY

TITLE = "JumpReLU sparse autoencoders and Gemma Scope"
PAGES = (why, frontier, scope, behaviour, robustness, artefacts)
STUDIES = tuple(study for page in PAGES for study in page.STUDIES)
FIGURES = {name: entry for page in PAGES for name, entry in page.FIGURES.items()}
CLAIMS = tuple(
    sorted(
        (claim for page in PAGES for claim in page.CLAIMS),
        key=lambda claim: ("JG".index(claim.id.split("-")[1][0]), int(claim.id.split("-")[1][1:])),
    )
)
