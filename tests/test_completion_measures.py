"""What is counted in completions, each against a count by hand; and files of prompts."""

import json
from pathlib import Path

import numpy as np
import pytest

from headsurgeon.errors import CorpusError, InputError
from headsurgeon.evaluation import MEASURES, Prompt, read_prompts
from headsurgeon.evaluation.completion_measures import (
    detector_of,
    distinct,
    language_switch,
    markup,
    measures_of,
    repetition,
)

PROSE = Prompt(id="p", kind="narrative", text="The sea was")
CODE = Prompt(id="c", kind="code", text="def f(x):")
SPANISH = Prompt(id="s", kind="multilingual", language="es", text="El mar era")


def by_letters(text: str) -> tuple[str, float]:
    """A detector for these tests: English where there is a w, else Spanish, always sure."""
    return ("en" if "w" in text else "es"), 1.0


def test_repetition_is_the_share_of_ngrams_that_were_there_before() -> None:
    assert repetition([1, 2, 3, 4, 5, 6]) == 0.0
    # 1234 2341 3412 4123 1234: four of five are new
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repetition([7] * 103) == pytest.approx(0.99)
    assert np.isnan(repetition([1, 2, 3]))
    assert distinct([1, 1, 2, 1], 1) == pytest.approx(2 / 4)
    assert distinct([1, 1, 2, 1], 2) == 1.0
    assert np.isnan(distinct([], 1))


@pytest.mark.parametrize(
    "text",
    [
        "calm.<br> Then",
        "calm.</p>",
        '<a href="x">calm</a>',
        "calm &nbsp; and",
        "calm\n```python\n",
        "calm\n\ndef wave(x):\n",
        "calm\nfrom os import path\n",
        "calm\nvar x = 1",
        "calm\n#include <sea.h>",
        "calm\nSELECT name FROM seas",
        "calm\n  return 1;\n",
        r"calm \begin{itemize}",
    ],
)
def test_markup_and_program_text_are_found_in_prose(text: str) -> None:
    assert markup(PROSE, text) == 1.0
    assert np.isnan(markup(CODE, text))


@pytest.mark.parametrize(
    "text",
    [
        "calm, and 3 < 4 boats > none.",
        "calm; nobody spoke. She & he left.",
        "calm.\nClass was over, and import duties rose. Let it be.",
        "calm (as always).\n\n- a list\n# and a heading\n",
        "",
    ],
)
def test_prose_that_only_looks_a_little_like_it_is_left_alone(text: str) -> None:
    assert markup(PROSE, text) == 0.0


def test_the_share_in_another_language_is_counted_in_letters_of_whole_pieces() -> None:
    own, other = "el agua estaba tranquila ayer", "the water was still when we came"
    letters = [sum(map(str.isalpha, text)) for text in (own, other)]
    found = language_switch(SPANISH, f"{own}. {other}\n{own}", by_letters)
    assert found == pytest.approx(letters[1] / (2 * letters[0] + letters[1]))
    # nobody can be sure of a piece so short
    assert language_switch(SPANISH, f"{own}. we", by_letters) == 0.0
    # nor where the detector is not
    assert language_switch(SPANISH, other, lambda text: ("en", 0.6)) == 0.0
    # another script needs no detector to be sure
    assert language_switch(SPANISH, "海は静かでした", by_letters) == 1.0
    assert language_switch(PROSE, "море было спокойно", by_letters) == 1.0
    for prompt, text, detector in (
        (CODE, other, by_letters),
        (SPANISH, "1 2 3 …", by_letters),
        (SPANISH, other, None),
    ):
        assert np.isnan(language_switch(prompt, text, detector))


def test_languages_are_told_apart_by_a_library_that_says_its_name() -> None:
    pytest.importorskip("py3langid")
    detect, name = detector_of(["es", "fr", "de", "zzz"])
    assert detect is not None
    assert name.startswith("py3langid ")
    assert name.endswith("de en es fr")
    for text, language in (
        ("and nobody knew what it was for", "en"),
        ("y nadie sabía para qué servía", "es"),
        ("et personne ne savait à quoi cela servait", "fr"),
        ("und niemand wusste, wozu es gut war", "de"),
    ):
        assert detect(text) == (language, pytest.approx(1.0, abs=0.05))
    mixed = "el agua estaba tranquila y fría. The boats had not come back since the morning."
    assert 0.4 < language_switch(SPANISH, mixed, detect) < 0.7


def test_every_measure_has_a_name_and_a_value() -> None:
    found = measures_of(PROSE, "calm", [5, 6, 7, 8], True, None)
    assert list(found) == list(MEASURES)
    assert found["length"] == 4.0
    assert found["ended"] == 1.0


# --- prompts --------------------------------------------------------------------------------------


def test_own_prompts_are_of_the_kinds_and_sizes_of_the_papers() -> None:
    fifty = read_prompts("own/prompts-50")
    sizes = {
        "conceptual": (28, 75),
        "technical": (28, 58),
        "narrative": (29, 70),
        "code": (65, 150),
        "multilingual": (30, 63),
    }
    for kind, (shortest, longest) in sizes.items():
        found = [len(prompt.text) for prompt in fifty if prompt.kind == kind]
        assert len(found) == 10
        assert shortest <= min(found) <= max(found) <= longest
    assert {prompt.language for prompt in fifty} == {"en", "fr", "es", "de"}
    assert len({prompt.text for prompt in fifty}) == 50
    for name, count, longest in (("own/prompts-12", 12, 71), ("own/prompts-10", 10, 115)):
        assert len(read_prompts(name)) == count
        assert max(len(prompt.text) for prompt in read_prompts(name)) <= longest
    papers = read_prompts("paper/prompts-40")
    assert len(papers) == 40
    assert not {prompt.text for prompt in papers} & {prompt.text for prompt in fifty}


def test_prompts_are_read_from_yaml_json_and_plain_text(tmp_path: Path) -> None:
    entries = [{"id": "a", "text": "The sea"}, {"id": "b", "language": "fr", "text": "La mer"}]
    (tmp_path / "a.json").write_text(json.dumps({"kind": "prompts", "prompts": entries}))
    (tmp_path / "a.yaml").write_text(
        'kind: prompts\nprompts:\n- {id: a, text: The sea}\n- {id: b, language: fr, text: "La mer"}'
    )
    (tmp_path / "a.txt").write_text("The sea\n\nLa mer\n")
    known = read_prompts(tmp_path / "a.json")
    assert known == read_prompts(str(tmp_path / "a.yaml"))
    assert known[0] == Prompt(id="a", kind="prose", language="en", text="The sea")
    assert [(each.id, each.text) for each in read_prompts(tmp_path / "a.txt")] == [
        ("line-1", "The sea"),
        ("line-3", "La mer"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: prompts\nprompts:\n- {id: a}", "line 3: prompts.0.text|line 3.*text"),
        ("kind: prompts\nprompts:\n- {id: a, text: b}\n- {id: a, text: c}", "a twice"),
        ("kind: prompts\nprompts: []", "at least 1"),
        ("kind: prompts\nprompts:\n- {id: a, text: b, language: English}", "pattern"),
        ("kind: plan\nheads: []", "found plan"),
        ("", "empty"),
    ],
)
def test_a_file_that_is_none_of_prompts_is_refused_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / "p.yaml")


def test_prompts_that_there_are_not_are_refused() -> None:
    with pytest.raises(CorpusError, match="own/prompts-50"):
        read_prompts("own/prompts-51")
    with pytest.raises(InputError, match=r"none\.yaml"):
        read_prompts("none.yaml")
