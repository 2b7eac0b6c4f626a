"""The paper's published numbers and how far each can be trusted, from `published.yaml`."""

from functools import cache
from importlib.resources import files

import yaml

from headsurgeon.errors import SettingsError
from headsurgeon.paper.literal_heads import Grade
from headsurgeon.records import Finite, Record

SOURCE = "arXiv:2603.09616"


class PublishedNumber(Record):
    """One number of the paper, its code or its model card.

    Attributes:
        model: of which model.
        stage: of it untouched (`stock`), or after what, such as `pass 1 E3` (epoch 3).
        quantity: what it is.
        value: a number, several, or words; shares are fractions.
        measured_on: the text it was measured on; comparable on exactly this text only.
        grade: A text and figure agree or recounted, B one source alone, C contradicted, D no script
            or no data.
        as_text, as_code: what text and code mean by it where they differ.
        remark: what a reader must know beside it.
    """

    model: str
    stage: str
    quantity: str
    value: Finite | int | str | tuple[Finite | int, ...]
    measured_on: str
    grade: Grade
    as_text: str = ""
    as_code: str = ""
    remark: str = ""

    @property
    def number(self) -> float:
        """The value, where it is one number.

        Raises:
            SettingsError: it is none.
        """
        if isinstance(self.value, str | tuple):
            raise SettingsError(f"{self.quantity} of {self.model} ({self.stage}) is no one number")
        return float(self.value)


@cache
def _all() -> tuple[PublishedNumber, ...]:
    text = files("headsurgeon.paper").joinpath("published.yaml").read_text(encoding="utf-8")
    return tuple(
        PublishedNumber(model=part["model"], **entry)
        for part in yaml.safe_load(text)
        for entry in part["numbers"]
    )


def published(
    model: str | None = None,
    stage: str | None = None,
    quantity: str | None = None,
    on: str | None = None,
) -> tuple[PublishedNumber, ...]:
    """What is published of a model, after a stage, of a quantity, on a text; None is any."""
    fields = {"model": model, "stage": stage, "quantity": quantity, "measured_on": on}
    given = {name: value for name, value in fields.items() if value is not None}
    return tuple(
        number
        for number in _all()
        if all(getattr(number, name) == value for name, value in given.items())
    )


def published_number(
    model: str, stage: str, quantity: str, on: str | None = None
) -> PublishedNumber:
    """The one number that is meant.

    Raises:
        SettingsError: there is none, or more than one text was measured.
    """
    numbers = published(model, stage, quantity, on)
    if len(numbers) != 1:
        texts = ", ".join(each.measured_on for each in numbers)
        raise SettingsError(
            f"expected one published number, {quantity} of {model} ({stage})"
            + (f" on {on}" if on else "")
            + (f"; there are several, on {texts}: say which" if numbers else "; there is none")
        )
    return numbers[0]
