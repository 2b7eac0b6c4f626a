"""How documents become windows: the three ways of packing, by name.

documents     a window lies within one document; those that are shorter than a window are joined,
              in the order of their ids, until they fill one
separated     all documents one after the other with the tokenizer's end-of-sequence token
              between them (a blank line where it has none), cut anywhere
blank_lines   all texts joined by blank lines and only then tokenised, cut anywhere, as the
              paper's released code does

"""

from typing import Literal, get_args

from headsurgeon.errors import SettingsError

Packing = Literal["documents", "separated", "blank_lines"]
PACKINGS: tuple[Packing, ...] = get_args(Packing)


def check_packing(packing: str) -> Packing:
    """The packing of that name.

    Raises:
        SettingsError: there is no such packing.
    """
    for known in PACKINGS:
        if packing == known:
            return known
    raise SettingsError(f"expected a packing of {', '.join(PACKINGS)}, got {packing!r}")
