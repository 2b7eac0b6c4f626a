"""Completions side by side: the tables of what can be counted, and every text as it came."""

import csv
import io
import math

from headsurgeon.evaluation.completion_measures import MEASURES
from headsurgeon.evaluation.completions import Generation, ModelCompletions
from headsurgeon.files import package_version
from headsurgeon.report.data import Align, Page, Section, Table
from headsurgeon.scores import Estimate

NOTICE = (
    "Whether a text is good cannot be counted, and each prompt was drawn once: read the texts. "
    "Intervals are over prompts, each by itself; of many, one in twenty misses by chance."
)
_NOTHING = "–"


def measured(generation: Generation, kind: str | None = None) -> Table:
    """The mean of every measure for every model, over the prompts of one kind or of all."""
    names = [model.name for model in generation.models]
    rows = [
        (words, *(_bounded(generation.mean(name, key, kind), "") for name in names))
        for key, words in MEASURES.items()
    ]
    count = sum(kind in (None, prompt.kind) for prompt in generation.prompts)
    title = f"Means over {count} prompts{'' if kind is None else f' of kind {kind}'}"
    return Table(f"measures {kind or 'all'}", title, ("measure", *names), tuple(rows))


def differences(generation: Generation, kind: str | None = None) -> Table | None:
    """How every further model differs from the first, paired over prompts; None for a single one.

    Args:
        generation: of at least one model.
        kind: the kind of prompts; by default all.
    """
    first, *others = (model.name for model in generation.models)
    if not others:
        return None
    rows = [
        (words, *(_bounded(generation.difference(o, first, key, kind), "+") for o in others))
        for key, words in MEASURES.items()
    ]
    columns = ("measure", *(f"{other} − {first}" for other in others))
    key = f"differences {kind or 'all'}"
    return Table(key, "Differences, paired over prompts", columns, tuple(rows))


def texts(generation: Generation, kind: str) -> Table:
    """Prompts of one kind and what each model made of them."""
    columns = ("prompt", *(model.name for model in generation.models))
    rows = tuple(
        (
            prompt.text,
            *(_said(model, index, generation) for model in generation.models),
        )
        for index, prompt in enumerate(generation.prompts)
        if prompt.kind == kind
    )
    align: tuple[Align, ...] = tuple("left" for _ in columns)
    return Table(f"texts {kind}", "Prompts and completions", columns, rows, align=align, prose=True)


def page(generation: Generation) -> Page:
    """The page of a generation; see `report.write_page`."""
    sections = [Section("What can be counted", tables=_both(generation, None))]
    sections += [
        Section(kind, tables=(*_both(generation, kind), texts(generation, kind)))
        for kind in generation.kinds
    ]
    return Page(
        title="Completions of " + ", ".join(model.name for model in generation.models),
        lead=(drawing(generation),),
        notice=NOTICE,
        sections=tuple(sections),
        facts={
            "headsurgeon": package_version(),
            "languages": generation.languages_by or "not told apart",
            **{f"tokens of {model.name}": _tokens(model) for model in generation.models},
            "every figure": "generation.json and measures.csv",
        },
    )


def drawing(generation: Generation) -> str:
    """How the completions were drawn, in one sentence."""
    sampling = generation.sampling
    how = (
        f"drawn at temperature {sampling.temperature:g}, top-k "
        f"{sampling.top_k or 'off'}, top-p {sampling.top_p:g}"
        if sampling.do_sample
        else "the likeliest token each time"
    )
    end = "to the end of the sequence or " if sampling.stop_at_end else "to "
    return (
        f"{len(generation.prompts)} prompts, {how}, repetition penalty "
        f"{sampling.repetition_penalty:g}, {end}{sampling.max_new_tokens} tokens, each prompt from "
        f"its own seed (run seed {sampling.seed}), {generation.attention} attention."
    )


def measures_csv(generation: Generation) -> str:
    """Every mean and difference, for all prompts and for each kind, as CSV."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(("model", "minus", "measure", "kind", "value", "low", "high"))
    first, *others = (model.name for model in generation.models)
    for kind in (None, *generation.kinds):
        for measure in MEASURES:
            for name in (first, *others):
                found = generation.mean(name, measure, kind)
                lines.writerow((name, "", measure, kind or "all", *_numbers(found)))
            for name in others:
                found = generation.difference(name, first, measure, kind)
                lines.writerow((name, first, measure, kind or "all", *_numbers(found)))
    return written.getvalue()


def _both(generation: Generation, kind: str | None) -> tuple[Table, ...]:
    changes = differences(generation, kind)
    return (measured(generation, kind), *(() if changes is None else (changes,)))


def _said(model: ModelCompletions, index: int, generation: Generation) -> str:
    done = model.completions[index]
    if done.ended:
        return f"{done.text} ⏹"
    cut = len(done.tokens) >= generation.sampling.max_new_tokens
    return f"{done.text} …" if cut else done.text


def _tokens(model: ModelCompletions) -> str:
    ends = ", ".join(map(str, model.end_tokens)) or "none"
    said = [f"first {model.first_token}", f"end {ends}", model.dtype]
    if model.unused:
        unused = ", ".join(f"{name} {value}" for name, value in model.unused.items())
        said.append(f"not used of the checkpoint's own settings: {unused}")
    return "; ".join(said)


def _bounded(found: Estimate, sign: str) -> str:
    if math.isnan(found.value):
        return _NOTHING
    form = f"{sign}.1f" if abs(found.value) >= 10 else f"{sign}.3f"
    value = f"{found.value:{form}}"
    if math.isnan(found.low):
        return value.replace("-", "−")
    return f"{value} [{found.low:{form}}, {found.high:{form}}]".replace("-", "−")


def _numbers(found: Estimate) -> tuple[str, ...]:
    return tuple("" if math.isnan(x) else repr(x) for x in (found.value, found.low, found.high))
