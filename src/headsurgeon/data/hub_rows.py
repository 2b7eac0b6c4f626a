"""Rows of a data set of the Hub or a local one, whatever slice of it, with words for what fails."""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from headsurgeon.errors import (
    CorpusError,
    HeadsurgeonError,
    HeadsurgeonWarning,
    NetworkError,
    causes_of,
)
from headsurgeon.extras import require

# rows that are counted, not shares of a split whose size must be known first
_COUNTED = re.compile(r"(\w+)\[(\d{0,15}):(\d{1,15})\]")

Row = tuple[str, int, Mapping[str, Any]]
"""The part of the data set, the number the row has in it, and the row."""


def rows_of(
    name: str, dataset: str, config: str, split: str, stream: bool = False
) -> tuple[Iterator[Row], str]:
    """Rows in order, and the name of the configuration.

    Args:
        split: a split, or slices of some as the Hub's library writes them.
        stream: whether to read a whole split as a stream, since not all of it will be wanted;
            slices that end at a counted row are.

    Warns:
        HeadsurgeonWarning: a slice of fewer rows than were asked for, or of a single one.

    Raises:
        MissingPackage: `datasets` is not installed.
        CorpusError: no such data set, split or configuration, a slice without rows, or rows that
            cannot be read.
        NetworkError: the Hub was needed and could not be reached.
    """
    require("datasets", f"hf:{name}")
    import datasets

    counted = _COUNTED.fullmatch(split)
    part, first, last = counted.groups() if counted else (split, "", None)
    try:
        if counted or (stream and re.fullmatch(r"\w+", split)):
            start, stop = int(first or 0), None if last is None else int(last)
            loaded = datasets.load_dataset(dataset, config or None, split=part, streaming=True)
            from_start = loaded.skip(start) if start else loaded
            limited = from_start if stop is None else from_start.take(max(0, stop - start))
            rows = ((part, number, row) for number, row in enumerate(limited, start))
        else:
            loaded = datasets.load_dataset(dataset, config or None, split=split, streaming=False)
            rows = (
                (part, number, row)
                for (part, number), row in zip(_row_names(loaded, split), loaded, strict=True)
            )
        explained = _explaining(name, rows)
        sliced = _of_slice(name, split, explained) if "[" in split else explained
        return sliced, loaded.info.config_name
    except Exception as error:
        raise _explained(name, error) from error


def _explaining(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows; an error while reading them is reported like one before the first."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise _explained(name, error) from error
        yield row


def _of_slice(name: str, split: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows; says so where a slice came to fewer than were asked for, or to one or none."""
    count = 0
    for row in rows:
        count += 1
        yield row
    if not count:
        raise CorpusError(
            f"hf:{name}: the slice {split} holds no row, since it begins where the data ends; "
            "choose an earlier one"
        )
    counted = _COUNTED.fullmatch(split)
    asked = int(counted[3]) - int(counted[2] or 0) if counted else 0
    if count == 1 or count < asked:
        held = "a single row" if count == 1 else f"{count} rows"
        than = f", where {asked} were asked for" if count < asked else ", all of it in one split"
        warnings.warn(
            f"hf:{name}: the slice {split} holds {held}{than}",
            category=HeadsurgeonWarning,
            stacklevel=2,
        )


def _explained(name: str, error: Exception) -> HeadsurgeonError:
    """One error for whatever the library raises; it has no base class of its own for all of it."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    causes = causes_of(error)
    # the network first: huggingface_hub derives some of these from FileNotFoundError and OSError
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return NetworkError(
                f"hf:{name}: the Hub refused the request ({_first_line(cause)}); check your access "
                "to the data set, or try again later"
            )
        if isinstance(cause, ConnectionError | TimeoutError | LocalEntryNotFoundError):
            return NetworkError(
                f"hf:{name}: the Hub could not be reached ({_first_line(cause)}); check the "
                "network, or use text files: --corpus 'text:folder/**/*.txt'"
            )
    if isinstance(error, FileNotFoundError):
        return CorpusError(f"hf:{name}: no such data set: {_first_line(error)}")
    reasons = dict.fromkeys(_first_line(cause) for cause in causes)
    return CorpusError(f"hf:{name}: cannot be read: {'; '.join(reasons)}")


def _row_names(rows: Any, split: str) -> Iterator[tuple[str, int]]:
    """Split and number of each row in the whole data set, whatever slice of it was asked for."""
    import datasets

    sizes = {name: info.num_examples for name, info in (rows.info.splits or {}).items()}
    for part in datasets.ReadInstruction.from_spec(split).to_absolute(sizes):
        for row in range(part.from_ or 0, sizes[part.splitname] if part.to is None else part.to):
            yield part.splitname, row


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
