"""What `plan` measures on the model: whether it is the diagnosed one, and what ablation costs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headsurgeon.cli.console import busy, err
from headsurgeon.cli.loading import read_windows
from headsurgeon.errors import PlanError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.diagnosis import Diagnosis
    from headsurgeon.heads import HeadId

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


def cost_of_ablating(
    diagnosis: "Diagnosis",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    corpus: str | None,
    count: int,
    mode: Any,
    attention: Any,
) -> "Callable[[Sequence[HeadId]], float]":
    """The joint ablation cost on the dev split; says on stderr what it is measured on."""
    from headsurgeon.attention.choice import choose_attention
    from headsurgeon.evaluation import ablation_cost

    ran = choose_attention(model, attention)
    source = diagnosis.stats.provenance
    windows = read_windows(
        corpus or source.corpus,
        tokenizer,
        split="dev",
        length=source.length,
        count=count,
        seed=source.seed,
        first_token=source.first_token,
        packing=source.packing,
    )
    err().print(
        f"ablating heads on {len(windows)} windows of {windows.length} tokens to see what each "
        f"of them costs, by {mode} ablation with attention {ran} (--no-costs leaves this out)",
        style="dim",
    )
    return ablation_cost(model, windows, mode=mode, attention=attention)
