"""What a user would pick instead: other libraries, on BLOOM's shape and on a grouped-query one.

python benchmarks/peers.py --length 2048 --shape bloom:3 --shape smollm2:6

Measuring: mass on position 0 and entropy of every head, which every peer can give; ours gives nine
statistics. Training: forward, backward, clipping and AdamW. Times are taken in turn in one process,
memory in a fresh process for each arm.
"""

import argparse
import gc
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from arms import Arm, lora, ours, shira
from machine import keep, use_all_cores
from measuring import mass_and_entropy, with_maps
from memory import peak_beyond
from subject import SHAPES, plan_of, tokens
from timing import alternate, medians, ratio
from torch import Tensor, nn
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.arch import layout_of

Run = Callable[[], Any]


def _ours(model: PreTrainedModel, batch: Tensor) -> Run:
    return lambda: hs.measure(model, batch)


def _maps(model: PreTrainedModel, batch: Tensor) -> Run:
    model.set_attn_implementation("eager")
    return lambda: with_maps(model, batch, head=False)


def _hooks(model: PreTrainedModel, batch: Tensor) -> Run:
    """As kvpress observes attention: eager maps, met in a hook on each module, one at a time."""
    model.set_attn_implementation("eager")
    found: list[Any] = []
    layout = layout_of(model)
    # modules drop their maps at once where nobody asked for them, so each hook asks
    for layer in range(layout.layers):
        module = model.get_submodule(layout.output.path(layer).rpartition(".")[0])
        module.register_forward_pre_hook(_ask, with_kwargs=True)
        module.register_forward_hook(
            lambda module, inputs, output: found.append(mass_and_entropy(output[1]))
        )

    def run() -> None:
        found.clear()
        model.base_model(batch, use_cache=False)

    return run


def _ask(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return inputs, {**named, "output_attentions": True}


def _transformer_lens(model: PreTrainedModel, batch: Tensor) -> Run:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    config = model.config
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=config)

    def run() -> list[Any]:
        _, cache = bridge.run_with_cache(
            batch, names_filter=lambda name: name.endswith("hook_pattern")
        )
        found = [mass_and_entropy(cache[name]) for name in cache]
        assert len(found) == config.num_hidden_layers, "a pattern of every layer"
        return found

    return run


def _nnsight(model: PreTrainedModel, batch: Tensor) -> Run:
    from nnsight import NNsight

    model.set_attn_implementation("eager")
    layout = layout_of(model)
    paths = [layout.output.path(layer).rpartition(".")[0] for layer in range(layout.layers)]
    traced = NNsight(model)

    def run() -> list[Any]:
        found = []
        with traced.trace(batch, output_attentions=True, use_cache=False):
            for path in paths:
                mass, entropy = mass_and_entropy(traced.get(path).output[1])
                found.append((mass.save(), entropy.save()))
        return found

    return run


MEASURING: dict[str, Callable[[PreTrainedModel, Tensor], Run]] = {
    "ours": _ours,
    "output_attentions=True": _maps,
    "hooks on eager maps, as kvpress": _hooks,
    "TransformerLens run_with_cache": _transformer_lens,
    "nnsight trace": _nnsight,
}
TRAINING: dict[str, Callable[..., Arm]] = {
    "ours": ours,
    "PEFT LoRA": lora,
    "PEFT SHiRA": shira,
}


def arm(kind: str, name: str, shape: str, model: PreTrainedModel, batch: Tensor) -> Run:
    """One way to measure or to train that model, which is the way's own from now on."""
    if kind == "training":
        plan = plan_of(shape, model.config.num_hidden_layers)
        return partial(TRAINING[name](model, plan, False).step, batch)
    return torch.no_grad()(MEASURING[name](model, batch))


def installed() -> dict[str, str]:
    """Versions of the peers; a peer that is missing is left out of the table."""
    names = ("transformer-lens", "nnsight", "kvpress", "peft")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def compare(kind: str, shape: str, layers: int, length: int, rounds: int) -> dict[str, Any]:
    """Times of every arm over ours, and memory beside them."""
    runs: dict[str, Run] = {}
    failed: dict[str, str] = {}
    for name in MEASURING if kind == "measuring" else TRAINING:
        try:
            run = arm(kind, name, shape, SHAPES[shape](layers), tokens(length))
            run()
        except Exception as error:  # whatever a peer raises is its result
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        runs[name] = run
    seconds = alternate(runs, rounds)
    return {
        "kind": kind,
        "shape": shape,
        "layers": layers,
        "length": length,
        "versions": installed(),
        "seconds": medians(seconds),
        "over_ours": {name: ratio(seconds[name], seconds["ours"]) for name in runs},
        "failed": failed,
    }


def memories(kind: str, shape: str, layers: int, length: int) -> dict[str, Any]:
    """Bytes above the weights at the highest point of each arm, in a process of its own."""
    above: dict[str, int] = {}
    for name in MEASURING if kind == "measuring" else TRAINING:
        words = [kind, name, shape, str(layers), str(length)]
        command = [sys.executable, __file__, "--one", *words]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        if ended.returncode == 0:
            above[name] = int(ended.stdout.strip().splitlines()[-1])
    return {"kind": kind, "shape": shape, "layers": layers, "length": length, "above": above}


def one(kind: str, name: str, shape: str, layers: int, length: int) -> int:
    """What that process does: the arm is made ready and runs twice."""
    model, batch = SHAPES[shape](layers), tokens(length)

    def twice() -> None:
        run = arm(kind, name, shape, model, batch)
        run()
        run()

    return peak_beyond(model, batch, twice)["above"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--one", nargs=5, metavar=("KIND", "ARM", "SHAPE", "LAYERS", "LENGTH"))
    parser.add_argument("--shape", action="append", metavar="SHAPE:LAYERS")
    parser.add_argument("--kind", nargs="+", default=["measuring", "training"])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--only", nargs="+", default=["time", "memory"])
    parser.add_argument("--beside", action="store_true", help="note that other work runs too")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    use_all_cores()
    if options.one:
        kind, name, shape, layers, length = options.one
        print(one(kind, name, shape, int(layers), int(length)))
        return
    for text in options.shape or ["bloom:3", "smollm2:6"]:
        shape, layers = text.split(":")
        for kind in options.kind:
            given = kind, shape, int(layers), options.length
            if "time" in options.only:
                row = compare(*given, options.rounds)
                keep("peers", {**row, "beside": options.beside}, ("kind", "shape", "length"))
                gc.collect()
            if "memory" in options.only:
                keep("peers memory", memories(*given), ("kind", "shape", "length"))


if __name__ == "__main__":
    main()
