"""LoRA on the attention projections of the operated layers, with as many trainable values.

The adapters are PEFT's own (arXiv:2106.09685): what an operation on the same heads is compared
with. Taking them back is not: PEFT subtracts what it has added, which rounds; here the stock
weights are kept and put back.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon import files
from headsurgeon.arch import Layout, layout_of
from headsurgeon.arch.layout import PARTS
from headsurgeon.arguments import checked
from headsurgeon.errors import StateError
from headsurgeon.extras import require
from headsurgeon.heads import HeadId
from headsurgeon.models.address import Address
from headsurgeon.models.fingerprint import combined
from headsurgeon.models.forward import model_id
from headsurgeon.operation.operating import checked_fingerprints
from headsurgeon.operation.patient import State, WeightChange
from headsurgeon.operation.seeds import check_seed
from headsurgeon.operation.slice_maps import HeadTensors, slice_maps
from headsurgeon.operation.slices import SliceMap
from headsurgeon.operation.tensor_file import write_tensors
from headsurgeon.planning import Plan

_ADAPTER = "default"


@checked
def open_lora(model: PreTrainedModel, plan: Plan, seed: int | None = None) -> "LoraLearner":
    """Puts LoRA adapters on Q, K, V and output projections of the layers that `plan` operates on.

    Ranks are as equal as they can be with as many trainable values as the plan's slices have, to
    within half a rank of the largest projection.

    Args:
        model: a causal language model; changed in place until `merge` or `revert`.
        plan: its operated heads decide layers and ranks.
        seed: of the adapters' start; the plan's own unless given.

    Raises:
        UnsupportedModel, HeadError, PlanError, ModelError, StateError: as `operate`.
        MissingPackage: PEFT is not installed.
        SettingsError: the seed is none.
    """
    require("peft", "LoRA")
    layout = layout_of(model)
    checked_seed = check_seed(plan.seed if seed is None else seed)
    base_fingerprint = combined(checked_fingerprints(model, layout, plan))
    return LoraLearner(model, layout, plan, checked_seed, base_fingerprint)


class LoraLearner:
    """A model with LoRA adapters in place of an operation; made by `open_lora`.

    It has the states of a `Patient`, and the attributes that a `Learner` has.

    Attributes:
        ranks: of the adapter on each projection, by the projection's path.
    """

    file_name: ClassVar[str] = "adapter_model.safetensors"

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        plan: Plan,
        seed: int,
        base_fingerprint: str,
    ) -> None:
        self.model = model
        self.layout = layout
        self.plan = plan
        self.seed = seed
        self.base_fingerprint = base_fingerprint
        self.frozen_key_values: tuple[HeadId, ...] = ()
        self.state: State = "open"
        self.step: int | None = None
        self.ranks = _ranks(model, layout, plan.operated)
        self._stock = {path: _weight(model, path).detach().cpu().clone() for path in self.ranks}
        self._written = self._stock
        self._bases = {path: model.get_submodule(path) for path in self.ranks}
        self._flags = [(value, value.requires_grad) for value in model.parameters()]
        self._config = self._inject()
        self._layers = {path: model.get_submodule(path) for path in self.ranks}

    @property
    def calibration_tokens(self) -> int:
        """None: adapters start at random."""
        return 0

    def trainable(self) -> dict[str, nn.Parameter]:
        """The adapters' matrices, A [rank, in] and B [out, rank] of every projection."""
        return {
            f"{path}.{matrix}.weight": layer.get_parameter(f"{matrix}.{_ADAPTER}.weight")
            for path, layer in self._layers.items()
            for matrix in ("lora_A", "lora_B")
        }

    def outputs(self) -> set[str]:
        """None: no output column is trained by itself."""
        return set()

    def head_slices(self) -> dict[str, SliceMap]:
        """None: adapters span what all heads of a layer share."""
        return {}

    def head_tensors(self, values: Mapping[str, Tensor] | None = None) -> list[HeadTensors]:
        """None: what is trained are no single heads."""
        return []

    def identity(self) -> dict[str, Any]:
        """What decides where training starts, besides the model's weights."""
        return {
            "trains": "lora",
            "fingerprint": self.base_fingerprint,
            "heads": [str(head) for head in self.plan.operated],
            "init_seed": self.seed,
            "ranks": self.ranks,
        }

    def stock_state(self) -> Iterator[tuple[str, Tensor]]:
        """The model's `state_dict()` as it was before, one tensor at a time."""
        state = self.model.state_dict()
        weights = {f"{path}.weight": path for path in self.ranks}
        named = {_own_name(name): tensor for name, tensor in state.items() if ".lora_" not in name}
        for name, tensor in sorted(named.items()):
            yield name, self._stock[weights[name]] if name in weights else tensor

    def untouched_values(self) -> dict[str, Tensor]:
        """The adapters' matrices with B at 0, so that they add nothing."""
        return {
            name: torch.zeros_like(value) if ".lora_B." in name else value.detach().clone()
            for name, value in self.trainable().items()
        }

    def require_open(self) -> None:
        """Raises `StateError` unless the adapters are in place."""
        if self.state != "open":
            raise StateError(
                f"the adapters are {self.state}, so they are not part of the model; call reopen() "
                "before training"
            )

    def merge(self) -> WeightChange:
        """Makes `model` an ordinary model with the adapters' products added to its weights.

        Raises:
            StateError: something else has changed these weights meanwhile.
        """
        self._leave()
        return self._write(self._merged(), "merged")

    def revert(self) -> WeightChange:
        """Makes `model` the stock model again, bit for bit; raises as `merge`."""
        self._leave()
        return self._write(self._stock, "reverted")

    def reopen(self) -> WeightChange:
        """Puts the adapters back for further training; raises as `merge`."""
        self._leave()
        self._write(self._stock, "open")
        for value, _ in self._flags:
            value.requires_grad_(False)
        for path, layer in self._layers.items():
            layer.train(self._bases[path].training).to(_weight(self.model, path).device)
            self.model.set_submodule(path, layer)
        return self._change(self._merged())

    @checked
    def save(self, path: Path | str, dtype: torch.dtype = torch.float32) -> Path:
        """Writes the adapters, rounded to `dtype`, and `adapter_config.json` beside them.

        Named `adapter_model.safetensors`, they are what `peft.PeftModel.from_pretrained` reads.

        Raises:
            WriteError: a file could not be written.
        """
        tensors = {
            f"base_model.model.{name}": value.detach().to("cpu", dtype).contiguous()
            for name, value in self.trainable().items()
        }
        metadata = {"model": model_id(self.model), "fingerprint": self.base_fingerprint} | (
            {} if self.step is None else {"step": str(self.step)}
        )
        write_tensors(path, "adapter", tensors, metadata)
        content = json.loads(json.dumps(self._config, default=list))
        files.write_json(Path(path).parent / "adapter_config.json", content)
        return Path(path)

    def _inject(self) -> dict[str, Any]:
        """Puts the adapters in place; returns their configuration as PEFT writes it."""
        from peft import LoraConfig, inject_adapter_in_model

        name = model_id(self.model)
        base = Address(name) if Path(name).exists() else Address.parse(name)
        config = LoraConfig(
            # every projection has its own; what is added is B·A, whatever the rank
            rank_pattern=self.ranks,
            alpha_pattern=self.ranks,
            target_modules=sorted(self.ranks),
            # weights held as [in, out]
            fan_in_fan_out=self.layout.query.axis == 1,
            # PEFT knows revisions and no subfolders
            base_model_name_or_path=base.repository if base.subfolder is None else name,
            revision=base.revision if base.subfolder is None else None,
            task_type="CAUSAL_LM",
        )
        written: dict[str, Any] = config.to_dict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            inject_adapter_in_model(config, self.model, _ADAPTER)
        # the model itself is to be an ordinary one
        del self.model.peft_config
        for path in self.ranks:
            layer = self.model.get_submodule(path)
            layer.train(self._bases[path].training)
            for name, value in layer.named_parameters():
                if name.startswith("lora_"):
                    value.data = value.data.float()
        return written

    def _merged(self) -> dict[str, Tensor]:
        merged = {}
        for path, layer in self._layers.items():
            added: Tensor = layer.get_delta_weight(_ADAPTER)  # type: ignore[operator]
            merged[path] = self._stock[path].float() + added.detach().cpu().float()
        return merged

    def _leave(self) -> None:
        if self.state == "open":
            for path, layer in self._layers.items():
                self.model.set_submodule(path, self._bases[path].train(layer.training))
            for value, flag in self._flags:
                value.requires_grad_(flag)
            return
        for path, written in self._written.items():
            now = _weight(self.model, path).detach().cpu()
            # NaN of a run that diverged equals itself
            if not torch.equal(now.nan_to_num(), written.to(now.dtype).nan_to_num()):
                raise StateError(
                    f"{path}.weight has changed since the adapters were last written, perhaps by "
                    "an operation; revert that one first"
                )

    def _write(self, values: dict[str, Tensor], state: State) -> WeightChange:
        with torch.no_grad():
            for path, value in values.items():
                _weight(self.model, path).copy_(value)
        self.state, self._written = state, values
        return self._change(values)

    def _change(self, values: dict[str, Tensor]) -> WeightChange:
        differences = (
            (value.to(self._stock[path].dtype).float() - self._stock[path].float()).abs().max()
            for path, value in values.items()
        )
        count = sum(value.numel() for value in self.trainable().values())
        return WeightChange(self.state, len(values), count, max(map(float, differences)))


def _ranks(model: PreTrainedModel, layout: Layout, heads: tuple[HeadId, ...]) -> dict[str, int]:
    """Ranks above 0 by path, as equal as they can be with as many values as the slices have."""
    budget = 0
    for name, part in slice_maps(layout, heads).items():
        shape = model.get_parameter(name).shape
        budget += shape.numel() // shape[part.axis] * part.length
    layers = sorted({head.layer for head in heads})
    paths = {layout.projection(part).path(layer) for layer in layers for part in PARTS}
    # what one rank costs: a row of A and a column of B
    costs = {path: sum(_weight(model, path).shape) for path in sorted(paths)}
    rank, left = divmod(budget, sum(costs.values()))
    ranks = dict.fromkeys(costs, rank)
    for path, cost in sorted(costs.items(), key=lambda item: -item[1]):
        if left >= cost / 2:
            ranks[path] += 1
            left -= cost
    return {path: ranks[path] for path in sorted(ranks) if ranks[path] > 0}


def _weight(model: nn.Module, path: str) -> nn.Parameter:
    return model.get_parameter(f"{path}.weight")


def _own_name(name: str) -> str:
    return name.replace(".base_layer.", ".")
