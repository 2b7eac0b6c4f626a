"""Claims about the position-or-token test, on heads whose behaviour is known."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headsurgeon.diagnosis import FirstTokenTest, common_tokens, first_token_test
from headsurgeon.errors import SettingsError
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from tests.head_stats import stats_of
from tests.pico import pico

START = 7


def made_up(tokens: Tensor) -> HeadStats:
    """Head 0 looks at position 0, head 1 at START there, head 2 at any token below 20, 3 never."""
    first = tokens[:, 0].numpy()
    mass = np.stack(
        [
            np.full(len(first), 0.9),
            np.where(first == START, 0.8, 0.1),
            np.where(first < 20, 0.7, 0.2),
            np.full(len(first), 0.1),
        ],
        axis=1,
    )
    return stats_of(mass[:, None, :])


def windows() -> Tensor:
    tokens = torch.arange(20, 50).reshape(3, 10).clone()
    tokens[:, 0] = START
    return tokens


def test_each_sick_head_follows_what_it_was_made_to_follow() -> None:
    found = first_token_test(made_up, windows(), [15, 30])
    assert list(found.heads) == [HeadId(0, 0), HeadId(0, 1), HeadId(0, 2)]
    tested = list(found.heads.values())
    assert [each.follows for each in tested] == ["position", "token", "mixed"]
    np.testing.assert_allclose([each.original for each in tested], [0.9, 0.8, 0.7])
    np.testing.assert_allclose(
        [each.replaced for each in tested], [[0.9] * 2, [0.1] * 2, [0.7, 0.2]]
    )
    np.testing.assert_allclose([each.dropped for each in tested], [0.9, 0.1, 0.2])


def test_the_windows_are_left_as_they_were() -> None:
    tokens = windows()
    before = tokens.clone()
    first_token_test(made_up, tokens, [15])
    assert torch.equal(tokens, before)


def test_dropping_the_first_token_puts_the_next_one_at_position_0() -> None:
    seen: list[Tensor] = []

    def watching(tokens: Tensor) -> HeadStats:
        seen.append(tokens.clone())
        return made_up(tokens)

    tokens = windows()
    first_token_test(watching, tokens, [15])
    original, replaced, dropped = seen
    assert torch.equal(original, tokens)
    assert replaced[:, 0].tolist() == [15, 15, 15]
    assert torch.equal(replaced[:, 1:], tokens[:, 1:])
    assert torch.equal(dropped, tokens[:, 1:])


def test_the_file_has_an_entry_for_each_head_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "first_token_test.json"
    tested = first_token_test(made_up, windows(), [15])
    tested.save(path)
    assert FirstTokenTest.load(path) == tested
    content = json.loads(path.read_text())
    assert content["alternatives"] == [15]
    assert content["heads"]["L0H1"] == {
        "follows": "token",
        "original": pytest.approx(0.8),
        "replaced": [pytest.approx(0.1)],
        "dropped": pytest.approx(0.1),
        "null_mass": 0.1,
    }


def test_a_file_that_does_not_name_the_alternatives_is_read(tmp_path: Path) -> None:
    path = tmp_path / "first_token_test.json"
    first_token_test(made_up, windows(), [15]).save(path)
    content = json.loads(path.read_text())
    del content["alternatives"]
    path.write_text(json.dumps(content))
    assert FirstTokenTest.load(path).alternatives == ()


def test_a_healthy_model_has_nothing_to_test() -> None:
    model = pico("bloom")
    tokens = torch.randint(0, 97, (2, 8), generator=torch.Generator().manual_seed(0))
    found = first_token_test(partial(measure, model), tokens, [1, 2])
    assert (found.heads, found.alternatives) == ({}, (1, 2))


def test_windows_must_be_long_enough_and_need_an_alternative() -> None:
    with pytest.raises(SettingsError, match="windows of 2 tokens cannot lose their first one"):
        first_token_test(made_up, windows()[:, :2], [15])
    with pytest.raises(SettingsError, match="at least one token id"):
        first_token_test(made_up, windows(), [])


def test_alternatives_are_frequent_tokens_that_never_come_first() -> None:
    tokens = torch.tensor([[7, 5, 5, 7, 3], [8, 5, 3, 8, 8]])
    assert common_tokens(tokens) == (5, 3)
    assert common_tokens(tokens, count=9) == (5, 3)
    assert common_tokens(tokens, count=1) == (5,)
