"""The fields of a study, whether or not they fit together; `consistency` says whether they do."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from headsurgeon.study.arms import READY, resolved
from headsurgeon.study.parts import (
    UNTOUCHED,
    Arm,
    Contrast,
    Name,
    PlanRule,
    Reading,
    Reported,
    Seed,
    Spec,
    StudyWindows,
    Text,
)
from headsurgeon.training.schedule import budget_left
from headsurgeon.training.settings import TrainSettings


class StudyFields(Spec):
    """What a study and its file have in common, whether or not its parts fit together."""

    model_config = ConfigDict(title="the study")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    about: str = ""
    needs: str = ""
    model: str = Field(min_length=1)
    tokenizer: str | None = None
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
    reported: tuple[Reported, ...] = ()

    @property
    def every_arm(self) -> tuple[Arm, ...]:
        """The arms, the untouched model among them: everything is compared with it."""
        if any(arm.name == UNTOUCHED for arm in self.arms):
            return self.arms
        return (Arm(name=UNTOUCHED, **READY[UNTOUCHED]), *self.arms)

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.every_arm if arm.name == name)

    def seeds_of(self, arm: Arm) -> tuple[int | None, ...]:
        """The seeds an arm is run with; None alone where no seed changes anything."""
        return self.seeds[: arm.seeds] if arm.seeded else (None,)

    def text(self, name: str) -> Text:
        """The text of that name."""
        return next(text for text in self.texts if text.name == name)

    def others(self, trained_on: str) -> tuple[str, ...]:
        """The texts that share no corpus with this one."""
        own = set(self.text(trained_on).corpora)
        return tuple(text.name for text in self.texts if own.isdisjoint(text.corpora))

    def reading(self, arm: str, trained_on: str, text: str) -> Reading:
        """What a scored text is to an arm that is trained on `trained_on`."""
        own = self.arm(arm)
        if not own.trains:
            return "other"
        if text == trained_on:
            return "trained"
        mixed = [trained_on, *own.also_trained_on]
        if any(text not in self.others(name) for name in mixed):
            return "part"
        held = own.anchor is not None and text not in self.others(own.anchor)
        return "anchor" if held else "other"

    @property
    def diagnosed(self) -> tuple[str, ...]:
        """Names of the texts that are diagnosed."""
        return self.plan.diagnose_on or self.train_on

    def settings(
        self,
        arm: Arm,
        seed: int = 0,
        learning_rate: float | None = None,
        looked_at: int | None = None,
    ) -> TrainSettings:
        """How an arm is trained: what its start and its anchor read is taken from the budget.

        Args:
            looked_at: tokens that its start has read; by default those that it asks for, of which
                a short text has fewer.

        Raises:
            SettingsError: settings out of range, all of them listed; or the start reads it all.
        """
        full_budget = self.whole_settings(arm, seed, learning_rate)
        if looked_at is None:
            looked_at = arm.calibration * self.windows.length
        return budget_left(full_budget, looked_at, full_budget.anchor_tokens_per_step)

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
