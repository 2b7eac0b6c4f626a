"""Packages that only some features take: which extra brings each, and what is said without it."""

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any

from headsurgeon.errors import MissingPackage

# package that is imported: extra of pyproject.toml that installs it
EXTRAS: dict[str, str] = {
    "matplotlib": "report",
    "jinja2": "report",
    "datasets": "datasets",
    "gguf": "gguf",
    "bitsandbytes": "quantised",
    "peft": "lora",
    "py3langid": "generation",
    "submitit": "slurm",
    "ray": "ray",
    "tensorboardX": "tensorboard",
}


def command(package: str) -> str:
    """What to run for a package of an extra."""
    return f'pip install "headsurgeon[{EXTRAS[package]}]"'


def installed(package: str) -> bool:
    """Whether a package is there, without importing it."""
    return find_spec(package) is not None


def require(package: str, purpose: str) -> None:
    """Stops before any work is done for something that a missing package has to finish.

    Args:
        package: one of `EXTRAS`.
        purpose: what takes it, as the beginning of a sentence.

    Raises:
        MissingPackage: it is not installed; the message has the command that brings it.
    """
    if not installed(package):
        raise MissingPackage(f"{purpose} needs the package {package}; run: {command(package)}")


def explained(error: ModuleNotFoundError) -> MissingPackage | None:
    """What to say of an import that failed; None where none of our extras is missing."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return MissingPackage(f"this needs the package {package}; run: {command(package)}")


def naming(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """The loader of a lazy module, which names the extra that what is loaded lacks."""

    @wraps(load)
    def loading(name: str) -> Any:
        try:
            return load(name)
        except ModuleNotFoundError as error:
            missing = explained(error)
            if missing is None:
                raise
            raise missing from error

    return loading
