"""What the documents show is what the package does."""

import re
from pathlib import Path

import pytest
import torch

from headsurgeon.arch import layout_of
from headsurgeon.arch.layout import PARTS
from headsurgeon.arch.separate import separate, windows_by_type
from headsurgeon.heads import HeadId
from headsurgeon.operation import operate
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.starts import INITS, Number, Start, fresh
from tests.pico import pico
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


def test_the_example_of_adding_a_start_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    function, entry, tested = blocks("add_a_start.md")
    # our own document, run with the names that the module it goes to has
    names = {name: getattr(fresh, name) for name in ("Sequence", "HeadTensors", "StartContext")}
    exec(function, names)
    table = eval("{" + entry + "}", {**names, "Start": Start, "Number": Number})
    name, parts = eval(tested)
    monkeypatch.setitem(INITS, name, table[name])
    model = pico("bloom")
    layout, stock = layout_of(model), {k: v.clone() for k, v in model.state_dict().items()}
    head = HeadId(1, 1)
    plan = Plan(model="pico", rule="heads", heads=(PlannedHead(id=head),))
    patient = operate(model, plan, init=f"{name}(factor=0.5)", output_start="keep_output")
    assert patient.init == f"{name}(factor=0.5)"
    patient.merge()
    now, factors = model.state_dict(), {}
    for part in PARTS:
        for block in layout.blocks(part, *head):
            was, became = (block.of(state[block.parameter]) for state in (stock, now))
            factors[part] = 0.5 if torch.equal(became, 0.5 * was) else 1.0
            assert torch.equal(became, factors[part] * was)
    assert {part for part, factor in factors.items() if factor != 1.0} == parts


def test_the_places_that_the_guide_to_starts_names_are_there() -> None:
    text = (DOCS / "add_a_start.md").read_text(encoding="utf-8")
    root = DOCS.parent
    named = re.findall(r"`((?:src|tests)/[\w/]+\.py)`", text)
    assert len(named) > 6
    assert [name for name in named if not (root / name).is_file()] == []
