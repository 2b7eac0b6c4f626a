"""Giving a command more options than its function spells out."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any


def extend(
    run: Callable[..., None], command: Callable[..., None], options: Mapping[str, tuple[Any, Any]]
) -> None:
    """Gives `run` the options of `command` and `options` besides, by name: (annotation, default).

    typer reads options from the signature, and their types from the annotations.
    """
    signature = inspect.signature(command)
    spelled = signature.parameters.values()
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    parameters = [*spelled, *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every field of its option groups as an option of its own.

    A group is a parameter annotated with a dataclass, whose fields are annotated as options are.
    """
    signature = inspect.signature(command)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if is_dataclass(parameter.annotation)
    }

    @wraps(command)
    def run(**arguments: Any) -> None:
        for name, group in groups.items():
            given = {field.name: arguments.pop(field.name) for field in fields(group)}
            arguments[name] = group(**given)
        command(**arguments)

    spelled = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name not in groups
    ]
    spelled += [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.type,
        )
        for group in groups.values()
        for field in fields(group)
    ]
    run.__signature__ = signature.replace(parameters=spelled)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in spelled}
    return run
