"""What `plan` measures on the model: whether it is the diagnosed one, and what ablation costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from headsurgeon.cli.console import busy, err
from headsurgeon.cli.loading import read_windows
from headsurgeon.cli.progress import duration, new_bar
from headsurgeon.errors import PlanError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.diagnosis import Diagnosis
    from headsurgeon.planning import Costs

# what another precision may change of a head's mass in one window, fraction
_SAME_MASS = 0.1
# seconds that are announced
_LONG = 60.0


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
    singles: bool,
    on_pass: "Callable[[int], None]",
) -> "Costs":
    """What ablating heads costs on the dev split; says on stderr what it is measured on."""
    from headsurgeon.attention.choice import choose_attention
    from headsurgeon.evaluation import ablation_cost, for_costs

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
    cost = ablation_cost(
        model,
        windows,
        estimated_on=others,
        singles=singles,
        mode=mode,
        attention=attention,
        on_pass=on_pass,
    )
    if not singles and cost.not_estimated is not None:
        err().print(f"{cost.not_estimated}, so each head is ablated by itself", style="dim")
    return cost


@contextmanager
def passes_bar(what: str, expected: int) -> "Iterator[Callable[[int], None]]":
    """Yields a function that moves a bar on stderr, to be told how many passes are done.

    After the first of them it is known how long all will take; more than a minute is said.
    """
    with new_bar(transient=True) as progress:
        task = progress.add_task(what, total=expected, step="", numbers="first pass …")
        began, done = monotonic(), 0

        def on_pass(passes: int) -> None:
            nonlocal done
            done += passes
            left = (monotonic() - began) / done * max(expected - done, 0)
            if done == passes and left > _LONG:
                err().print(
                    f"this takes about {duration(left)} (min:s), for some {expected} passes over "
                    "the text",
                    style="dim",
                )
            shown = f"about {duration(left)} left"
            progress.update(task, completed=done, step=f"{done}/{expected}", numbers=shown)

        yield on_pass


def expected_passes(heads: int, rule: str, singles: bool) -> int:
    """About how many passes over the text the costs of a plan take.

    Args:
        heads: those whose costs are asked for; for rule idle those that it may choose from.
    """
    from headsurgeon.evaluation import SCREENING_PASSES
    from headsurgeon.planning.idle_heads import expected_measurements

    screening = 0 if singles else SCREENING_PASSES
    if rule == "idle":
        return 1 + screening + expected_measurements(heads, not singles)
    return 1 + (heads if singles else screening) + 1
