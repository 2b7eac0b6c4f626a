"""Every private name of PyTorch that the package uses, what for, and whether it is still there.

Private names change with any release. Nothing here imports torch until it is asked.
"""

from headsurgeon.private_names import PrivateName

PACKAGE = "torch"
# the versions that the test suite ran on: lowest and newest
TESTED = ("2.13.0", "2.13.0")
NAMES: tuple[PrivateName, ...] = (
    PrivateName(
        "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu",
        "statistics of heads by the fused kernel, on CPUs (attention/private_operators.py); "
        "without it tiles do the same",
        optional=True,
    ),
    PrivateName(
        "torch.ops.aten._scaled_dot_product_efficient_attention",
        "statistics of heads by the fused kernel, on GPUs (attention/private_operators.py); "
        "without it tiles do the same",
        optional=True,
    ),
    PrivateName("torch.ops.aten._local_scalar_dense", "memory estimate (training/live_memory.py)"),
    PrivateName("torch.ops.prim.device", "memory estimate (training/live_memory.py)"),
    PrivateName("torch._subclasses.fake_tensor.FakeCopyMode", "memory estimate"),
    PrivateName("torch._subclasses.fake_tensor.FakeTensor", "memory estimate"),
    PrivateName("torch._subclasses.fake_tensor.FakeTensorMode", "memory estimate"),
    PrivateName("torch.utils._python_dispatch.TorchDispatchMode", "memory estimate"),
    PrivateName(
        "torch.utils._python_dispatch.is_traceable_wrapper_subclass",
        "telling packed weights from ordinary ones (models/weights.py)",
    ),
    PrivateName(
        "torch.utils._python_dispatch.is_in_torch_dispatch_mode",
        "sharing heads out over threads (attention/head_threads.py)",
    ),
    PrivateName("torch.utils._pytree.tree_leaves", "memory estimate"),
    PrivateName("torch.UntypedStorage._cdata", "memory estimate"),
    *(
        PrivateName(
            f"torch.nn.Module().{name}",
            "finding parts, weights and hooks of a model (arch/, operation/)",
        )
        for name in ("_modules", "_parameters", "_forward_hooks", "_forward_pre_hooks")
    ),
    PrivateName("torch.Tensor._cdata", "telling one tensor from another (operation/slices.py)"),
    PrivateName("torch.Tensor._version", "noticing changed weights (operation/slices.py)"),
    PrivateName("torch.nn.Module._apply", "slices that move with a model (operation/slices.py)"),
    PrivateName("torch.nn.Module._save_to_state_dict", "slices under the names of the weights"),
    PrivateName("torch.nn.Module._load_from_state_dict", "slices under the names of the weights"),
)
