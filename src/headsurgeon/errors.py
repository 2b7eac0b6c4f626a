"""Every exception the package raises on purpose.

    HeadsurgeonError
    ├── InputError                 what the caller gave cannot be used (exit code 2)
    │   ├── UnsupportedModel       no layout describes this architecture
    │   ├── ModelError             the model cannot be read or is unusable (missing, NaN weights)
    │   ├── CorpusError            the text is missing, empty, or too short for one window
    │   ├── HeadError              a head that this model does not have
    │   ├── PlanError              a plan that is malformed or made for another model
    │   │   └── NothingToOperate   a rule that no head of the model fits
    │   ├── StudyError             a study that is malformed, or cannot be run as it is
    │   ├── PatchError             a patch that is damaged or made for another base
    │   ├── MissingPackage         a feature whose optional package is not installed
    │   ├── SettingsError          settings out of range; lists all of them at once
    │   ├── NeedsConfirmation      an operation that would cost a lot; the message says how much
    │   └── OutputError            an output folder that holds something else
    └── OperationError             something failed while it ran (exit code 1)
        ├── WriteError             a file could not be written; nothing half-written is left
        ├── NetworkError           the Hub was needed and could not be reached
        ├── StateError             a step out of order, such as training a reverted patient
        └── Interrupted            stopped by the user; the message says how to resume

A message says what was expected, what came, and how to fix it, in one line unless it lists several
faults. The command line prints the message alone; `--debug` adds the traceback.
"""


class HeadsurgeonWarning(UserWarning):
    """What the user should know and nothing has to stop for; a command prints it as a note."""


class HeadsurgeonError(Exception):
    """Base class of every error the package raises on purpose."""

    exit_code = 1


class InputError(HeadsurgeonError):
    """What the caller gave cannot be used."""

    exit_code = 2


class UnsupportedModel(InputError):
    """No layout describes this architecture; the message lists the known ones."""


class ModelError(InputError):
    """The model cannot be read or is unusable, for example because weights are NaN."""


class CorpusError(InputError):
    """The text is missing, empty, or shorter than one window."""


class HeadError(InputError):
    """A head (or layer) that this model does not have."""


class PlanError(InputError):
    """A plan that is malformed or made for another model; the message names the line."""


class NothingToOperate(PlanError):
    """A rule that no head of the model fits, so that there is nothing to operate on."""


class StudyError(InputError):
    """A study that is malformed, or cannot be run as it is; the message names the line."""


class PatchError(InputError):
    """A patch that is damaged, or made for another base; the message has both fingerprints."""


class MissingPackage(InputError):
    """A feature whose optional package is not installed; the message says what to run."""


class SettingsError(InputError):
    """Settings out of range; all of them are reported at once."""


class NeedsConfirmation(InputError):
    """An operation whose ablation cost is high; the message says how much and how to proceed."""


class OutputError(InputError):
    """An output folder that holds something this command did not write."""


class OperationError(HeadsurgeonError):
    """Something failed while it ran, with valid input."""


class WriteError(OperationError):
    """A file could not be written; the previous version, if any, is untouched."""


class NetworkError(OperationError):
    """The Hub was needed and could not be reached."""


class StateError(OperationError):
    """A step out of order, such as training a patient that was reverted."""


class Interrupted(OperationError):
    """Stopped by the user; the run can be resumed."""


def causes_of(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from or while handling, and so on; each once."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
