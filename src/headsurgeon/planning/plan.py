"""A plan: which heads will be operated on, and why. As YAML it may be edited; faults have lines."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import yaml
from pydantic import ConfigDict, Field, create_model, model_validator

from headsurgeon.arguments import checked
from headsurgeon.diagnosis.verdicts import Thresholds
from headsurgeon.errors import HeadError, InputError, PlanError
from headsurgeon.files import header, read_text, write_text
from headsurgeon.heads import STATISTICS, VERDICTS, HeadId, Verdict
from headsurgeon.records import Exact, Finite, HeadName, Record, RuleName, Seed, StartName
from headsurgeon.results import ShownInNotebooks
from headsurgeon.yaml_lines import Location, load_yaml

Role = Literal["operate", "watch"]
AblationMode = Literal["zero", "mean"]
ROLES: tuple[Role, ...] = get_args(Role)
# What may stand beside a head, apart from `head`, `role`, `verdict` and `ablation_cost`.
HEAD_STATISTICS: tuple[str, ...] = (*STATISTICS, "slope", "null_mass")
if TYPE_CHECKING:
    # names come from a diagnosis or a file; whoever builds a plan need not spell them as literals
    StatisticName = str
    LimitName = str
    VerdictName = str
else:
    StatisticName = Literal[HEAD_STATISTICS]
    LimitName = Literal["sink", "dead", "low_entropy"]
    VerdictName = Literal["", *VERDICTS]
_COMMENT = """\
# A headsurgeon plan: which heads will be operated on, and why. It may be edited:
# - heads: take lines out, or add some, such as `- {head: L5H14}`. role is `operate`, or `watch` for
#   a head that is only followed. The numbers beside a head are what was measured when the plan was
#   made; ablation_cost is the loss in nats per token that ablating the head alone costs now, with
#   cost_estimated: true an estimate of it.
# - joint_cost: the same for all operated heads together, when the plan was made.
# - ablation_mode: what those costs are of: zero (output removed) or mean (replaced by its average).
# - init, output_start, seed: how the heads start.
# - fingerprint: SHA-256 of the attention weights of the model, whichever heads are in the plan;
#   with null only its name is compared. others: the same for all its other weights, which decide
#   verdicts and costs as well.
"""


# what the file says also where it is none
_SAID = {"fingerprint", "joint_cost"}


class PlannedHead(Record):
    """One head of a plan.

    Attributes:
        id: the head.
        role: `operate`, or `watch` for a healthy head inside a band.
        verdict: what the diagnosis said; empty if unknown.
        statistics: the head's numbers at that time, by name (`HEAD_STATISTICS`).
        ablation_cost: mean loss that ablating it alone costs now, nats per token; None if unknown.
        cost_estimated: whether that is an estimate, from gradients, rather than the loss itself.

    Raises:
        PlanError: a number is not finite, or something that a plan cannot hold.
    """

    error: ClassVar[type[InputError]] = PlanError

    id: HeadName
    role: Role = "operate"
    verdict: VerdictName = ""
    statistics: Mapping[StatisticName, Finite] = {}
    ablation_cost: Finite | None = None
    cost_estimated: bool = False


class _Fields(Exact):
    """What a plan and its file have in common."""

    model: str
    fingerprint: str | None = None
    others: str | None = None
    rule: RuleName = "heads"
    layers: tuple[int, int] | None = None
    band: tuple[int, int] | None = None
    column: int | None = None
    max_cost: Finite | None = None
    thresholds: Mapping[LimitName, Finite] = {}
    init: StartName = "xavier_uniform_head"
    output_start: StartName = "zero_output"
    seed: Seed = 0
    ablation_mode: AblationMode = "zero"
    joint_cost: Finite | None = None
    notes: tuple[str, ...] = ()


class Plan(ShownInNotebooks, Record, _Fields):
    """Which heads will be operated on, and why; as a file it is YAML that a person can edit.

    Attributes:
        model: id of the model it was made for.
        fingerprint: SHA-256 of all attention projections of the model; None when made without it.
        others: SHA-256 of all its other weights; compared where there is a fingerprint, too.
        rule: the rule that chose the heads.
        layers, band, column, max_cost: what the rule was told; None where nothing.
        thresholds: limits the verdicts used, by name.
        init: how Q, K and V start, a name in `starts.INITS`.
        output_start: what the head's output is at step 0, a name in `starts.OUTPUT_STARTS`.
        seed: seed of the initialisation.
        ablation_mode: how heads were ablated for the costs: their output removed (`zero`), or
            replaced by its `mean`; a sink that adds a constant costs much less under `mean`.
        joint_cost: loss that ablating all operated heads together costs now, nats per token.
        notes: remarks for the reader, such as which heads share keys and values.
        heads: the heads, sorted.

    Raises:
        PlanError: a number is not finite, or something that a plan cannot hold.
    """

    error: ClassVar[type[InputError]] = PlanError

    heads: tuple[PlannedHead, ...]

    @property
    def operated(self) -> tuple[HeadId, ...]:
        """The heads with role `operate`."""
        return tuple(head.id for head in self.heads if head.role == "operate")

    @property
    def limits(self) -> Thresholds:
        """The limits of the verdicts behind the plan, by which its heads are judged later on too.

        Raises:
            SettingsError: they are out of range or out of order.
        """
        return Thresholds(**self.thresholds)

    @property
    def watched(self) -> tuple[HeadId, ...]:
        """The heads with role `watch`."""
        return tuple(head.id for head in self.heads if head.role == "watch")

    def to_yaml(self) -> str:
        """The plan as YAML text, one line per head."""
        fields = {**header("plan"), **self.model_dump(exclude={"heads"})}
        fields = {
            name: fields[name] for name in fields if fields[name] is not None or name in _SAID
        }
        lines = [_COMMENT, _dumped(fields), "heads:\n" if self.heads else "heads: []\n"]
        lines += [f"- {_dumped(_entry(head), flow=True)}" for head in self.heads]
        return "".join(lines)

    @classmethod
    def from_yaml(
        cls, text: str, name: str = "plan", layers: int | None = None, heads: int | None = None
    ) -> "Plan":
        """Reads YAML text.

        Args:
            text: what `to_yaml` wrote, perhaps edited. `kind`, `model` and `heads` must be there.
            name: what messages call it, such as the path.
            layers: layers of the model; with it heads beyond are faults of their line.
            heads: heads per layer of the model, likewise.

        Returns:
            The plan, heads sorted.

        Raises:
            PlanError: every fault of the text, each with its line.
        """

        def check(content: Any, line: Callable[[Location], int]) -> Iterator[tuple[Location, str]]:
            yield from _faults_of_heads(content, line, layers, heads)

        file = load_yaml(_File, text, name, error=PlanError, kind="plan", check=check)
        fields = {name: getattr(file, name) for name in _Fields.model_fields}
        planned = sorted((_planned(entry) for entry in file.heads), key=lambda head: head.id)
        return cls(**fields, heads=tuple(planned))

    @checked
    def save(self, path: Path | str) -> None:
        """Writes the plan to `path`, atomically."""
        write_text(path, self.to_yaml())

    @classmethod
    @checked
    def load(cls, path: Path | str, layers: int | None = None, heads: int | None = None) -> "Plan":
        """Reads a plan file; see `from_yaml`.

        Raises:
            PlanError: no such file, or every fault of it with its line.
        """
        try:
            text = read_text(path)
        except InputError as error:
            raise PlanError(f"not a plan: {error}") from error
        return cls.from_yaml(text, str(path), layers, heads)


def _without_null(content: Any) -> Any:
    # a field that a person left empty is one that is not there
    if not isinstance(content, dict):
        return content
    return {key: value for key, value in content.items() if value is not None}


class _Entry(Exact):
    """One head as a line of the file."""

    model_config = ConfigDict(title="a head")

    head: HeadName
    role: Role = "operate"
    verdict: Verdict | None = None
    cost_estimated: bool = False

    _empty = model_validator(mode="before")(_without_null)


_NUMBERS: dict[str, Any] = dict.fromkeys((*HEAD_STATISTICS, "ablation_cost"), (Finite | None, None))
_Line: Any = create_model("_Line", __base__=_Entry, **_NUMBERS)


class _File(_Fields):
    """A plan as its file has it: statistics stand beside the head."""

    model_config = ConfigDict(title="the plan")

    heads: tuple[_Line, ...] = Field(())

    _empty = model_validator(mode="before")(_without_null)


def _planned(line: Any) -> PlannedHead:
    entries = line.model_dump(exclude_none=True)
    return PlannedHead(
        id=line.head,
        role=line.role,
        verdict=line.verdict or "",
        statistics={name: entries[name] for name in HEAD_STATISTICS if name in entries},
        ablation_cost=line.ablation_cost,
        cost_estimated=line.cost_estimated,
    )


def _entry(head: PlannedHead) -> dict[str, Any]:
    entry: dict[str, Any] = {"head": str(head.id), "role": head.role}
    if head.verdict:
        entry["verdict"] = head.verdict
    entry |= head.statistics
    if head.ablation_cost is not None:
        entry["ablation_cost"] = head.ablation_cost
    if head.cost_estimated:
        entry["cost_estimated"] = True
    return entry


def _faults_of_heads(
    content: Any, line: Callable[[Location], int], layers: int | None, heads: int | None
) -> Iterator[tuple[Location, str]]:
    """What is wrong with the list of heads as a whole, or with heads that the model lacks."""
    entries = content.get("heads") if isinstance(content, dict) else None
    if isinstance(content, dict) and not entries:
        yield ("heads",), "heads: expected at least one, such as `- {head: L5H14}`"
    seen: dict[HeadId, int] = {}
    for index, entry in enumerate(entries if isinstance(entries, tuple) else ()):
        try:
            head = HeadId.parse(str(entry["head"]))
        except (HeadError, TypeError, KeyError):
            continue
        if head in seen:
            first = line(("heads", seen[head]))
            yield ("heads", index), f"{head} is here for the second time, see line {first}"
        elif layers is not None and head.layer >= layers:
            yield ("heads", index), f"{head}: the model has layers 0–{layers - 1}"
        elif heads is not None and head.head >= heads:
            yield ("heads", index), f"{head}: the model has heads 0–{heads - 1}"
        seen.setdefault(head, index)


class _Dumper(yaml.SafeDumper):
    """Quotes text with line breaks or control characters, which PyYAML does not bring back else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def _dumped(content: Mapping[str, Any], flow: bool = False) -> str:
    return yaml.dump(
        content,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=flow,
        width=10_000,
    )
