"""The activations that pages of several papers read, one source per preset: they are harvested once."""

from replication.activations import LanguageModelActivations
from replication.corpora import HubDataset, PythonSource

SOURCES = {
    "smoke": LanguageModelActivations(
        "pygpt-0.5m", "blocks.1.hook_resid_pre", PythonSource(max_files=60), tokens=2**14, heldout_tokens=2**11
    ),
    "cpu": LanguageModelActivations(
        "pygpt-2m", "blocks.2.hook_resid_post", PythonSource(), tokens=3 * 2**18, heldout_tokens=2**15
    ),
    "gpu": LanguageModelActivations(
        "pygpt-7m",
        "blocks.3.hook_resid_post",
        PythonSource(("stdlib", "site-packages")),
        tokens=42 * 10**6,
        heldout_tokens=2**18,
    ),
    # the hub's own parquet copy: a data set with a loading script does not load any more. What is stored fits on one
    # GPU, so that the paper's number of tokens means many epochs over it.
    "paper": LanguageModelActivations(
        "openai-community/gpt2",
        "blocks.8.hook_resid_post",
        HubDataset("Skylion007/openwebtext", revision="refs/convert/parquet", max_documents=100_000),
        tokens=5 * 10**7,
        heldout_tokens=2**20,
    ),
}
