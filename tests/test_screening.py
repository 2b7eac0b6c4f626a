"""Claims about screening: it is what autograd says, in every family, and it leaves no trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.arch import Layout, layout_of
from headsurgeon.attention.split_heads import merge_heads, split_heads
from headsurgeon.data import equal_parts
from headsurgeon.errors import ModelError
from headsurgeon.evaluation import ablating, evaluate
from headsurgeon.evaluation.screening import Screening, screen_windows, why_not_screened
from tests.char_tokenizer import char_tokenizer
from tests.own_text import model_and_own_text
from tests.pico import PICO, pico
from tests.pico import tokens as random_tokens
from tests.pico_families import NAMES, pico_family


def screened(model: PreTrainedModel, tokens: Tensor, **options: object) -> Screening:
    return screen_windows(model, layout_of(model), equal_parts(tokens), **options)  # type: ignore[arg-type]


def of_family(name: str) -> PreTrainedModel:
    return pico(name) if name in PICO else pico_family(name)


@contextmanager
def weighted(model: PreTrainedModel, layout: Layout, factors: Tensor, means: Tensor) -> Iterator:
    """While open, head outputs are mean + factor·(output − mean); [layer, batch, head, row, 1]."""

    def hook(layer: int):  # type: ignore[no-untyped-def]
        def weigh(module, inputs):  # type: ignore[no-untyped-def]
            own = split_heads(inputs[0], layout.output, layout.head_dim)
            mean = means[layer][:, None]
            changed = merge_heads(mean + factors[layer] * (own - mean), layout.output)
            # what lies between the heads, if anything, stays
            assert changed.shape == inputs[0].shape
            return (changed, *inputs[1:])

        return weigh

    handles = [
        model.get_submodule(layout.output.path(layer)).register_forward_pre_hook(hook(layer))
        for layer in layout.attention_layers
    ]
    yield
    for handle in handles:
        handle.remove()


def own_loss(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].double()
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")


def by_autograd(model: PreTrainedModel, tokens: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """−Σ (a − mean)·g and Σ ((a − mean)·g)² per predicted token, from the model's own loss."""
    layout = layout_of(model)
    shape = (layout.layers, len(tokens), layout.heads, tokens.shape[1], 1)
    factors = torch.ones(shape, requires_grad=True)
    with weighted(model, layout, factors, means):
        (slope,) = torch.autograd.grad(own_loss(model, tokens), factors)
    predicted = len(tokens) * (tokens.shape[1] - 1)
    return -slope.sum((1, 3, 4)) / predicted, slope.square().sum((1, 3, 4)) / predicted


def mean_outputs(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    layout = layout_of(model)
    means = torch.zeros(layout.layers, layout.heads, layout.head_dim)

    def keep(layer: int):  # type: ignore[no-untyped-def]
        def kept(module, inputs):  # type: ignore[no-untyped-def]
            means[layer] = split_heads(inputs[0], layout.output, layout.head_dim).mean((0, 2))

        return kept

    handles = [
        model.get_submodule(layout.output.path(layer)).register_forward_pre_hook(keep(layer))
        for layer in layout.attention_layers
    ]
    with torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return means


@pytest.mark.parametrize("family", [*PICO, *NAMES])
def test_it_is_what_autograd_says_of_the_models_own_loss(family: str) -> None:
    model, tokens = of_family(family), random_tokens(5, 10)
    layout = layout_of(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = screened(model, tokens, batch_size=2)
    layers = list(layout.attention_layers)
    means = mean_outputs(model, tokens)
    for mean, first, squared in (
        (torch.zeros_like(means), found.first_order, found.squared),
        (means, found.first_order_mean, found.squared_mean),
    ):
        expected = by_autograd(model, tokens, mean)
        for ours, theirs in zip((first, squared), expected, strict=True):
            scale = float(theirs[layers].abs().max())
            np.testing.assert_allclose(ours[layers], theirs[layers], rtol=2e-3, atol=1e-4 * scale)
    others = [layer for layer in range(layout.layers) if layer not in layers]
    assert np.isnan(found.first_order[others]).all()
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("family", ["bloom", "llama"])
def test_it_is_the_slope_of_the_loss_along_the_output_of_each_head(family: str) -> None:
    model, tokens = of_family(family).double(), random_tokens(3, 9)
    layout = layout_of(model)
    found = screened(model, tokens).first_order
    means = torch.zeros(layout.layers, layout.heads, layout.head_dim, dtype=torch.float64)
    step, losses = 1e-2, []
    for layer, head in [(0, 1), (1, 0), (1, 3)]:
        for sign in (-1, 1):
            factors = torch.ones(layout.layers, 3, layout.heads, 9, 1, dtype=torch.float64)
            factors[layer, :, head] += sign * step
            with torch.no_grad(), weighted(model, layout, factors, means):
                losses.append(float(own_loss(model, tokens)) / 24)
        slope = (losses.pop() - losses.pop()) / (2 * step)
        assert found[layer, head] == pytest.approx(-slope, rel=5e-3, abs=1e-5)


def test_a_head_that_adds_nothing_costs_nothing() -> None:
    model = pico("bloom")
    layout = layout_of(model)
    columns = model.get_submodule(layout.output.path(1)).weight
    start = layout.output.starts[2]
    with torch.no_grad():
        columns[:, start : start + layout.head_dim] = 0.0
    found = screened(model, random_tokens(4, 10))
    for mode in ("zero", "mean"):
        assert found.costs(mode)[1, 2] == 0.0
        assert (np.delete(found.costs(mode).ravel(), 6) != 0.0).all()


def test_to_second_order_it_is_nearer_to_a_small_heads_cost() -> None:
    """Of a model whose labels are its own: there the squared gradients are the curvature."""
    model, tokens = model_and_own_text()
    layout = layout_of(model)
    found = screened(model, tokens)
    baseline = evaluate(model, tokens).nll
    exact = np.zeros((3, 4))
    for layer, head in np.ndindex(3, 4):
        with ablating(model, layout, [hs.HeadId(layer, head)]):
            exact[layer, head] = evaluate(model, tokens).nll - baseline
    first, second = (
        np.abs(each - exact).sum() for each in (found.first_order, found.costs("zero"))
    )
    assert second < 0.6 * first
    assert np.corrcoef(found.costs("zero").ravel(), exact.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("attention", ["fast", "stock"])
def test_both_attentions_and_all_sizes_of_batches_agree(attention: str) -> None:
    model, tokens = pico("bloom"), random_tokens(5, 12)
    whole = screened(model, tokens, attention=attention)
    parts = screened(model, tokens, attention="auto", batch_size=2, lowest=1)
    for one, other in zip(vars(whole).values(), vars(parts).values(), strict=True):
        np.testing.assert_allclose(one[1:], other[1:], rtol=1e-3, atol=1e-7)
        assert np.isnan(other[0]).all()


@pytest.mark.parametrize("family", ["bloom", "llama", "gpt2", "mixtral", "lfm2"])
def test_it_leaves_no_hook_no_gradient_and_no_other_forward(family: str) -> None:
    model = of_family(family)
    wants = {name: index % 2 == 0 for index, (name, _) in enumerate(model.named_parameters())}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(wants[name])
    kept = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    kept.grad = torch.ones_like(kept)
    model.train()
    screened(model, random_tokens(2, 8))
    with pytest.raises(IndexError):
        screened(model, torch.full((1, 4), 10**6))
    assert model.training
    assert torch.equal(kept.grad, torch.ones_like(kept))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == wants[name]
        assert parameter is kept or parameter.grad is None
    for module in model.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks)
        assert "forward" not in vars(module)


def test_it_works_where_gradients_are_switched_off_around_it() -> None:
    model, tokens = pico("bloom"), random_tokens(2, 8)
    expected = screened(model, tokens).first_order
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            np.testing.assert_array_equal(screened(model, tokens).first_order, expected)


def test_in_bf16_it_is_near_that_in_fp32() -> None:
    model, tokens = pico_family("llama"), random_tokens(8, 16)
    expected = screened(model, tokens).costs("zero").ravel()
    found = screened(model.bfloat16(), tokens).costs("zero").ravel()
    assert np.corrcoef(found, expected)[0, 1] > 0.98


def test_a_gradient_that_is_no_number_is_refused() -> None:
    model = pico("bloom")
    with torch.no_grad():
        model.get_submodule(layout_of(model).output.path(1)).weight[0, 0] = float("inf")
    with pytest.raises(ModelError, match="not a finite number"):
        screened(model, random_tokens(2, 8))


def test_a_model_on_the_disk_is_screened_as_one_in_memory_and_stays_there(tmp_path: Path) -> None:
    pico("bloom").save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    whole, _ = hs.load(str(tmp_path))
    limited, _ = hs.load(str(tmp_path), max_memory={"cpu": 70_000})
    away = [name for name, value in limited.named_parameters() if value.is_meta]
    assert away
    tokens = random_tokens(3, 12)
    expected, found = screened(whole, tokens), screened(limited, tokens)
    np.testing.assert_allclose(found.costs("zero"), expected.costs("zero"), rtol=1e-4, atol=1e-8)
    assert [name for name, value in limited.named_parameters() if value.is_meta] == away


def test_memory_does_not_grow_with_the_layers_but_for_what_heads_put_out() -> None:
    """Held between the passes: each layer's input and its heads' outputs, nothing of its MLP."""

    def held(layers: int) -> int:
        model, tokens = pico("bloom", layers=layers), random_tokens(4, 64)
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            screened(model, tokens)
        return sum(sizes.values())

    hidden = 4 * 64 * 32
    assert held(5) - held(3) < 2 * 3 * hidden


def test_weights_through_which_no_gradient_flows_are_told_in_words() -> None:
    assert why_not_screened(pico("bloom")) is None
