"""The parts of a study file: texts, windows, the plan's rule, arms, contrasts. No torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from headsurgeon.diagnosis.verdicts import Thresholds
from headsurgeon.planning.plan import AblationMode
from headsurgeon.records import SnakeCase, StartName

# names become folders, ARM-TEXT-SEED, so there is no hyphen in them
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]{0,63}$")]
Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
UNTOUCHED = "untouched"


class Spec(BaseModel):
    """A part of a study file: frozen, and nothing in it that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Text(Spec):
    """A named text.

    Attributes:
        name: what tables call it, such as `code`.
        corpus: a SPEC, see `headsurgeon.data.documents`; several are a mixture. Empty in a preset
            whose text is yours to name.
        weights: of the corpora of a mixture; all alike by default.
    """

    name: Name
    corpus: str | tuple[str, ...]
    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()

    @property
    def given(self) -> bool:
        """Whether it is texts that are given one by one: read whole, and never trained on."""
        return isinstance(self.corpus, str) and self.corpus.startswith("texts:")

    @property
    def corpora(self) -> tuple[str, ...]:
        """Its SPECs, one or several."""
        return (self.corpus,) if isinstance(self.corpus, str) else self.corpus

    @model_validator(mode="after")
    def _as_many_weights(self) -> "Text":
        if not self.corpora:
            raise ValueError("corpus: expected at least one SPEC")
        if self.weights and len(self.weights) != len(self.corpora):
            raise ValueError(f"{len(self.weights)} weights for {len(self.corpora)} corpora")
        return self


# what a text is to an arm: trained on, alone or among others; read by its anchor; or neither
Reading = Literal["trained", "part", "anchor", "other"]


class StudyWindows(Spec):
    """How much text is looked at: the same windows for every cell of a study.

    Attributes:
        length: tokens per window, in training too.
        diagnose: dev windows of the diagnosis, per text.
        price: dev windows per text on which heads are ablated for the plan.
        test: test windows per text of every loss; they decide how wide the intervals are.
        statistics: how many of them heads are measured on.
        seed: of which windows are read; that of training is another one.
        first_token: first token of every window.
    """

    length: int = Field(default=256, ge=2, le=2**24)
    diagnose: int = Field(default=64, ge=1, le=2**20)
    price: int = Field(default=16, ge=1, le=2**20)
    test: int = Field(default=96, ge=2, le=2**20)
    statistics: int = Field(default=32, ge=2, le=2**20)
    seed: Seed = 0
    first_token: str = Field(default="tokenizer", max_length=1000)

    @model_validator(mode="after")
    def _measured_on_some_of_them(self) -> "StudyWindows":
        if self.statistics > self.test:
            raise ValueError(f"statistics ({self.statistics}) is more than test ({self.test})")
        return self


class PlanRule(Spec):
    """Which heads a study operates on: a rule and its arguments, as `headsurgeon.plan` takes them.

    A head has to be sick on every text that is diagnosed, and costs are those of the text where
    they are higher: a head may work on one text alone.

    Attributes:
        watch: names of heads that are followed and not operated on.
        diagnose_on: names of the texts that are diagnosed; by default those trained on.
        sink, dead, low_entropy: limits of the verdicts.
    """

    rule: Literal["sick", "band", "heads", "column", "idle"] = "sick"
    heads: tuple[str, ...] | None = None
    band: Range | None = None
    layers: Range | None = None
    column: Annotated[int, Field(ge=0)] | None = None
    watch: tuple[str, ...] = ()
    max_cost: float = Field(default=0.05, ge=0)
    ablation_mode: AblationMode = "zero"
    diagnose_on: tuple[Name, ...] = ()
    sink: float = Field(default=0.5, gt=0, lt=1)
    dead: float = Field(default=0.95, gt=0, lt=1)
    low_entropy: float = Field(default=0.5, gt=0)

    @property
    def limits(self) -> Thresholds:
        """The limits of the verdicts."""
        return Thresholds(sink=self.sink, dead=self.dead, low_entropy=self.low_entropy)


class Arm(Spec):
    """One variant of an operation; `headsurgeon.study.arms` has those of the paper and controls.

    Attributes:
        name: what tables and folders call it.
        like: a ready arm that this one changes; a ready arm's own name means that one.
        method: what is trained: the `slices` of an operation, all of the model (`full`), all of it
            from where an operation starts the heads (`then_full`), low-rank adapters (`lora`); or
            nothing: `none`, or the heads switched off (`ablate`).
        model: the subject of the study, or its healthy twin.
        heads: those of the plan; all that are `sick` on every text diagnosed; as many drawn at
            `random` in each layer; as many healthy ones with `matched` slopes; or the plan's and
            all of one `column`, healthy or not.
        column: the head index of that column.
        init, output_start: how the heads start, see `headsurgeon.operation`.
        trained: False keeps the start as it is: what training was needed for.
        ablation_mode: of method `ablate`.
        calibration: windows of the training text that the start looks at, if it is one that does.
        anchor: name of the text on which the model is held to what it said untouched.
        also_trained_on: names of texts mixed into the training text, in equal parts.
        passes: the most operations in a row; each trains on the whole budget, and there are fewer
            where nothing is left to operate on or the loss on dev text stops falling.
        next_rule: what the passes after the first operate on: heads that are `sick`, or
            `newly_sick`: healthy in the untouched model.
        rates: learning rates of which the best on dev text is taken; the grid grows until both its
            ends are worse than its middle. Without them the rate is that of `train`.
        seeds: with how many of the study's seeds it is run, the first of them; by default all.
        train: changes of the study's `train` for this arm.
        about: one line for the reader.
    """

    name: Name
    like: Name | None = None
    method: Literal["slices", "full", "then_full", "lora", "none", "ablate"] = "slices"
    model: Literal["subject", "twin"] = "subject"
    heads: Literal["plan", "sick", "random", "matched", "column"] = "plan"
    column: Annotated[int, Field(ge=0)] | None = None
    init: StartName = Field(default="xavier_uniform_head", min_length=1)
    output_start: StartName = Field(default="zero_output", min_length=1)
    trained: bool = True
    ablation_mode: AblationMode = "zero"
    calibration: int = Field(default=0, ge=0, le=2**16)
    anchor: Name | None = None
    also_trained_on: tuple[Name, ...] = ()
    passes: int = Field(default=1, ge=1, le=16)
    next_rule: Annotated[Literal["sick", "newly_sick"], SnakeCase] = "sick"
    rates: tuple[Annotated[float, Field(gt=0, le=1e3)], ...] = ()
    seeds: Annotated[int, Field(ge=1)] | None = None
    train: dict[str, Any] = Field(default_factory=dict)
    about: str = ""

    @model_validator(mode="after")
    def _fits(self) -> "Arm":
        if len(self.rates) in (1, 2) or list(self.rates) != sorted(set(self.rates)):
            raise ValueError(
                "rates: expected at least three, rising, so that the best can lie between worse "
                f"ones, got {', '.join(f'{rate:g}' for rate in self.rates)}"
            )
        if self.rates and not self.trains:
            raise ValueError("rates: this arm is not trained")
        if self.seeds is not None and not self.seeded:
            raise ValueError("seeds: no seed changes anything in this arm")
        plain = (self.method, self.model, self.heads) == ("slices", "subject", "plan")
        if self.passes > 1 and not (plain and self.trained and not self.calibration):
            raise ValueError(
                "passes: several are for an arm that trains the slices of the plan's heads, and "
                "whose start looks at no text"
            )
        if (self.heads == "column") != (self.column is not None):
            raise ValueError("column: the head index, for heads: column and for nothing else")
        return self

    @property
    def trains(self) -> bool:
        """Whether anything is trained, so that text and seed matter."""
        return self.trained and self.method not in ("none", "ablate")

    @property
    def operates(self) -> bool:
        """Whether it gives heads a start of their own, which `init` and `output_start` say."""
        return self.method in ("slices", "then_full")

    @property
    def seeded(self) -> bool:
        """Whether a seed changes it: of training, or of the start alone."""
        return self.method not in ("none", "ablate") or self.heads == "random"


class Reported(Spec):
    """What the paper reports of a stage, to be shown beside what an arm came to here.

    Attributes:
        stage: as in `headsurgeon.paper.published`, such as `pass 1 E3`.
        arm: name of the arm that repeats it.
        text: name of the text that arm was trained on, where there are several.
        model: the model that the paper's number is of.
    """

    stage: str = Field(min_length=1)
    arm: Name
    text: Name | None = None
    model: str = "bigscience/bloom-1b7"


class Contrast(Spec):
    """A question, registered before the study runs: does one arm do better than another?

    Attributes:
        name: what tables call it.
        question: what is asked: `improves` and `harms` compare with the untouched model,
            `mechanism` with the same training without reinitialisation, `pruning` with the heads
            switched off, `recovers` asks whether the heads do more work than before.
        arm, against: names of arms.
        on: `trained`: the text that the arm was trained on; `other`: each of the others, but for
            those that share a corpus with it; or the name of a text.
        margin: nats per token below which a difference is none.
    """

    name: Name
    question: Literal["improves", "mechanism", "pruning", "harms", "recovers", "compare"] = (
        "compare"
    )
    arm: Name
    against: Name = UNTOUCHED
    on: str = "trained"
    margin: float = Field(default=0.0, ge=0)
