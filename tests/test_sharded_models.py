"""Slices in a model spread over processes are refused in words, before and after sharding."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_module

from headsurgeon.errors import StateError
from headsurgeon.heads import HeadId
from headsurgeon.operation import operate
from headsurgeon.planning import Plan, PlannedHead
from tests.pico import pico, tokens

PLAN = Plan(
    model="pico", rule="heads", heads=(PlannedHead(id=HeadId(1, 1)), PlannedHead(id=HeadId(2, 2)))
)
PROJECTION = "transformer.h.1.self_attention.query_key_value"


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("where", ["block", "projection", "model"])
@pytest.mark.parametrize("reshard", [True, False])
def test_fsdp2_is_refused_at_operate_and_when_applied_afterwards(
    where: str, reshard: bool, mesh: DeviceMesh
) -> None:
    paths = {"block": "transformer.h.1", "projection": PROJECTION, "model": ""}
    model = pico("bloom")
    fully_shard(model.get_submodule(paths[where]), mesh=mesh, reshard_after_forward=reshard)
    with pytest.raises(StateError, match="sharded model"):
        operate(model, PLAN)
    model = pico("bloom")
    patient = operate(model, PLAN)
    fully_shard(model.get_submodule(paths[where]), mesh=mesh, reshard_after_forward=reshard)
    for step in (lambda: model(tokens()), patient.merge, patient.revert, patient.reopen):
        with pytest.raises(StateError, match="DTensor"):
            step()


def test_fsdp2_around_a_module_that_holds_the_model_is_refused(mesh: DeviceMesh) -> None:
    model = pico("bloom")
    operate(model, PLAN)
    outer = nn.Sequential(model)
    fully_shard(outer, mesh=mesh)
    for run in (outer, model):
        with pytest.raises(StateError, match="DTensor"):
            run(tokens())


def test_tensor_parallelism_is_refused_before_and_after(mesh: DeviceMesh) -> None:
    model = pico("bloom")
    distribute_module(model.get_submodule(PROJECTION), mesh)
    with pytest.raises(StateError, match="tensor parallelism"):
        operate(model, PLAN)
    model = pico("bloom")
    operate(model, PLAN)
    distribute_module(model.get_submodule(PROJECTION), mesh)
    with pytest.raises(StateError, match="tensor parallelism"):
        model(tokens())


@pytest.mark.parametrize("kind", ["zero-3", "flattened", "flat view", "shard"])
def test_placeholders_of_other_libraries_are_refused(kind: str) -> None:
    def shard(module: nn.Module) -> None:
        if kind == "zero-3":
            module.weight.data = torch.empty(0)
        if kind == "flattened":
            module.weight._fsdp_flattened = True
        if kind == "flat view":
            whole = module.weight.detach()
            del module.weight
            module.weight = whole
        if kind == "shard":
            module.weight.data = module.weight.data[:8].clone()

    model = pico("bloom")
    patient = operate(model, PLAN)
    shard(model.get_submodule(PROJECTION))
    for step in (lambda: model(tokens()), patient.merge):
        with pytest.raises(StateError, match="sharded model"):
            step()
    if kind in ("zero-3", "flattened"):
        model = pico("bloom")
        shard(model.get_submodule(PROJECTION))
        with pytest.raises(StateError, match="sharded model"):
            operate(model, PLAN)


def test_ddp_and_compiled_models_are_not_refused(mesh: DeviceMesh) -> None:
    model = pico("bloom")
    patient = operate(model, PLAN)
    plain = model(tokens(), labels=tokens()).loss
    plain.backward()
    expected = [slice_.grad.clone() for slice_ in patient.slices()]
    patient.model.zero_grad()
    wrapped = nn.parallel.DistributedDataParallel(model)
    wrapped(tokens(), labels=tokens()).loss.backward()
    for slice_, gradient in zip(patient.slices(), expected, strict=True):
        torch.testing.assert_close(slice_.grad, gradient)
