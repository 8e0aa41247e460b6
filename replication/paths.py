"""Absolute locations. Nothing else in the library knows where the repository is."""

import os
from pathlib import Path

ROOT = Path(os.environ.get("REPLICATION_ROOT", Path(__file__).resolve().parents[1]))
NOTEBOOKS = ROOT / "notebooks"
BOOK = ROOT / "book"
BUILD = ROOT / "_build"
MODELS = ROOT / "data" / "models"
RESULTS = ROOT / "data" / "results"
CACHE = Path(os.environ.get("REPLICATION_CACHE", ROOT / "data" / "cache"))
