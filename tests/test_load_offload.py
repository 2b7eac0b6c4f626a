"""A model larger than its memory limit: read from the disk layer by layer, measured the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

import headsurgeon as hs
from headsurgeon.errors import ModelError
from headsurgeon.heads import STATISTICS
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


def test_losses_of_a_model_that_does_not_fit_are_those_of_one_that_does(tmp_path: Path) -> None:
    pico_family("llama").save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    whole, _ = hs.load(str(tmp_path))
    limited, _ = hs.load(str(tmp_path), max_memory=LIMIT)
    batch = tokens(3, 16)
    with torch.no_grad():
        assert torch.equal(whole(input_ids=batch).logits, limited(input_ids=batch).logits)
