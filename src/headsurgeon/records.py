"""What plans and results have in common: frozen pydantic models, and what they hold.

`model_dump()` is the one way to plain data. JSON knows no NaN, which stands where nothing can be
said: it is null there; an infinite number is written as the text `Infinity`.
"""

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from headsurgeon.errors import HeadError, InputError
from headsurgeon.files import shorten
from headsurgeon.heads import HeadId

Finite = Annotated[float, Field(allow_inf_nan=False)]
Same = TypeVar("Same", bound="Record")
# a seed as torch and numpy both take it
HIGHEST_SEED = 2**63 - 1


_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type"), "`name: value` pairs"),
    **dict.fromkeys(("model_type", "model_attributes_type"), "`name: value` pairs"),
}


def _head(value: Any) -> HeadId:
    if isinstance(value, HeadId):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("head", "expected a head such as L5H14 (layer 5, head 14)")
    try:
        return HeadId.parse(value)
    except HeadError as error:
        raise PydanticCustomError("head", "{reason}", {"reason": str(error)}) from error


def _seed(value: Any) -> Any:
    if type(value) is not int or not 0 <= value <= HIGHEST_SEED:
        raise PydanticCustomError("seed", "expected a whole number from 0 to 2^63 - 1")
    return value


def snake_case(written: str) -> str:
    """How the name of a start or a rule is spelled in files and commands.

    Files of before had hyphens, as in `zero-output` or `newly-sick`; they mean the same.
    """
    name, bracket, parameters = written.partition("(")
    return name.replace("-", "_") + bracket + parameters


# Beside the type of a field that holds such a name.
SnakeCase = BeforeValidator(lambda value: snake_case(value) if isinstance(value, str) else value)
# The name of a start, perhaps with parameters, such as `partial_reset(rho=0.3)`.
StartName = Annotated[str, SnakeCase]
RuleName = Annotated[str, SnakeCase]
# One head; `L5H14` in files.
HeadName = Annotated[HeadId, PlainValidator(_head), PlainSerializer(str)]
Seed = Annotated[int, BeforeValidator(_seed)]


def frozen(value: Any) -> Any:
    """Tuples for lists, however deep: JSON has lists alone, and what is frozen holds tuples."""
    if type(value) in (list, tuple):
        return tuple(map(frozen, value))
    return {key: frozen(item) for key, item in value.items()} if type(value) is dict else value


class Exact(BaseModel):
    """Frozen, with no field beyond those named; types are not guessed (a text is no number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _frozen(cls, value: Any) -> Any:
        return frozen(value)


class Record(Exact):
    """A plan or a result, as code builds it."""

    # what is raised when one is built of what it cannot hold
    error: ClassVar[type[InputError]] = InputError

    def __init__(self, **fields: Any) -> None:
        """Raises the `error` of the class, which lists every fault at once."""
        try:
            super().__init__(**fields)
        except ValidationError as problem:
            faults = "; ".join(fault_of(each) for each in problem.errors(include_url=False))
            name = self.model_config.get("title") or type(self).__name__
            raise self.error(f"{name}: {faults}") from problem

    def replace(self: Same, **changes: Any) -> Same:
        """The same with some fields changed, validated again."""
        same = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**(same | changes))


def fault_of(error: ErrorDetails) -> str:
    """One of pydantic's errors as `place: expected this, got that`."""
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    message = message_of(error)
    if message.startswith("expected "):
        message = f"{message}, got {shorten(repr(error['input']))}"
    return f"{place}: {message}" if place else message


def message_of(error: ErrorDetails) -> str:
    """What one of pydantic's errors says, in our words where they say what was expected."""
    if error["type"] == "literal_error":
        return f"expected one of {', '.join(literals(error['ctx']['expected']))}"
    if error["type"] in _EXPECTED:
        return f"expected {_EXPECTED[error['type']]}"
    return error["msg"].removeprefix("Value error, ")


def literals(expected: str) -> tuple[str, ...]:
    """The literals that pydantic lists as `'a', 'b' or 'c'`."""
    return tuple(expected.replace("'", "").replace(" or ", ", ").split(", "))
