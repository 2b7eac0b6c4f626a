"""`headsurgeon inspect`: what one head looks at in a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsurgeon.cli import options
from headsurgeon.cli.attention_map import AttentionMap, visible
from headsurgeon.cli.console import facts, first_few, heading, out, percent, table
from headsurgeon.cli.loading import open_model
from headsurgeon.cli.outputs import check_file, check_own_picture
from headsurgeon.cli.planted import planted_remark
from headsurgeon.cli.progress import busy
from headsurgeon.errors import CorpusError, OutputError, SettingsError
from headsurgeon.extras import require
from headsurgeon.printable import printable

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from headsurgeon.arch import Layout
    from headsurgeon.diagnosis import Diagnosis
    from headsurgeon.heads import HeadId

# rows of the two tables
_QUERIES = 16
_ATTENDED = 8
_TOP = 3


def inspect(
    model: options.Model,
    head: Annotated[
        str,
        typer.Argument(
            metavar="HEAD", help="A head such as L5H14 (layer 5, head 14).", show_default=False
        ),
    ],
    text: Annotated[
        str, typer.Option(help="The text to read.", show_default=False, metavar="TEXT")
    ],
    loading: options.FrozenLoading,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Also draw the map to this file.", show_default=False),
    ] = None,
    length: Annotated[
        int, typer.Option(metavar="TOKENS", help="Read at most so many tokens of the text.")
    ] = 128,
    first_token: options.FirstToken = "tokenizer",
) -> None:
    """Shows one head's attention on a text: its statistics, and the tokens it looks at.

    One short text is an example, not a diagnosis: heads may do something else elsewhere.
    """
    from headsurgeon.arch import layout_of
    from headsurgeon.diagnosis import diagnose
    from headsurgeon.heads import HeadId, check_heads
    from headsurgeon.measurement import measure
    from headsurgeon.measurement.one_head_map import attention_map

    place = HeadId.parse(head)
    _check(output, length, loading.attention)
    loaded, tokenizer = open_model(model, loading)
    layout = layout_of(loaded)
    check_heads([place], layout.layers, layout.heads, layout.attention_layers)
    ids = token_ids(text, tokenizer, first_token)
    tokens = ids[:length]
    names = [visible(str(tokenizer.decode([int(token)]))) for token in tokens]
    with busy(f"reading {len(tokens)} tokens"):
        attention = attention_map(loaded, tokens, place)
        # the model's own forward, as for the map
        diagnosis = diagnose(measure(loaded, tokens[None], attention="stock"))
    if output is not None:
        _draw(output, model, place, attention, names, diagnosis)
    console = out()
    cut = f", the first of {len(ids)}" if len(ids) > length else ""
    console.print(heading(f"{place} of {model} on {len(tokens)} tokens{cut}"), soft_wrap=True)
    console.print(facts(_findings(diagnosis, place, layout, planted_remark(model))))
    console.print()
    console.print(AttentionMap(attention, names))
    _show_attended(attention, names)
    if output is not None:
        console.print(f"\nwritten to {output}", soft_wrap=True)


def token_ids(
    text: str, tokenizer: "PreTrainedTokenizerBase", first_token: str
) -> "Int[Tensor, ' length']":
    """The text's tokens with the first token that is asked for.

    Raises:
        CorpusError: an empty text, or a first token that the vocabulary does not have.
    """
    import torch

    own = first_token == "tokenizer"
    ids = list(tokenizer(text, add_special_tokens=own)["input_ids"]) if text else []
    if not ids:
        raise CorpusError("the text is empty; give one with --text")
    if first_token not in ("tokenizer", "none"):
        vocabulary = tokenizer.get_vocab()
        if first_token not in vocabulary:
            raise CorpusError(
                f"first token {first_token!r} is not in the tokenizer's vocabulary; expected "
                "`tokenizer`, `none` or one of its tokens"
            )
        ids = [vocabulary[first_token], *ids]
    return torch.tensor(ids)


def _check(output: Path | None, length: int, attention: str) -> None:
    if attention not in ("auto", "stock"):
        raise SettingsError(
            "--attention: a head's map is read from the model's own forward; expected stock or "
            f"auto, got {attention!r}"
        )
    if length < 2:
        raise SettingsError(f"--length: expected at least 2 tokens, got {length}")
    if output is not None:
        if output.suffix.lower() != ".png":
            raise OutputError(f"{output}: expected a file that ends in .png")
        require("matplotlib", "a picture")
        check_file(output, "head.png")
        check_own_picture(output)


def _findings(
    diagnosis: "Diagnosis", head: "HeadId", layout: "Layout", remark: str
) -> dict[str, str]:
    stats = diagnosis.stats

    def value(name: str) -> float:
        return float(stats.mean(name)[head])

    lines = {"model": remark} if remark else {}
    lines["verdict"] = f"{diagnosis.verdict(head)} on this text; one text gives no interval"
    lines["slope"] = _slope(layout, head.head)
    lines["first-token mass"] = (
        f"{value('first_token_mass'):.3f}, without the first row "
        f"{value('first_token_mass_after_row0'):.3f}; an untrained head would have "
        f"{stats.null_mass[head]:.3f}"
    )
    lines["sink rows"] = (
        f"{percent(value('sink_rows'))} of the rows have more than 0.9 on the first token"
    )
    lines["entropy"] = f"{value('entropy'):.2f} nats"
    lines["reach"] = (
        f"{value('mean_distance'):.1f} tokens back on average; {value('previous_token_mass'):.3f} "
        f"on the token before, {value('local_mass'):.3f} on itself and the two before"
    )
    lines["output"] = (
        f"norm {value('output_norm'):.2f} of the layer's mean; the first token's value has "
        f"{value('first_value_norm'):.2f} of the others' norm"
    )
    sharing = [f"L{head.layer}H{other}" for other in layout.sharing(head.head)]
    if len(sharing) > 1:
        lines["keys shared by"] = first_few(sharing)
    if layout.window(head.layer) is not None:
        lines["window"] = f"sees {layout.window(head.layer)} tokens, itself included"
    return lines


def _slope(layout: "Layout", head: int) -> str:
    if not any(layout.slopes):
        return "no ALiBi bias"
    steeper = sum(slope > layout.slopes[head] for slope in layout.slopes)
    return (
        f"{layout.slopes[head]:.4f}; {steeper} of {layout.heads} heads are steeper, "
        f"{layout.heads - 1 - steeper} shallower"
    )


def _show_attended(attention: "Float[np.ndarray, 'row key']", names: Sequence[str]) -> None:
    import numpy as np

    console = out()
    share = attention.mean(axis=0)
    order = [key for key in np.argsort(-share, kind="stable")[:_ATTENDED] if share[key] >= 0.0005]
    # only later tokens can look at a token
    own = share * len(names) / np.arange(len(names), 0, -1)
    rows = [[f"{key} {names[key]}", percent(float(share[key])), f"{own[key]:.3f}"] for key in order]
    console.print()
    console.print(heading("most attended"))
    console.print(table(["token", "of all attention", "from a token that sees it"], rows))
    looking = np.unique(np.linspace(0, len(names) - 1, _QUERIES).round().astype(int))
    shown = f", {len(looking)} of {len(names)} tokens" if len(looking) < len(names) else ""
    console.print()
    console.print(heading(f"what each token looks at{shown}"))
    console.print(facts({f"{row} {names[row]}": _top(attention[row], names) for row in looking}))


def _top(row: "Float[np.ndarray, ' key']", names: Sequence[str]) -> str:
    order = (-row).argsort(kind="stable")[:_TOP]
    shares = [f"{key} {names[key]} {row[key]:.2f}" for key in order if row[key] >= 0.005]
    return "   ".join(shares) or "nothing above 0.005"


def _draw(
    output: Path,
    model: str,
    head: "HeadId",
    attention: "Float[np.ndarray, 'row key']",
    names: Sequence[str],
    diagnosis: "Diagnosis",
) -> None:
    from headsurgeon.report.attention_figure import attention_figure
    from headsurgeon.report.style import write_png

    stats = diagnosis.stats
    remark = planted_remark(model)
    footnote = (
        f"{diagnosis.verdict(head)} on this text: first-token mass "
        f"{stats.first_token_mass[head]:.3f} (untrained head {stats.null_mass[head]:.3f}), entropy "
        f"{stats.entropy[head]:.2f} nats, slope {stats.slopes[head]:.4f}."
    )
    if remark:
        footnote += f"\n{remark}"
    figure = attention_figure(
        attention,
        names,
        title=f"{head} of {printable(model)} on {len(names)} tokens",
        footnote=footnote,
    )
    write_png(figure, output)
