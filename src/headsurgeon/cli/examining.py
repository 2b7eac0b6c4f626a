"""One model examined for `diagnose`, and the files that come of it."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsurgeon.cli import options
from headsurgeon.cli.loading import open_model, read_windows
from headsurgeon.cli.progress import busy
from headsurgeon.errors import InputError
from headsurgeon.files import sha256_text
from headsurgeon.own_files import writing

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from transformers import PreTrainedModel

    from headsurgeon.data import Windows
    from headsurgeon.diagnosis import Diagnosis, FirstTokenTest, Thresholds
    from headsurgeon.scores import Evaluation

DIAGNOSIS = "diagnosis.json"
HEADS = "heads.csv"
LAYERS = "layers.csv"
FIRST_TOKEN_TEST = "first_token_test.json"
FILES = (DIAGNOSIS, HEADS, LAYERS, FIRST_TOKEN_TEST)


def diagnosis_file(path: Path) -> Path:
    """The file of a diagnosis: itself, or the one in the folder that `diagnose` wrote.

    Raises:
        InputError: a folder without one.
    """
    if not path.is_dir():
        return path
    if not (path / DIAGNOSIS).exists():
        raise InputError(
            f"{path} holds no {DIAGNOSIS}; expected a folder that headsurgeon diagnose wrote (its "
            "--output)"
        )
    return path / DIAGNOSIS


@dataclass(frozen=True, eq=False)
class Examined:
    """What is known of one model.

    Attributes:
        diagnosis: verdicts and what they rest on.
        dormancy: share of dormant MLP neurons.
        test: whether sick heads follow the position or the token, where that was asked for.
        parameters: how many the model has, tied ones once.
        vocabulary: SHA-256 of the tokenizer's vocabulary: with another, windows hold other tokens.
        loss: how well it predicts the windows, where that was asked for.
    """

    diagnosis: "Diagnosis"
    dormancy: "Float[np.ndarray, ' layer']"
    test: "FirstTokenTest | None"
    parameters: int
    vocabulary: str
    loss: "Evaluation | None" = None


def examine(
    model: str,
    *,
    thresholds: "Thresholds",
    corpus: str,
    split: str,
    reading: options.Reading,
    loading: options.FrozenLoading,
    first_token_test: bool,
    batch_size: int | None,
    score: bool = False,
    which: str = "",
) -> Examined:
    """Loads a model, measures it and gives verdicts; raises as these do.

    `score` has its loss on the windows evaluated as well, which takes further forward passes;
    `which` of several it is stands beside what is done.
    """
    from headsurgeon.arch import layout_of
    from headsurgeon.data import Texts
    from headsurgeon.diagnosis import diagnose as give_verdicts
    from headsurgeon.diagnosis import mlp_dormancy
    from headsurgeon.errors import SettingsError
    from headsurgeon.measurement import measure

    loaded, tokenizer = open_model(model, loading)
    windows = read_windows(corpus, tokenizer, split=split, **asdict(reading))
    if isinstance(windows, Texts) and first_token_test:
        raise SettingsError("--first-token-test needs windows of one length, not given texts")
    what = f"measuring {len(windows)} windows of {windows.length} tokens{which}"
    with busy(what, len(windows)) as on_windows:
        stats = measure(
            loaded,
            windows,
            batch_size=batch_size,
            attention=loading.attention,  # type: ignore[arg-type]
            on_windows=on_windows,
        )
        diagnosis = give_verdicts(stats, thresholds, seed=reading.seed)
        dormancy = mlp_dormancy(loaded, layout_of(loaded))
    test = (
        _position_or_token(loaded, windows, batch_size, loading.attention)
        if first_token_test and not isinstance(windows, Texts)
        else None
    )
    loss = None
    if score:
        from headsurgeon.evaluation.document_loss import evaluate

        with busy(f"scoring {len(windows)} windows{which}", len(windows)) as on_windows:
            loss = evaluate(
                loaded,
                windows,
                batch_size=batch_size,
                attention=loading.attention,  # type: ignore[arg-type]
                on_windows=on_windows,
            )
    vocabulary = sha256_text([str(sorted(tokenizer.get_vocab().items()))])
    return Examined(diagnosis, dormancy, test, loaded.num_parameters(), vocabulary, loss)


def _position_or_token(
    model: "PreTrainedModel", windows: "Windows", batch_size: int | None, attention: Any
) -> "FirstTokenTest":
    from headsurgeon.diagnosis import common_tokens
    from headsurgeon.diagnosis import first_token_test as run_test
    from headsurgeon.measurement import measure

    others = common_tokens(windows.tokens)
    # as they are, with each of the others, and without
    variants = 2 + len(others)
    what = "measuring with other first tokens, and with none"
    with busy(what, variants * len(windows)) as on_windows:
        measured = partial(
            measure, model, batch_size=batch_size, attention=attention, on_windows=on_windows
        )
        return run_test(measured, windows.tokens, others)


def write_examined(output: Path, examined: Examined) -> list[str]:
    """Writes what was found, all of it or nothing, and returns the names of the files."""
    import pandas

    from headsurgeon.files import write_text

    diagnosis, dormancy, test = examined.diagnosis, examined.dormancy, examined.test
    layers = {
        "layer": range(len(dormancy)),
        # empty, not 0, where there is no head
        "sick": pandas.Series(diagnosis.per_layer).where(diagnosis.stats.attends).astype("Int64"),
        "mlp_dormancy": dormancy,
    }
    with writing(output, DIAGNOSIS) as staged:
        diagnosis.save(staged / DIAGNOSIS)
        write_text(staged / HEADS, diagnosis.to_frame().to_csv(index=False))
        write_text(staged / LAYERS, pandas.DataFrame(layers).to_csv(index=False))
        if test is not None:
            test.save(staged / FIRST_TOKEN_TEST)
        return sorted(path.name for path in staged.iterdir())
