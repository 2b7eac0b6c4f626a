"""`headsurgeon zoo`: the models that ship with the package."""

from rich.text import Text

from headsurgeon.cli.console import out


def zoo() -> None:
    """Lists the models that ship with the package, and where their cards are."""
    from headsurgeon.models.catalogue import PREFIX, ZOO

    console = out()
    for model in ZOO.values():
        name = Text.assemble((f"{PREFIX}{model.name}", "bold"), f"  {model.summary}")
        console.print(name, soft_wrap=True)
        card = model.folder / "README.md"
        console.print(f"  card  {card}", style="dim", soft_wrap=True, markup=False)
    console.print(
        "\nThe collapse in these models is PLANTED: an extra loss early in training pushed named "
        "heads onto the first token. So the illness is known and a repair can be scored; how it "
        "compares with collapse that arose by itself, the cards discuss."
    )
