"""What `plan` measures on the model: whether it is the diagnosed one, and what ablation costs."""

from typing import TYPE_CHECKING, Any

from headsurgeon.cli.console import err
from headsurgeon.cli.loading import read_windows
from headsurgeon.cli.progress import busy
from headsurgeon.errors import PlanError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.data import Texts, Windows
    from headsurgeon.diagnosis import Diagnosis

# what another precision may change of a head's mass in one window, fraction
_SAME_MASS = 0.1


def check_diagnosed(
    diagnosis: "Diagnosis",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    attention: Any,
) -> None:
    """Measures the first window of the diagnosis again: another model has other masses there.

    Raises:
        PlanError: it has.
    """
    import numpy as np

    from headsurgeon.measurement import measure

    source = diagnosis.stats.provenance
    first = read_windows(
        source.corpus,
        tokenizer,
        split=source.split,
        length=source.length,
        count=1,
        seed=source.seed,
        first_token=source.first_token,
        packing=source.packing,
    )
    if first.corpus_hash != source.corpus_hash:
        err().print(
            "the text of the diagnosis has changed since, so whether this is the model that was "
            "diagnosed could not be checked",
            style="dim",
        )
        return
    with busy("comparing with the diagnosis"):
        now = measure(model, first, attention=attention)
    if now.shape != diagnosis.stats.shape:
        # told when the plan is made
        return
    before = diagnosis.stats.values["first_token_mass"][0]
    largest = float(np.nanmax(np.abs(now.values["first_token_mass"][0] - before)))
    if not largest <= _SAME_MASS:
        raise PlanError(
            "this is not the model that was diagnosed: on the first window of the diagnosis its "
            f"masses differ by up to {largest:.3f}; diagnose it, or give the right model"
        )


def windows_for_costs(
    diagnosis: "Diagnosis",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    corpus: str | None,
    count: int,
    mode: str,
    attention: Any,
) -> "tuple[Windows | Texts, Windows | Texts]":
    """Dev windows to measure costs on, and those to estimate them on; says so on stderr."""
    from headsurgeon.attention.choice import choose_attention
    from headsurgeon.evaluation import for_costs

    ran = choose_attention(model, attention)
    source = diagnosis.stats.provenance
    windows = read_windows(
        corpus or source.corpus,
        tokenizer,
        split="dev",
        length=source.length,
        count=2 * count,
        seed=source.seed,
        first_token=source.first_token,
        packing=source.packing,
    )
    windows, others = for_costs(windows, count)
    err().print(
        f"ablating heads on {len(windows)} windows of {windows.length} tokens to see what each "
        f"of them costs, by {mode} ablation with attention {ran} (--no-costs leaves this out)",
        style="dim",
    )
    return windows, others
