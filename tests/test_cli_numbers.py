"""Numbers on the command line are judged before a model is looked for, and the option is named."""

import pytest

from headsurgeon.cli.option_texts import first_last, memory_limits
from headsurgeon.errors import SettingsError
from headsurgeon.models.forward import batches
from tests.clinic import run
from tests.pico import tokens

HUGE = "9" * 5000


@pytest.mark.parametrize("command", ["diagnose", "evaluate"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--batch-size", "0"),
        ("--batch-size", str(10**20)),
        ("--count", str(10**30)),
        ("--count", "-3"),
        ("--length", "1"),
        ("--length", HUGE),
        ("--seed", "-1"),
        ("--seed", str(2**64)),
        ("--seed", HUGE),
    ],
)
def test_a_number_out_of_range_names_its_option(command: str, option: str, value: str) -> None:
    said = run(command, "nowhere", "--corpus", "text:none", "--output", "out", option, value)
    assert said.exit_code == 2
    assert option in said.stderr
    assert "nowhere" not in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("option", ["--sink", "--dead", "--low-entropy"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_thresholds_are_finite_and_in_order(option: str, value: str) -> None:
    said = run("diagnose", "nowhere", "--corpus", "text:none", "--output", "out", option, value)
    assert said.exit_code == 2
    assert "thresholds" in said.stderr


@pytest.mark.parametrize("text", [HUGE, "٣-٥", "²", "1-2-3", "", "-1", "1e3"])
def test_a_range_has_ascii_digits_and_not_thousands_of_them(text: str) -> None:
    with pytest.raises(SettingsError, match="expected a range"):
        first_last(text, "--band")


@pytest.mark.parametrize("text", [f"{HUGE}GB", "٣GB", f"{HUGE}=2GB", "²=2GB", "2", ""])
def test_a_size_has_ascii_digits_and_not_thousands_of_them(text: str) -> None:
    with pytest.raises(SettingsError, match="expected a size"):
        memory_limits(text)


@pytest.mark.parametrize("size", [0, -1, 10**20])
def test_a_batch_size_is_checked_in_python_too(size: int) -> None:
    with pytest.raises(SettingsError, match="batch_size"):
        next(batches(tokens(2, 8), size))
