"""Scaling and evaluating sparse autoencoders. Leo Gao, Tom Dupre la Tour, Henk Tillman, Gabriel Goh, Rajan Troll,
Alec Radford, Ilya Sutskever, Jan Leike, Jeffrey Wu. arXiv:2406.04093 (2024).

Claim:    keeping the k largest latents (TopK) reconstructs better than ReLU with an L1 penalty at the same number of
          active latents, the gap grows with the dictionary, and transpose initialisation with AuxK keeps latents alive.
Command:  replicate run gao2024 --preset cpu
Subject:  pygpt-2m (`cpu`), pygpt-7m (`gpu`), GPT-2 small on OpenWebText (`paper`).
Differs:  models of 2 to 7 million parameters instead of GPT-2 small and GPT-4; Python source instead of an undisclosed
          corpus; 10^6 to 4 x 10^7 tokens instead of 10^10 and more, and higher learning rates to match; batches of
          1,024 to 4,096 tokens instead of 131,072; no weight averaging; no resampling for the ReLU baseline; the
          encoder starts at the scale that fits the data, for both architectures.
"""

from replication.papers.gao2024 import codes, dead, explanations, frontier, latents, probes, scaling, systems
from replication.papers.gao2024.grid import KEY as KEY

TITLE = "Scaling and evaluating sparse autoencoders"
PAGES = (frontier, scaling, dead, codes, probes, explanations, systems, latents)
STUDIES = tuple(study for page in PAGES for study in page.STUDIES)
FIGURES = {name: entry for page in PAGES for name, entry in page.FIGURES.items()}
CLAIMS = tuple(
    sorted((claim for page in PAGES for claim in page.CLAIMS), key=lambda claim: int(claim.id.split("-C")[1]))
)
