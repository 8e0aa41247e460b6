"""One virtual environment per peer, made on first use under data/cache/benchmarks, with this library's torch."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from replication.paths import CACHE

FOLDER = CACHE / "benchmarks"


class Peer(NamedTuple):
    """What a peer is installed from; `without` is uninstalled again."""

    requirement: str
    without: tuple[str, ...] = ()


PEERS = {
    # torchvision comes with nnsight; training does not use it, and its wheel refuses a CPU build of torch
    "dictionary-learning": Peer("dictionary-learning>=0.1,<0.2", without=("torchvision",)),
    "eai-sparsify": Peer("eai-sparsify>=1.3.3,<1.4"),
    "sae-lens": Peer("sae-lens>=6.54,<6.55"),
}


class Unavailable(RuntimeError):
    """A peer cannot be installed here; the message is the reason, in one line."""


def python(name: str) -> Path:
    """The interpreter of a peer's environment, created when absent or made for another requirement."""
    peer, folder = PEERS[name], FOLDER / name
    wanted = f"torch=={version('torch').split('+')[0]} {peer.requirement} {sys.version.split()[0]}"
    done, interpreter = folder / "installed", folder / "bin" / "python"
    if done.exists() and done.read_text() == wanted:
        return interpreter
    print(f"{name}: installing {peer.requirement} into {folder.relative_to(CACHE.parent)}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    pip = (str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=60")
    _run(*pip, "install", wanted.split()[0], peer.requirement)
    if peer.without:
        _run(*pip, "uninstall", "--yes", *peer.without)
    done.write_text(wanted)
    return interpreter


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(reason(done.stderr) or f"{Path(command[0]).name} ended with {done.returncode}")


def reason(stderr: str) -> str:
    """The line of an error output that says what went wrong: pip's last ERROR, else the last one; at most 200 signs."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [""])[-1][:200]
