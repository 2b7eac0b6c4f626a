"""Every parameter of a model trained: what an operation on a few heads is compared with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.arguments import checked
from headsurgeon.errors import PatchError, PlanError, SettingsError, StateError
from headsurgeon.heads import HeadId
from headsurgeon.models.fingerprint import combined, everything, fingerprints_of
from headsurgeon.models.forward import model_id
from headsurgeon.operation.beginning import Begun, as_it_is
from headsurgeon.operation.operating import check_operable, checked_fingerprints
from headsurgeon.operation.patch import DTYPES
from headsurgeon.operation.patient import Patient, State, WeightChange, operated
from headsurgeon.operation.slice_maps import HeadTensors, slice_maps
from headsurgeon.operation.slices import SliceMap
from headsurgeon.operation.weights_file import WeightsContent, read_weights, write_weights
from headsurgeon.planning import Plan


@checked
def open_full(model: PreTrainedModel, plan: Plan, *, start: Patient | None = None) -> "FullLearner":
    """Makes every parameter of `model` trainable, in place.

    Args:
        model: a causal language model; changed in place until `merge` or `revert`.
        plan: the heads that evaluations report on, and that learn at `heads_rate`.
        start: an operation on the same heads of this model, trained or not, that everything is
            trained on from. Its values are taken over, so that it is reverted afterwards; what
            counts as untouched is the model as it was before it.

    Raises:
        UnsupportedModel, HeadError, PlanError, ModelError, StateError: as `operate`.
        SettingsError: `start` is an operation on another model.
        PlanError: `plan` operates on other heads than `start` does.
    """
    if start is None:
        return _open(model, plan)
    if start.model is not model:
        raise SettingsError("start: an operation on another model than the one to be trained")
    if start.plan.operated != plan.operated:
        raise PlanError("plan: its heads are not those that start operates on; give start.plan")
    was: State = start.state
    start.merge()
    values = {name: model.get_parameter(name).detach().clone() for name in start.maps}
    start.revert()
    try:
        learner = _open(model, plan)
    except BaseException:
        {"open": start.reopen, "merged": start.merge, "reverted": start.revert}[was]()
        raise
    learner.begin(start, values)
    return learner


@checked
def apply_weights(model: PreTrainedModel, path: Path | str) -> "FullLearner":
    """Writes into its base what training the whole model came to: a run's `weights.safetensors`.

    Returns:
        The learner, merged: `revert` gives the base again, `reopen` trains it further.

    Raises:
        PatchError: the file is damaged, belongs to another base, or has values beyond what this
            model's precision can hold.
        UnsupportedModel, HeadError, ModelError, StateError: as for `operate`.
    """
    check_operable(model)
    content = read_weights(path)
    _check_base(model, content, path)
    learner = _open(model, content.plan, base=content.base)
    try:
        learner.take(content)
    except BaseException:
        learner.revert()
        raise
    return learner


def _check_base(model: PreTrainedModel, content: WeightsContent, path: Path | str) -> None:
    shapes = {name: value.shape for name, value in model.named_parameters()}
    if {name: value.shape for name, value in content.tensors.items()} != shapes:
        raise PatchError(
            f"{path} was made for {content.model}; this model ({model_id(model)}) has other "
            "parameters"
        )
    if everything(model) != content.base:
        raise PatchError(
            f"{path} was made for {content.model}; this model ({model_id(model)}) has other "
            "weights: apply it to its own base"
        )
    for name, value in content.tensors.items():
        dtype = model.get_parameter(name).dtype
        if not bool(torch.isfinite(value.to(dtype)).all()):
            raise PatchError(
                f"{path}: {name} holds values beyond what the precision of this model ({dtype}) "
                "has; load it in bf16 or fp32"
            )


def _open(model: PreTrainedModel, plan: Plan, base: str | None = None) -> "FullLearner":
    """`base` is the SHA-256 of a model that has been compared; another has to suit the plan."""
    layout = layout_of(model)
    known = checked_fingerprints(model, layout, plan, planned_here=base is None)
    return FullLearner(model, layout, plan, combined(known), base or everything(model, known))


class FullLearner(Begun):
    """A model all of whose parameters are trained; made by `open_full` or `apply_weights`.

    It has the states of a `Patient`, and the attributes that a `Learner` has.

    Attributes:
        beginning: how the plan's heads started; as they were, where no operation was the start.
        base: one SHA-256 over all parameters of the model before.
        trained_before: whether the start had been trained before everything was.
        checked: of what `apply_weights` made: what was compared with its own base, in words.
    """

    file_name: ClassVar[str] = "weights.safetensors"

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        plan: Plan,
        base_fingerprint: str,
        base: str,
    ) -> None:
        self.model = model
        self.layout = layout
        self.plan = plan
        self.base_fingerprint = base_fingerprint
        self.base = base
        self.beginning = as_it_is()
        self.checked = ""
        self.trained_before = False
        # what a start adds to its identity
        self._begun: dict[str, Any] = {}
        self.frozen_key_values: tuple[HeadId, ...] = ()
        self.state: State = "open"
        self.step: int | None = None
        self._stock = self._read()
        # what was trained, and what the model holds, unless it is open
        self._trained = self._written = self._stock
        self._flags = {name: value.requires_grad for name, value in model.named_parameters()}
        model.requires_grad_(True)

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """The plan's heads."""
        return self.plan.operated

    def begin(self, start: Patient, values: Mapping[str, Tensor]) -> None:
        """Puts in place what an operation came to; the whole parameters, by name."""
        with torch.no_grad():
            for name, value in values.items():
                self.model.get_parameter(name).copy_(value)
        self.beginning = start.beginning
        self.plan = self.beginning.planned(self.plan)
        self._begun = start.identity()
        digest = start.digest()
        if digest != start.drawn_as:
            # what was trained, or read from a patch, follows from no seed
            self._begun["start_values"] = digest
            self.trained_before = True

    def take(self, content: WeightsContent) -> WeightChange:
        """Merges what a file holds, which is kept as exactly as the file has it."""
        self._leave()
        self._trained = content.tensors
        self.beginning, self.step = content.beginning, content.step
        self.trained_before = content.trained_before
        self._begun = {
            "init": self.init,
            "output_start": self.output_start,
            "init_seed": self.seed,
            "start_values": combined(fingerprints_of(content.tensors)),
        }
        self.checked = f"all {len(content.tensors)} tensors of the base are those it was made for"
        return self._write(self._trained, "merged")

    def contents(self) -> dict[str, Tensor]:
        """All that `save` writes, by name; not to be changed."""
        if self.state != "open":
            return dict(self._trained)
        # what nobody has moved is kept as exactly as it came, where the model is narrower
        return {
            name: kept if torch.equal((kept := self._trained[name]).to(now.dtype), now) else now
            for name, now in self._read().items()
        }

    def write_into(self, name: str, tensor: Tensor) -> str | None:
        """As `Patient.write_into`."""
        tensor.copy_(self.contents()[name])
        return None if bool(torch.isfinite(tensor).all()) else f"{name} holds NaN or infinity"

    def trainable(self) -> dict[str, nn.Parameter]:
        """All parameters by name; those that share their values once."""
        return dict(self.model.named_parameters())

    def outputs(self) -> set[str]:
        """The weights of the output projections."""
        path = self.layout.projection("output").path
        return {f"{path(layer)}.weight" for layer in self.layout.attention_layers}

    def head_slices(self) -> dict[str, SliceMap]:
        """Where the plan's heads lie in the parameters, as an operation on them has it."""
        return slice_maps(self.layout, self.plan.operated)

    def head_tensors(self, values: Mapping[str, Tensor] | None = None) -> list[HeadTensors]:
        """None: what is trained are no single heads."""
        return []

    def identity(self) -> dict[str, Any]:
        """What decides where training starts, besides the model's weights."""
        return {
            **self._begun,
            "trains": "full",
            "fingerprint": self.base_fingerprint,
            "heads": [str(head) for head in self.plan.operated],
        }

    def stock_state(self) -> Iterator[tuple[str, Tensor]]:
        """The model's `state_dict()` as it was before, one tensor at a time."""
        # tied weights have other names as well
        places = {value.data_ptr(): name for name, value in self.model.named_parameters()}
        for name, tensor in sorted(self.model.state_dict().items()):
            yield name, self._stock.get(places.get(tensor.data_ptr(), ""), tensor)

    def untouched_values(self) -> dict[str, Tensor]:
        """The parameters as they were before, by name; not to be changed."""
        return dict(self._stock)

    def require_open(self) -> None:
        """Raises `StateError` unless the parameters are trainable."""
        if self.state != "open":
            raise StateError(
                f"the model is {self.state}, so its parameters are not trained; call reopen() "
                "before training"
            )

    def merge(self) -> WeightChange:
        """Makes `model` an ordinary model with the values that training left.

        Raises:
            StateError: something else has changed the model's weights meanwhile.
        """
        self._leave()
        return self._write(self._trained, "merged")

    def revert(self) -> WeightChange:
        """Makes `model` the stock model again, bit for bit; raises as `merge`."""
        self._leave()
        return self._write(self._stock, "reverted")

    def reopen(self) -> WeightChange:
        """Puts the trained values back for further training; raises as `merge`."""
        self._leave()
        change = self._write(self._trained, "open")
        self.model.requires_grad_(True)
        return change

    @checked
    def save(self, path: Path | str, dtype: torch.dtype = torch.float32) -> Path:
        """Writes the trained parameters, rounded to `dtype`, under the model's own names.

        Raises:
            SettingsError: `dtype` is neither float32 nor bfloat16.
            PatchError: a parameter holds NaN or infinity, perhaps because training diverged; an
                earlier file stays.
            StateError: the model is being operated on.
            WriteError: the file could not be written.
        """
        metadata = {
            "model": self.plan.model or model_id(self.model),
            "fingerprint": self.base_fingerprint,
            "base": self.base,
            "plan": self.plan.to_yaml(),
            **self.beginning.entries(),
            **({"trained_before": "true"} if self.trained_before else {}),
        } | ({} if self.step is None else {"step": str(self.step)})
        if dtype not in DTYPES:
            raise SettingsError(f"weights are saved in float32 or bfloat16, not {dtype}")
        tensors = {name: value.to(dtype) for name, value in self.contents().items()}
        for name, value in tensors.items():
            if not bool(torch.isfinite(value).all()):
                raise PatchError(
                    f"cannot save {path}: {name} holds NaN or infinity; training diverged"
                )
        write_weights(path, tensors, metadata)
        return Path(path)

    def _read(self) -> dict[str, Tensor]:
        if operated(self.model):
            raise StateError(
                "some heads of this model are being operated on; merge or revert that patient first"
            )
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in self.model.named_parameters()
        }

    def _leave(self) -> None:
        if self.state == "open":
            self._trained = self.contents()
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(self._flags[name])
                parameter.grad = None
            return
        for name, now in self._read().items():
            written = self._written[name].to(now.dtype)
            # NaN of a run that diverged equals itself
            if not torch.equal(now.nan_to_num(), written.nan_to_num()):
                raise StateError(
                    f"{name} has changed since all parameters were last written, perhaps by an "
                    "operation; revert that one first"
                )

    def _write(self, values: dict[str, Tensor], state: State) -> WeightChange:
        largest = 0.0
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(values[name])
                difference = (values[name].float() - self._stock[name].float()).abs().max()
                largest = max(largest, float(difference))
        self.state, self._written = state, values
        count = sum(value.numel() for value in values.values())
        return WeightChange(state, len(values), count, largest)
