"""Running passes: each diagnoses, plans, operates and trains on what the one before it left."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.arguments import checked
from headsurgeon.data import Texts, Windows
from headsurgeon.diagnosis import Thresholds
from headsurgeon.folders import locked
from headsurgeon.models.fingerprint import everything, fingerprint
from headsurgeon.models.forward import model_id
from headsurgeon.operation.operating import check_operable
from headsurgeon.passes.folder import open_sequence
from headsurgeon.passes.result import PASSES, Passes
from headsurgeon.passes.rules import RuleOfPass, rules_of
from headsurgeon.passes.sequence import PassSequence, PassTexts
from headsurgeon.passes.watching import PassObserver, Silent
from headsurgeon.planning import Plan
from headsurgeon.training import TrainSettings


@checked
def run_passes(
    model: PreTrainedModel,
    train_windows: Windows,
    dev_windows: Windows,
    *,
    output: Path | str,
    settings: TrainSettings,
    passes: int = 2,
    rules: Sequence[RuleOfPass] = ("sick",),
    diagnosed: Windows | None = None,
    tested: Windows | None = None,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  # frozen
    least_gain: float | None = 0.0,
    probes: Mapping[str, Windows | Texts] | None = None,
    anchor: Windows | None = None,
    observer: PassObserver | None = None,
) -> Passes:
    """Operates again and again, until no head is sick, the loss stops falling, or so many times.

    Each pass begins with the slices that `settings.keep` names of the one before, with an optimiser
    and a warm-up of its own. When `output` holds the same sequence, it is resumed; on the CPU the
    result is that of an uninterrupted one.

    Args:
        model: untouched; it is again afterwards. `apply_patch(model, RUN/patch.safetensors)` puts
            all passes on.
        train_windows, dev_windows: as for `train`, the same for every pass.
        output: folder for `passes.json`, `diagnosis.json` (of the untouched model),
            `pass-1/`, `pass-2/`, … (each a run's folder), and `patch.safetensors`.
        settings: of the training of each pass.
        passes: the most there may be.
        rules: what each operates on: a `Plan`, carried out once as it is; the name of a rule, or
            the arguments of `plan`, which choose from what the last pass left. The last serves
            all remaining passes; of a plan, its own rule does.
        diagnosed: what the heads are diagnosed on; by default the dev windows.
        tested: held-out text, on which each pass's recovery and loss are measured; without it
            neither is reported.
        thresholds: what counts as sick.
        least_gain: how much the loss on dev text must have fallen in a pass for a rule to make
            another, nats per token; None: whatever became of it. A given plan is carried out
            anyway.
        probes, anchor: as for `train`.
        observer: callbacks that follow the progress.

    Returns:
        What came of it; every head is compared with the untouched model.

    Raises:
        SettingsError, OutputError: bad input, or the folder holds something else.
        PlanError: a plan that is for another model.
        Interrupted: stopped by the user; the same call resumes.
        UnsupportedModel, ModelError, StateError, WriteError: as `operate` and `train`.
    """
    asked = rules_of(rules, passes)
    check_operable(model)
    texts = PassTexts(
        train_windows, dev_windows, diagnosed or dev_windows, tested, probes or {}, anchor
    )
    identity = {
        "fingerprint": fingerprint(model, layout_of(model)),
        "weights": everything(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "settings": settings.model_dump(mode="json"),
        "rules": [each.to_yaml() if isinstance(each, Plan) else each for each in rules],
        "thresholds": thresholds.model_dump(),
        "least_gain": least_gain,
        **texts.described(),
    }
    with locked(output, PASSES) as folder:
        result = open_sequence(folder, model_id(model), identity, passes)
        sequence = PassSequence(
            model, folder, texts, settings, thresholds, least_gain, observer or Silent(), result
        )
        try:
            sequence.run(asked)
        finally:
            sequence.revert()
        return sequence.end()
