"""The test environment is hostile: annotations and shapes are enforced in every module of the library."""

import sys
from pathlib import Path

from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent))
install_import_hook("replication", "typechecker.check")
