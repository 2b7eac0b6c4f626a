"""Whether the parts of a study fit together; what is wrong in itself, pydantic has said already."""

from collections.abc import Iterator

from headsurgeon.errors import SettingsError
from headsurgeon.study.fields import StudyFields
from headsurgeon.study.parts import Arm

Location = tuple[str | int, ...]
# what a study says once for all of its arms
_FIXED = ("seed", "length", "windows_seed", "first_token")


def faults_of(study: StudyFields) -> list[tuple[Location, str]]:
    """What does not fit together, and where; what is wrong in itself pydantic has said already."""
    texts = [text.name for text in study.texts]
    arms = [arm.name for arm in study.every_arm]
    faults = [*_twice(study), *_texts_unfit(study)]
    named: list[tuple[Location, tuple[str, ...]]] = [
        (("train_on",), study.train_on),
        (("plan",), study.plan.diagnose_on),
        (("probes",), tuple(name for name in study.probes if isinstance(name, str))),
    ]
    for index, arm in enumerate(study.arms):
        anchor = () if arm.anchor is None else (arm.anchor,)
        named.append((("arms", index), (*anchor, *arm.also_trained_on)))
        faults += [(("arms", index), message) for message in _arm_faults(study, arm)]
    for place, names in named:
        faults += [
            (place, f"no text {name}; there are {', '.join(texts)}")
            for name in names
            if name not in texts
        ]
    for index, contrast in enumerate(study.contrasts):
        place = ("contrasts", index)
        faults += [
            (place, f"no arm {name}; there are {', '.join(arms)}")
            for name in (contrast.arm, contrast.against)
            if name not in arms
        ]
        if contrast.on not in ("trained", "other", *texts):
            faults.append((place, f"no text {contrast.on}; there are {', '.join(texts)}"))
        known = [name for name in study.train_on if name in texts]
        if contrast.on == "other" and not all(map(study.others, known)):
            faults.append((place, "there is no other text"))
        if contrast.arm == contrast.against:
            faults.append((place, f"compares {contrast.arm} with itself"))
    for index, each in enumerate(study.reported):
        if each.arm not in arms or each.text not in (None, *study.train_on):
            faults.append(
                (("reported", index), f"no arm {each.arm}, or none trained on {each.text}")
            )
    faults += [
        (("train", name), f"{name} is for the study's own windows and seeds to say")
        for name in _FIXED
        if name in study.train
    ]
    return faults


def _texts_unfit(study: StudyFields) -> Iterator[tuple[Location, str]]:
    """Texts without a corpus, and given ones that something is to be trained on."""
    given = {text.name for text in study.texts if text.given}
    for index, text in enumerate(study.texts):
        if not text.corpus:
            yield (
                ("texts", index),
                f"text {text.name} is yours to name: --text {text.name}=SPEC, or a corpus here",
            )
    trained: list[tuple[Location, str]] = [(("train_on",), name) for name in study.train_on]
    for index, arm in enumerate(study.arms):
        names = (*arm.also_trained_on, *(() if arm.anchor is None else (arm.anchor,)))
        trained += [(("arms", index), name) for name in names]
    for place, name in trained:
        if name in given:
            yield place, f"nothing is trained on given texts such as {name}"


def _twice(study: StudyFields) -> Iterator[tuple[Location, str]]:
    lists: dict[str, list[str]] = {
        "texts": [text.name for text in study.texts],
        "arms": [arm.name for arm in study.arms],
        "contrasts": [contrast.name for contrast in study.contrasts],
        "train_on": list(study.train_on),
        "seeds": [str(seed) for seed in study.seeds],
        "probes": [probe if isinstance(probe, str) else probe.name for probe in study.probes],
    }
    for where, names in lists.items():
        for index, name in enumerate(names):
            if name in names[:index]:
                yield (where, index), f"{name} is there for the second time"


def _arm_faults(study: StudyFields, arm: Arm) -> Iterator[str]:
    if arm.model == "twin" and study.twin is None:
        yield f"arm {arm.name} needs a twin, and the study names none"
    for name in _FIXED:
        if name in arm.train:
            yield f"arm {arm.name}: {name} is for the study's own windows and seeds to say"
    if arm.seeds is not None and arm.seeds > len(study.seeds):
        yield f"arm {arm.name}: seeds is {arm.seeds}, and the study has {len(study.seeds)}"
    try:
        settings = study.settings(arm)
    except SettingsError as error:
        yield f"arm {arm.name}: {error}"
    else:
        if (settings.anchor > 0) != (arm.anchor is not None):
            yield (
                f"arm {arm.name}: an arm that is held to the untouched model names the text that "
                "it is held on (anchor) and a coefficient (train: {anchor: …}), or neither"
            )
