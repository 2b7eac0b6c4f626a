"""Claims about the presets of the paper: what they fix, and that every line of them runs."""

import copy
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM
from typer.main import get_command
from typer.testing import CliRunner

from headsurgeon.cli import command_presets as command_presets_module
from headsurgeon.cli.command_presets import command_presets, commands_of
from headsurgeon.cli.main import app
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import StudyError
from headsurgeon.heads import HeadId
from headsurgeon.paper import head_list
from headsurgeon.planning import Plan
from headsurgeon.report.study_reported import reported
from headsurgeon.study import PRESETS, Study, load_results, run_study
from headsurgeon.study.quick import quick
from headsurgeon.study.variants import preset_text, variants_of
from headsurgeon.yaml_lines import plain_yaml
from tests.planted import tokenizer

OF_THE_PAPER = sorted(name for name in PRESETS if name.startswith("bloom-1b7"))
VARIANTS = ("as_text", "as_code", "corrected")
EVERY = [(name, variant) for name in OF_THE_PAPER for variant in VARIANTS]
# each variant once, in presets of different texts; the others take minutes together
FAST = [("bloom-1b7-h5", "as_text"), ("bloom-1b7-pass2", "as_code"), ("bloom-1b7-c4", "corrected")]
RUN = [pytest.param(*each, marks=() if each in FAST else pytest.mark.slow) for each in EVERY]


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BLOOM-1b7's layers and heads, each of them tiny."""
    folder = tmp_path_factory.mktemp("models") / "bloom"
    words = tokenizer()
    config = BloomConfig(vocab_size=len(words), hidden_size=32, n_layer=24, n_head=16)
    BloomForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("given") / "short.json"
    file.write_text('["head attends to it"]')
    return f"texts:{file}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("texts") / "text"
    folder.mkdir()
    # a window each, so that an epoch is a step
    for index in range(10):
        (folder / f"{index}.txt").write_text(f"head {index} attends to the first")
    return f"text:{folder}/*.txt"


def loaded(
    name: str, variant: str, model: Path | str, corpus: str, given: str | None = None
) -> Study:
    """A preset whose Hub texts and yours are replaced, and with `given` its given texts, too."""
    texts = {text: corpus for text in ("curated", "c4", "wikipedia") if text in texts_of(name)}
    if given is not None:
        texts |= dict.fromkeys(("diagnostic", "probes", "held_out"), given)
    return Study.load(name, variant, model=str(model), texts=texts)


def texts_of(name: str) -> str:
    return preset_text(name, "as_code")


def short(study: Study) -> Study:
    """The same on little text, for as many epochs."""
    windows = study.windows.model_copy(update={"length": 16, "test": 2, "statistics": 2})
    train = {**study.train, "dev_windows": 1, "statistics_windows": 1, "batch_size": 8}
    train |= {"accumulation": 1, "evaluate_every": 64, "checkpoint_every": 64}
    arms = study.arms if study.name.endswith("pass1.as_code") else study.arms[:1]
    names = {arm.name for arm in arms} | {"untouched"}
    return study.model_copy(
        update={
            # on a CPU products in bf16 are many times slower than in fp32
            "dtype": "fp32",
            "windows": windows,
            "train": {**train, "compute": "fp32"},
            "null_seeds": 2,
            "arms": arms,
            "contrasts": tuple(c for c in study.contrasts if {c.arm, c.against} <= names),
            "reported": tuple(each for each in study.reported if each.arm in names),
        }
    )


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_a_preset_names_the_papers_own_heads_and_its_settings(name: str, variant: str) -> None:
    study = loaded(name, variant, "some/model", "text:a*.txt")
    listed = {"bloom-1b7-pass2": "bloom-1b7-pass2", "bloom-1b7-h5": "bloom-1b7-h5"}
    heads = head_list(listed.get(name, "bloom-1b7-pass1"))
    assert study.plan.heads == tuple(map(str, heads.operate))
    assert study.plan.watch == tuple(map(str, heads.watch))
    trained = [arm for arm in study.arms if arm.trains]
    for arm in trained:
        settings = study.settings(arm)
        assert (settings.learning_rate, settings.weight_decay, settings.clip) == (5e-5, 0.0, 1.0)
        assert (settings.windows_per_step, settings.length) == (8, 512)
        as_code = variant == "as_code"
        assert (settings.masters == "bf16") == as_code
        assert (settings.first_rate == "zero") == as_code
        assert (settings.packing == "blank_lines") == as_code
    starts = {arm.init for arm in trained if arm.name == "paper"}
    normal = variant == "as_text" and starts
    assert starts <= {"xavier_normal" if normal else "xavier_uniform_head"}
    assert study.name == f"{name}.{variant}"


def test_every_preset_of_the_paper_has_the_same_three_variants() -> None:
    assert {variants_of(name) for name in OF_THE_PAPER} == {VARIANTS}
    assert variants_of("twins-quick") == ()
    assert len(OF_THE_PAPER) == 8


def test_a_text_that_was_not_released_is_asked_for_by_name() -> None:
    with pytest.raises(StudyError, match=r"--text curated=SPEC"):
        Study.load("bloom-1b7-pass1", "as_code")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bloom-1b7-pass1", "as_is"), "no variant 'as_is'; it has as_text, as_code, corrected"),
        (("twins-quick", "as_code"), "it has none"),
        (("mine.yaml", "as_code"), "only presets have variants"),
    ],
)
def test_a_variant_that_there_is_not_is_refused(arguments: Any, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        Study.load(*arguments)


def test_a_corpus_for_a_text_that_there_is_not_is_refused() -> None:
    with pytest.raises(StudyError, match="no text 'other'"):
        Study.load("twins-quick", texts={"other": "text:a*.txt"})


def test_what_a_preset_needs_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    runner = CliRunner()
    words = "study bloom-1b7-pass1 --text curated=text:none/*.txt --output"
    said = runner.invoke(app, [*words.split(), str(tmp_path / "out")])
    assert said.exit_code != 0
    assert "bloom-1b7-pass1.corrected needs: The Hub" in said.stderr
    listed = runner.invoke(app, ["study", "--list"])
    assert listed.exit_code == 0
    for name in (*PRESETS, *command_presets()):
        assert name in listed.stdout
    shown = " ".join(listed.stdout.split())
    assert "Variants: as_text, as_code, corrected." in shown
    assert "Needs: The Hub (bigscience/bloom-1b7" in shown
    # what it is for, in words of its own
    abouts = [plain_yaml(preset_text(name))["about"] for name in PRESETS]
    assert len(set(abouts)) == len(abouts)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["bloom-family-diagnosis", "bloom-1b7-generation"])
def test_the_commands_of_a_preset_are_ones_that_can_be_typed(
    name: str, variant: str, pico: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in commands_of(name, variant, Path("out")):
        command = words[0]
        typed = get_command(app).commands[command]  # type: ignore[attr-defined]
        context = typed.make_context(command, list(words[1:]))
        given = context.params.get("models") or [context.params["model"]]
        assert all(model.startswith("bigscience/bloom-") for model in given)
    assert commands_of(name, variant, Path("out"), "mine")[0][1] == "mine"
    assert "baseline" not in " ".join(commands_of(name, variant, Path("out"), "mine")[0])


@pytest.mark.parametrize(
    ("name", "variant", "written"),
    [
        ("bloom-family-diagnosis", "as_code", {"diagnosis.json", "heads.csv", "layers.csv"}),
        ("bloom-1b7-generation", "as_text", {"pass2", "c4"}),
    ],
)
def test_a_preset_of_commands_runs_on_a_model_of_the_same_layers_and_heads(
    name: str,
    variant: str,
    written: set[str],
    pico: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    presets = copy.deepcopy(dict(command_presets()))
    for run in presets["bloom-1b7-generation"]["runs"].values():
        run["options"] |= {"max-new-tokens": 2, "prompts": "own/prompts-10"}
    monkeypatch.setattr(command_presets_module, "command_presets", lambda: presets)
    output = tmp_path / "out"
    words = ["study", name, "--variant", variant, "--model", str(pico), "--output", str(output)]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert written <= {path.name for path in output.iterdir()}
    assert f"headsurgeon {'diagnose' if 'family' in name else 'generate'} " in said.stdout


def test_the_papers_diagnosis_gives_the_numbers_of_its_own_attention_maps(
    pico: Path, tmp_path: Path
) -> None:
    [words] = commands_of("bloom-family-diagnosis", "as_code", tmp_path / "out", str(pico))
    words[words.index("--dtype") + 1] = "fp32"
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    found = Diagnosis.load(tmp_path / "out" / "diagnosis.json")
    shipped = files("headsurgeon.data").joinpath("shipped", "paper", "diagnostic.json")
    content = json.loads(shipped.read_text(encoding="utf-8"))
    [text] = content.values() if isinstance(content, dict) else content
    ids = tokenizer()(text, add_special_tokens=False, return_tensors="pt").input_ids
    model = BloomForCausalLM.from_pretrained(pico, attn_implementation="eager")
    with torch.no_grad():
        maps = torch.stack(model(ids, output_attentions=True).attentions)[:, 0]
    mass = maps[..., 0].mean(-1)
    entropy = -(maps * maps.clamp(min=1e-10).log()).sum(-1).mean(-1)
    assert np.abs(found.stats.first_token_mass - mass.numpy()).max() < 5e-5
    assert np.abs(found.stats.entropy - entropy.numpy()).max() < 5e-4
    sick = {HeadId(int(layer), int(head)) for layer, head in (mass > 0.5).nonzero().tolist()}
    assert set(found.sick) == sick
    assert found.stats.shape == (24, 16)


def test_a_command_that_fails_ends_the_preset_with_its_code(tmp_path: Path) -> None:
    words = ["study", "bloom-family-diagnosis", "--model", str(tmp_path / "none")]
    said = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out")])
    assert said.exit_code == 2
    assert "Traceback" not in said.output


@pytest.mark.parametrize(("name", "variant"), RUN)
def test_a_preset_runs_from_diagnosis_to_figures_and_its_numbers_stand_beside_the_papers(
    name: str, variant: str, pico: Path, corpus: str, given: str, tmp_path: Path
) -> None:
    study = short(loaded(name, variant, pico, corpus, given))
    result = run_study(study, tmp_path / "study")
    results = load_results(tmp_path / "study")
    assert {cell.arm: cell.failure for cell in results.failed} == {}
    assert not results.missing
    plan = Plan.load(tmp_path / "study" / "plan.yaml")
    assert len(plan.watched) == len(head_list(_listed(name)).watch)
    table = reported(result.results)
    measured = {(row[0], row[1]): row[4] for row in table.rows}
    if ("stock", "healthy") in measured:
        counted = [measured["stock", verdict] for verdict in ("healthy", "sink", "dead")]
        assert sum(map(int, [*counted, measured["stock", "low-entropy"]])) == 384
    assert {row[3] for row in table.rows} <= set("ABCD")


def _listed(name: str) -> str:
    return name if name in ("bloom-1b7-pass2", "bloom-1b7-h5") else "bloom-1b7-pass1"


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_a_quick_look_at_a_preset_of_the_paper_trains_an_eighth_of_its_epochs(name: str) -> None:
    whole = loaded(name, "as_code", "some/model", "text:a*.txt")
    short = quick(whole)
    assert short.train["epochs"] == whole.train["epochs"] / 8
    assert short.plan == whole.plan
    assert short.reported == whole.reported
