"""Private names of other packages: whether they are there, and which release removed them.

`private_torch.py` and `private_transformers.py` list them; a test holds the lists complete.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version


@dataclass(frozen=True)
class PrivateName:
    """A name and what takes it.

    Attributes:
        path: dotted, beginning with the package; with () behind a class, of what it makes.
        use: what it is used for, and where.
        optional: whether something else does the same where it is missing.
    """

    path: str
    use: str
    optional: bool = False


def missing(package: str, names: Sequence[PrivateName], tested: tuple[str, str]) -> Iterator[str]:
    """A sentence for each name that cannot be found and is not optional."""
    for name in names:
        if not name.optional and not _found(name.path):
            use = name.use.partition(" (")[0]
            known = " to ".join(dict.fromkeys(tested))
            yield (
                f"{package} {version(package)} has no {name.path}, which {use} "
                f"takes; headsurgeon was tested with {package} {known}: install "
                "one of these, and report it with headsurgeon --version"
            )


def _found(path: str) -> bool:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == parts[0]:
                continue
            # something else that the package needs is missing, and its own message says so
            return True
        for part in parts[length:]:
            name = part.removesuffix("()")
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
            found = found() if part.endswith("()") else found
        return True
    return False
