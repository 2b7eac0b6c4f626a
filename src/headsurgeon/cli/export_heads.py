"""`headsurgeon export-heads`: a diagnosis in the forms that tools for KV caches read."""

from pathlib import Path
from typing import Annotated

import typer

from headsurgeon.cli.console import facts, out
from headsurgeon.cli.examining import diagnosis_file
from headsurgeon.cli.outputs import check_folder
from headsurgeon.errors import SettingsError
from headsurgeon.own_files import writing

SCORES, GATES, CONFIG, ROLES_FILE = (
    *("heads.json", "full_attention_heads.tsv", "config.json"),
    "roles.json",
)


def export_heads(
    diagnosis: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="What diagnose wrote, or its diagnosis.json.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the files.", show_default=False)
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="json|tsv",
            help="json: a score per query head (HeadKV, Retrieval_Head); tsv: a gate per key/value "
            "head (DuoAttention, kvpress).",
        ),
    ] = "json",
    key_value_heads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Key/value heads per layer, for tsv; by default as many as heads.",
            show_default=False,
        ),
    ] = None,
    sink_size: Annotated[
        int, typer.Option(min=1, help="First tokens that a streaming head keeps, for tsv.")
    ] = 128,
    recent_size: Annotated[
        int, typer.Option(min=3, help="Last tokens that a streaming head keeps, for tsv.")
    ] = 256,
    limit: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="A healthy head with more attention elsewhere than this is retrieval_like.",
        ),
    ] = 0.5,
) -> None:
    """Writes, per layer and head, how much attention falls on neither first nor nearest tokens.

    Heads with little of it (sinks and streaming heads) need no more of their cache than these. That
    a head has much of it does not prove retrieval; see docs/giving_away.md.
    """
    from headsurgeon.diagnosis import Diagnosis
    from headsurgeon.diagnosis import cache_roles as cache
    from headsurgeon.files import header, write_json, write_text

    if form not in ("json", "tsv"):
        raise SettingsError(f"--format: expected json or tsv, got {form!r}")
    found = Diagnosis.load(diagnosis_file(diagnosis))
    named = cache.roles(found, limit)
    check_folder(output, ROLES_FILE)
    share = cache.elsewhere(found)
    content = {
        **header("cache_roles"),
        "model": found.stats.provenance.model,
        "measured_on": found.stats.provenance.model_dump(mode="json"),
        "limit": limit,
        "counts": cache.counted(named),
        "roles": [[role or None for role in row] for row in named.tolist()],
        "elsewhere": [[round(value, 6) for value in row] for row in share.tolist()],
    }
    # made before anything is written, since it may be refused
    heads = key_value_heads or found.stats.shape[1]
    gates = cache.as_gates(cache.per_key_value_head(share, heads)) if form == "tsv" else ""
    with writing(output, ROLES_FILE) as staged:
        if form == "json":
            write_json(staged / SCORES, cache.as_scores(cache.per_document(found)))
        else:
            write_text(staged / GATES, gates)
            write_json(staged / CONFIG, {"sink_size": sink_size, "recent_size": recent_size})
        write_json(staged / ROLES_FILE, content)
        names = sorted(path.name for path in staged.iterdir())
    console = out()
    console.print(facts({role: str(count) for role, count in cache.counted(named).items()}))
    console.print(f"written to {output}: {', '.join(names)}", soft_wrap=True)
