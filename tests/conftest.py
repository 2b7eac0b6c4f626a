"""What every test runs under: no network, shapes checked on every call, one thread."""

import os

# read when the libraries are imported, so it comes first
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

from jaxtyping import install_import_hook

# Every annotation of the package is checked when its functions run, jaxtyping's shapes included;
# an int where a float is annotated is fine, as it is for mypy.
install_import_hook(
    "headsurgeon", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

import torch
from hypothesis import settings

# pico models gain nothing from more threads, and sums come out the same on every machine
torch.set_num_threads(1)

settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.load_profile("project")
