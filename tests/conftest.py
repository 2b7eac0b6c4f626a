"""What every test runs under: no network, shapes checked on every call, one thread."""

import os
import signal

# read when the libraries are imported, so it comes first
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

from tests.checking import check_annotations

check_annotations("headsurgeon")

import torch
from hypothesis import settings

from headsurgeon.data import kept_ids

# pico models gain nothing from more threads, and sums come out the same on every machine
torch.set_num_threads(1)

# nothing is read from the user's cache, or left there
kept_ids.WORTH_KEEPING = 2**60

# what started pytest may ignore them, as nohup and a shell's & do, and children would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.load_profile("project")
