"""Sparse autoencoders: the equation (`base`), one file per architecture, and the registry of them."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from replication.sae.base import SAE, Normalised, Objective, Output, geometric_median, released_form
from replication.sae.batchtopk import BatchTopK
from replication.sae.gated import Gated
from replication.sae.jumprelu import JumpReLU
from replication.sae.matryoshka import Matryoshka
from replication.sae.prolu import ProLU
from replication.sae.relu import ReLU
from replication.sae.topafa import TopAFA
from replication.sae.topk import TopK

ARCHITECTURES: dict[str, type[SAE]] = {
    "batchtopk": BatchTopK,
    "gated": Gated,
    "jumprelu": JumpReLU,
    "matryoshka": Matryoshka,
    "prolu": ProLU,
    "relu": ReLU,
    "topafa": TopAFA,
    "topk": TopK,
}


def architecture(name: str) -> type[SAE]:
    """The class registered under `name`; an unknown name lists the known ones."""
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {sorted(ARCHITECTURES)}, got {name!r}")
    return ARCHITECTURES[name]


def load(path: Path) -> SAE:
    """Read what `SAE.save` wrote, ready to evaluate.

    A damaged file, or one of another format or architecture, is refused by name.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"SAE file {path}: cannot be read ({error})") from error
    if not {"architecture", "config"} <= header.keys():
        raise ValueError(f"SAE file {path}: not written by this library (no architecture and config in its header)")
    sae = architecture(header["architecture"])(**json.loads(header["config"]))
    sae.load_state_dict(weights)
    return sae.eval()


__all__ = [
    "ARCHITECTURES",
    "SAE",
    "Normalised",
    "Objective",
    "Output",
    "architecture",
    "geometric_median",
    "load",
    "released_form",
    *(cls.__name__ for cls in ARCHITECTURES.values()),
]
