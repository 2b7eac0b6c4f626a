"""A pico model whose heads add little, and text that it wrote itself.

There a head's cost is small and positive, as in a trained model, and costs nearly add up.
"""

import torch
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from tests.pico import pico, tokens


def model_and_own_text(
    heads: int = 4, windows: int = 64, length: int = 24
) -> tuple[PreTrainedModel, torch.Tensor]:
    """A BLOOM with three layers, and token ids [windows, length] drawn from it."""
    model = pico("bloom", heads=heads)
    layout = layout_of(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in range(layout.layers):
            model.get_submodule(layout.output.path(layer)).weight.mul_(0.2)
        text = tokens(windows, 1)
        while text.shape[1] < length:
            chances = model(input_ids=text).logits[:, -1].softmax(-1)
            text = torch.cat([text, torch.multinomial(chances, 1, generator=generator)], dim=1)
    return model, text
