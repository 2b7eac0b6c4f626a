"""What the documents show is what the package does."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headsurgeon.arch import layout_of
from headsurgeon.arch.layout import PARTS
from headsurgeon.arch.separate import separate, windows_by_type
from headsurgeon.errors import SettingsError
from headsurgeon.heads import HeadId
from headsurgeon.measurement.layer_capture import LayerCapture
from headsurgeon.measurement.measuring import OBSERVE
from headsurgeon.operation import operate
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.starts import INITS, Number, Start, fitted
from tests.pico import pico, tokens
from tests.pico_families import pico_family
from tests.planted import collapse

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


def example_of_a_start(place: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, set[str]]:
    """Enters the function that the guide defines there; its name and the parts it is to change."""
    function, entry, tested = blocks("add_a_start.md")[3 * place : 3 * place + 3]
    # our own document, run with the names that the modules it goes to have
    names = {name: getattr(fitted, name) for name in ("Sequence", "HeadTensors", "StartContext")}
    names |= {"torch": torch, "SettingsError": SettingsError}
    exec(function, names)
    table = eval("{" + entry + "}", {**names, "Start": Start, "Number": Number})
    name, parts = eval(tested)
    monkeypatch.setitem(INITS, name, table[name])
    return name, parts


def plan_for(*heads: HeadId) -> Plan:
    return Plan(model="pico", rule="heads", heads=tuple(PlannedHead(id=head) for head in heads))


def test_the_example_of_adding_a_start_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    name, parts = example_of_a_start(0, monkeypatch)
    model = pico("bloom")
    layout, stock = layout_of(model), {k: v.clone() for k, v in model.state_dict().items()}
    head = HeadId(1, 1)
    patient = operate(model, plan_for(head), init=f"{name}(factor=0.5)", output_start="keep_output")
    assert patient.init == f"{name}(factor=0.5)"
    patient.merge()
    now, factors = model.state_dict(), {}
    for part in PARTS:
        for block in layout.blocks(part, *head):
            was, became = (block.of(state[block.parameter]) for state in (stock, now))
            factors[part] = 0.5 if torch.equal(became, 0.5 * was) else 1.0
            assert torch.equal(became, factors[part] * was)
    assert {part for part, factor in factors.items() if factor != 1.0} == parts


def test_the_example_of_a_start_that_looks_copies_the_healthiest_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, parts = example_of_a_start(1, monkeypatch)
    text = tokens(4, 24)
    # as the windows begin that the collapse was made for
    text[:, 0] = 0
    model = pico("bloom", layers=2)
    collapse(model, (HeadId(1, 1),))
    layout, stock = layout_of(model), {k: v.clone() for k, v in model.state_dict().items()}
    started = (HeadId(1, 0), HeadId(1, 2))
    patient = operate(
        model, plan_for(*started), init=name, output_start="keep_output", calibration=text
    )
    patient.merge()
    now = model.state_dict()
    for head in started:
        same = {
            part
            for part in PARTS
            for ours, theirs in zip(
                layout.blocks(part, *head), layout.blocks(part, 1, 3), strict=True
            )
            if torch.equal(ours.of(now[ours.parameter]), theirs.of(stock[theirs.parameter]))
        }
        assert same == parts
    every = [HeadId(1, head) for head in range(layout.heads)]
    with pytest.raises(SettingsError, match="none to copy"):
        operate(pico("bloom"), plan_for(*every), init=name, calibration=text)


def test_the_example_of_adding_a_statistic_is_what_a_plain_reader_computes() -> None:
    [named, computed, returned, attribute, plain, plain_returned] = blocks("add_a_statistic.md")
    [name] = eval("{" + named + "}")
    assert f"def {name}(self)" in attribute
    assert f'self.mean("{name}")' in attribute
    model, ids = pico("bloom"), tokens(3, 12)
    captured: list[LayerCapture] = []
    layout = layout_of(model)
    observe = OBSERVE[layout.observed]
    with torch.no_grad(), observe(model, layout, lambda _, capture: captured.append(capture)):
        model.base_model(input_ids=ids, use_cache=False)
    # our own document, run with the names that the two functions have there
    for capture in captured:
        ours: dict[str, Any] = {"capture": capture}
        theirs: dict[str, Any] = {"layer": capture, "np": np}
        exec(computed, ours)
        exec(plain, theirs)
        value = eval("{" + returned + "}", ours)[name]
        assert (value.shape, value.dtype) == ((len(ids), layout.heads), torch.float32)
        np.testing.assert_allclose(value, eval("{" + plain_returned + "}", theirs)[name], rtol=1e-5)


def test_the_places_that_the_guide_to_starts_names_are_there() -> None:
    text = (DOCS / "add_a_start.md").read_text(encoding="utf-8")
    root = DOCS.parent
    named = re.findall(r"`((?:src|tests)/[\w/]+\.py)`", text)
    assert len(named) > 6
    assert [name for name in named if not (root / name).is_file()] == []


def test_the_guide_to_files_names_every_kind_and_who_reads_it() -> None:
    page = (DOCS / "read_files.md").read_text(encoding="utf-8")
    (title, _), *rows = re.findall(
        r"^\| `(\w+)` \| .* \| (.*) \|$", page.partition("## Every kind")[2], re.M
    )
    sources = [path.read_text("utf-8") for path in (DOCS.parent / "src").rglob("*.py")]
    written = r"""(?:kind: ClassVar\[str\] = |\bheader\(|^_?KIND = )"(\w+)\""""
    assert title == "kind"
    assert dict(rows).keys() == {
        kind for text in sources for kind in re.findall(written, text, re.M)
    }
    assert [kind for kind, _ in rows] == sorted(kind for kind, _ in rows)
    for kind, reader in rows:
        for module, name in re.findall(r"`([\w.]+)\.([A-Z]\w+)\.load`", reader):
            found = getattr(import_module({"hs": "headsurgeon"}.get(module, module)), name)
            # a run is read from its folder, and plans and studies are YAML with a kind of their own
            assert getattr(found, "kind", kind) == kind or kind == "run"
            assert callable(found.load)
