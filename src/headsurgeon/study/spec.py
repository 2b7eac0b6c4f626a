"""What a study is: one file that says which arms are trained on which text, and what is asked.

Data alone, and no torch: results are files, and everything else follows from them (`decision_rule`,
`headsurgeon.report`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from headsurgeon.arguments import checked
from headsurgeon.errors import InputError, StudyError
from headsurgeon.files import HEADER, header, read_text
from headsurgeon.study.consistency import Location, faults_of
from headsurgeon.study.fields import StudyFields
from headsurgeon.study.variants import PRESETS, preset_text
from headsurgeon.yaml_lines import load_yaml, plain_yaml


class Study(StudyFields):
    """A study: a model, its text, the arms, and the questions. See `docs/studies.md`.

    Attributes:
        name: what its page is called.
        about: what it is for, for the reader.
        needs: what has to be there for it to run, for the reader.
        model: the model that is operated on: a Hub id (also with `@REVISION/SUBFOLDER`), a folder,
            `zoo:NAME`.
        tokenizer: whose tokenizer reads the text; by default the model's own.
        twin: a healthy twin of it, if there is one; arms with `model: twin` need it.
        texts: what is scored; the same for every arm.
        train_on: names of the texts that arms are trained on, one cell each.
        plan: which heads.
        windows: how much text.
        train: training settings of every arm, by name; see `headsurgeon.TrainSettings`.
        arms: the arms; of a ready one its name is enough.
        seeds: seeds of start and training; one cell each.
        dtype: of the weights; by default fp32 on a CPU and the checkpoint's own elsewhere.
        threads: of each cell on a CPU; sums, and so all figures, depend on it in the last digits.
        null_seeds: how often the heads are reinitialised and not trained, for comparison.
        contrasts: the questions.
        level: coverage of the intervals, over all contrasts together.
        probes: texts whose loss is logged while an arm is trained: names of some of the study's, or
            others, which are not scored; of given texts (`texts:FILE`) each is read whole.
        reported: what the paper reports, to be shown beside what was measured.
    """

    @model_validator(mode="after")
    def _holds_together(self) -> "Study":
        faults = faults_of(self)
        if faults:
            raise ValueError("; ".join(message for _, message in faults))
        return self

    def to_yaml(self) -> str:
        """The study as YAML, every field of every arm spelled out."""
        content = {**header("study"), **self.model_dump(mode="json", exclude_none=True)}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)

    @classmethod
    def from_yaml(cls, text: str, name: str = "study") -> "Study":
        """Reads YAML text; `name` is what messages call it.

        Raises:
            StudyError: every fault of the text, each with its line.
        """
        fields = load_yaml(
            StudyFields, text, name, error=StudyError, kind="study", check=_faults_of_text
        )
        return cls(**{field: getattr(fields, field) for field in StudyFields.model_fields})

    @classmethod
    @checked
    def load(
        cls,
        path: Path | str,
        variant: str | None = None,
        *,
        model: str | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> "Study":
        """Reads a study file, or a preset by its name, such as `twins-quick`.

        Args:
            path: the file or the name.
            variant: of a preset that has some, such as `as_code`; by default `corrected`.
            model: another model than the one that is named.
            texts: corpora by name of the text, in place of those that are named.

        Raises:
            StudyError: no such file, or every fault of it with its line; no such variant or text.
        """
        if str(path) in PRESETS and not Path(path).exists():
            text = preset_text(str(path), variant)
        elif variant is not None:
            raise StudyError(f"{path} is a file, and only presets have variants")
        else:
            text = _read(path)
        return cls.from_yaml(_changed(text, model, texts or {}), str(path))


def _read(path: Path | str) -> str:
    try:
        return read_text(path)
    except InputError as error:
        presets = ", ".join(sorted(PRESETS))
        raise StudyError(f"not a study: {error}; presets are {presets}") from error


def _changed(text: str, model: str | None, texts: Mapping[str, str]) -> str:
    """The study's text with another model or other corpora; as it is where nothing changes."""
    if model is None and not texts:
        return text
    try:
        content = plain_yaml(text)
        named = {part["name"]: part for part in content["texts"]}
    except (yaml.YAMLError, TypeError, KeyError, RecursionError):
        # whoever reads it next says what is wrong, and where
        return text
    for name, corpus in texts.items():
        if name not in named:
            raise StudyError(f"no text {name!r} to name a corpus for; there are {', '.join(named)}")
        named[name]["corpus"] = corpus
        named[name].pop("weights", None)
    if model is not None:
        content |= {"model": model}
        content.pop("tokenizer", None)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _faults_of_text(content: Any, line: Any) -> list[tuple[Location, str]]:
    """The same faults for a text; none where its parts are faulty in themselves."""
    try:
        study = StudyFields.model_validate(
            {key: value for key, value in content.items() if key not in HEADER}
        )
    except (ValidationError, AttributeError):
        return []
    return faults_of(study)
