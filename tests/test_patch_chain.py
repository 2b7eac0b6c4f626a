"""Patches one after the other: in their order or not at all, and as one file the same model."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.errors import PatchError
from headsurgeon.heads import HeadId
from headsurgeon.operation import apply_patch, apply_patches, compose_patches, operate, read_patch
from headsurgeon.operation.patch import read_content
from headsurgeon.planning import Plan, PlannedHead
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, write_text
from tests.pico import PICO, pico, tokens
from tests.pico_families import pico_family

FAMILIES = (*sorted(PICO), "llama", "qwen2", "gemma2", "olmo2", "phi3", "gpt2")


def any_pico(family: str) -> PreTrainedModel:
    return pico(family) if family in PICO else pico_family(family)


HEADS = st.sets(
    st.builds(HeadId, st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=5
).map(sorted)
APART = ([HeadId(0, 1)], [HeadId(2, 2)])
SAME_LAYER = ([HeadId(1, 0)], [HeadId(1, 3)])
SAME_HEAD = ([HeadId(1, 0), HeadId(1, 1)], [HeadId(1, 1), HeadId(2, 0)])


def plan_of(heads: Sequence[HeadId], watched: Sequence[HeadId] = ()) -> Plan:
    planned = [PlannedHead(id=head) for head in heads]
    planned += [PlannedHead(id=head, role="watch") for head in watched]
    return Plan(model="", heads=tuple(planned))


def chain(
    model: PreTrainedModel,
    operations: Sequence[Sequence[HeadId]],
    folder: Path,
) -> list[Path]:
    """Operates one after the other, with values of each its own; the model keeps them all."""
    paths = []
    for number, heads in enumerate(operations):
        patient = operate(model, plan_of(heads), seed=number, output_start="keep-output")
        patient.merge()
        paths.append(patient.save(folder / f"{number}.safetensors"))
    return paths


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    theirs = right.state_dict()
    return all(torch.equal(theirs[name], tensor) for name, tensor in left.state_dict().items())


@settings(max_examples=12)
@given(st.sampled_from(FAMILIES), st.lists(HEADS, min_size=2, max_size=3))
def test_a_chain_and_the_patch_composed_of_it_give_the_model_that_was_operated_on(
    family: str, operations: list[list[HeadId]]
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        operated, model, again = any_pico(family), any_pico(family), any_pico(family)
        paths = chain(operated, operations, folder)
        patient = apply_patches(model, paths)
        assert same(model, operated)
        assert set(patient.heads) == {head for heads in operations for head in heads}
        patient.revert()
        assert same(model, any_pico(family))
        composed = compose_patches(model, paths, folder / "composed.safetensors")
        assert same(model, any_pico(family))
        apply_patch(again, composed)
        assert same(again, operated)


@pytest.mark.parametrize(
    "operations", [APART, SAME_LAYER, SAME_HEAD], ids=["apart", "layer", "head"]
)
@pytest.mark.parametrize("made_in", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used_in", [torch.float32, torch.bfloat16, torch.float16])
def test_a_chain_fits_in_whatever_precision_the_model_is_held(
    operations: list[list[HeadId]],
    made_in: torch.dtype,
    used_in: torch.dtype,
    tmp_path: Path,
) -> None:
    folder = checkpoint(tmp_path / "sick", sick_bloom().to(torch.bfloat16))
    paths = chain(hs.load(str(folder), dtype=made_in)[0], operations, tmp_path)
    used = hs.load(str(folder), dtype=used_in)[0]
    apply_patches(used, paths)
    alone = hs.load(str(folder), dtype=used_in)[0]
    apply_patch(alone, compose_patches(alone, paths, tmp_path / "one.safetensors"))
    assert same(used, alone)


@pytest.mark.parametrize(
    "operations", [APART, SAME_LAYER, SAME_HEAD], ids=["apart", "layer", "head"]
)
def test_the_wrong_order_is_refused_with_the_right_one(
    operations: list[list[HeadId]], tmp_path: Path
) -> None:
    first, second = chain(pico("bloom"), operations, tmp_path)
    model = pico("bloom")
    with pytest.raises(PatchError) as refused:
        apply_patches(model, [second, first])
    said = str(refused.value)
    assert f"{second} (patch 1 of 2" in said
    assert read_patch(second)[0]["fingerprint"] in said
    assert read_patch(first)[0]["fingerprint"] in said
    assert f"in this order they fit: {first}, {second}" in said
    assert same(model, pico("bloom"))


@pytest.mark.parametrize(
    "operations", [APART, SAME_LAYER, SAME_HEAD], ids=["apart", "layer", "head"]
)
@pytest.mark.parametrize("missing", [0, 1])
def test_a_gap_is_refused_by_what_the_patch_behind_it_expects(
    operations: list[list[HeadId]], missing: int, tmp_path: Path
) -> None:
    paths = chain(pico("bloom"), [*operations, [HeadId(0, 0)]], tmp_path)
    given = [path for number, path in enumerate(paths) if number != missing]
    behind = paths[missing + 1]
    with pytest.raises(PatchError, match="is missing") as refused:
        apply_patches(pico("bloom"), given)
    assert str(refused.value).startswith(f"{behind} (patch {given.index(behind) + 1} of 2")
    assert read_patch(behind)[0]["fingerprint"] in str(refused.value)


def test_another_family_is_refused_in_words(tmp_path: Path) -> None:
    paths = chain(pico("bloom"), APART, tmp_path)
    with pytest.raises(PatchError, match=r"was made for .*; this model has no"):
        apply_patches(any_pico("llama"), paths)


def test_no_patch_and_one_patch(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="at least one"):
        apply_patches(pico("bloom"), [])
    (path,) = chain(pico("bloom"), APART[:1], tmp_path)
    assert apply_patches(pico("bloom"), [path]).heads == (HeadId(0, 1),)


def test_a_composed_patch_says_what_it_was_made_of_also_when_it_is_composed_again(
    tmp_path: Path,
) -> None:
    paths = chain(pico("bloom"), [*SAME_HEAD, [HeadId(0, 0)]], tmp_path)
    model = pico("bloom")
    two = compose_patches(model, paths[:2], tmp_path / "two.safetensors")
    three = compose_patches(model, [two, paths[2]], tmp_path / "three.safetensors")
    at_once = compose_patches(model, paths, tmp_path / "at-once.safetensors")
    content = read_content(three)
    assert [part.heads for part in content.parts] == [["L1H0", "L1H1"], ["L1H1", "L2H0"], ["L0H0"]]
    assert [part.seed for part in content.parts] == [0, 1, 2]
    assert content.parts == read_content(at_once).parts
    assert content.fingerprints == read_content(at_once).fingerprints
    assert all(
        torch.equal(tensor, read_patch(at_once)[1][name])
        for name, tensor in content.tensors.items()
    )
    # and through the patient
    saved = apply_patch(pico("bloom"), three).save(tmp_path / "saved.safetensors")
    assert read_content(saved).parts == content.parts


def test_keys_and_values_of_a_group_completed_by_two_patches_stay_those_of_the_base(
    tmp_path: Path,
) -> None:
    operated = any_pico("llama")
    paths = chain(operated, [[HeadId(1, 0)], [HeadId(1, 1)]], tmp_path)
    composed = compose_patches(any_pico("llama"), paths, tmp_path / "one.safetensors")
    with safe_open(composed, framework="pt") as file:
        assert any("k_proj" in name for name in file.keys())  # noqa: SIM118
    model = any_pico("llama")
    patient = apply_patch(model, composed)
    assert patient.frozen_key_values == ()
    assert torch.equal(model(tokens()).logits, operated(tokens()).logits)


@pytest.mark.parametrize("second", ["zero-output", "carry"])
def test_a_constant_in_an_output_bias_is_part_of_the_chain(second: str, tmp_path: Path) -> None:
    operated = pico("bloom")
    paths = []
    for number, (heads, start) in enumerate([([HeadId(1, 0)], "carry"), ([HeadId(1, 1)], second)]):
        patient = operate(operated, plan_of(heads), output_start=start, calibration=tokens(4))
        patient.merge()
        paths.append(patient.save(tmp_path / f"{number}.safetensors"))
    model = pico("bloom")
    apply_patch(model, compose_patches(model, paths, tmp_path / "one.safetensors"))
    assert same(model, operated)
    assert read_content(tmp_path / "one.safetensors").beginning.output_start.name == "carry"


def test_heads_watched_once_and_operated_on_later_count_as_operated(tmp_path: Path) -> None:
    model = pico("bloom")
    paths = []
    for number, plan in enumerate(
        [plan_of([HeadId(1, 0)], [HeadId(1, 1), HeadId(1, 2)]), plan_of([HeadId(1, 1)])]
    ):
        patient = operate(model, plan)
        patient.merge()
        paths.append(patient.save(tmp_path / f"{number}.safetensors"))
    plan = apply_patches(pico("bloom"), paths).plan
    assert (plan.operated, plan.watched) == ((HeadId(1, 0), HeadId(1, 1)), (HeadId(1, 2),))


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bf16, text, and two patches made one after the other in fp32."""
    folder = tmp_path_factory.mktemp("ward")
    checkpoint(folder / "sick", sick_bloom().to(torch.bfloat16))
    write_text(folder / "docs")
    chain(hs.load(str(folder / "sick"), dtype=torch.float32)[0], SAME_LAYER, folder)
    return folder


def test_merge_takes_a_chain_and_leaves_one_patch_of_it(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ward)
    both = ("--patch", "0.safetensors", "--patch", "1.safetensors")
    one = tmp_path / "one.safetensors"
    said = run("merge", "sick", *both, "--output", tmp_path / "a", "--patch-output", one)
    assert said.exit_code == 0, said.stderr
    assert "2 heads merged into sick, each tensor in the precision it was stored in" in said.stdout
    assert run("merge", "sick", "--patch", one, "--output", tmp_path / "b").exit_code == 0
    weights = (tmp_path / "a" / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert weights != (ward / "sick" / "model.safetensors").read_bytes()
    again = run("merge", "sick", *both, "--output", tmp_path / "c", "--patch-output", one)
    assert again.exit_code == 2
    assert "exists" in again.stderr


def test_evaluate_takes_a_chain_and_compares_all_of_its_heads_with_the_untouched_model(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ward)
    reading = ("--corpus", CORPUS, "--length", "32", "--count", "6", "--split", "dev")
    both = ("--patch", "0.safetensors", "--patch", "1.safetensors")
    file = tmp_path / "evaluation.json"
    said = run("evaluate", "sick", *both, *reading, "--output", file)
    assert said.exit_code == 0, said.stderr
    content = json.loads(file.read_text())
    assert content["patches"] == ["0.safetensors", "1.safetensors"]
    assert content["recovery"]["heads"] == content["drift"]["operated"] == ["L1H0", "L1H3"]
    assert set(content["evaluations"]) == {"sick", "with 2 patches"}
    swapped = run("evaluate", "sick", *both[2:], *both[:2], *reading)
    assert swapped.exit_code == 2
    assert "in this order they fit: 0.safetensors, 1.safetensors" in " ".join(
        swapped.stderr.split()
    )
