"""Attention as a plain reader would compute it: whole maps, and the models' own splitting."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.falcon.modeling_falcon import build_alibi_tensor

from headsurgeon.heads import QUANTILE_LEVELS


@dataclass(frozen=True)
class DenseLayer:
    """One layer: maps [batch, head, row, key], values per query head, the output projection."""

    probabilities: Tensor
    value: Tensor
    output: nn.Linear
    context: Tensor


def dense_layers(model: PreTrainedModel, ids: Tensor) -> list[DenseLayer]:
    """Every layer of one forward pass."""
    return FAMILIES[model.config.model_type](model, ids)


def _heard(model: PreTrainedModel, ids: Tensor, modules: list[nn.Module]) -> tuple[list, Any]:
    """Outputs of some modules (the inputs of linear output projections) and of the model."""
    heard: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda m, i, o: heard.append((i[0].detach(), o.detach())))
        for module in modules
    ]
    asks = {} if model.config.model_type == "falcon" else {"output_attentions": True}
    with torch.no_grad():
        result = model.base_model(input_ids=ids, use_cache=False, **asks)
    for handle in handles:
        handle.remove()
    return heard, result


def _context(heard: Tensor, heads: int) -> Tensor:
    return heard.unflatten(-1, (heads, -1)).transpose(1, 2)


def _bloom(model: PreTrainedModel, ids: Tensor) -> list[DenseLayer]:
    attentions = [block.self_attention for block in model.transformer.h]
    modules = [m for a in attentions for m in (a.query_key_value, a.dense)]
    heard, result = _heard(model, ids, modules)
    layers = []
    for index, attention in enumerate(attentions):
        _, _, value = attention._reshape(heard[2 * index][1])
        context = _context(heard[2 * index + 1][0], attention.num_heads)
        layers.append(DenseLayer(result.attentions[index], value, attention.dense, context))
    return layers


def _mpt(model: PreTrainedModel, ids: Tensor) -> list[DenseLayer]:
    attentions = [block.attn for block in model.transformer.blocks]
    modules = [m for a in attentions for m in (a.Wqkv, a.out_proj)]
    heard, result = _heard(model, ids, modules)
    layers = []
    for index, attention in enumerate(attentions):
        projected = heard[2 * index][1]
        if attention.clip_qkv:
            projected = projected.clamp(-attention.clip_qkv, attention.clip_qkv)
        value = _context(projected.chunk(3, dim=-1)[2], attention.n_heads)
        context = _context(heard[2 * index + 1][0], attention.n_heads)
        layers.append(DenseLayer(result.attentions[index], value, attention.out_proj, context))
    return layers


def _falcon(model: PreTrainedModel, ids: Tensor) -> list[DenseLayer]:
    # output_attentions=True adds the bias twice there, so the maps are computed here
    attentions = [block.self_attention for block in model.transformer.h]
    modules = [m for a in attentions for m in (a.query_key_value, a.dense)]
    heard, _ = _heard(model, ids, modules)
    batch, rows = ids.shape
    heads = model.config.num_attention_heads
    alibi = build_alibi_tensor(torch.ones_like(ids), heads, torch.float32)
    alibi = alibi.view(batch, heads, 1, rows)
    later = torch.ones(rows, rows, dtype=torch.bool).triu(1)
    layers = []
    for index, attention in enumerate(attentions):
        split = attention._split_heads(heard[2 * index][1])
        query, key, value = (part.transpose(1, 2) for part in split)
        scores = (query @ key.transpose(-1, -2) + alibi) / math.sqrt(attention.head_dim)
        probabilities = scores.masked_fill(later, -torch.inf).softmax(-1)
        context = _context(heard[2 * index + 1][0], heads)
        value = value.expand(batch, heads, rows, attention.head_dim)
        layers.append(DenseLayer(probabilities, value, attention.dense, context))
    return layers


FAMILIES = {"bloom": _bloom, "mpt": _mpt, "falcon": _falcon}


def dense_statistics(layer: DenseLayer) -> dict[str, np.ndarray]:
    """All statistics of one layer from its maps, float64 [batch, head], straight from section 2."""
    maps = layer.probabilities.double().numpy()
    rows = maps.shape[-1]
    mass = maps[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.where(maps > 0, -maps * np.log(maps), 0.0).sum(-1)
    distance = np.arange(rows)[:, None] - np.arange(rows)
    heads, width = maps.shape[1], layer.value.shape[-1]
    weight = layer.output.weight.detach().double().numpy()
    value = layer.value.double().numpy()
    norms = np.stack(
        [
            np.linalg.norm(
                maps[:, h] @ value[:, h] @ weight[:, h * width : (h + 1) * width].T, axis=-1
            ).mean(-1)
            for h in range(heads)
        ],
        axis=1,
    )
    value_norms = np.linalg.norm(value, axis=-1)
    return {
        "first_token_mass": mass.mean(-1),
        "first_token_mass_after_row0": mass[..., 1:].mean(-1),
        "sink_rows": (mass > 0.9).mean(-1),
        "entropy": entropy.mean(-1),
        "mean_distance": (maps * distance).sum(-1).mean(-1),
        "previous_token_mass": np.diagonal(maps, -1, 2, 3).mean(-1),
        "local_mass": (maps * (distance <= 2)).sum(-1).mean(-1),
        "output_norm": norms / norms.mean(1, keepdims=True),
        "first_value_norm": value_norms[..., 0] / value_norms[..., 1:].mean(-1),
        "row_quantiles": np.moveaxis(np.quantile(mass[..., 1:], QUANTILE_LEVELS, axis=-1), 0, -1),
    }
