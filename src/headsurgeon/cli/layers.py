"""`headsurgeon layers`: what each layer's MLP is worth, and how much of it is dormant."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsurgeon.cli import option_texts, options
from headsurgeon.cli.console import facts, heading, nats, out, percent, table
from headsurgeon.cli.loading import read_windows
from headsurgeon.cli.models_in_turn import in_turn
from headsurgeon.cli.outputs import check_file, check_replaceable
from headsurgeon.cli.progress import busy
from headsurgeon.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.data import Texts, Windows
    from headsurgeon.evaluation import LayerAblation

KIND = "layers"


@dataclass(frozen=True, eq=False)
class Worth:
    """What is known of the MLPs of one model: what they are worth, and how dormant they are."""

    ablation: "LayerAblation"
    dormancy: "Float[np.ndarray, ' layer']"


def layers(
    model: options.Model,
    corpus: options.Corpus,
    reading: options.Reading,
    loading: options.FrozenLoading,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="0-5,6-11,…",
            help="Layers to be zeroed together; by default four quarters of the stack, or halves.",
            show_default=False,
        ),
    ] = None,
    patch: options.AlsoPatched = None,
    baseline: options.AlsoModel = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write every figure to a JSON file.", show_default=False
        ),
    ] = None,
    split: options.Split = "test",
    batch_size: options.BatchSize = None,
) -> None:
    """Measures the loss that zeroing each layer's MLP costs, and its share of dormant neurons.

    Before and after an operation, or of two models beside each other. Only what the MLP adds is
    zeroed; attention and the residual stream stay.
    """
    from headsurgeon.files import header, write_json

    if output is not None:
        check_file(output, "layers.json")
        check_replaceable(output, KIND)
    together = None if groups is None else _groups(groups)

    # a model with patches has the tokenizer, and so the windows, of the model without
    @lru_cache(maxsize=1)
    def read(tokenizer: "PreTrainedTokenizerBase") -> "Windows | Texts":
        return read_windows(corpus, tokenizer, split=split, **asdict(reading))

    def worth(
        name: str,
        subject: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        patches: Sequence[Path],
    ) -> Worth:
        return _worth(name, subject, read(tokenizer), together, batch_size, loading.attention)

    models = in_turn(model, patch or (), baseline, loading, worth)
    if output is not None:
        write_json(output, {**header(KIND), "models": _plain(models)})
    _show(models)
    if output is not None:
        out().print(f"\nwritten to {output}", soft_wrap=True)


def _groups(text: str) -> list[range]:
    parts = [option_texts.first_last(part, "--groups") for part in text.split(",")]
    ranges = [range(part[0], part[1] + 1) for part in parts if part is not None]
    if not all(ranges):
        raise SettingsError(f"--groups: expected ranges such as 0-5,6-11, got {text!r}")
    return ranges


def _worth(
    name: str,
    model: "PreTrainedModel",
    windows: "Windows | Texts",
    groups: list[range] | None,
    batch_size: int | None,
    attention: str,
) -> Worth:
    from headsurgeon.arch import layout_of
    from headsurgeon.diagnosis import mlp_dormancy
    from headsurgeon.evaluation import ablate_layers
    from headsurgeon.evaluation.layer_ablation import quarters

    layers = layout_of(model).layers
    together = quarters(layers) if groups is None else groups
    # as it is, each layer, each group
    passes = 1 + layers + len(together)
    what = f"zeroing the MLPs of {name}, layer by layer"
    with busy(what, passes * len(windows)) as on_windows:
        ablation = ablate_layers(
            model,
            windows,
            groups=together,
            batch_size=batch_size,
            attention=attention,  # type: ignore[arg-type]
            on_windows=on_windows,
        )
        return Worth(ablation, mlp_dormancy(model, layout_of(model)))


def _plain(models: Mapping[str, Worth]) -> dict[str, object]:
    return {
        name: {
            "ablation": each.ablation.model_dump(mode="json"),
            "dormancy": each.dormancy.tolist(),
            "dormancy_of_all": float(each.dormancy.mean()),
        }
        for name, each in models.items()
    }


def _show(models: Mapping[str, Worth]) -> None:
    first = next(iter(models.values())).ablation.baseline
    console = out()
    console.print(
        heading(
            f"{first.corpus}, split {first.split}: {first.tokens} predicted tokens of "
            f"{len(first.documents)} documents"
        ),
        soft_wrap=True,
    )
    for name, each in models.items():
        ablation = each.ablation
        rows = [
            [f"L{layer}", nats(cost.cost), f"{cost.nll:.4f}", percent(each.dormancy[layer])]
            for layer, cost in enumerate(ablation.singles)
        ]
        rows += [
            [_named(cost.layers), nats(cost.cost), f"{cost.nll:.4f}", ""]
            for cost in ablation.groups
        ]
        rows.append(["none", "", f"{ablation.baseline.nll:.4f}", percent(each.dormancy.mean())])
        console.print()
        console.print(heading(name))
        columns = ("MLP zeroed", "cost per token", "nats per token", "dormant neurons")
        console.print(table(columns, rows))
    if len(models) > 1:
        reference, *others = models
        changes = {name: _change(models[reference], models[name]) for name in others}
        console.print()
        console.print(heading(f"dormant neurons, minus {reference}"))
        console.print(facts(changes))


def _named(layers: tuple[int, ...]) -> str:
    if len(layers) == 1:
        return f"L{layers[0]}"
    without_gap = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"L{layers[0]}–{layers[-1]}" if without_gap else ", ".join(f"L{each}" for each in layers)


def _change(before: Worth, after: Worth) -> str:
    change = after.dormancy.mean() - before.dormancy.mean()
    if before.dormancy.shape != after.dormancy.shape:
        return f"{100 * change:+.1f} points; other layers"
    moved = int((before.dormancy != after.dormancy).sum())
    return f"{100 * change:+.1f} points, {moved} of {len(before.dormancy)} layers changed"
