"""What the pages of this paper share: its key, its grids in units that carry over to other widths, and the subject."""

from dataclasses import replace

from replication.activations import LanguageModelActivations
from replication.papers.sources import SOURCES

KEY = "topafa2025"

SEEDS = (0, 1, 2)

K_OVER_D = (0.042, 0.083, 0.167, 0.333, 0.667, 1.33, 2.67, 5.33, 10.7)
"""The paper's k (32 to 8,192) over its d = 768."""
LAMBDA_TIMES_D = (6, 12, 24, 32, 48)
"""The paper's lambda_AFA (1/128 to 1/16) times its d: L_AFA grows with d, the error per coordinate does not."""


def layer(preset: str, hook: str) -> LanguageModelActivations:
    """The subject of a preset at another hook point; all of them are harvested in one pass over the text."""
    return replace(SOURCES[preset], hook=hook)
