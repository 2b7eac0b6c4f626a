"""Claims about pricing heads: what lies below the lowest one is run once, and nothing changes."""

from collections import Counter

import pytest

from headsurgeon.arch import layout_of
from headsurgeon.evaluation import ablating, ablation_cost, evaluate
from headsurgeon.evaluation.lower_layers import LowerLayers
from headsurgeon.heads import HeadId
from tests.pico import PICO, pico
from tests.pico import tokens as random_tokens
from tests.pico_families import NAMES, pico_family

# up and down the layers, twice the same, several at once, from the lowest layer
SETS = (
    [HeadId(1, 0)],
    [HeadId(1, 2)],
    [HeadId(2, 1)],
    [HeadId(2, 0), HeadId(2, 3)],
    [HeadId(0, 1)],
    [HeadId(1, 2), HeadId(2, 1)],
    [HeadId(1, 0)],
)


@pytest.mark.parametrize("family", [*PICO, *NAMES])
def test_the_price_of_heads_is_bit_for_bit_that_of_whole_passes(family: str) -> None:
    model = pico(family) if family in PICO else pico_family(family)
    layout, tokens = layout_of(model), random_tokens(5, 10)
    cost = ablation_cost(model, tokens, batch_size=2)
    baseline = evaluate(model, tokens, batch_size=2).nll
    for heads in SETS:
        if not {head.layer for head in heads} <= set(layout.attention_layers):
            continue
        with ablating(model, layout, heads):
            whole = evaluate(model, tokens, batch_size=2).nll
        assert cost(heads) == whole - baseline
    assert cost([]) == 0.0


def test_layers_below_are_run_once_per_layer_that_heads_begin_in() -> None:
    model, tokens = pico("bloom"), random_tokens(4, 10)
    calls: Counter[int] = Counter()
    cost = ablation_cost(model, tokens, batch_size=2)
    for layer in range(3):
        model.get_submodule(layout_of(model).output.path(layer)).register_forward_hook(
            lambda *_, layer=layer: calls.update([layer])
        )
    for heads in ([HeadId(2, 0)], [HeadId(2, 1)], [HeadId(2, 2)]):
        cost(heads)
    # two batches each
    assert calls == {0: 2, 1: 2, 2: 6}


def test_afterwards_every_layer_runs_again_even_after_an_error() -> None:
    model = pico("bloom")
    lower_layers, tokens = LowerLayers(model, layout_of(model)), random_tokens(2, 10)
    expected = evaluate(model, tokens).nll
    with lower_layers.below(2):
        evaluate(model, tokens)
    with pytest.raises(KeyError), lower_layers.below(2):
        raise KeyError
    assert evaluate(model, tokens).nll == expected
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_pass_that_was_broken_off_is_not_taken_for_a_whole_one() -> None:
    model = pico("bloom")
    lower_layers, tokens = LowerLayers(model, layout_of(model)), random_tokens(2, 10)
    with pytest.raises(KeyboardInterrupt), lower_layers.below(1):
        raise KeyboardInterrupt
    expected = evaluate(model, tokens).nll
    with lower_layers.below(1):
        assert evaluate(model, tokens).nll == expected


def test_a_forward_that_somebody_else_put_on_a_layer_is_put_back() -> None:
    model = pico("bloom")
    layout = layout_of(model)
    block = model.get_submodule(layout.block(0))
    own = block.forward
    block.forward = lambda *inputs, **named: own(*inputs, **named)
    # as Accelerate does; code of others is refused
    block.forward.__module__ = "accelerate.hooks"
    theirs, lower_layers, tokens = (
        vars(block)["forward"],
        LowerLayers(model, layout),
        random_tokens(2, 10),
    )
    expected = evaluate(model, tokens).nll
    for _ in range(2):
        with lower_layers.below(1):
            assert evaluate(model, tokens).nll == expected
        assert vars(block)["forward"] is theirs
