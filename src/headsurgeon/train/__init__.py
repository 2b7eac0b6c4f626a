"""Training the slices of a patient: settings, the loop, checkpoints, the log."""

from headsurgeon.train.log import Run, read_log
from headsurgeon.train.loop import train, train_on
from headsurgeon.train.session import StepEvent
from headsurgeon.train.settings import PRESETS, TrainSettings, train_settings

__all__ = [
    "PRESETS",
    "Run",
    "StepEvent",
    "TrainSettings",
    "read_log",
    "train",
    "train_on",
    "train_settings",
]
