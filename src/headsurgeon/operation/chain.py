"""Patches one after the other: checked in their order, and made one operation on the base.

A later patch was made on the model as the earlier ones left it, in whatever precision that was
held then. So the base's tensors are followed through the chain as the checkpoint stores them, and
compared in every precision; what comes out is one patient of the untouched model.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.arguments import checked
from headsurgeon.errors import PatchError
from headsurgeon.files import shorten
from headsurgeon.heads import check_heads
from headsurgeon.models.fingerprint import (
    attention,
    combined,
    fingerprint_of,
    fingerprints,
)
from headsurgeon.models.forward import model_id
from headsurgeon.models.origin import as_stored, stored_for
from headsurgeon.operation.applying import apply_patch, check_layout, fill
from headsurgeon.operation.beginning import Beginning
from headsurgeon.operation.operating import check_operable, open_patient
from headsurgeon.operation.patch import PatchContent, PatchPart, read_content
from headsurgeon.operation.patient import Patient
from headsurgeon.operation.slice_maps import slice_maps
from headsurgeon.operation.slices import SliceMap
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.starts import choose_init, choose_output_start

# in which the model may have been held when a later patch was made
_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
# what untrained heads are compared with where the patches' own starts differ: the paper's
_INIT, _OUTPUT_START = "xavier_uniform_head", "zero_output"


@checked
def apply_patches(model: PreTrainedModel, paths: Sequence[Path | str]) -> Patient:
    """Writes patches into their base model, each made on what the ones before it left.

    Args:
        model: the model that the first patch was made for, untouched.
        paths: the files, in order. One alone is `apply_patch`.

    Returns:
        One patient of all their heads, merged: `revert` gives the untouched model, `save` one patch
        in place of them all.

    Raises:
        PatchError: no patch; a damaged one; or one that does not fit the model as the earlier ones
            leave it. The message says what it expects, and in which order they fit if they do.
        UnsupportedModel, HeadError, ModelError, StateError: as for `operate`.
    """
    if not paths:
        raise PatchError("expected at least one patch, got none")
    if len(paths) == 1:
        return apply_patch(model, paths[0])
    check_operable(model)
    layout = layout_of(model)
    links = [_Link(model, layout, Path(path), read_content(path)) for path in paths]
    weights = _ChainedWeights(model, layout, links)
    for index, link in enumerate(links):
        if not weights.fit(link):
            raise PatchError(_refusal(model, layout, weights, links, index))
        weights.write(link)
    return _patient(model, layout, weights, links)


@checked
def compose_patches(
    model: PreTrainedModel, paths: Sequence[Path | str], output: Path | str
) -> Path:
    """Writes one patch that gives the same model, bit for bit, as several one after the other.

    Args:
        model: the model that the first patch was made for; untouched, now and afterwards.
        paths: the files, in order.
        output: the file to write; replaced atomically.

    Returns:
        `output`.

    Raises:
        PatchError, UnsupportedModel, HeadError, ModelError, StateError: as `apply_patches`.
        WriteError: the file could not be written.
    """
    patient = apply_patches(model, paths)
    try:
        return patient.save(output)
    finally:
        patient.revert()


class _Link:
    """One patch of a chain, and where its slices lie in the model."""

    def __init__(
        self, model: PreTrainedModel, layout: Layout, path: Path, content: PatchContent
    ) -> None:
        self.path = path
        self.content = content
        plan, start = content.plan, content.beginning.output_start.start
        check_heads(plan.operated, layout.layers, layout.heads, layout.attention_layers)
        known = {name for name, _ in model.named_parameters()}
        self.maps: dict[str, SliceMap] = slice_maps(layout, plan.operated, start.output_bias)
        missing = sorted({*content.fingerprints, *self.maps} - known)
        if missing:
            made_for = content.metadata["model"]
            raise PatchError(f"{path} was made for {made_for}; this model has no {missing[0]}")
        check_layout(content, self.maps, model, path)


class _ChainedWeights:
    """A model's tensors as the patches so far leave them; the model itself is not changed."""

    def __init__(self, model: PreTrainedModel, layout: Layout, links: Sequence[_Link]) -> None:
        self._model = model
        self._layout = layout
        biases = any(link.content.beginning.output_start.start.output_bias for link in links)
        heads = tuple(sorted({head for link in links for head in link.content.plan.operated}))
        self.maps = slice_maps(layout, heads, biases)
        self._base = fingerprints(model, [name for name, _ in model.named_parameters()])
        self.start()

    def start(self) -> None:
        """Goes back to the untouched model."""
        stored = stored_for(self._model)
        self._values = {
            name: as_stored(stored, name, self._model.get_parameter(name))
            .detach()
            .to("cpu", torch.float32, copy=True)
            for name in self.maps
        }
        self._changed: set[str] = set()

    def write(self, link: _Link) -> None:
        """Goes on to what the patch leaves."""
        for name, slice_map in link.maps.items():
            slice_map.write(self._values[name], link.content.tensors[name].float())
        self._changed |= set(link.maps)

    def fit(self, link: _Link) -> bool:
        """Whether the patch was made on a model with exactly these tensors, its other ones too."""
        expected = link.content.fingerprints
        recorded = link.content.metadata.get("others")
        for precision in _PRECISIONS:
            now = self._digests(precision)
            others = combined({name: now[name] for name in now if name not in expected})
            if recorded in (None, others) and all(now[n] == expected[n] for n in expected):
                return True
        return False

    def fingerprint(self) -> str:
        """Of the attention projections as they are now, in fp32, as plans record it."""
        now = self._digests(torch.float32)
        return combined({name: now[name] for name in attention(self._model, self._layout)})

    def slices(self) -> dict[str, Tensor]:
        """What one patch for all would hold."""
        return {name: part.read(self._values[name]) for name, part in self.maps.items()}

    def _digests(self, precision: torch.dtype) -> dict[str, str]:
        return self._base | {
            name: fingerprint_of(name, self._values[name].to(precision)) for name in self._changed
        }


def _refusal(
    model: PreTrainedModel,
    layout: Layout,
    weights: _ChainedWeights,
    links: Sequence[_Link],
    index: int,
) -> str:
    link = links[index]
    heads = shorten(", ".join(map(str, link.content.plan.operated)))
    given = f"{links[index - 1].path} leaves" if index else f"{model_id(model)}, untouched, has"
    order = _order_that_fits(weights, links)
    hint = (
        f"in this order they fit: {', '.join(str(each.path) for each in order)}"
        if len(order) == len(links)
        else "one that belongs before it is missing, or it was made for another model"
    )
    return (
        f"{link.path} (patch {index + 1} of {len(links)}, {heads}) expects a model with "
        f"fingerprint {link.content.metadata['fingerprint']}; {given} {_now(weights, links, index)}"
        f": {hint}"
    )


def _now(weights: _ChainedWeights, links: Sequence[_Link], index: int) -> str:
    weights.start()
    for link in links[:index]:
        weights.write(link)
    return weights.fingerprint()


def _order_that_fits(weights: _ChainedWeights, links: Iterable[_Link]) -> list[_Link]:
    """As many of the patches as fit one after the other, in that order."""
    weights.start()
    order: list[_Link] = []
    left = list(links)
    while following := next((link for link in left if weights.fit(link)), None):
        weights.write(following)
        order.append(following)
        left.remove(following)
    return order


def _patient(
    model: PreTrainedModel, layout: Layout, weights: _ChainedWeights, links: Sequence[_Link]
) -> Patient:
    names = ", ".join(str(link.path) for link in links)
    beginning = _beginning(links)
    patient = open_patient(
        model,
        layout,
        joined_plan([link.content.plan for link in links]),
        beginning,
        planned_here=False,
    )
    try:
        fill(patient, weights.slices(), names)
        patient.merge()
    except BaseException:
        patient.revert()
        raise
    patient.checked = f"each of the {len(links)} patches fits the model as those before it leave it"
    patient.read_as = patient.digest()
    patient.parts = tuple(part for link in links for part in _parts(link.content))
    return patient


def joined_plan(plans: Sequence[Plan]) -> Plan:
    """One plan in place of several that were carried out one after the other.

    All operated heads, each as it was first planned, and the watched ones among the others.
    """
    heads: dict[object, PlannedHead] = {}
    for role in ("operate", "watch"):
        for head in (head for plan in plans for head in plan.heads if head.role == role):
            heads.setdefault(head.id, head)
    notes = [
        f"patch {number}: {note}" for number, plan in enumerate(plans, 1) for note in plan.notes
    ]
    return plans[0].replace(
        rule=", ".join(dict.fromkeys(plan.rule for plan in plans)),
        heads=tuple(sorted(heads.values(), key=lambda head: head.id)),
        # what a rule was told is of one alone
        layers=None,
        band=None,
        column=None,
        max_cost=None,
        joint_cost=None,
        notes=tuple(notes),
    )


def _beginning(links: Sequence[_Link]) -> Beginning:
    """How the heads started, where all did alike; else as the paper's do, with the first seed.

    What each one's start was is in `parts`. A start that wrote into the bias of output projections
    stays, since the bias is a part of it.
    """
    beginnings = [link.content.beginning for link in links]
    inits = {each.init.name for each in beginnings}
    outputs = {each.output_start.name: each.output_start for each in beginnings}
    carrying = [each for each in outputs.values() if each.start.output_bias]
    alike = next(iter(outputs.values())) if len(outputs) == 1 else None
    return Beginning(
        seed=beginnings[0].seed,
        init=beginnings[0].init if len(inits) == 1 else choose_init(_INIT),
        output_start=alike or (carrying[0] if carrying else choose_output_start(_OUTPUT_START)),
    )


def _parts(content: PatchContent) -> tuple[PatchPart, ...]:
    beginning = content.beginning
    itself = PatchPart(
        heads=[str(head) for head in content.plan.operated],
        rule=content.plan.rule,
        init=beginning.init.name,
        output_start=beginning.output_start.name,
        seed=beginning.seed,
        step=content.step,
        fingerprint=content.metadata["fingerprint"],
    )
    return content.parts or (itself,)
