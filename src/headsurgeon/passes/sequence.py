"""One sequence of passes, from wherever it stands to its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from headsurgeon.data import Texts, Windows
from headsurgeon.diagnosis import Diagnosis, Thresholds, diagnose
from headsurgeon.errors import NothingToOperate
from headsurgeon.evaluation import Drift, Recovery, ablation_cost, drift, for_costs, recovery
from headsurgeon.measurement import measure
from headsurgeon.operation import Patient, apply_patch, compose_patches, operate
from headsurgeon.operation.chain import joined_plan
from headsurgeon.passes.comparison import became_sick, zone_changes
from headsurgeon.passes.folder import DIAGNOSIS, DRIFT, PLAN, RECOVERY, UNTOUCHED, folder_of
from headsurgeon.passes.result import PASSES, Pass, Passes, RecoveredHeads
from headsurgeon.passes.rules import in_words
from headsurgeon.passes.watching import PassObserver
from headsurgeon.planning import Plan
from headsurgeon.planning.planning import plan
from headsurgeon.scores import difference
from headsurgeon.training import Run, TrainSettings, train
from headsurgeon.training.log import read_entries
from headsurgeon.training.run_folder import describe, planned_in

# of the dev text, for a rule that needs to know what ablating heads costs
_COST_WINDOWS = 16


@dataclass(frozen=True)
class PassTexts:
    """What a sequence reads."""

    train: Windows
    dev: Windows
    diagnosed: Windows
    tested: Windows | None
    probes: Mapping[str, Windows | Texts]
    anchor: Windows | None

    def described(self) -> dict[str, Any]:
        """What tells these texts from others."""
        return {
            "train": describe(self.train),
            "dev": describe(self.dev),
            "diagnosed": describe(self.diagnosed),
            "tested": None if self.tested is None else describe(self.tested),
            "anchor": None if self.anchor is None else describe(self.anchor),
            "probes": {name: describe(text) for name, text in sorted(self.probes.items())},
        }


class PassSequence:
    """A sequence from wherever it stands to its end; the model holds the passes so far."""

    def __init__(
        self,
        model: PreTrainedModel,
        folder: Path,
        texts: PassTexts,
        settings: TrainSettings,
        thresholds: Thresholds,
        least_gain: float | None,
        observer: PassObserver,
        result: Passes,
    ) -> None:
        self.model = model
        self.folder = folder
        self.texts = texts
        self.settings = settings
        self.thresholds = thresholds
        self.least_gain = least_gain
        self.observer = observer
        self.result = result
        self.patients: list[Patient] = []

    def run(self, rules: Sequence[Plan | dict[str, Any]]) -> None:
        """Passes until one of the reasons to end holds."""
        self.untouched = self._diagnosis(self.folder / UNTOUCHED, "the untouched model")
        self._keep(sick=self.untouched.sick)
        now = self.untouched
        for number, rule in enumerate(rules, 1):
            place = self.folder / folder_of(number)
            ended = self._ended(number, rule, now)
            if ended is None and number > len(self.result.passes):
                ended = self._pass(number, rule, now, place)
            elif ended is None:
                self.patients.append(apply_patch(self.model, place / Patient.file_name))
            if ended is not None:
                self._keep(ended=ended)
                return
            now = Diagnosis.load(place / DIAGNOSIS)
        self._keep(ended=self._last_words(len(rules), now))

    def revert(self) -> None:
        """Makes the model the untouched one again."""
        while self.patients:
            self.patients.pop().revert()

    def end(self) -> Passes:
        """Writes the composed patch, and that it was."""
        if self.result.passes:
            patches = [self.folder / each.folder / Patient.file_name for each in self.result.passes]
            compose_patches(self.model, patches, self.folder / Patient.file_name)
            self._keep(patch=Patient.file_name)
        return self.result

    def _keep(self, **changes: Any) -> None:
        changed = self.result.replace(**changes)
        if changed != self.result:
            changed.save(self.folder / PASSES)
            self.result = changed

    def _ended(self, number: int, rule: Plan | dict[str, Any], now: Diagnosis) -> str | None:
        """Why there is no such pass; None where there is."""
        # what is given is done, as rules that name heads are
        if isinstance(rule, Plan):
            return None
        if not now.sick and rule["rule"] not in ("heads", "column"):
            return (
                "no head of the untouched model is sick"
                if number == 1
                else f"no head is sick after pass {number - 1}"
            )
        if number == 1 or self.least_gain is None:
            return None
        last = self.result.passes[number - 2]
        if last.dev_loss_before - last.dev_loss > self.least_gain:
            return None
        least = f" by more than {self.least_gain:g}" if self.least_gain else ""
        return (
            f"in pass {number - 1} the loss on dev text did not fall{least}: "
            f"{last.dev_loss_before:.4f} before it, {last.dev_loss:.4f} after"
        )

    def _last_words(self, passes: int, now: Diagnosis) -> str:
        many = "1 pass was" if passes == 1 else f"{passes} passes were"
        left = f"{len(now.sick)} heads are sick" if now.sick else "no head is sick"
        return f"{many} asked for; {left} after the last"

    def _pass(
        self, number: int, rule: Plan | dict[str, Any], now: Diagnosis, place: Path
    ) -> str | None:
        """Carries out one pass; returns why there is nothing to do, if there is not."""
        planned = planned_in(place)
        if planned is None:
            try:
                planned = self._plan(rule, now)
            except NothingToOperate as error:
                return f"pass {number} finds no head for {in_words(rule)}: {error}"
            self.observer.planned(number, planned, self.model)
        self._keep(ended="", patch=None)
        patient = operate(self.model, planned)
        self.patients.append(patient)
        run = train(
            patient,
            self.texts.train,
            self.texts.dev,
            output=place,
            settings=self.settings,
            probes=self.texts.probes,
            anchor=self.texts.anchor,
            on_step=self.observer.stepped,
        )
        planned.save(place / PLAN)
        revived = self._recovery(patient, place)
        patient.merge()
        after = self._diagnosis(place / DIAGNOSIS, f"the model after pass {number}", anew=True)
        finished_pass = self._summed_up(
            number, in_words(rule), patient.plan, run, now, after, revived
        )
        self._keep(passes=(*self.result.passes, finished_pass))
        self.observer.finished(finished_pass)
        return None

    def _plan(self, rule: Plan | dict[str, Any], now: Diagnosis) -> Plan:
        if isinstance(rule, Plan):
            return rule
        cost = None
        if rule["rule"] == "idle":
            self.observer.measuring("what ablating the heads costs")
            mode = rule.get("ablation_mode", "zero")
            measured, others = for_costs(self.texts.dev, _COST_WINDOWS)
            cost = ablation_cost(self.model, measured, estimated_on=others, mode=mode)
        return plan(now, **rule, untouched=self.untouched, cost=cost, model=self.model)

    def _diagnosis(self, path: Path, what: str, anew: bool = False) -> Diagnosis:
        """Of the model as it is; as its file has it, so that a resumed sequence sees the same."""
        if anew or not path.exists():
            self.observer.measuring(what)
            diagnose(measure(self.model, self.texts.diagnosed), self.thresholds).save(path)
        return Diagnosis.load(path)

    def _recovery(self, patient: Patient, place: Path) -> Recovery | None:
        if self.texts.tested is None:
            return None
        self.observer.measuring("whether the heads recovered")
        recovered = recovery(patient, self.texts.tested, sick_mass=self.thresholds.sink)
        recovered.save(place / RECOVERY)
        return recovered

    def _summed_up(
        self,
        number: int,
        rule: str,
        planned: Plan,
        run: Run,
        before: Diagnosis,
        after: Diagnosis,
        revived: Recovery | None,
    ) -> Pass:
        moved = self._drift(after, run.folder)
        first = revived
        if revived is not None and number > 1:
            first = Recovery.load(self.folder / folder_of(1) / RECOVERY)
        test = None if revived is None else revived.revived[0].baseline
        stock = None if first is None else first.stock[0].baseline
        fell = [head for head in after.sick if not before.is_sick[head]]
        well = [head for head in before.sick if not after.is_sick[head]]
        return Pass(
            number=number,
            folder=folder_of(number),
            rule=rule,
            operated=planned.operated,
            watched=planned.watched,
            steps=run.steps,
            tokens=run.tokens,
            kept_step=run.kept_step,
            dev_loss_before=float(read_entries(run.log)[0]["dev_loss"]),
            dev_loss=run.kept_dev_loss,
            sick=after.sick,
            borderline=tuple(head for head in after.sick if after.borderline[head]),
            became_sick=became_sick(self.untouched, after, moved),
            zones=zone_changes(self.untouched, after, moved),
            fell_sick=tuple(fell),
            got_well=tuple(well),
            recovery=None if revived is None else RecoveredHeads.of(revived),
            test_loss=None if test is None else test.nll,
            test_change=None if test is None or stock is None else difference(test, stock),
        )

    def _drift(self, after: Diagnosis, place: Path) -> Drift:
        everything = joined_plan([patient.plan for patient in self.patients])
        drifted = drift(
            self.untouched.stats, after.stats, everything, sick_mass=self.thresholds.sink
        )
        drifted.save(place / DRIFT)
        return drifted
