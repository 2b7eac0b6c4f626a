"""What the documents show is what the package does."""

import re
from pathlib import Path

from headsurgeon.arch import layout_of
from headsurgeon.arch.separate import separate, windows_by_type
from tests.pico_families import pico_family

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name: str, language: str = "python") -> list[str]:
    """The code blocks of one language in a document."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_example_of_adding_an_architecture_is_the_description_that_is_used() -> None:
    entry = next(block for block in blocks("add_an_architecture.md") if "lambda" in block)
    # a line of our own document, evaluated with the two names that it may use
    table = eval("{" + entry + "}", {"separate": separate, "windows_by_type": windows_by_type})
    model = pico_family("gpt_oss")
    assert table["gpt_oss"](model.config) == layout_of(model)
