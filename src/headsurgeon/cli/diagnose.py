"""`headsurgeon diagnose`: which heads are sick, how sure that is, and where they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import busy, command_line, out
from headsurgeon.cli.loading import open_model, read_windows

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from transformers import PreTrainedModel

    from headsurgeon.data import Windows
    from headsurgeon.diagnose import Diagnosis, FirstTokenTest

DIAGNOSIS = "diagnosis.json"


def diagnose(
    model: options.Model,
    corpus: options.Corpus,
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for diagnosis.json, heads.csv and layers.csv.",
            show_default=False,
        ),
    ],
    first_token_test: Annotated[
        bool,
        typer.Option(
            "--first-token-test",
            help="Also find out whether sick heads follow position 0 or the token that stands "
            "there; takes four times as long.",
        ),
    ] = False,
    sink: options.Sink = 0.5,
    dead: options.Dead = 0.95,
    low_entropy: options.LowEntropy = 0.5,
    split: options.Split = "dev",
    length: options.Length = 256,
    count: options.Count = 64,
    first_token: options.FirstToken = "tokenizer",
    seed: options.Seed = 0,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    revision: options.Revision = None,
) -> None:
    """Finds the heads that collapsed onto the first token; changes nothing.

    Shows a map of layers × heads and writes every statistic of every head, with intervals over
    documents.
    """
    from headsurgeon.diagnose import Thresholds, mlp_dormancy
    from headsurgeon.diagnose import diagnose as give_verdicts
    from headsurgeon.files import claim_folder
    from headsurgeon.measure import measure

    thresholds = Thresholds(sink=sink, dead=dead, low_entropy=low_entropy)
    if output.exists():
        claim_folder(output, DIAGNOSIS)
    loaded, tokenizer = open_model(model, dtype=dtype, device=device, revision=revision)
    windows = read_windows(
        corpus,
        tokenizer,
        split=split,
        length=length,
        count=count,
        seed=seed,
        first_token=first_token,
    )
    with busy(f"measuring {len(windows)} windows of {windows.length} tokens"):
        stats = measure(loaded, windows, batch_size=batch_size)
        diagnosis = give_verdicts(stats, thresholds, seed=seed)
        from headsurgeon.arch import layout_of

        dormancy = mlp_dormancy(loaded, layout_of(loaded))
    test = _position_or_token(loaded, windows, batch_size) if first_token_test else None
    _write(output, diagnosis, dormancy, test)
    _show(output, diagnosis, dormancy, test)


def _position_or_token(
    model: "PreTrainedModel", windows: "Windows", batch_size: int | None
) -> "FirstTokenTest":
    from functools import partial

    from headsurgeon.diagnose import common_tokens
    from headsurgeon.diagnose import first_token_test as run_test
    from headsurgeon.measure import measure

    with busy("measuring with other first tokens, and with none"):
        return run_test(
            partial(measure, model, batch_size=batch_size),
            windows.tokens,
            common_tokens(windows.tokens),
        )


def _write(
    output: Path,
    diagnosis: "Diagnosis",
    dormancy: "Float[np.ndarray, ' layer']",
    test: "FirstTokenTest | None",
) -> None:
    import pandas

    from headsurgeon.files import claim_folder, header, write_json, write_text

    claim_folder(output, DIAGNOSIS)
    diagnosis.save(output / DIAGNOSIS)
    write_text(output / "heads.csv", diagnosis.to_frame().to_csv(index=False))
    layers = {
        "layer": range(len(dormancy)),
        "sick": diagnosis.per_layer,
        "mlp_dormancy": dormancy,
    }
    write_text(output / "layers.csv", pandas.DataFrame(layers).to_csv(index=False))
    if test is not None:
        content = {**header("first-token-test"), "heads": test.to_dict()}
        write_json(output / "first_token_test.json", content)


def _show(
    output: Path,
    diagnosis: "Diagnosis",
    dormancy: "Float[np.ndarray, ' layer']",
    test: "FirstTokenTest | None",
) -> None:
    from headsurgeon.cli.summary import show_diagnosis

    show_diagnosis(diagnosis, dormancy, test)
    console = out()
    names = sorted(path.name for path in output.iterdir())
    console.print(f"\nwritten to {output}: {', '.join(names)}", soft_wrap=True, markup=False)
    if diagnosis.sick:
        following = ("plan", output / DIAGNOSIS, "--rule", "sick", "-o", "plan.yaml")
        words = command_line("headsurgeon", *following)
        console.print(f"next: {words}", soft_wrap=True, markup=False)
