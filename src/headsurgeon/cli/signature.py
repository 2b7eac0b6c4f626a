"""Giving a command more options than its function spells out."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def extend(
    run: Callable[..., None], command: Callable[..., None], options: Mapping[str, tuple[Any, Any]]
) -> None:
    """Gives `run` the options of `command` and `options` besides, by name: (annotation, default).

    typer reads options from the signature, and their types from the annotations. A parameter
    `**rest` of `command` stands for such options and is not one itself.
    """
    signature = inspect.signature(command)
    spelled = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    parameters = [*spelled, *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
