"""What a study is: one file that says which arms are trained on which text, and what is asked.

Data alone, and no torch: results are files, and everything else follows from them (`decision_rule`,
`headsurgeon.report`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from headsurgeon.arguments import checked
from headsurgeon.errors import InputError, SettingsError, StudyError
from headsurgeon.files import HEADER, header, read_text
from headsurgeon.study.arms import READY, resolved
from headsurgeon.study.parts import (
    UNTOUCHED,
    Arm,
    Contrast,
    Name,
    PlanRule,
    Seed,
    Spec,
    StudyWindows,
    Text,
)
from headsurgeon.training.settings import TrainSettings
from headsurgeon.yaml_lines import load_yaml

# studies that come with the package, by name
PRESETS = {path.stem: path for path in (Path(__file__).parent / "presets").glob("*.yaml")}


class StudyFields(Spec):
    """What a study and its file have in common, whether or not its parts fit together."""

    model_config = ConfigDict(title="the study")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    about: str = ""
    model: str = Field(min_length=1)
    twin: str | None = None
    texts: tuple[Text, ...] = Field(min_length=1)
    train_on: tuple[Name, ...] = Field(min_length=1)
    plan: PlanRule = PlanRule()
    windows: StudyWindows = StudyWindows()
    train: dict[str, Any]
    arms: tuple[Annotated[Arm, BeforeValidator(resolved)], ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    threads: int = Field(default=1, ge=1, le=1024)
    null_seeds: int = Field(default=5, ge=2, le=1000)
    contrasts: tuple[Contrast, ...] = ()
    level: float = Field(default=0.95, gt=0.5, lt=1)
    probes: tuple[Name | Text, ...] = ()

    @property
    def every_arm(self) -> tuple[Arm, ...]:
        """The arms, the untouched model among them: everything is compared with it."""
        if any(arm.name == UNTOUCHED for arm in self.arms):
            return self.arms
        return (Arm(name=UNTOUCHED, **READY[UNTOUCHED]), *self.arms)

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.every_arm if arm.name == name)

    def text(self, name: str) -> Text:
        """The text of that name."""
        return next(text for text in self.texts if text.name == name)

    @property
    def diagnosed(self) -> tuple[str, ...]:
        """Names of the texts that are diagnosed."""
        return self.plan.diagnose_on or self.train_on

    def settings(
        self, arm: Arm, seed: int = 0, learning_rate: float | None = None
    ) -> TrainSettings:
        """How an arm is trained: what its start and its anchor read is taken from the budget.

        Raises:
            SettingsError: settings out of range, all of them listed; or the start reads it all.
        """
        whole = self.whole_settings(arm, seed, learning_rate)
        calibration = arm.calibration * self.windows.length
        beside = whole.anchor_batch * whole.length if whole.anchor else 0
        if whole.max_tokens is None or not (calibration or beside):
            return whole
        if calibration >= whole.max_tokens:
            raise SettingsError(
                f"max_tokens: the start reads {calibration} tokens, and {whole.max_tokens} are all "
                "there are: give it fewer windows (calibration), or the study more tokens"
            )
        per_step = whole.tokens_per_step
        steps = max(1, (whole.max_tokens - calibration) // (per_step + beside))
        return whole.model_copy(update={"max_tokens": steps * per_step})

    def whole_settings(
        self, arm: Arm, seed: int = 0, learning_rate: float | None = None
    ) -> TrainSettings:
        """The same with the whole budget for the training text; see `settings`."""
        changes = {**self.train, **arm.train}
        if learning_rate is not None:
            changes["learning_rate"] = learning_rate
        return TrainSettings(
            **{
                **changes,
                "seed": seed,
                "length": self.windows.length,
                "windows_seed": self.windows.seed,
                "first_token": self.windows.first_token,
            }
        )


class Study(StudyFields):
    """A study: a model, its text, the arms, and the questions. See `docs/studies.md`.

    Attributes:
        name: what its page is called.
        model: the model that is operated on: a Hub id (also with `@REVISION/SUBFOLDER`), a folder,
            `zoo:NAME`.
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
    """

    @model_validator(mode="after")
    def _holds_together(self) -> "Study":
        faults = _faults(self)
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
    def load(cls, path: Path | str) -> "Study":
        """Reads a study file, or a preset by its name, such as `twins-quick`.

        Raises:
            StudyError: no such file, or every fault of it with its line.
        """
        if str(path) in PRESETS and not Path(path).exists():
            path = PRESETS[str(path)]
        try:
            text = read_text(path)
        except InputError as error:
            presets = ", ".join(sorted(PRESETS))
            raise StudyError(f"not a study: {error}; presets are {presets}") from error
        return cls.from_yaml(text, str(path))


# what a study says once for all of its arms
_FIXED = ("seed", "length", "windows_seed", "first_token")


Location = tuple[str | int, ...]


def _faults_of_text(content: Any, line: Any) -> list[tuple[Location, str]]:
    """The same faults for a text; none where its parts are faulty in themselves."""
    try:
        study = StudyFields.model_validate(
            {key: value for key, value in content.items() if key not in HEADER}
        )
    except (ValidationError, AttributeError):
        return []
    return _faults(study)


def _faults(study: StudyFields) -> list[tuple[Location, str]]:
    """What does not fit together, and where; what is wrong in itself pydantic has said already."""
    texts = [text.name for text in study.texts]
    arms = [arm.name for arm in study.every_arm]
    faults = [*_twice(study)]
    named: list[tuple[Location, tuple[str, ...]]] = [
        (("train_on",), study.train_on),
        (("plan",), study.plan.diagnose_on),
        (("probes",), tuple(name for name in study.probes if isinstance(name, str))),
    ]
    for index, arm in enumerate(study.arms):
        anchor = () if arm.anchor is None else (arm.anchor,)
        named.append((("arms", index), (*anchor, *arm.also_trained_on)))
        faults += [(("arms", index), message) for message in _arm_faults(study, arm)]
    for place, names in named:
        faults += [
            (place, f"no text {name}; there are {', '.join(texts)}")
            for name in names
            if name not in texts
        ]
    for index, contrast in enumerate(study.contrasts):
        place = ("contrasts", index)
        faults += [
            (place, f"no arm {name}; there are {', '.join(arms)}")
            for name in (contrast.arm, contrast.against)
            if name not in arms
        ]
        if contrast.on not in ("trained", "other", *texts):
            faults.append((place, f"no text {contrast.on}; there are {', '.join(texts)}"))
        if contrast.on == "other" and len(texts) == 1:
            faults.append((place, "there is no other text"))
        if contrast.arm == contrast.against:
            faults.append((place, f"compares {contrast.arm} with itself"))
    faults += [
        (("train", name), f"{name} is for the study's own windows and seeds to say")
        for name in _FIXED
        if name in study.train
    ]
    return faults


def _twice(study: StudyFields) -> Iterator[tuple[Location, str]]:
    lists: dict[str, list[str]] = {
        "texts": [text.name for text in study.texts],
        "arms": [arm.name for arm in study.arms],
        "contrasts": [contrast.name for contrast in study.contrasts],
        "train_on": list(study.train_on),
        "seeds": [str(seed) for seed in study.seeds],
        "probes": [probe if isinstance(probe, str) else probe.name for probe in study.probes],
    }
    for where, names in lists.items():
        for index, name in enumerate(names):
            if name in names[:index]:
                yield (where, index), f"{name} is there for the second time"


def _arm_faults(study: StudyFields, arm: Arm) -> Iterator[str]:
    if arm.model == "twin" and study.twin is None:
        yield f"arm {arm.name} needs a twin, and the study names none"
    for name in _FIXED:
        if name in arm.train:
            yield f"arm {arm.name}: {name} is for the study's own windows and seeds to say"
    try:
        settings = study.settings(arm)
    except SettingsError as error:
        yield f"arm {arm.name}: {error}"
    else:
        if (settings.anchor > 0) != (arm.anchor is not None):
            yield (
                f"arm {arm.name}: an arm that is held to the untouched model names the text that "
                "it is held on (anchor) and a coefficient (train: {anchor: …}), or neither"
            )
