"""Where a model lies on the Hub, with its revision and subfolder, in one text.

`OWNER/NAME@REVISION/SUBFOLDER` is how the Hub's own file system spells it (`hf://…`, see
`huggingface_hub.HfFileSystem`). As one text it goes wherever a model is named: into a command, a
study, a plan, a patch and every result. The `@` is never left out, so that no address can be
mistaken for a path.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from headsurgeon.errors import ModelError, SettingsError
from headsurgeon.models.catalogue import PREFIX
from headsurgeon.models.gguf import SUFFIX

MAIN = "main"
FORM = "OWNER/NAME@REVISION/SUBFOLDER"
_ADDRESS = re.compile(r"(?P<repository>[\w.-]+(?:/[\w.-]+)?)@(?P<rest>[^@]+)")
# the only revisions of the Hub with a stroke that is not written %2F
_REFERENCE = re.compile(r"(refs/(?:pr/[0-9]+|convert/[\w.-]+))(?:/(.*))?")


@dataclass(frozen=True)
class Address:
    """A model on the Hub.

    Attributes:
        repository: `OWNER/NAME`.
        revision: branch, tag or commit; None for the main branch.
        subfolder: where in the repository the checkpoint lies; None for its top.
    """

    repository: str
    revision: str | None = None
    subfolder: str | None = None

    @classmethod
    def parse(cls, spec: str) -> "Address":
        """Reads `OWNER/NAME`, `OWNER/NAME@REVISION` or `OWNER/NAME@REVISION/SUBFOLDER`.

        Raises:
            ModelError: a subfolder that leads out of the repository, or none after the stroke.
        """
        parts = _ADDRESS.fullmatch(spec)
        if parts is None:
            return cls(spec)
        reference = _REFERENCE.fullmatch(parts["rest"])
        if reference is not None:
            revision, subfolder = reference[1], reference[2]
        else:
            revision, stroke, below = parts["rest"].partition("/")
            subfolder = below if stroke else None
        if subfolder is not None:
            subfolder = _checked(spec, subfolder)
        return cls(parts["repository"], unquote(revision), subfolder)

    def __str__(self) -> str:
        if self.revision is None and self.subfolder is None:
            return self.repository
        revision = self.revision or MAIN
        plain = _REFERENCE.fullmatch(revision) is not None
        text = f"{self.repository}@{revision if plain else quote(revision, safe='')}"
        return text if self.subfolder is None else f"{text}/{self.subfolder}"


def located(spec: str, revision: str | None = None, subfolder: str | None = None) -> str:
    """The one text that names a model given as `from_pretrained` takes it.

    Raises:
        SettingsError: a revision of what has none, a subfolder of a file, or either given twice.
        ModelError: a subfolder that leads out of the folder or repository.
    """
    if revision is None and subfolder is None:
        return spec
    path = Path(os.path.expanduser(spec))
    if spec.startswith(PREFIX) or path.suffix.lower() == SUFFIX:
        raise SettingsError(f"{spec}: revision and subfolder are for Hub ids and folders")
    if path.is_dir() or (looks_local(spec) and "@" not in spec):
        if revision is not None:
            raise SettingsError(
                f"{spec}: a folder has no revisions; name the folder of the one that is meant"
            )
        return os.path.join(spec, _checked(spec, str(subfolder)))
    address = Address.parse(spec)
    given = {"revision": (address.revision, revision), "subfolder": (address.subfolder, subfolder)}
    for name, (here, there) in given.items():
        if None not in (here, there) and here != there:
            raise SettingsError(f"{spec} names a {name}, and so does {name}={there!r}; leave one")
    below = address.subfolder if subfolder is None else _checked(spec, subfolder)
    return str(Address(address.repository, address.revision or revision, below))


def looks_local(spec: str) -> bool:
    """Whether a text can only be a path: no Hub id has two strokes or starts like that."""
    return spec.startswith((".", "~", os.sep)) or spec.count("/") > 1


def _checked(spec: str, subfolder: str) -> str:
    parts = subfolder.strip("/").split("/")
    if subfolder.startswith("/") or {"", ".", ".."} & set(parts) or re.search(r"[*?\[]", subfolder):
        raise ModelError(
            f"{spec}: expected the name of a subfolder, such as pass1_e3, got {subfolder!r}"
        )
    return "/".join(parts)
