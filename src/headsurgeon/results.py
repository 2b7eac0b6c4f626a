"""Results as files: one JSON object with a header, which comes back exactly as it was.

JSON knows no NaN, which stands where nothing can be said: there it is null. An infinite number is
the text `Infinity`. What follows from the rest (computed fields) is in the file for readers, and is
computed again when the file is read.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

import numpy as np
from pydantic import BeforeValidator, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from headsurgeon.arguments import checked
from headsurgeon.errors import InputError
from headsurgeon.extras import installed
from headsurgeon.files import HEADER, header, read_json, schema_version, shorten, write_json
from headsurgeon.records import Record, fault_of

Loaded = TypeVar("Loaded", bound="Result")
_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}


class ShownInNotebooks:
    """What a notebook shows as a head map and a table."""

    def _repr_html_(self) -> str | None:
        if not installed("jinja2"):
            # whose markupsafe escapes; a notebook then shows the text
            return None
        # how results look comes after all results, and is asked for only where a notebook is
        return cast("str | None", import_module("headsurgeon.report.notebook").as_html(self))


class Result(Record):
    """What a measurement or a comparison came to."""

    kind: ClassVar[str]
    # what to do about a damaged file
    remedy: ClassVar[str] = "write it again"

    @model_validator(mode="before")
    @classmethod
    def _without_what_follows(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        return {key: content[key] for key in content if key not in cls.model_computed_fields}

    @checked
    def save(self, path: Path | str) -> None:
        """Writes the result to `path` as JSON, atomically."""
        write_json(path, {**header(self.kind), **_spelled(self.model_dump(mode="json"))})

    @classmethod
    @checked
    def load(cls: type[Loaded], path: Path | str) -> Loaded:
        """Reads what `save` wrote.

        Raises:
            InputError: no such file, another kind of file, a newer schema, an older one that lacks
                what is needed now, or a damaged file; says what is wrong and where.
        """
        content = read_json(path, cls.kind)
        fields = {key: value for key, value in content.items() if key not in HEADER}
        try:
            return cls.model_validate(fields)
        except ValidationError as problem:
            reason = "; ".join(fault_of(each) for each in problem.errors(include_url=False)[:3])
        except InputError as problem:
            reason = str(problem)
        schema, known = content["schema"], schema_version(cls.kind)
        state = (
            "is damaged" if schema == known else f"has schema {schema}, and {known} is written now"
        )
        raise InputError(
            f"{shorten(str(path), 300)} {state} ({shorten(reason, 300)}); {cls.remedy}"
        )


class Array:
    """Beside an array's type, as in `Annotated[Float[np.ndarray, "layer head"], Array()]`.

    In files it is nested lists.

    The type checks number of axes and kind of values.
    """

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        dtype = bool if "bool" in kind.dtypes else np.float64

        def read(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                value = _array(value, dtype)
            # not by isinstance: inside a function that is checked by jaxtyping a name such as
            # "document" would stand for the size that it has there
            same_kind = np.issubdtype(value.dtype, np.bool_ if dtype is bool else np.floating)
            if value.ndim != len(kind.dim_str.split()) or not same_kind:
                raise PydanticCustomError(
                    "array",
                    "expected an array [{axes}] of {dtype}, got shape {shape} of {found}",
                    {
                        "axes": kind.dim_str.strip(),
                        "dtype": np.dtype(dtype).name,
                        "shape": str(list(value.shape)),
                        "found": value.dtype.name,
                    },
                )
            return value

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda a: a.tolist()),
        )


def _number(value: Any) -> Any:
    if value is None:
        return math.nan
    return _INFINITE.get(value, value) if isinstance(value, str) else value


# A number, or what stands for it in JSON.
Written = float | str | None
# A number that may be none: NaN where nothing can be said, which is null in a file.
Number = Annotated[float, BeforeValidator(_number)]


def _array(value: Any, dtype: Any) -> np.ndarray:
    """An array of nested lists; refuses what numpy would guess, such as the text of a number."""
    items = np.array(value, dtype=object)
    flat = [_number(item) for item in items.ravel().tolist()]
    kinds = set(map(type, flat))
    if kinds & {list, tuple}:
        raise PydanticCustomError("array", "expected rows of one length")
    if not kinds <= ({bool} if dtype is bool else {int, float}):
        raise PydanticCustomError("array", "expected an array of numbers or of true and false")
    return np.array(flat, dtype=dtype).reshape(items.shape)


def _spelled(value: Any) -> Any:
    """Plain data with infinite numbers as text, since JSON has none."""
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return value
