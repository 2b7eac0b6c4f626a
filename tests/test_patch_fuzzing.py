"""Patch files, mutated: whatever was done to one, it is a patch or a `PatchError`."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from headsurgeon.errors import PatchError, SettingsError
from headsurgeon.heads import HeadId
from headsurgeon.operation import apply_patch, operate, read_patch
from headsurgeon.operation.patient import operated
from headsurgeon.operation.tensor_file import write_tensors
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.starts import INITS, Start
from tests.pico import pico

PLAN = Plan(
    model="pico", rule="heads", heads=(PlannedHead(id=HeadId(1, 1)), PlannedHead(id=HeadId(1, 3)))
)
DENSE = "transformer.h.1.self_attention.dense.weight"
DEEP = "[" * 50_000 + "]" * 50_000


@pytest.fixture(scope="module")
def patch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    return operate(pico("bloom"), PLAN, 3).save(folder / "patch.safetensors")


def rewritten(patch: Path, folder: Path, **over: str) -> Path:
    metadata, tensors = read_patch(patch)
    # the hash is that of the altered content, so that nothing but the content is at fault
    write_tensors(folder / "other.safetensors", "patch", tensors, {**metadata, **over})
    return folder / "other.safetensors"


@pytest.mark.parametrize(
    "schema", ["text", "", "0", "-1", "1.0", "9" * 5000, "٣", " 1", "true", "²"], ids=range(10)
)
def test_a_schema_that_is_no_small_number_is_refused(
    schema: str, patch: Path, tmp_path: Path
) -> None:
    with pytest.raises(PatchError, match="schema"):
        read_patch(rewritten(patch, tmp_path, schema=schema))


@pytest.mark.parametrize("name", ["fingerprints", "layout", "plan"])
@pytest.mark.parametrize(
    "value", [DEEP, "9" * 5000, "NaN", '{"a": 1e999}', "\x00", '"x"', "{}"], ids=range(7)
)
def test_entries_that_are_deep_huge_or_of_another_kind_are_refused(
    name: str, value: str, patch: Path, tmp_path: Path
) -> None:
    with pytest.raises(PatchError, match=name):
        read_patch(rewritten(patch, tmp_path, **{name: value}))


@pytest.mark.parametrize("seed", ["9" * 5000, str(2**63), "٣", "1e3", "", "+1"], ids=range(6))
def test_a_seed_that_no_generator_takes_is_refused(seed: str, patch: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="seed: expected"):
        read_patch(rewritten(patch, tmp_path, seed=seed))


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.complex64, torch.float64, torch.float16, torch.uint16),
    ],
)
def test_slices_of_another_type_are_refused(
    dtype: torch.dtype, patch: Path, tmp_path: Path
) -> None:
    metadata, tensors = read_patch(patch)
    path = tmp_path / "other.safetensors"
    write_tensors(path, "patch", {**tensors, DENSE: tensors[DENSE].to(dtype)}, metadata)
    with pytest.raises(PatchError, match=r"dense\.weight: expected values in float32"):
        read_patch(path)


@pytest.mark.parametrize("shape", [(1, 16), (16,), (1,), (), (32, 1), (1, 32, 16), (0, 16)])
def test_a_slice_that_would_be_stretched_is_refused(
    shape: tuple[int, ...], patch: Path, tmp_path: Path
) -> None:
    metadata, tensors = read_patch(patch)
    path = tmp_path / "other.safetensors"
    write_tensors(path, "patch", {**tensors, DENSE: torch.zeros(shape)}, metadata)
    with pytest.raises(PatchError, match=r"dense\.weight is not of the shape"):
        apply_patch(pico("bloom"), path)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_slice_that_is_not_finite_is_refused_by_tensor_and_head(
    poison: float, patch: Path, tmp_path: Path
) -> None:
    metadata, tensors = read_patch(patch)
    bad = tensors[DENSE].clone()
    bad[5, 12] = poison
    write_tensors(tmp_path / "bad.safetensors", "patch", {**tensors, DENSE: bad}, metadata)
    with pytest.raises(PatchError, match=r"dense\.weight \(.*L1H3\) holds NaN or infinity"):
        read_patch(tmp_path / "bad.safetensors")


def test_slices_that_diverged_are_not_saved_and_the_head_is_named(
    patch: Path, tmp_path: Path
) -> None:
    patient = operate(pico("bloom"), PLAN)
    with torch.no_grad():
        patient.named_slices()[DENSE][3, 12] = float("nan")
    with pytest.raises(PatchError, match=r"dense\.weight \(L1H3\) holds NaN"):
        patient.save(tmp_path / "new.safetensors")
    assert not list(tmp_path.iterdir())


def test_values_that_the_models_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    narrow = pico("bloom").to(torch.float16)
    patient = operate(narrow, PLAN)
    with torch.no_grad():
        patient.named_slices()[DENSE][0, 0] = 1e6
    path = patient.save(tmp_path / "large.safetensors")
    patient.revert()
    with pytest.raises(PatchError, match=r"dense\.weight \(L1H1\) holds NaN or infinity"):
        apply_patch(narrow, path)
    assert not operated(narrow)


# --- any mutation --------------------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
nested = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
entries = (
    *("model", "fingerprint", "fingerprints", "plan", "seed", "init", "output_start"),
    *("layout", "schema", "headsurgeon", "kind", "others"),
)
encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def outcome(path: Path) -> None:
    """Reads, and applies what can be read: a patient, or an error of ours."""
    try:
        read_patch(path)
    except PatchError:
        return
    model = pico("bloom")
    try:
        patient = apply_patch(model, path)
    except PatchError:
        assert not operated(model)
        return
    assert all(bool(torch.isfinite(slice_).all()) for slice_ in patient.slices())


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(name=st.sampled_from(entries), value=encodable | nested.map(json.dumps))
def test_any_other_metadata_is_a_patch_or_an_error(
    name: str, value: str, patch: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outcome(rewritten(patch, tmp_path_factory.mktemp("mutated"), **{name: value}))


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(name=st.sampled_from(entries[:-1]), data=st.data())
def test_any_piece_of_metadata_cut_out_or_repeated_is_a_patch_or_an_error(
    name: str, data: st.DataObject, patch: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = read_patch(patch)[0][name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    middle = data.draw(st.sampled_from(["", "-", "9" * 30, "[", '"', ".5", "NaN", text[:9]]))
    mutated = text[:start] + middle + text[end:]
    outcome(rewritten(patch, tmp_path_factory.mktemp("mutated"), **{name: mutated}))


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(at=st.floats(0, 1, exclude_max=True), new=st.binary(min_size=1, max_size=9))
def test_any_other_bytes_in_the_header_are_a_patch_or_an_error(
    at: float, new: bytes, patch: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(patch.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    place = int(at * header)
    content[place : place + len(new)] = new
    path = tmp_path_factory.mktemp("bytes") / "patch.safetensors"
    path.write_bytes(content)
    outcome(path)


def test_a_file_without_slices_is_refused(patch: Path, tmp_path: Path) -> None:
    metadata, _ = read_patch(patch)
    write_tensors(tmp_path / "none.safetensors", "patch", {}, {**metadata, "layout": "{}"})
    with pytest.raises(PatchError, match="no slice"):
        read_patch(tmp_path / "none.safetensors")
    save_file({}, tmp_path / "bare.safetensors")
    with pytest.raises(PatchError, match="expected a headsurgeon patch"):
        read_patch(tmp_path / "bare.safetensors")


@pytest.mark.parametrize("seed", [2**63, -1, 10**5000, True], ids=range(4))
def test_a_seed_that_is_none_is_refused_and_leaves_nothing_behind(seed: int) -> None:
    model = pico("bloom")
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(SettingsError, match="seed: expected a whole number"):
        operate(model, PLAN, seed)
    assert not operated(model)
    assert flags == {name: p.requires_grad for name, p in model.named_parameters()}
    operate(model, PLAN, 2**63 - 1).revert()


def test_a_start_that_fails_leaves_the_stock_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*ignored: object) -> None:
        raise RuntimeError("out of memory")

    model = pico("bloom")
    stock = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setitem(INITS, "model", Start(fail))
    with pytest.raises(RuntimeError, match="out of memory"):
        operate(model, PLAN, init="model")
    assert not operated(model)
    assert all(torch.equal(stock[name], t) for name, t in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
