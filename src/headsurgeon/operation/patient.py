"""A model under operation: slices in place of whole tensors, which can be merged or taken back."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon.arch import Layout
from headsurgeon.arguments import checked
from headsurgeon.errors import PatchError, SettingsError, StateError
from headsurgeon.heads import HeadId
from headsurgeon.models.fingerprint import combined, fingerprints_of, others
from headsurgeon.models.forward import model_id
from headsurgeon.operation.beginning import Beginning, Begun
from headsurgeon.operation.patch import DTYPES, PatchPart, write_patch
from headsurgeon.operation.sharding import check_unsharded
from headsurgeon.operation.slice_maps import (
    frozen_key_values,
    head_tensors,
    not_finite,
    output_biases,
    slice_maps,
)
from headsurgeon.operation.slices import PREFIX, SlicedLinear, SliceMap
from headsurgeon.planning import Plan
from headsurgeon.starts import HeadTensors

State = Literal["open", "merged", "reverted"]


@dataclass(frozen=True)
class WeightChange:
    """What a step on a patient did to its model.

    Attributes:
        state: the state the patient is in now.
        tensors: number of parameters that hold a slice.
        parameters: number of values in all of them.
        largest: largest absolute difference between the weights now and the stock weights.
    """

    state: State
    tensors: int
    parameters: int
    largest: float


class Patient(Begun):
    """A model on which a plan is carried out; made by `operate` or `apply_patch`.

    Its state is `open` (the slices are the model's only trainable parameters), `merged` (an
    ordinary model with the operation, rounded to its precision) or `reverted` (the stock weights,
    bit for bit). Every state can follow every other, and the slices survive all of them.
    Operations on the same heads are taken back last first: a patient never writes over weights that
    something else has changed.

    Attributes:
        model: the model itself; an ordinary `nn.Module` throughout.
        plan: the plan, with the start and the seed that were used.
        layout: where the model's heads live.
        beginning: how the heads started.
        base_fingerprint: of the model before the operation, as a plan records it.
        fingerprints: SHA-256 of every touched tensor before the operation.
        frozen_key_values: operated heads whose keys and values stay frozen, because other heads
            read them too and are not operated on.
        maps: which part of each parameter is a slice.
        state: `open`, `merged` or `reverted`.
        checked: of a patient made by `apply_patch`: what was compared with the patch's own base.
        read_as: of a patient made from files: SHA-256 of the slices as they were read.
        drawn_as: of one made by `operate`: SHA-256 of the slices as they were started.
        step: the step of a training run that the slices were last taken from; None before any.
        parts: of a patient made of several patches: the operations, in their order.
    """

    file_name: ClassVar[str] = "patch.safetensors"

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        plan: Plan,
        beginning: Beginning,
        base_fingerprint: str,
        fingerprints: dict[str, str],
    ) -> None:
        self.model = model
        self.layout = layout
        self.plan = plan
        self.beginning = beginning
        self.base_fingerprint = base_fingerprint
        self.fingerprints = fingerprints
        self.frozen_key_values = frozen_key_values(layout, plan.operated)
        carries = beginning.output_start.start.output_bias
        self.maps = slice_maps(layout, plan.operated, carries)
        self._constants = (
            frozenset(output_biases(layout, plan.operated).values()) if carries else frozenset()
        )
        self.state: State = "open"
        self.checked = self.read_as = self.drawn_as = ""
        self.step: int | None = None
        self.parts: tuple[PatchPart, ...] = ()
        self._stock = self._read()
        # what the model holds where the slices belong, unless they are in place
        self._written = self._stock
        self._trainable: dict[str, bool] = {}
        self._layers = {
            path: SlicedLinear(
                model.get_submodule(path),
                self.maps[f"{path}.weight"],
                self.maps.get(f"{path}.bias"),
                clamped=layout.clip is not None,
            )
            for path in sorted({_module(name) for name in self.maps})
        }
        try:
            self._enter()
        except BaseException:
            # nobody has this patient yet, so nobody else could take it back
            self._leave(complete=False)
            raise

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """The operated heads."""
        return self.plan.operated

    def contents(self) -> dict[str, nn.Parameter]:
        """All that a patch holds, by the name of the parameter it belongs to, sorted.

        The slices, and output biases that a start has put a constant into: these stay as they are.
        """
        return {
            name: self._layers[_module(name)].get_parameter(PREFIX + _leaf(name))
            for name in self.maps
        }

    def digest(self) -> str:
        """SHA-256 of all that a patch would hold now."""
        return combined(fingerprints_of(self.contents()))

    def named_slices(self) -> dict[str, nn.Parameter]:
        """The slices by the name of the parameter they belong to, sorted."""
        return {
            name: slice_ for name, slice_ in self.contents().items() if name not in self._constants
        }

    def slices(self) -> list[nn.Parameter]:
        """The parameters to give an optimiser, and nothing else."""
        return list(self.named_slices().values())

    def trainable(self) -> dict[str, nn.Parameter]:
        """The slices, as a learner."""
        return self.named_slices()

    def identity(self) -> dict[str, Any]:
        """What decides the slices' start, besides the model's weights."""
        return {
            "fingerprint": self.base_fingerprint,
            "heads": [str(head) for head in self.heads],
            "init": self.init,
            "output_start": self.output_start,
            "init_seed": self.seed,
            **({"calibration": asdict(self.calibration)} if self.calibration.tokens else {}),
            **({"start_values": self.read_as} if self.read_as else {}),
        }

    def stock_state(self) -> Iterator[tuple[str, Tensor]]:
        """The model's `state_dict()` as it was before the operation, one tensor at a time."""
        for name, tensor in sorted(self.model.state_dict().items()):
            if name in self.maps:
                tensor = tensor.detach().clone()
                self.maps[name].write(tensor, self._stock[name])
            yield name, tensor

    def stock(self) -> dict[str, Tensor]:
        """What the model held before the operation where the slices belong; not to be changed."""
        return dict(self._stock)

    def write_into(self, name: str, tensor: Tensor) -> str | None:
        """Writes the slice of a parameter into a tensor like it, rounding to its precision.

        Returns:
            What is not finite then, in words; None where everything is.
        """
        self.maps[name].write(tensor, self.contents()[name].detach().cpu())
        rounded = {name: self.maps[name].read(tensor)}
        return not_finite(rounded, self.maps, self.heads, self.layout)

    def outputs(self) -> set[str]:
        """Names of the slices that are columns of output projections."""
        return {name for name in self.named_slices() if self.maps[name].side == "in"}

    def head_slices(self) -> dict[str, SliceMap]:
        """None: all that is trained is heads'."""
        return {}

    def head_tensors(self, values: Mapping[str, Tensor] | None = None) -> list[HeadTensors]:
        """Writable views of each operated head's slices, or of `values` that lie as they do."""
        values = self.contents() if values is None else values
        return head_tensors(self.layout, self.heads, self.maps, values)

    def merge(self) -> WeightChange:
        """Makes `model` an ordinary model with the slices written in, rounded to its precision.

        Raises:
            StateError: something else has changed the weights of these heads meanwhile, or has
                spread the model over several processes.
        """
        self._leave()
        return self._write(dict(self.contents()), "merged")

    def revert(self) -> WeightChange:
        """Makes `model` the stock model again, bit for bit; the slices are kept for `merge`.

        Raises:
            StateError: as for `merge`.
        """
        self._leave()
        return self._write(self._stock, "reverted")

    def reopen(self) -> WeightChange:
        """Puts the slices back in place for further training.

        Raises:
            StateError: as for `merge`.
        """
        self._leave()
        change = self._write(dict(self.contents()), "open")
        self._enter()
        return change

    def untouched_values(self) -> dict[str, Tensor]:
        """The slices as the stock weights have them, by name; not to be changed."""
        return {name: self._stock[name] for name in self.named_slices()}

    def require_open(self) -> None:
        """Raises `StateError` unless the slices are in place."""
        if self.state != "open":
            raise StateError(
                f"the patient is {self.state}, so its slices are not part of the model; call "
                "patient.reopen() before training"
            )

    def change(self) -> WeightChange:
        """How far the weights are from stock now; changes nothing."""
        current: dict[str, Tensor] = dict(self.contents())
        if self.state == "reverted":
            current = self._stock
        largest = 0.0
        for name, values in current.items():
            rounded = values.detach().to("cpu", self.model.get_parameter(name).dtype).float()
            difference = (rounded - self._stock[name].float()).abs().max()
            largest = max(largest, float(difference))
        parameters = sum(part.numel() for part in self.contents().values())
        return WeightChange(self.state, len(self.maps), parameters, largest)

    @checked
    def save(self, path: Path | str, dtype: torch.dtype = torch.float32) -> Path:
        """Writes the slices as a patch file, whatever the state; see `operation.patch.write_patch`.

        Args:
            path: the file; replaced atomically.
            dtype: float32, or bfloat16 for half the size, rounded.

        Raises:
            SettingsError: another dtype.
            PatchError: a slice holds NaN or infinity, perhaps because training diverged; names its
                tensor and head. An earlier file stays.
            WriteError: the file could not be written.
        """
        if dtype not in DTYPES:
            raise SettingsError(f"a patch is saved in float32 or bfloat16, not {dtype}")
        tensors = {
            name: slice_.detach().to("cpu", dtype).contiguous()
            for name, slice_ in self.contents().items()
        }
        fault = not_finite(tensors, self.maps, self.heads, self.layout)
        if fault is not None:
            raise PatchError(
                f"cannot save {path}: {fault}; training diverged, or the file it came from is "
                "damaged"
            )
        layout = {name: {"axis": part.axis, "runs": part.runs} for name, part in self.maps.items()}
        metadata = {
            "model": self.plan.model or model_id(self.model),
            "fingerprint": self.base_fingerprint,
            "fingerprints": json.dumps(self.fingerprints),
            "plan": self.plan.to_yaml(),
            "others": others(self.model, self.fingerprints),
            "layout": json.dumps(layout),
            **self.beginning.entries(),
        }
        if self.step is not None:
            metadata["step"] = str(self.step)
        if self.parts:
            metadata["parts"] = json.dumps([asdict(part) for part in self.parts])
        write_patch(path, tensors, metadata)
        return Path(path)

    def _write(self, values: dict[str, Tensor], state: State) -> WeightChange:
        _check_free(self.model)
        check_unsharded(self.model)
        if self.state != "open":
            self._check_unchanged()
        with torch.no_grad():
            for name, slice_map in self.maps.items():
                slice_map.write(self.model.get_parameter(name), values[name].detach())
        self.state = state
        self._written = self._stock if state == "reverted" else self._read()
        return self.change()

    def _read(self) -> dict[str, Tensor]:
        """The model's weights where the slices belong, on the CPU."""
        return {
            name: slice_map.read(self.model.get_parameter(name).detach()).cpu()
            for name, slice_map in self.maps.items()
        }

    def _check_unchanged(self) -> None:
        for name, now in self._read().items():
            # the model may have been cast since; NaN of a run that diverged equals itself
            if not torch.equal(now.nan_to_num(), self._written[name].to(now.dtype).nan_to_num()):
                heads = ", ".join(map(str, self.heads))
                raise StateError(
                    f"{name} has changed since this patient ({heads}) last wrote it, perhaps by a "
                    "later operation on the same heads; revert that one first"
                )

    def _enter(self) -> None:
        """Swaps the slice layers in and freezes everything else."""
        self._trainable = {
            name: parameter.requires_grad for name, parameter in self.model.named_parameters()
        }
        self.model.requires_grad_(False)
        for path, layer in self._layers.items():
            layer.adopt()
            _swap(self.model, path, layer)
        trained = self.named_slices()
        for name, part in self.contents().items():
            part.requires_grad_(name in trained)
        self.state = "open"

    def _leave(self, complete: bool = True) -> None:
        """Puts the original modules back, and the requires_grad flags they had."""
        if self.state != "open":
            return
        for layer in self._layers.values():
            layer.check_held()
        for path, layer in self._layers.items():
            if complete or self.model.get_submodule(path) is layer:
                _swap(self.model, path, layer.base.train(layer.training))
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._trainable[name])


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _swap(model: nn.Module, path: str, module: nn.Module) -> None:
    setattr(model.get_submodule(_module(path)), _leaf(path), module)


def _check_free(model: nn.Module) -> None:
    if operated(model):
        raise StateError("another patient is open on this model; merge or revert that one first")


def operated(model: nn.Module) -> bool:
    """Whether slices are in place in any layer of `model`."""
    return any(isinstance(module, SlicedLinear) for module in model.modules())
