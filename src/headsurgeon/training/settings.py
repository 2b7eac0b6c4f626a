"""Settings of a training run: one set of described fields; the command line and files use them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from headsurgeon.attention_kinds import FUSED_IS_FAST, AttentionChoice
from headsurgeon.data.packing_kinds import Packing
from headsurgeon.errors import SettingsError
from headsurgeon.training.moments import Moments, as_moment


class TrainSettings(BaseModel):
    """How the slices of a patient, or another learner, are trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(1e-3, gt=0, le=1e3, description="peak learning rate")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="muon orthogonalises the update of each head's Q, K, V and output matrix by "
        "itself, in the size of AdamW's; biases stay with AdamW",
    )
    output_rate: float = Field(
        1.0, gt=0, le=1e6, description="the output projection's columns learn at this multiple"
    )
    heads_rate: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="where the whole model is trained, the operated heads' weights learn at this "
        "multiple; fp32 masters alone",
    )
    first_rate: Literal["above_zero", "zero"] = Field(
        "above_zero",
        description="rate of the first step of the warm-up; the paper's code starts at zero, so "
        "that its first step changes nothing",
    )
    weight_decay: float = Field(
        0.0, ge=0, le=1e3, description="decoupled weight decay, slices only"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW decay of the first moment")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW decay of the second moment")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum")
    balance: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="coefficient of the sink-aware loss, which evens out how much the heads of a "
        "layer leave for others than the first token (arXiv:2602.01203, which has 0.01)",
    )
    balance_shared: int = Field(
        0, ge=0, le=2**16, description="most important heads of each layer that balance leaves out"
    )
    anchor: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="coefficient of KL(untouched ‖ operated), nats per token, on the anchor text",
    )
    anchor_windows: int = Field(64, ge=1, le=2**20, description="windows of the anchor text")
    anchor_batch: int = Field(
        4, ge=1, le=2**16, description="windows of the anchor text read in a step"
    )
    clip: float = Field(1.0, gt=0, le=1e30, description="largest gradient norm over all slices")
    batch_size: int = Field(8, ge=1, le=2**16, description="windows per forward pass")
    accumulation: int = Field(1, ge=1, le=2**16, description="forward passes per step")
    length: int = Field(256, ge=2, le=2**24, description="tokens per window")
    warmup: int = Field(
        100, ge=0, le=2**31, description="steps of warm-up, at most a quarter of the run"
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=10**15,
        description="budget in tokens read, in whole steps, one at the least; the run stops at the "
        "smaller of both budgets",
    )
    epochs: float | None = Field(
        None, gt=0, le=1e6, description="budget in passes over the training text"
    )
    compute: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="precision of the forward pass; auto is the model's own",
    )
    attention: AttentionChoice = Field(
        "auto",
        description="stock is the model's own; fast is the same up to rounding, faster, in memory "
        "linear in the window; auto is fast for BLOOM, MPT and ALiBi-Falcon",
    )
    masters: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="precision of slices and moments; in bf16, as in the paper's code, an update "
        "below half a unit in the last place of a weight is lost",
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice to hold fewer of them"
    )
    evaluate_every: int = Field(
        20, ge=1, le=2**31, description="steps between evaluations on dev text"
    )
    evaluate_at: Moments = Field(
        (), description="steps and passes to evaluate besides, as 0-55,60,epoch:1"
    )
    dev_windows: int = Field(32, ge=1, le=2**20, description="windows of dev text in an evaluation")
    statistics_windows: int = Field(
        8, ge=0, le=2**20, description="of these, windows on which heads are measured; 0 for none"
    )
    checkpoint_every: int = Field(20, ge=1, le=2**31, description="steps between checkpoints")
    stop: int | str | None = Field(
        None,
        description="step, or pass such as epoch:3, to end at, on the rates of the whole budget",
    )
    keep: Literal["best", "last"] | int | str = Field(
        "best",
        description="slices to end with: best on dev text, last, or those of a step or pass",
    )
    snapshots: Moments = Field(
        (), description="steps and passes to keep a patch of and to evaluate, as 0,5,10,epoch:1"
    )
    snapshot_dtype: Literal["bf16", "fp32"] = Field("fp32", description="precision of snapshots")
    first_token: str = Field(
        "tokenizer", max_length=1000, description="first token of every window"
    )
    packing: Packing = Field(
        "documents",
        description="windows lie within documents, or cross them: documents, separated (by a "
        "token), blank_lines (the paper's code)",
    )
    windows_seed: int = Field(
        0, ge=0, lt=2**63, description="seed of which windows of the text are read"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the order of windows and of dropout")

    def __init__(self, **values: Any) -> None:
        """Raises `SettingsError`, which lists every fault at once."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = [_fault(item) for item in error.errors()]
            raise SettingsError("training settings:\n  " + "\n  ".join(faults)) from error

    @field_validator("attention", mode="before")
    @classmethod
    def _not_by_its_earlier_name(cls, attention: Any) -> Any:
        if attention == "fused":
            raise ValueError(FUSED_IS_FAST)
        return attention

    @model_validator(mode="after")
    def _has_a_budget(self) -> "TrainSettings":
        if self.max_tokens is None and self.epochs is None:
            raise ValueError("a budget is needed: max_tokens, epochs, or both")
        return self

    @field_validator("keep", mode="before")
    @classmethod
    def _kept(cls, value: Any) -> Any:
        if value in ("best", "last"):
            return value
        try:
            return as_moment(value)
        except ValueError as error:
            raise ValueError(
                f"expected best, last, or {str(error).removeprefix('expected ')}"
            ) from None

    @field_validator("stop", mode="before")
    @classmethod
    def _stopped(cls, value: Any) -> Any:
        moment = None if value is None else as_moment(value)
        if moment == 0:
            raise ValueError("expected a step from 1 up")
        return moment

    @property
    def windows_per_step(self) -> int:
        """Windows that one optimiser step has seen."""
        return self.batch_size * self.accumulation

    @property
    def tokens_per_step(self) -> int:
        """Tokens read in one optimiser step, first tokens of windows included."""
        return self.windows_per_step * self.length

    @property
    def anchor_tokens_per_step(self) -> int:
        """Tokens of the anchor text read in one optimiser step besides; 0 without an anchor."""
        return self.anchor_batch * self.length if self.anchor else 0

    @property
    def master_bytes(self) -> int:
        """Size of one number of the masters and of their moments, bytes."""
        return 2 if self.masters == "bf16" else 4


# windows of the training text that a start looks at
CALIBRATION = 32

# arXiv:2603.09616: AdamW without weight decay, batch 1 × accumulation 8, T = 512, up to 15 epochs
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "learning_rate": 5e-5,
        "weight_decay": 0.0,
        "clip": 1.0,
        "batch_size": 1,
        "accumulation": 8,
        "length": 512,
        "warmup": 100,
        "epochs": 15.0,
        "compute": "bf16",
        "gradient_checkpointing": True,
    },
    # of the arm `recommended` of study `twins-narrow`; chosen on dev text (docs/findings.md)
    "recommended": {"learning_rate": 4e-3, "anchor": 2.0, "anchor_batch": 2},
    # of the demo's arm `recommended`; chosen likewise
    "recommended_whole": {"learning_rate": 5e-4, "heads_rate": 4.0, "batch_size": 4},
}


def train_settings(preset: str = "default", **changes: Any) -> TrainSettings:
    """The settings of a preset with some changed; None leaves the preset's value.

    Raises:
        SettingsError: an unknown preset or setting, or values out of range; lists all of them.
    """
    if preset not in PRESETS:
        raise SettingsError(f"no preset {preset!r}; known are {', '.join(sorted(PRESETS))}")
    given = {name: value for name, value in changes.items() if value is not None}
    return TrainSettings(**{**PRESETS[preset], **given})


def _fault(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{name}: no such setting; known are {', '.join(TrainSettings.model_fields)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}, got {_shown(item['input'])}" if name else message


def _shown(value: Any) -> str:
    # Python refuses to write out whole numbers of thousands of digits
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]} …"
