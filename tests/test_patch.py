"""Patch files: only the slices, tied to their base, whole or refused."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from headsurgeon.arch import layout_of
from headsurgeon.errors import (
    HeadError,
    PatchError,
    SettingsError,
    StateError,
    UnsupportedModel,
    WriteError,
)
from headsurgeon.heads import HeadId
from headsurgeon.models.fingerprint import fingerprint
from headsurgeon.operation import Patient, apply_patch, applying, operate, read_patch
from headsurgeon.operation.tensor_file import read_tensors, write_tensors
from headsurgeon.planning import Plan, PlannedHead
from tests.pico import PICO, pico, tokens

FAMILIES = sorted(PICO)
PLAN = Plan(
    model="pico", rule="heads", heads=(PlannedHead(id=HeadId(1, 1)), PlannedHead(id=HeadId(2, 2)))
)


def patient_with_patch(family: str, folder: Path) -> tuple[Patient, Path]:
    patient = operate(pico(family), PLAN, 3, output_start="keep_output")
    return patient, patient.save(folder / "patch.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_patch_on_the_same_base_gives_the_merged_model_and_reverts(
    family: str, tmp_path: Path
) -> None:
    patient, path = patient_with_patch(family, tmp_path)
    patient.merge()
    batch, model = tokens(), pico(family)
    before = model(batch).logits
    applied = apply_patch(model, path)
    assert applied.state == "merged"
    assert torch.equal(model(batch).logits, patient.model(batch).logits)
    assert (applied.seed, applied.init, applied.output_start) == (
        3,
        "xavier_uniform_head",
        "keep_output",
    )
    applied.revert()
    assert torch.equal(model(batch).logits, before)


@pytest.mark.parametrize("step", ["merge", "revert", "reopen"])
def test_saving_is_the_same_in_every_state(step: str, tmp_path: Path) -> None:
    patient, path = patient_with_patch("bloom", tmp_path)
    getattr(patient, step)()
    metadata, tensors = read_patch(patient.save(tmp_path / "again.safetensors"))
    expected_metadata, expected = read_patch(path)
    assert metadata == expected_metadata
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_an_applied_patch_can_be_trained_further_from_its_fp32_values(tmp_path: Path) -> None:
    patient, path = patient_with_patch("bloom", tmp_path)
    model = pico("bloom")
    applied = apply_patch(model, path)
    applied.reopen()
    for left, right in zip(applied.slices(), patient.slices(), strict=True):
        assert torch.equal(left, right)
    model(tokens(), labels=tokens()).loss.backward()
    assert all(slice_.grad is not None for slice_ in applied.slices())


def test_the_metadata_says_what_the_patch_is_and_where_it_belongs(tmp_path: Path) -> None:
    patient, path = patient_with_patch("bloom", tmp_path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = sorted(file.keys())
    base = pico("bloom")
    assert names == sorted(patient.maps)
    assert metadata["kind"] == "patch"
    assert metadata["schema"] == "1"
    assert metadata["fingerprint"] == fingerprint(base, layout_of(base))
    assert Plan.from_yaml(metadata["plan"]).operated == PLAN.operated
    assert json.loads(metadata["layout"])["transformer.h.1.self_attention.dense.weight"] == {
        "axis": 1,
        "runs": [[8, 8]],
    }


def test_a_patch_whose_start_is_spelled_with_a_hyphen_as_before_is_read(tmp_path: Path) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    tensors, metadata = read_tensors(path, "patch", PatchError)
    plan = metadata["plan"].replace("output_start: keep_output", "output_start: keep-output")
    assert plan != metadata["plan"]
    older = metadata | {"output_start": "keep-output", "plan": plan}
    del older["content"]
    write_tensors(path, "patch", tensors, older)
    applied = apply_patch(pico("bloom"), path)
    # the plan says how the heads did start
    assert (applied.plan.output_start, applied.output_start) == ("keep_output", "keep_output")


def test_a_patch_holds_little_more_than_its_slices(tmp_path: Path) -> None:
    model = pico("bloom", hidden=128, heads=4, layers=4)
    heads = tuple(PlannedHead(id=HeadId(layer, head)) for layer in range(4) for head in (1, 3))
    patient = operate(model, Plan(model="pico", rule="heads", heads=heads))
    values = sum(slice_.numel() for slice_ in patient.slices())
    whole = patient.save(tmp_path / "fp32.safetensors").stat().st_size
    half = patient.save(tmp_path / "bf16.safetensors", dtype=torch.bfloat16).stat().st_size
    assert whole <= 4.1 * values
    assert half <= 2.1 * values


def test_a_bf16_patch_holds_the_rounded_slices(tmp_path: Path) -> None:
    patient, _ = patient_with_patch("bloom", tmp_path)
    path = patient.save(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    applied = apply_patch(pico("bloom"), path)
    for left, right in zip(applied.slices(), patient.slices(), strict=True):
        assert torch.equal(left, right.to(torch.bfloat16).float())
    with pytest.raises(SettingsError, match="float16"):
        patient.save(path, dtype=torch.float16)


# --- refusals ------------------------------------------------------------------------------------


def test_the_wrong_base_is_refused_with_both_fingerprints_and_left_as_it_was(
    tmp_path: Path,
) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    model = pico("bloom", seed=1)
    stock, state = pico("bloom"), {n: t.clone() for n, t in model.state_dict().items()}
    expected = fingerprint(stock, layout_of(stock))
    found = fingerprint(model, layout_of(model))
    with pytest.raises(PatchError, match=f"{expected}.*{found}"):
        apply_patch(model, path)
    assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())


def test_a_patched_model_is_no_longer_the_base(tmp_path: Path) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    model = pico("bloom")
    apply_patch(model, path)
    with pytest.raises(PatchError, match="its own base"):
        apply_patch(model, path)


def test_an_open_patient_is_not_patched(tmp_path: Path) -> None:
    patient, path = patient_with_patch("bloom", tmp_path)
    with pytest.raises(StateError, match="being operated on already"):
        apply_patch(patient.model, path)


def test_other_shapes_and_families_are_refused(tmp_path: Path) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    with pytest.raises(PatchError, match="no transformer"):
        apply_patch(pico("mpt"), path)
    with pytest.raises(HeadError, match="L2H2"):
        apply_patch(pico("bloom", layers=2), path)
    with pytest.raises(PatchError, match="fingerprint"):
        apply_patch(pico("bloom", hidden=64), path)
    model = pico("bloom")
    model.config.model_type = "unheard-of"
    with pytest.raises(UnsupportedModel):
        apply_patch(model, path)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 0.999))
def test_a_truncated_patch_is_refused(share: float, tmp_path: Path) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(PatchError, match="cut short"):
        apply_patch(pico("bloom"), path)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 0.999), bit=st.integers(0, 7))
def test_one_flipped_bit_among_the_values_is_noticed(
    share: float, bit: int, tmp_path: Path
) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start + int(share * (len(content) - start))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(PatchError, match="hash"):
        apply_patch(pico("bloom"), path)


def test_files_that_are_no_patch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(PatchError, match="no such file"):
        read_patch(path)
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(PatchError, match="expected a headsurgeon patch"):
        read_patch(path)
    save_file({"x": torch.zeros(3)}, path, {"kind": "patch", "schema": "99"})
    with pytest.raises(PatchError, match="newer headsurgeon"):
        read_patch(path)


def test_slices_laid_out_differently_are_refused_and_the_model_is_left_alone(
    tmp_path: Path,
) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    metadata, tensors = read_patch(path)
    layout = json.loads(metadata["layout"])
    layout["transformer.h.1.self_attention.dense.weight"]["runs"] = [[0, 8]]
    write_tensors(path, "patch", tensors, {**metadata, "layout": json.dumps(layout)})
    model = pico("bloom")
    stock = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(PatchError, match="laid out differently"):
        apply_patch(model, path)
    assert all(torch.equal(stock[name], t) for name, t in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["plan", "seed", "init", "fingerprints", "headsurgeon"])
def test_one_altered_character_of_the_metadata_is_noticed(name: str, tmp_path: Path) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    metadata, tensors = read_patch(path)
    save_file(tensors, path, {**metadata, name: metadata[name] + " "})
    with pytest.raises(PatchError, match="hash"):
        read_patch(path)


REQUIRED = (
    "model",
    "fingerprint",
    "fingerprints",
    "plan",
    "seed",
    "init",
    "output_start",
    "layout",
)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_patch_without_one_of_its_entries_is_refused_by_name(name: str, tmp_path: Path) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    metadata, tensors = read_patch(path)
    write_tensors(path, "patch", tensors, {k: v for k, v in metadata.items() if k != name})
    with pytest.raises(PatchError, match=rf"patch\.safetensors.*{name}"):
        read_patch(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plan", "no plan"),
        ("plan", "{"),
        ("seed", "three"),
        ("seed", "-1"),
        ("fingerprints", "{"),
        ("fingerprints", "[]"),
        ("fingerprints", '{"a": 1}'),
        ("layout", "[1]"),
        ("layout", '{"a": {"axis": 0, "runs": [[0, 8]]}}'),
        ("init", "magic"),
        ("output_start", "magic"),
    ],
)
def test_entries_that_make_no_sense_are_refused(name: str, value: str, tmp_path: Path) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    metadata, tensors = read_patch(path)
    write_tensors(path, "patch", tensors, {**metadata, name: value})
    with pytest.raises(PatchError, match=rf"patch\.safetensors.*{name}"):
        read_patch(path)


def test_a_slice_of_another_shape_is_refused_and_not_stretched(tmp_path: Path) -> None:
    _, path = patient_with_patch("bloom", tmp_path)
    metadata, tensors = read_patch(path)
    name = "transformer.h.1.self_attention.dense.weight"
    write_tensors(path, "patch", {**tensors, name: tensors[name][:1].clone()}, metadata)
    model = pico("bloom")
    stock = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(PatchError, match="shape"):
        apply_patch(model, path)
    assert all(torch.equal(stock[key], t) for key, t in model.state_dict().items())


def test_whatever_goes_wrong_while_applying_leaves_the_model_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*ignored: object) -> None:
        raise RuntimeError("out of memory")

    _, path = patient_with_patch("bloom", tmp_path)
    model = pico("bloom")
    stock = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr(applying, "fill", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        apply_patch(model, path)
    assert all(torch.equal(stock[name], t) for name, t in model.state_dict().items())
    assert not any("slice_" in name for name, _ in model.named_parameters())


def test_patches_of_different_layers_can_be_applied_one_after_the_other(tmp_path: Path) -> None:
    base = pico("bloom")
    stock = fingerprint(base, layout_of(base))
    paths = []
    for layer in (0, 2):
        plan = Plan(
            model="pico", rule="heads", heads=(PlannedHead(id=HeadId(layer, 1)),), fingerprint=stock
        )
        patient = operate(base, plan)
        paths.append(patient.save(tmp_path / f"{layer}.safetensors"))
        patient.revert()
    for path in paths:
        assert apply_patch(base, path).state == "merged"


@contextmanager
def no_room() -> Iterator[None]:
    """The operating system lets no file grow, the test's own output included: use it briefly."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_previous_patch(tmp_path: Path) -> None:
    patient, path = patient_with_patch("bloom", tmp_path)
    before = path.read_bytes()
    with torch.no_grad():
        patient.slices()[0].add_(1.0)
    with no_room(), pytest.raises(WriteError, match="cannot write"):
        patient.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
