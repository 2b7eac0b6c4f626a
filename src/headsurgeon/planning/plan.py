"""A plan: which heads will be operated on, and why. As YAML it may be edited; faults have lines."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from headsurgeon.diagnosis.verdicts import Thresholds
from headsurgeon.errors import HeadError, InputError, PlanError
from headsurgeon.files import header, read_text, schema_version, write_text
from headsurgeon.heads import STATISTICS, VERDICTS, HeadId
from headsurgeon.planning.yaml_reader import Reader

Role = Literal["operate", "watch"]
AblationMode = Literal["zero", "mean"]
ROLES: tuple[Role, ...] = get_args(Role)
# What may stand beside a head, apart from `head`, `role`, `verdict` and `ablation_cost`.
HEAD_STATISTICS: tuple[str, ...] = (*STATISTICS, "slope", "null_mass")
_LIMITS = tuple(Thresholds().to_dict())
_COMMENT = """\
# A headsurgeon plan: which heads will be operated on, and why. It may be edited:
# - heads: take lines out, or add some, such as `- {head: L5H14}`. role is `operate`, or `watch` for
#   a head that is only followed. The numbers beside a head are what was measured when the plan was
#   made; ablation_cost is the loss in nats per token that ablating the head alone costs now.
# - joint_cost: the same for all operated heads together, when the plan was made.
# - ablation_mode: what those costs are of: zero (output removed) or mean (replaced by its average).
# - init, output_start, seed: how the heads start.
# - fingerprint: SHA-256 of the attention weights of the model, whichever heads are in the plan;
#   with null only its name is compared.
"""


@dataclass(frozen=True)
class PlannedHead:
    """One head of a plan.

    Attributes:
        id: the head.
        role: `operate`, or `watch` for a healthy head inside a band.
        verdict: what the diagnosis said.
        statistics: the head's numbers at that time, by name.
        ablation_cost: mean loss that ablating it alone costs now, nats per token; None if unknown.
    """

    id: HeadId
    role: Role = "operate"
    verdict: str = ""
    statistics: Mapping[str, float] = field(default_factory=dict)
    ablation_cost: float | None = None


@dataclass(frozen=True)
class Plan:
    """Which heads will be operated on, and why; as a file it is YAML that a person can edit.

    Attributes:
        model: id of the model it was made for.
        rule: the rule that chose the heads.
        heads: the heads, sorted.
        fingerprint: SHA-256 of all attention projections of the model; None when made without it.
        thresholds: limits the verdicts used, by name.
        init: how Q, K and V start, a name in `operation.qkv_start`.
        output_start: what the head's output is at step 0, a name in `operation.output_start`.
        seed: seed of the initialisation.
        ablation_mode: how heads were ablated for the costs: their output removed (`zero`), or
            replaced by its `mean`; a sink that adds a constant costs much less under `mean`.
        joint_cost: loss that ablating all operated heads together costs now, nats per token.
        notes: remarks for the reader, such as which heads share keys and values.
    """

    model: str
    rule: str
    heads: tuple[PlannedHead, ...]
    fingerprint: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    init: str = "xavier_uniform_head"
    output_start: str = "zero-output"
    seed: int = 0
    ablation_mode: AblationMode = "zero"
    joint_cost: float | None = None
    notes: tuple[str, ...] = ()

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
        """The plan as YAML text, one line per head.

        Raises:
            PlanError: a head carries a statistic, role or verdict that a plan file cannot hold, or
                a number is not finite.
        """
        _check_finite("thresholds", self.thresholds)
        _check_finite("the plan", {"joint_cost": self.joint_cost})
        fields = {
            **header("plan"),
            "model": self.model,
            "fingerprint": self.fingerprint,
            "rule": self.rule,
            "thresholds": dict(self.thresholds),
            "init": self.init,
            "output_start": self.output_start,
            "seed": self.seed,
            "ablation_mode": self.ablation_mode,
            "joint_cost": self.joint_cost,
            "notes": list(self.notes),
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
        reader = Reader(text, name)
        fields = reader.mapping(reader.root, _FIELDS, "the plan")
        _check_header(reader, fields)
        plan = cls(
            model=reader.text(fields, "model", required=True) or "",
            rule=reader.text(fields, "rule") or _DEFAULTS.rule,
            heads=_heads(reader, fields.get("heads"), layers, heads),
            fingerprint=reader.text(fields, "fingerprint"),
            thresholds=_numbers(reader, fields.get("thresholds"), _LIMITS, "thresholds"),
            init=reader.text(fields, "init") or _DEFAULTS.init,
            output_start=reader.text(fields, "output_start") or _DEFAULTS.output_start,
            seed=reader.integer(fields, "seed", least=0, default=_DEFAULTS.seed),
            ablation_mode=cast(
                AblationMode,
                reader.choice(fields, "ablation_mode", get_args(AblationMode)) or "zero",
            ),
            joint_cost=reader.number(fields, "joint_cost"),
            notes=reader.texts(fields, "notes"),
        )
        reader.raise_faults()
        return plan

    def save(self, path: Path | str) -> None:
        """Writes the plan to `path`, atomically."""
        write_text(path, self.to_yaml())

    @classmethod
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


_DEFAULTS = Plan(model="", rule="heads", heads=())
_FIELDS = (
    *("kind", "schema", "headsurgeon", "model", "fingerprint", "rule", "thresholds"),
    *("init", "output_start", "seed", "ablation_mode", "joint_cost", "notes", "heads"),
)


def _check_finite(where: str, numbers: Mapping[str, float | None]) -> None:
    for name, number in numbers.items():
        if number is not None and not math.isfinite(number):
            raise PlanError(f"{where}: {name} is {number}, expected a finite number")


class _Dumper(yaml.SafeDumper):
    """Quotes text with line breaks or control characters, which PyYAML does not bring back else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _dumped(content: Mapping[str, Any], flow: bool = False) -> str:
    return yaml.dump(
        content,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=flow,
        width=10_000,
    )


def _entry(head: PlannedHead) -> dict[str, Any]:
    unknown = [name for name in head.statistics if name not in HEAD_STATISTICS]
    if unknown or head.role not in ROLES or head.verdict not in ("", *VERDICTS):
        what = ", ".join(unknown) or f"role {head.role!r}, verdict {head.verdict!r}"
        raise PlanError(f"{head.id}: a plan file cannot hold {what}")
    _check_finite(str(head.id), {**head.statistics, "ablation_cost": head.ablation_cost})
    entry: dict[str, Any] = {"head": str(head.id), "role": head.role}
    if head.verdict:
        entry["verdict"] = head.verdict
    entry |= {key: float(value) for key, value in head.statistics.items()}
    if head.ablation_cost is not None:
        entry["ablation_cost"] = float(head.ablation_cost)
    return entry


def _check_header(reader: Reader, fields: Mapping[str, yaml.Node]) -> None:
    kind = reader.text(fields, "kind", required=True)
    if kind not in (None, "plan"):
        reader.fault(fields["kind"], f"kind: expected plan, got {kind}")
    reader.text(fields, "headsurgeon")
    schema = reader.integer(fields, "schema", least=1, default=1)
    if schema > schema_version("plan"):
        # other faults may only be things this version does not know
        raise PlanError(
            f"{reader.name}: written by a newer headsurgeon (schema {schema}, this one reads up "
            f"to {schema_version('plan')}); upgrade the package"
        )


def _heads(
    reader: Reader, node: yaml.Node | None, layers: int | None, heads: int | None
) -> tuple[PlannedHead, ...]:
    found: dict[HeadId, tuple[PlannedHead, int]] = {}
    items = reader.items(node, "heads")
    if not items:
        reader.fault(node, "heads: expected at least one, such as `- {head: L5H14}`")
    for item in items:
        head = _head(reader, item)
        if head is None:
            continue
        if head.id in found:
            reader.fault(
                item, f"{head.id} is here for the second time, see line {found[head.id][1]}"
            )
            continue
        found[head.id] = head, reader.line(item)
        if layers is not None and head.id.layer >= layers:
            reader.fault(item, f"{head.id}: the model has layers 0–{layers - 1}")
        if heads is not None and head.id.head >= heads:
            reader.fault(item, f"{head.id}: the model has heads 0–{heads - 1}")
    return tuple(found[key][0] for key in sorted(found))


def _head(reader: Reader, item: yaml.Node) -> PlannedHead | None:
    names = ("head", "role", "verdict", *HEAD_STATISTICS, "ablation_cost")
    fields = reader.mapping(item, names, "a head")
    text = reader.text(fields, "head", required=True, within=item)
    role = reader.choice(fields, "role", ROLES) or "operate"
    verdict = reader.choice(fields, "verdict", VERDICTS) or ""
    cost = reader.number(fields, "ablation_cost")
    statistics = {
        name: value
        for name in fields
        if name in HEAD_STATISTICS and (value := reader.number(fields, name)) is not None
    }
    if text is None:
        return None
    try:
        head = HeadId.parse(text)
    except HeadError as error:
        reader.fault(fields["head"], str(error))
        return None
    return PlannedHead(head, cast(Role, role), verdict, statistics, cost)


def _numbers(
    reader: Reader, node: yaml.Node | None, names: tuple[str, ...], what: str
) -> dict[str, float]:
    if node is None:
        return {}
    fields = reader.mapping(node, names, what)
    numbers = {name: reader.number(fields, name) for name in fields}
    return {name: value for name, value in numbers.items() if value is not None}
