"""What the pages of this paper share: its key and the rule of its verdicts."""

from collections.abc import Iterable

import numpy as np

from replication.claims import NoEvidence

KEY = "amortisation2024"
MOST = 0.8  # the share of data seeds in which a rule must hold


def over_data_seeds(margins: Iterable[float], signs: Iterable[float] | None = None) -> str:
    """Verdict from one number per data seed. `margins`: by how much the rule holds there, above 0 where it does;
    `signs`: the same for its sign alone, by default the margins.

    Replicated: it holds in at least MOST of the data seeds. Partly: the sign is right on average. Else not replicated.
    """
    margins = np.asarray(list(margins), dtype=float)
    signs = margins if signs is None else np.asarray(list(signs), dtype=float)
    if len(margins) < 2 or len(margins) != len(signs):
        raise NoEvidence(f"a verdict needs at least 2 data seeds, found {len(margins)}")
    if (margins > 0).mean() >= MOST:
        return "replicated"
    return "partly" if signs.mean() > 0 else "not replicated"
