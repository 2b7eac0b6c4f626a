from .log import Run as Run
from .log import read_log as read_log
from .loop import train as train
from .settings import PRESETS as PRESETS
from .settings import TrainSettings as TrainSettings
from .settings import train_settings as train_settings
from .step_event import StepEvent as StepEvent
from .texts import training_windows as training_windows
