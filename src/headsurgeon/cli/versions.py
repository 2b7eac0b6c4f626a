"""What a bug report needs to say: versions of this package, its dependencies and extras."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from headsurgeon.extras import EXTRAS
from headsurgeon.files import package_version

BASE = (
    *("torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "accelerate"),
    *("numpy", "pandas", "pydantic"),
)


def versions() -> str:
    """Lines of names and versions; reads what installers wrote and imports none of it."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    rows = {
        "headsurgeon": package_version(),
        "Python": f"{platform.python_version()} ({sys.implementation.name}), {system}",
        **{name: _version(name) for name in BASE},
    }
    extras = {name: _version(name) for name in EXTRAS}
    there = [f"{name} {found}" for name, found in extras.items() if found != _ABSENT]
    rows["extras"] = ", ".join(there) or "none"
    return "\n".join(f"{name} {value}" for name, value in rows.items())


_ABSENT = "not installed"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _ABSENT


def broken() -> list[str]:
    """Private names that the installed versions lack, one sentence each; imports torch."""
    from headsurgeon import private_torch, private_transformers
    from headsurgeon.private_names import missing

    return [
        sentence
        for listed in (private_torch, private_transformers)
        for sentence in missing(listed.PACKAGE, listed.NAMES, listed.TESTED)
    ]
