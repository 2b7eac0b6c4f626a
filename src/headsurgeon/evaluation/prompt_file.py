"""Prompts: beginnings of texts to be continued, each with a kind and a language."""

import os
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field, field_validator

from headsurgeon.arguments import checked
from headsurgeon.data.shipped_texts import PROMPTS, shipped_file
from headsurgeon.errors import InputError, SettingsError
from headsurgeon.files import HEADER, read_text
from headsurgeon.records import Exact
from headsurgeon.yaml_lines import load_yaml

# the kind whose completions are program text: markup and language mean nothing there
CODE = "code"


class Prompt(Exact):
    """One beginning.

    Attributes:
        id: name, no two alike within a file.
        kind: what sort of text it begins, such as `narrative`; `code` is program text.
        language: ISO 639 code of the language it is in.
        text: the beginning itself.
    """

    id: str = Field(min_length=1, max_length=100)
    kind: str = Field(default="prose", min_length=1, max_length=100)
    language: str = Field(default="en", pattern="^[a-z]{2,3}$")
    text: str = Field(min_length=1)


class _File(Exact):
    model_config = ConfigDict(title="a file of prompts")
    yaml_keys: ClassVar[tuple[str, ...]] = (*HEADER, "prompts")

    prompts: tuple[Prompt, ...] = Field(min_length=1)

    @field_validator("prompts")
    @classmethod
    def _distinct(cls, prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
        ids = [prompt.id for prompt in prompts]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"expected a different id for each prompt, got {twice[0]} twice")
        return prompts


@checked
def read_prompts(source: str | Path) -> tuple[Prompt, ...]:
    """Reads prompts that come with the package, or a file of your own.

    Args:
        source: `own/prompts-50`, `own/prompts-12`, `own/prompts-10` or `paper/prompts-40`; or a
            `.txt` file with one prompt a line (of kind `prose`, in English); or a YAML or JSON
            file of this form, in which kind and language may be left out:

                kind: prompts
                prompts:
                - {id: sea-1, kind: narrative, language: fr, text: "La mer était"}

    Raises:
        InputError: no such file, or one that is not of the form; every fault with its line.
        CorpusError: no such prompts come with the package.
    """
    shipped = shipped_file(source, PROMPTS) if isinstance(source, str) else None
    path = shipped or Path(os.path.expanduser(source))
    text = read_text(path)
    if path.suffix.lower() == ".txt":
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not lines:
            raise InputError(f"{path} is empty; expected a prompt a line")
        return tuple(Prompt(id=f"line-{number}", text=line) for number, line in lines)
    return load_yaml(_File, text, str(path), kind="prompts").prompts


def check_prompts(prompts: tuple[Prompt, ...]) -> None:
    """Refuses no prompts, and ids given twice.

    Raises:
        SettingsError: as said.
    """
    ids = [prompt.id for prompt in prompts]
    if not ids or len(set(ids)) != len(ids):
        raise SettingsError("expected at least one prompt, each with an id of its own")
