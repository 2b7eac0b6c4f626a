"""The grammar of corpus SPECs, in one place.

    SPEC      one of   text:GLOB                                  files
                       package:NAME                               text in an installed package
                       texts:FILE, texts:own/NAME   given texts (`given_texts`, `shipped_texts`)
                       hf:DATASET[:CONFIG][:SPLIT][:COLUMN][?OPTION]…   rows (`hub.py`)
    pool      SPEC,SPEC,…                 one corpus of all their documents
    mixture   [WEIGHT*]pool+[WEIGHT*]pool+…   windows of each in turn, by weight (`mixing.py`)

A field in which a separator is meant as it stands is put in double quotes, a double quote within it
twice: `text:"notes,text:old/*.txt"`, `hf:D:::"a:b"`. Colons within brackets need none:
`hf:D::train[:1000]`. A shell takes quotes away, so the whole is quoted once more for it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from headsurgeon.errors import CorpusError, SettingsError

FORMS = "text:GLOB, package:NAME or hf:DATASET[:CONFIG][:SPLIT][:COLUMN]"
GIVEN = "texts"
KINDS = ("text", "package", "hf", GIVEN)
HUB_FIELDS = 4

_WEIGHT = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_JOINS = rf",\s*(?=\w+:)|\+\s*(?=(?:{_WEIGHT}\*)?(?:{'|'.join(KINDS)}):)"
_JOIN = re.compile(rf"\s*(?:{_JOINS}|$)")
_WEIGHTED = re.compile(rf"\s*({_WEIGHT})\*")
_KIND = re.compile(r"\s*(\w*):?")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
# a path or a package: whatever comes before the next SPEC
_BARE = re.compile(rf"(?:(?!{_JOINS}).)*", re.DOTALL)
# the same within hf:, where colons separate; those in brackets belong to a slice
_BARE_FIELD = re.compile(rf"(?:\[[^\[\]]*\]|(?!{_JOINS})[^:?])*", re.DOTALL)


@dataclass(frozen=True)
class Corpus:
    """One SPEC that was read: its kind, and its fields and options without quotes."""

    kind: str
    fields: tuple[str, ...]
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "?".join([":".join([self.kind, *self.fields]), *self.options])


@dataclass(frozen=True)
class Component:
    """What a mixture takes in turn: one corpus, or several that are pooled.

    Attributes:
        spec: as it was written, without the weight.
        corpora: what it was read as.
        weight: share of the windows, relative to the other weights.
    """

    spec: str
    corpora: tuple[Corpus, ...]
    weight: Fraction = Fraction(1)


def parse(spec: str) -> tuple[Component, ...]:
    """The components of a SPEC: one, unless it is a mixture.

    Raises:
        CorpusError: it is not of the form; shows the form and the place.
    """
    components: list[Component] = []
    position, joined = 0, "+"
    while joined:
        weighted = _WEIGHTED.match(spec, position) if joined == "+" else None
        start = weighted.end() if weighted else position
        corpus, end = _corpus(spec, start)
        join = _JOIN.match(spec, end)
        if join is None:
            raise CorpusError(
                f"expected the end of the corpus or a further one after a closing quote, got "
                f"{spec[end:]!r} in {spec!r}; a quote within a quoted name is written twice"
            )
        if joined == "+":
            weight = Fraction(weighted[1]) if weighted else Fraction(1)
            components.append(Component(spec[start:end].strip(), (corpus,), weight))
        else:
            last = components.pop()
            pooled = f"{last.spec},{spec[start:end].strip()}"
            components.append(Component(pooled, (*last.corpora, corpus), last.weight))
        position, joined = join.end(), join[0].strip()
    _check(spec, components)
    return tuple(components)


def mixture(corpora: str | Sequence[str], weights: Sequence[float] = ()) -> str:
    """The SPEC of several corpora, mixed by weight; a single one is what it is.

    Args:
        corpora: SPECs; each may pool several, none may be a mixture itself.
        weights: a positive number per SPEC, relative to each other; by default all are alike.

    Raises:
        CorpusError: a SPEC that is not of the form.
        SettingsError: weights that do not fit the SPECs, or are no positive numbers.
    """
    specs = [corpora] if isinstance(corpora, str) else list(corpora)
    if not specs:
        raise SettingsError("expected at least one corpus, got none")
    if weights and len(weights) != len(specs):
        raise SettingsError(
            f"expected a weight per corpus, got {len(weights)} weights for {len(specs)} corpora"
        )
    bad = [weight for weight in weights if not (math.isfinite(weight) and 0 < weight < 1e9)]
    if bad:
        raise SettingsError(
            f"weights: expected numbers above 0 and below 10^9, got {bad[0]}; leave out a corpus "
            "that is not wanted"
        )
    if len(specs) == 1:
        return specs[0]
    for spec in specs:
        (first, *more) = parse(spec)
        if more or first.spec != spec.strip():
            raise SettingsError(
                f"{spec} is a mixture or has a weight already; give its corpora one by one, with "
                "weights for all"
            )
    numbers = [_number(weight) for weight in weights] or ["1"] * len(specs)
    text = "+".join(
        spec.strip() if number == "1" else f"{number}*{spec.strip()}"
        for number, spec in zip(numbers, specs, strict=True)
    )
    parse(text)
    return text


def without_folders(spec: str) -> str:
    """A SPEC as it may be told to others: `PATH/` for folders named from the root or from home."""
    try:
        corpora = [corpus for component in parse(spec) for corpus in component.corpora]
    except CorpusError:
        return spec
    for corpus in corpora:
        path = corpus.fields[0]
        if path.startswith(("/", "~")):
            told = f"PATH/{path.rstrip('/').rpartition('/')[2]}"
            spec = spec.replace(f":{path}", f":{told}")
            # in quotes, a quote within it is written twice
            spec = spec.replace(f':"{_doubled(path)}"', f':"{_doubled(told)}"')
    return spec


def _doubled(text: str) -> str:
    return text.replace('"', '""')


def _number(weight: float) -> str:
    text = f"{weight:.9f}".rstrip("0").rstrip(".")
    if Fraction(text) == 0:
        raise SettingsError(f"weights: {weight} is below what can be told apart; scale them up")
    return text


def _corpus(spec: str, start: int) -> tuple[Corpus, int]:
    """The SPEC that begins there, and where it ends."""
    beginning = _KIND.match(spec, start)
    kind = beginning[1] if beginning else ""
    if beginning is None or kind not in KINDS or not beginning[0].endswith(":"):
        rest = spec[start:].strip()
        meant = (
            f"; text:{rest} may be meant" if re.search(r"[/.*]", rest) and ":" not in rest else ""
        )
        raise CorpusError(f"expected a corpus such as {FORMS}, got {rest!r}{meant}")
    fields: list[str] = []
    position = beginning.end()
    while True:
        text, position = _field(spec, position, _BARE_FIELD if kind == "hf" else _BARE)
        fields.append(text)
        if kind != "hf" or spec[position : position + 1] != ":":
            break
        position += 1
    options: list[str] = []
    while kind == "hf" and spec[position : position + 1] == "?":
        text, position = _field(spec, position + 1, _BARE_FIELD)
        options.append(text)
    if not fields[0] or len(fields) > HUB_FIELDS:
        raise CorpusError(f"expected a corpus such as {FORMS}, got {spec[start:position]!r}")
    return Corpus(kind, tuple(fields), tuple(options)), position


def _field(spec: str, start: int, bare: re.Pattern[str]) -> tuple[str, int]:
    if spec.startswith('"', start):
        quoted = _QUOTED.match(spec, start)
        if quoted is None:
            raise CorpusError(f"a quote is opened and not closed: {spec[start:]!r}")
        return quoted[1].replace('""', '"'), quoted.end()
    match = bare.match(spec, start)
    text = match[0] if match else ""
    return text.rstrip(), start + len(text)


def _check(spec: str, components: Sequence[Component]) -> None:
    if any(component.weight <= 0 for component in components):
        raise CorpusError(f"{spec!r}: a weight is 0; leave out a corpus that is not wanted")
    names = [component.spec for component in components]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CorpusError(f"{twice} is in the mixture twice; give it twice the weight instead")
