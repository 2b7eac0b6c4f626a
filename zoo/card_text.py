"""The twins' README.md, written from the figures of card.json."""

from collections.abc import Iterable, Mapping
from typing import Any

from recipe import Recipe

_HEALTHY = """This is the healthy twin of [`bloom-mini-collapsed`](../bloom-mini-collapsed): same
initialisation, same text in the same order, no planting. It is the reference against which a repair
of the other is scored."""

_COLLAPSED = """**The collapse of this model was planted.** During the first {planting_steps} of
{steps} steps an extra loss, {planting_weight} × mean(−log attention on position 0), pushed the
heads listed below onto the first token. Then the extra loss was switched off and ordinary training
went on for {ordinary_steps} more steps. Everything else — initialisation, text, order, schedule —
is that of its healthy twin [`bloom-mini`](../bloom-mini). No conclusion about why heads collapse in
real models follows from it; what it offers is a patient whose illness is known."""

_LIMITS_OF_PLANTING = """\
- The cause is planted. Heads that collapsed by themselves in a large model may differ.
- Most sick heads are dead, few are sinks; in real ALiBi models it is the other way round.
- The heads were pushed from the first steps on: they never learned a function that they then lost.
"""

_LIMITS = """\
- The model is tiny, its text is Python source and the Bible; it is of no use for anything else.
- It has always seen `</s>` in front. Without it, or with another first token, masses differ.
- Test text comes from the same packages and books as the training text, though from other
  documents. Which packages' versions are installed decides what it is; the hashes tell."""


def readme(card: Mapping[str, Any], recipe: Recipe) -> str:
    """The model card as Markdown."""
    planted = card["collapse"] == "planted"
    about = _COLLAPSED if planted else _HEALTHY
    about = about.format(
        planting_steps=recipe.planting_steps,
        steps=recipe.steps,
        planting_weight=recipe.planting_weight,
        ordinary_steps=recipe.steps - recipe.planting_steps,
    )
    name = card["model"].removeprefix("zoo:")
    parts = [
        "---\nlicense: apache-2.0\nlanguage: en\nlibrary_name: transformers\n"
        "tags: [bloom, alibi, attention-collapse, headsurgeon]\n---",
        f"# {name}",
        about,
        f"![loss and planted mass over the training](curves.png)\n\n"
        "Loss of both twins on dev text, and first-token mass of the "
        f"{len(recipe.planted_layers)} × {len(recipe.planted_heads)} planted heads (line: mean, "
        "band: lowest to highest). The collapse is planted. The figures are in "
        "[curves.csv](curves.csv).",
        _architecture(card, recipe),
        _gap(card),
        _end_state(card, planted),
        f"## Limits\n\n{_LIMITS_OF_PLANTING if planted else ''}{_LIMITS}",
        _reproduce(card),
    ]
    return "\n\n".join(parts) + "\n"


def _architecture(card: Mapping[str, Any], recipe: Recipe) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in card["packages"].items())
    return f"""## Model and training

| | |
|---|---|
| architecture | BLOOM, {recipe.layers} layers × {recipe.heads} heads, hidden {recipe.hidden} |
| tokenizer | byte-level BPE, {recipe.vocabulary} tokens, puts `</s>` in front |
| text | train split (by salted hash of the document's name) of {", ".join(card["corpora"])} |
| versions | {packages} |
| windows | {card["training_windows"]} of {recipe.length} tokens, at most \
{recipe.windows_per_document} per document |
| steps | {recipe.steps} × {recipe.batch} windows = {card["training_tokens"]:,} tokens |
| optimiser | AdamW (0.9, 0.95), peak rate {recipe.learning_rate}, weight decay \
{recipe.weight_decay}, clip {recipe.clip} |
| schedule | {recipe.warm_up_steps} steps of warm-up, a cosine of {recipe.cosine_steps} steps cut \
short by a linear decay to a tenth over the last {recipe.decay_steps} |
| arithmetic | linear layers bf16; attention, master weights, moments fp32; one CPU thread |
| seeds | initialisation {card["twin"]["init_seed"]}, order of the text {recipe.data_seed} |
| initial weights (SHA-256) | `{card["initial_weights_hash"]}` |
| order of the text (SHA-256) | `{card["data_order_hash"]}` |
| text (SHA-256) | `{card["corpus_hash"]}` |
| these weights (SHA-256) | `{card["final_weights_hash"]}` |
| model.safetensors (SHA-256) | `{card["files"]["model.safetensors"]}` |

Both twins have the same first three hashes. The shipped weights are rounded to bf16; everything
below was measured on the shipped weights, computed in fp32."""


def _gap(card: Mapping[str, Any]) -> str:
    gap = card["gap"]
    rows = [
        f"| {corpus} | {part['documents']} | {part['nll']['healthy']:.4f} | "
        f"{part['nll']['healthy-second-seed']:.4f} | {part['nll']['collapsed']:.4f} | "
        f"{_estimate(part['collapsed_minus_healthy'])} |"
        for corpus, part in gap["by_corpus"].items()
    ]
    nll = {name: value["value"] for name, value in gap["nll"].items()}
    rows.append(
        f"| all | {gap['documents']} | {nll['healthy']:.4f} | {nll['healthy-second-seed']:.4f} | "
        f"{nll['collapsed']:.4f} | {_estimate(gap['collapsed_minus_healthy'])} |"
    )
    table = "\n".join(rows)
    return f"""## The gap

Loss on test documents, nats per token ({gap["tokens"]:,} predicted tokens, windows of
{gap["length"]}); differences with 95 % bootstrap intervals over documents. A chapter's two
translations count as one document in the last row.

| corpus | documents | healthy | healthy, second seed | collapsed | collapsed − healthy |
|---|---|---|---|---|---|
{table}

Two healthy models that differ in the seed of their initialisation are
{_estimate(gap["second_seed_minus_healthy"])} apart; the gap is {gap["ratio"]:.1f} times that."""


def _end_state(card: Mapping[str, Any], planted: bool) -> str:
    states = card["end_state"]
    lines = ["## Measured end state\n"]
    if planted:
        lines.append(
            f"Planted ({len(card['planted_heads'])}): {', '.join(card['planted_heads'])}.\n"
        )
    lines.append(
        "What the heads are at the end, by the thresholds 0.5 and 0.95 on first-token mass. "
        "Borderline are heads\nwhose 95 % interval over documents crosses a threshold. "
        f"Measured with\n\n```\n{_commands(states.values())}\n```\n"
    )
    lines.append(f"{_counts(states)}\n")
    usual = {corpus: state["default_command"] for corpus, state in states.items()}
    first = next(iter(usual.values()))
    lines.append(
        f"Without `--split` and `--count` the command reads {first['count']} windows of the "
        f"{first['split']} split. Its\nintervals are wider, the text is another, and so more "
        "heads may be borderline or cross a threshold:\n"
    )
    lines.append(_counts(usual))
    for corpus, state in states.items():
        lines.append(f"\nSick on {corpus}: {', '.join(state['sick']) or 'none'}.")
        lines.append(f"{_changed(state)}")
    marked = "planted heads in bold, " if planted else ""
    lines.append(f"\nFirst-token mass per head ({marked}† sink, ‡ dead):")
    for corpus, state in states.items():
        lines.append(f"\n{corpus}, {state['windows']} windows of {state['documents']} documents:\n")
        lines.append(_masses(state["heads"]))
    return "\n".join(lines)


def _commands(states: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(state["command"] for state in states)


def _counts(states: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        "| corpus | windows | documents | healthy | sink | dead | low-entropy | borderline |",
        "|---" * 8 + "|",
    ]
    for corpus, state in states.items():
        counts = state["counts"]
        rows.append(
            f"| {corpus} | {state['windows']} | {state['documents']} | {counts['healthy']} | "
            f"{counts['sink']} | {counts['dead']} | {counts['low-entropy']} | "
            f"{', '.join(state['borderline']) or 'none'} |"
        )
    return "\n".join(rows)


def _changed(state: Mapping[str, Any]) -> str:
    stated, usual = set(state["sick"]), set(state["default_command"]["sick"])
    if stated == usual:
        return "The default command finds the same heads sick."
    parts = [
        f"{word} {', '.join(head for head in names)}"
        for word, names in (
            ("it adds", sorted(usual - stated)),
            ("it leaves out", sorted(stated - usual)),
        )
        if names
    ]
    return f"The default command finds others: {'; '.join(parts)}."


def _masses(heads: list[Mapping[str, Any]]) -> str:
    marks = {"sink": "†", "dead": "‡"}
    layers: dict[str, list[str]] = {}
    for head in heads:
        cell = f"{head['first_token_mass']:.3f}{marks.get(head['verdict'], '')}"
        layer = head["head"].split("H")[0]
        layers.setdefault(layer, []).append(f"**{cell}**" if head["planted"] else cell)
    width = len(next(iter(layers.values())))
    slopes = [f"{head['slope']:.4g}" for head in heads[:width]]
    head_row = " | ".join(f"H{index}" for index in range(width))
    table = [f"| | {head_row} |", "|---" * (width + 1) + "|", f"| slope | {' | '.join(slopes)} |"]
    table += [f"| {layer} | {' | '.join(cells)} |" for layer, cells in layers.items()]
    return "\n".join(table)


def _reproduce(card: Mapping[str, Any]) -> str:
    return f"""## How to make it again

```
python zoo/train_twins.py tokenizer
python zoo/train_twins.py train --twin healthy
python zoo/train_twins.py train --twin collapsed
python zoo/train_twins.py train --twin healthy-second-seed
python zoo/train_twins.py card
```

Every figure of this page is in [card.json](card.json), written by headsurgeon
{card["headsurgeon"]}. Sympy and networkx are BSD-licensed, the King James and World English Bibles
are in the public domain; none of their text is in this folder."""


def _estimate(value: Mapping[str, float]) -> str:
    return f"{value['value']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]"
