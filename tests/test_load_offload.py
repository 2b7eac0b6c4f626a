"""A model larger than its memory limit: read from the disk layer by layer, measured the same."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.arch import layout_of
from headsurgeon.diagnosis import mlp_dormancy
from headsurgeon.errors import ModelError
from headsurgeon.heads import STATISTICS, HeadId
from headsurgeon.planning import Plan, PlannedHead
from tests.char_tokenizer import char_tokenizer
from tests.pico import pico, tokens
from tests.pico_families import pico_family

# room for the embeddings and the one layer that is at work, not for the rest
LIMIT = {"cpu": 70_000}


@pytest.mark.parametrize(
    ("name", "attention"),
    [("bloom", "auto"), ("bloom", "stock"), ("llama", "auto"), ("gpt2", "stock")],
)
def test_a_model_that_does_not_fit_is_measured_as_one_that_does(
    tmp_path: Path, name: str, attention: str
) -> None:
    model = pico(name) if name == "bloom" else pico_family(name)
    model.save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    whole, _ = hs.load(str(tmp_path))
    limited, _ = hs.load(str(tmp_path), max_memory=LIMIT)
    away = [key for key, value in limited.named_parameters() if value.device.type == "meta"]
    assert any("attn" in key or "attention" in key for key in away)
    batch = tokens(3, 16)
    expected = hs.measure(whole, batch, attention=attention)  # type: ignore[arg-type]
    found = hs.measure(limited, batch, attention=attention)  # type: ignore[arg-type]
    for statistic in STATISTICS:
        assert np.array_equal(expected.values[statistic], found.values[statistic]), statistic
    still_away = [key for key, value in limited.named_parameters() if value.device.type == "meta"]
    assert still_away == away


def test_a_limit_that_leaves_no_room_for_the_embeddings_is_an_error(tmp_path: Path) -> None:
    pico_family("llama").save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no room for the embeddings"):
        hs.load(str(tmp_path), max_memory={"cpu": 1_000})


@pytest.fixture(params=["llama", "bloom"])
def twice(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The same checkpoint whole and under the limit."""
    model = pico("bloom") if request.param == "bloom" else pico_family(request.param)
    model.save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    whole, _ = hs.load(str(tmp_path))
    limited, _ = hs.load(str(tmp_path), max_memory=LIMIT)
    return whole, limited


def test_a_model_that_does_not_fit_is_evaluated_priced_and_planned_as_one_that_does(
    twice: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    batch = tokens(3, 16)
    whole, limited = twice
    assert hs.evaluate(whole, batch).nll == hs.evaluate(limited, batch).nll
    costs = [hs.ablate(model, ["L1H2"], batch).joint.value for model in twice]
    assert costs[0] == costs[1]
    dormant = [mlp_dormancy(model, layout_of(model)) for model in twice]
    assert np.array_equal(*dormant)
    diagnosis = hs.diagnose(hs.measure(whole, batch))
    plans = [hs.plan(diagnosis, rule="heads", heads=["L1H2"], model=model) for model in twice]
    assert plans[0].fingerprint == plans[1].fingerprint is not None


def test_a_model_that_does_not_fit_is_not_operated_on_and_stays_as_it_was(
    twice: tuple[PreTrainedModel, PreTrainedModel], tmp_path: Path
) -> None:
    whole, limited = twice
    plan = Plan(model="unnamed", rule="heads", heads=(PlannedHead(id=HeadId(0, 1)),))
    patch = hs.operate(whole, plan.replace(model=whole.name_or_path)).save(tmp_path / "patch")
    modules = [type(module) for module in limited.modules()]
    places = {name: value.device for name, value in limited.named_parameters()}
    with pytest.raises(ModelError, match=r"offloaded.*without max_memory"):
        hs.operate(limited, plan)
    with pytest.raises(ModelError, match=r"offloaded.*without max_memory"):
        hs.apply_patch(limited, patch)
    assert [type(module) for module in limited.modules()] == modules
    assert {name: value.device for name, value in limited.named_parameters()} == places
