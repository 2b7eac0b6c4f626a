"""`inspect`: what one head looks at, on the terminal and as a picture."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from headsurgeon.cli.attention_map import AttentionMap, shared_cells, visible
from headsurgeon.cli.planted import planted_remark
from tests.clinic import checkpoint, run, sick_bloom
from tests.pico_families import pico_family

TEXT = ("--text", "a cat [bold] $x$")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("inspect")
    checkpoint(folder / "sick", sick_bloom())
    checkpoint(folder / "grouped", pico_family("llama"))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder


def test_a_collapsed_head_is_shown_to_look_at_the_first_token_alone(clinic: Path) -> None:
    said = run("inspect", "sick", "L1H3", *TEXT, "--output", "head.png")
    assert said.exit_code == 0, said.stderr
    assert "L1H3 of sick on 17 tokens" in said.stdout
    assert "dead on this text" in said.stdout
    assert "0.0039; 3 of 4 heads are steeper, 0 shallower" in said.stdout
    assert "an untrained head would have" in said.stdout
    assert re.search(r"0 </s> +(9\d|100)\.\d %", said.stdout)
    # each of its rows names the first token first; markup in a text is text
    assert len(re.findall(r"^\d+ \S+ +0 </s> (0\.9\d|1\.00)", said.stdout, re.MULTILINE)) == 16
    assert re.search(r"^ +7 \[ +9", said.stdout, re.MULTILINE)
    assert imread(io.BytesIO((clinic / "head.png").read_bytes()), format="png").shape[0] > 200
    assert "written to head.png" in said.stdout


def test_a_long_text_is_cut_and_says_so_and_shared_keys_are_named(clinic: Path) -> None:
    options = ("--length", "8", "--first-token", "none")
    said = run("inspect", "grouped", "l1h2", *TEXT, *options)
    assert said.exit_code == 0, said.stderr
    assert "L1H2 of grouped on 8 tokens, the first of 16" in said.stdout
    assert "no ALiBi bias" in said.stdout
    assert "L1H2, L1H3" in said.stdout
    assert "</s>" not in said.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere/at/all", "L0H0", *TEXT), "no such folder"),
        (("sick", "L9H0", *TEXT), "layers 0–2"),
        (("sick", "fifth", *TEXT), "such as L5H14"),
        (("sick", "L0H0", "--text", ""), "the text is empty"),
        (("sick", "L0H0", *TEXT, "--length", "1"), "at least 2 tokens"),
        (("sick", "L0H0", *TEXT, "--first-token", "<none>"), "not in the tokenizer's vocabulary"),
        (("sick", "L0H0", *TEXT, "--output", "head.pdf"), "ends in .png"),
        (("sick", "L0H0", *TEXT, "--attention", "fast"), "the model's own forward"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    clinic: Path, arguments: tuple[str, ...], says: str
) -> None:
    before = sorted(clinic.rglob("*"))
    said = run("inspect", *arguments)
    assert said.exit_code == 2
    assert said.stdout == ""
    assert says in said.stderr
    assert sorted(clinic.rglob("*")) == before


def drawn(attention: np.ndarray, width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    names = [f"word{index}" for index in range(len(attention))]
    console.print(AttentionMap(attention, names))
    return console.export_text().splitlines()


def test_the_map_says_tenths_and_is_readable_without_colour() -> None:
    attention = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.96, 0.02, 0.004]])
    lines = [line.rstrip() for line in drawn(attention, 80)]
    assert lines[1].endswith("word0       9")
    assert lines[2].endswith("word1       3 8")
    assert lines[3].endswith("word2       9 ·")


@pytest.mark.parametrize("length", [3, 40, 333])
def test_the_map_is_never_wider_than_the_terminal(length: int) -> None:
    attention = np.tril(np.ones((length, length)))
    attention /= attention.sum(1, keepdims=True)
    lines = drawn(attention, 60)
    assert max(map(len, lines)) <= 60
    assert ("tokens per cell" in "".join(lines)) == (length > 22)


def test_shared_cells_keep_what_rows_add_up_to() -> None:
    attention = np.tril(np.random.default_rng(0).random((7, 7)))
    attention /= attention.sum(1, keepdims=True)
    cells = shared_cells(attention, 3)
    assert cells.shape == (3, 3)
    np.testing.assert_allclose(cells.sum(1), 1.0)
    assert cells[1, 0] == pytest.approx(attention[3:6, :3].sum() / 3)


def test_white_space_is_visible() -> None:
    assert visible(" a\n\t\x07") == "·a↵⇥\\x07"


def test_the_planted_twin_alone_is_called_planted() -> None:
    assert "PLANTED" in planted_remark("zoo:bloom-mini-collapsed")
    assert planted_remark("zoo:bloom-mini") == planted_remark("sick") == ""
