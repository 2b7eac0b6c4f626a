"""Texts and prompts that come with the package, by name.

`own/…` were written for headsurgeon, in the kinds and sizes of the paper's; `paper/…` are the
paper's own, word for word (MIT, with their notice). Only figures on the latter can be compared with
the paper's.

    texts:   own/diagnostic  own/probes  own/mixed  own/held-out  paper/diagnostic
    prompts: own/prompts-50  own/prompts-12  own/prompts-10  paper/prompts-40
"""

from pathlib import Path

from headsurgeon.errors import CorpusError

TEXTS, PROMPTS = ".json", ".yaml"
_FOLDER = Path(__file__).parent / "shipped"
_SOURCES = ("own", "paper")


def shipped_names(suffix: str) -> list[str]:
    """The names of all texts (`TEXTS`), or of all prompts (`PROMPTS`)."""
    names = sorted(_FOLDER.glob(f"*/*{suffix}"))
    return [f"{path.parent.name}/{path.stem}" for path in names]


def shipped_file(name: str, suffix: str) -> Path | None:
    """The file of a name such as `own/probes`; None for what is no such name, such as `./own/a`.

    Raises:
        CorpusError: a name below `own/` or `paper/` that there is not; lists those there are.
    """
    source, slash, _ = name.partition("/")
    if not slash or source not in _SOURCES:
        return None
    known = shipped_names(suffix)
    if name not in known:
        raise CorpusError(
            f"no texts {name!r} come with the package; there are {', '.join(known)}, and a file of "
            f"your own in such a folder is ./{name}"
        )
    return _FOLDER / f"{name}{suffix}"
