"""The test environment is hostile: annotations and shapes are enforced in every module of the library."""

import importlib.util
import os
import sys
from pathlib import Path

import torch
from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent))
if importlib.util.find_spec("triton") is not None:  # before the hook, whose wrappers Triton could not compile
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
    import replication.triton_kernels  # noqa: F401
install_import_hook("replication", "typechecker.check")
