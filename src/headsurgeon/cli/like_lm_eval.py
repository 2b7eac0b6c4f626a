"""`headsurgeon evaluate --like lm-eval`: the figures that lm-evaluation-harness would print."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headsurgeon.cli.console import bounds, facts, heading, nats, out, table
from headsurgeon.cli.models_in_turn import in_turn
from headsurgeon.cli.options import FrozenLoading, Reading
from headsurgeon.cli.progress import busy
from headsurgeon.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.data.rolling import RollingWindows
    from headsurgeon.scores import Evaluation

LIKE = "lm-eval"


def check_like(like: str, reading: Reading, plan: Path | None) -> None:
    """Refuses what has no counterpart there.

    Raises:
        SettingsError: another tool than lm-eval, or options that it does not have.
    """
    if like != LIKE:
        raise SettingsError(f"--like: expected {LIKE}, got {like!r}")
    if plan is not None:
        raise SettingsError("--like scores whole documents and ablates nothing: leave out --plan")
    if reading.packing != "documents" or reading.seed != 0:
        raise SettingsError(
            "--like reads documents whole and in their order: leave out --packing and --seed"
        )


def evaluate_like(
    model: str,
    patches: Sequence[Path],
    baseline: str | None,
    corpus: str,
    split: str,
    reading: Reading,
    loading: FrozenLoading,
    batch_size: int | None,
    output: Path | None,
) -> None:
    """Scores a model, the same with patches, and another on whole documents; prints and writes."""
    from headsurgeon.data.rolling import rolling_windows
    from headsurgeon.evaluation.rolling_loss import evaluate_rolling
    from headsurgeon.files import header, write_json
    from headsurgeon.models.weights import precision
    from headsurgeon.scores import difference

    # of the first model, whose tokenizer reads the text for all
    read: list[tuple[RollingWindows, PreTrainedTokenizerBase, str]] = []

    def score(
        label: str,
        subject: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        patched: Sequence[Path],
    ) -> "Evaluation":
        if not read:
            rolled = rolling_windows(
                corpus, tokenizer, split, reading.length, reading.count, reading.first_token
            )
            read.append((rolled, tokenizer, precision(subject)))
        elif tokenizer.get_vocab() != read[0][1].get_vocab():
            raise SettingsError(
                f"{label} has another vocabulary, and its windows would be others: score it in a "
                "run of its own and compare bits per byte"
            )
        rolling = read[0][0]
        with busy(f"evaluating {label} as lm-eval does", len(rolling)) as on_windows:
            return evaluate_rolling(
                subject,
                rolling,
                batch_size=batch_size,
                attention=loading.attention,  # type: ignore[arg-type]
                on_windows=on_windows,
            )

    results = in_turn(model, patches, baseline, loading, score)
    windows, _, dtype = read[0]
    first, *others = results
    changes = {f"{name} − {first}": difference(results[name], results[first]) for name in others}
    if output is not None:
        content = {
            **header("evaluation"),
            "like": LIKE,
            "dtype": dtype,
            "evaluations": {name: result.model_dump() for name, result in results.items()},
            "differences": {name: change.model_dump() for name, change in changes.items()},
            "as_lm_eval": {name: as_lm_eval(result, windows) for name, result in results.items()},
        }
        write_json(output, content)
    console = out()
    rows, theirs = [], []
    for name, result in results.items():
        interval = result.interval()
        spread = bounds(interval.low, interval.high)
        rows.append([name, f"{result.nll:.4f}", spread, result.attention])
        there = as_lm_eval(result, windows)
        theirs.append([name, *(f"{value:.6g}" for value in there.values())])
    console.print(
        heading(
            f"{corpus}, split {split}: {results[first].tokens} predicted tokens of "
            f"{len(results[first].documents)} documents, rolling windows of {windows.length}, "
            f"prefix {windows.first_token}"
        )
    )
    console.print(table(["model", "nats per token", "95 % interval", "attention"], rows))
    names = ["word perplexity", "byte perplexity", "bits per byte"]
    console.print(table(["as lm-eval says it", *names], theirs))
    if changes:
        console.print()
        console.print(heading("difference, paired over documents; below 0 is better"))
        console.print(facts({name: nats(change) for name, change in changes.items()}))
    if output is not None:
        console.print(f"\nwritten to {output}", soft_wrap=True)


def as_lm_eval(result: "Evaluation", windows: "RollingWindows") -> dict[str, float]:
    """Its three figures of loglikelihood_rolling tasks, each weighted over all documents."""
    total = float(result.document_nll.sum())
    return {
        "word_perplexity": _exp(total / windows.words),
        "byte_perplexity": _exp(total / windows.bytes),
        "bits_per_byte": total / windows.bytes / math.log(2),
    }


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
