"""Models that lie in a subfolder or at a revision: one text names them everywhere."""

from pathlib import Path

import pytest
import torch

import headsurgeon as hs
from headsurgeon.errors import HeadsurgeonWarning, ModelError, NetworkError, SettingsError
from headsurgeon.models.address import Address, located
from headsurgeon.models.origin import checkpoint_folder
from tests.char_tokenizer import char_tokenizer
from tests.clinic import READING, checkpoint, run, sick_bloom, write_text
from tests.pico import pico, tokens
from tests.pico_families import pico_family

REPOSITORY = "someone/surgery"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the Hub's client keeps it: two revisions, each with two subfolders."""
    place = tmp_path / "hub" / "models--someone--surgery"
    (place / "refs").mkdir(parents=True)
    for number, revision in enumerate(("main", "older")):
        commit = str(number) * 40
        (place / "refs" / revision).write_text(commit, encoding="utf-8")
        for position, subfolder in enumerate(("pass1_e3", "deep/pass2_e1")):
            model = pico("bloom", seed=10 * number + position)
            model.save_pretrained(place / "snapshots" / commit / subfolder)
        char_tokenizer().save_pretrained(place / "snapshots" / commit / "pass1_e3")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return place


def embeddings(seed: int) -> torch.Tensor:
    return pico("bloom", seed=seed).get_input_embeddings().weight


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("gpt2", Address("gpt2")),
        ("a/b", Address("a/b")),
        ("a/b@main", Address("a/b", "main")),
        ("gpt2@v1/sub", Address("gpt2", "v1", "sub")),
        ("a/b@main/x/y", Address("a/b", "main", "x/y")),
        ("a/b@refs/pr/7", Address("a/b", "refs/pr/7")),
        ("a/b@refs/pr/7/sub", Address("a/b", "refs/pr/7", "sub")),
        ("a/b@feature%2Fone/sub", Address("a/b", "feature/one", "sub")),
    ],
)
def test_an_address_is_read_as_the_hub_writes_it_and_written_as_it_was_read(
    text: str, address: Address
) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("spec", ["a/b@main/", "a/b@main/../c", "a/b@main//c", "a/b@main/*"])
def test_a_subfolder_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(ModelError, match="expected the name of a subfolder"):
        Address.parse(spec)


def test_keywords_and_address_name_the_same_place() -> None:
    assert located("a/b", "v1", "sub") == "a/b@v1/sub" == located("a/b@v1", subfolder="sub")
    assert located("a/b", subfolder="sub") == "a/b@main/sub"
    assert located("a/b@v1/sub", "v1", "sub") == "a/b@v1/sub"
    with pytest.raises(SettingsError, match="names a revision, and so does revision='v2'"):
        located("a/b@v1", "v2")


def test_what_has_no_revisions_takes_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a folder has no revisions"):
        hs.load(tmp_path, revision="main")
    with pytest.raises(SettingsError, match="for Hub ids and folders"):
        hs.load("zoo:bloom-mini", subfolder="one")


@pytest.mark.parametrize("spelled", ["address", "keywords"])
@pytest.mark.parametrize(("revision", "seed"), [("main", 0), ("older", 10), ("1" * 40, 10)])
def test_a_subfolder_of_a_revision_is_loaded_and_named_in_what_is_measured(
    cache: Path, revision: str, seed: int, spelled: str
) -> None:
    name = f"{REPOSITORY}@{revision}/pass1_e3"
    keywords = {"revision": revision, "subfolder": "pass1_e3"}
    model, tokenizer = hs.load(name) if spelled == "address" else hs.load(REPOSITORY, **keywords)
    assert torch.equal(model.get_input_embeddings().weight, embeddings(seed))
    assert tokenizer.get_vocab() == char_tokenizer().get_vocab()
    stats = hs.measure(model, tokens(2, 16))
    assert stats.provenance.model == name
    plan = hs.plan(hs.diagnose(stats), model=model, rule="heads", heads=["L1H0"])
    assert plan.model == name
    # what its tensors are stored as is still known, so its fingerprint is the checkpoint's
    commit = revision if revision.isdecimal() else (cache / "refs" / revision).read_text()
    assert checkpoint_folder(model) == cache / "snapshots" / commit / "pass1_e3"


def test_a_wrong_subfolder_says_which_there_are(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"no checkpoint in pass9.*cache.*deep/pass2_e1, pass1_e3"):
        hs.load(f"{REPOSITORY}@main/pass9")
    monkeypatch.setattr(
        "headsurgeon.models.subfolders.HfApi.list_repo_files",
        lambda self, name, revision: ["config.json", "h5/config.json", "h5/model.safetensors"],
    )
    with pytest.raises(ModelError, match=r"no checkpoint in pass9; there are: h5$"):
        hs.load(f"{REPOSITORY}@main/pass9")


def test_a_revision_that_is_not_in_the_cache_needs_the_network(cache: Path) -> None:
    with pytest.raises(NetworkError, match=r"someone/surgery@never/pass1_e3.*cannot be reached"):
        hs.load(f"{REPOSITORY}@never/pass1_e3")


def test_without_a_tokenizer_the_error_says_how_to_name_another(cache: Path) -> None:
    spec = f"{REPOSITORY}@main/deep/pass2_e1"
    with pytest.raises(ModelError, match=r"no tokenizer.*tokenizer=.*--tokenizer"):
        hs.load(spec)
    _, tokenizer = hs.load(spec, tokenizer=f"{REPOSITORY}@main/pass1_e3")
    assert tokenizer.get_vocab() == char_tokenizer().get_vocab()


def test_a_class_that_is_content_without_a_vocabulary_is_no_tokenizer(tmp_path: Path) -> None:
    pico_family("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no tokenizer"):
        hs.load(tmp_path)


def test_a_tokenizer_kept_once_for_a_repository_is_used_and_said(cache: Path) -> None:
    char_tokenizer().save_pretrained(cache / "snapshots" / ("0" * 40))
    with pytest.warns(HeadsurgeonWarning, match="no tokenizer of its own"):
        _, tokenizer = hs.load(f"{REPOSITORY}@main/deep/pass2_e1")
    assert tokenizer.get_vocab() == char_tokenizer().get_vocab()


def test_the_trainers_checkpoints_take_the_tokenizer_beside_them_and_other_folders_do_not(
    tmp_path: Path,
) -> None:
    char_tokenizer().save_pretrained(tmp_path)
    for name in ("checkpoint-10", "other"):
        pico("bloom").save_pretrained(tmp_path / name)
    with pytest.warns(HeadsurgeonWarning, match="no tokenizer of its own"):
        model, _ = hs.load(tmp_path, subfolder="checkpoint-10")
    assert model.name_or_path == str(tmp_path / "checkpoint-10")
    with pytest.raises(ModelError, match="no tokenizer"):
        hs.load(tmp_path, subfolder="other")
    with pytest.raises(ModelError, match=r"no config\.json in it, but in checkpoint-10, other"):
        hs.load(tmp_path)
    with pytest.raises(ModelError, match=r"no such folder; in .* there are checkpoint-10, other"):
        hs.load(tmp_path, subfolder="checkpoint-20")


def test_commands_and_their_results_name_models_by_the_same_text(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "docs")
    place = cache / "snapshots" / ("1" * 40) / "sick"
    checkpoint(place, sick_bloom())
    name = f"{REPOSITORY}@older/sick"
    said = run("diagnose", name, *READING, "--output", "found")
    assert said.exit_code == 0, said.stderr
    assert name in said.stdout
    said = run("plan", "found", "--rule", "sick", "--no-costs", "-o", "plan.yaml")
    assert said.exit_code == 0, said.stderr
    assert hs.Plan.load("plan.yaml").model == name
    patch = hs.operate(hs.load(name)[0], hs.Plan.load("plan.yaml")).save("patch.safetensors")
    said = run("merge", name, "--patch", str(patch), "--output", "merged")
    assert said.exit_code == 0, said.stderr
    assert "each tensor in the precision it was stored in" in said.stdout
    (place / "tokenizer.json").unlink()
    (place / "tokenizer_config.json").unlink()
    said = run("diagnose", name, *READING, "--tokenizer", "merged", "--output", "again")
    assert said.exit_code == 0, said.stderr
    assert Path("again/heads.csv").read_bytes() == Path("found/heads.csv").read_bytes()
