"""What is told while something is done: how much of it, and on a terminal how long it takes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.cli import progress
from headsurgeon.cli.progress import busy, in_words, one_by_one
from headsurgeon.cli.screen import Screen
from headsurgeon.data import as_windows, texts
from headsurgeon.data.rolling import rolling_windows
from headsurgeon.evaluation import ablate_layers, ablation_cost, empirical_null, measure_and_ablate
from headsurgeon.evaluation.rolling_loss import evaluate_rolling
from headsurgeon.heads import HeadId
from headsurgeon.planning import Plan, PlannedHead
from tests.char_tokenizer import char_tokenizer
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, tokenizer, write_text
from tests.pico import pico, tokens

READ = ("--corpus", CORPUS, "--length", "32", "--count", "8", "--split", "dev")
COUNT = 6
WINDOWS = as_windows(tokens(COUNT, 12))
HEADS = ["L0H1", "L1H2", "L2H3"]
# the function, and how often it reads the windows
READING: dict[str, tuple[Callable[..., Any], int]] = {
    "measure": (hs.measure, 1),
    "evaluate": (hs.evaluate, 1),
    "ablate": (lambda model, rows, **how: hs.ablate(model, HEADS, rows, **how), 1 + 1 + 3),
    "ablate, together, known": (
        lambda model, rows, **how: hs.ablate(
            model, HEADS, rows, singles=False, baseline=hs.evaluate(model, rows), **how
        ),
        1,
    ),
    "ablate, mean": (
        lambda model, rows, **how: hs.ablate(model, HEADS, rows, mode="mean", **how),
        1 + 1 + 1 + 3,
    ),
    "layers": (lambda model, rows, **how: ablate_layers(model, rows, **how), 1 + 3),
    "layers in groups": (
        lambda model, rows, **how: ablate_layers(model, rows, groups=[(0, 1), (1, 2)], **how),
        1 + 3 + 2,
    ),
    "costs": (
        lambda model, rows, **how: ablation_cost(model, rows, **how)([HeadId(1, 1)]),
        1 + 1,
    ),
    "estimated costs": (
        lambda model, rows, **how: ablation_cost(model, rows, **how).estimates([HeadId(1, 1)]),
        1 + 3,
    ),
    "costs, mean": (
        lambda model, rows, **how: ablation_cost(model, rows, mode="mean", **how)([HeadId(1, 1)]),
        1 + 1 + 1,
    ),
    "heads and their loss": (
        lambda model, rows, **how: measure_and_ablate(model, [HeadId(1, 1)], rows, **how),
        3,
    ),
}


def operated(model: PreTrainedModel, name: str = "pico") -> hs.Patient:
    heads = tuple(PlannedHead(id=HeadId.parse(head)) for head in HEADS)
    return hs.operate(model, Plan(model=name, rule="heads", heads=heads))


def traces(model: PreTrainedModel) -> list[object]:
    """All that a call may leave on a model."""
    return [
        (module.training, "forward" in vars(module), *map(len, hooks))
        for module in model.modules()
        for hooks in [(module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)]
    ]


# --- in the library -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READING)
def test_the_windows_told_sum_to_how_often_they_are_read(name: str) -> None:
    function, times = READING[name]
    told: list[int] = []
    function(pico("bloom"), WINDOWS, batch_size=4, on_windows=told.append)
    assert sum(told) == times * COUNT
    # batch by batch, not at the end
    assert len(told) == 2 * times - (2 * 2 if name == "estimated costs" else 0)


@pytest.mark.parametrize("name", READING)
def test_what_is_raised_while_told_ends_the_call_and_leaves_the_model_as_it_was(name: str) -> None:
    function, times = READING[name]
    model = pico("bloom").train()
    before, loss = traces(model), hs.evaluate(model, WINDOWS).nll
    # in the first batch, in the middle, at the last
    for last in (1, COUNT * times // 2, COUNT * times):
        read = 0

        def stop(count: int, last: int = last) -> None:
            nonlocal read
            read += count
            if read >= last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            function(model, WINDOWS, batch_size=4, on_windows=stop)
        assert traces(model) == before
    assert hs.evaluate(model, WINDOWS).nll == loss


def test_texts_of_unequal_length_count_once_each_time_they_are_read() -> None:
    given = texts([f"a {index * 'b'}" for index in range(5)], char_tokenizer())
    for function in (hs.measure, hs.evaluate):
        told: list[int] = []
        function(pico("bloom"), given, on_windows=told.append)
        assert sum(told) == len(given) == 5


def test_rolling_windows_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The sea was calm. " * 9, encoding="utf-8")
    rolled = rolling_windows(f"text:{tmp_path}/*.txt", tokenizer(), "all", 32, None, "tokenizer")
    told: list[int] = []
    evaluate_rolling(pico("bloom"), rolled, on_windows=told.append)
    assert sum(told) == len(rolled) > 1


def test_untrained_heads_are_told_seed_by_seed_and_put_back_when_it_is_stopped() -> None:
    model = pico("bloom")
    patient = operated(model)
    patient.revert()
    before, loss = traces(model), hs.evaluate(model, WINDOWS).nll
    told: list[int] = []
    empirical_null(patient, WINDOWS, (1, 2, 3), on_windows=told.append)
    assert sum(told) == 3 * COUNT

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        empirical_null(patient, WINDOWS, (1, 2, 3), on_windows=stop)
    assert traces(model) == before
    assert hs.evaluate(model, WINDOWS).nll == loss


def test_recovery_is_told_of_every_corpus() -> None:
    told: list[int] = []
    corpora = [WINDOWS, as_windows(tokens(4, 12, seed=1))]
    hs.recovery(operated(pico("bloom")), corpora, null_seeds=(1, 2), on_windows=told.append)
    assert sum(told) == (6 + 2) * (COUNT + 4)


def test_the_tokens_told_sum_to_those_asked_for_however_early_a_prompt_ends() -> None:
    prompts = [
        hs.Prompt(id=f"p{index}", kind="prose", text=text) for index, text in enumerate("abcd")
    ]
    for seed in range(2):
        told: list[int] = []
        sampling = hs.Sampling(max_new_tokens=20, seed=seed, temperature=3.0, top_k=0, top_p=1.0)
        found = hs.generate(pico("bloom"), tokenizer(), prompts, sampling, on_tokens=told.append)
        assert sum(told) == 20 * len(prompts)
        assert min(told) > 0
        drawn = sum(len(each.tokens) + each.ended for each in found.models[0].completions)
        assert told.count(1) >= drawn - len(prompts)


# --- on a terminal --------------------------------------------------------------------------------


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


class Paper(Screen):
    """A terminal, or a pipe, that keeps what it was sent."""

    def __init__(self, terminal: bool) -> None:
        super().__init__(stderr=True)
        self._force_terminal = self.is_interactive = terminal
        self._width = 100
        self.file = io.StringIO()

    @property
    def text(self) -> str:
        file = self.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()


def shown(work: progress._Work) -> str:
    """The line of some work, as it is now."""
    paper = Paper(terminal=False)
    paper.print(work.shown())
    return " ".join(paper.text.split())


def work(total: int | None, before: int = 0, paper: Paper | None = None) -> progress._Work:
    return progress._Work("measuring", total, before, paper or Paper(terminal=True))


def test_a_bar_with_the_time_left_comes_after_two_seconds(clock: Clock) -> None:
    measuring = work(80)
    clock.now += 1.0
    measuring.did(10)
    assert shown(measuring).endswith("measuring …")
    clock.now += 3.0
    measuring.did(10)
    assert "25 %" in shown(measuring)
    assert "about 0:18 left" in shown(measuring)
    # between two steps it counts down, and where a step takes long it says so
    clock.now += 5.0
    assert "about 0:13 left" in shown(measuring)
    clock.now += 15.0
    assert "longer than expected" in shown(measuring)
    measuring.did(60)
    assert "100 %" in shown(measuring)
    assert "about 0:00 left" in shown(measuring)


def test_what_the_first_step_bears_is_not_expected_of_the_others(clock: Clock) -> None:
    paper = Paper(terminal=False)
    drawing = work(1000, paper=paper)
    clock.now += 5.0
    drawing.did(1)
    assert shown(drawing).endswith("0 % 0:05")
    for _ in range(60):
        clock.now += 0.1
        drawing.did(10)
    assert "about 0:04 left" in shown(drawing)
    assert paper.text == ""


def test_steps_that_come_in_pairs_as_of_two_processes_are_not_taken_for_fast(clock: Clock) -> None:
    running = work(100)
    for seconds in (60.0, 1.0):
        clock.now += seconds
        running.did(1)
        assert "left" not in shown(running)
    clock.now += 60.0
    running.did(1)
    assert "about 49:18 left" in shown(running)


def test_a_few_long_steps_are_announced_after_the_first(clock: Clock) -> None:
    paper = Paper(terminal=False)
    measuring = work(6, paper=paper)
    clock.now += 40.0
    measuring.did(1)
    assert paper.text == "measuring: about 4 min\n"
    clock.now += 40.0
    measuring.did(1)
    assert paper.text == "measuring: about 4 min\n"


def test_a_line_that_is_wider_than_the_terminal_loses_its_bar_and_no_word(clock: Clock) -> None:
    narrow = Paper(terminal=False)
    narrow.width = 40
    long = progress._Work("zeroing the MLPs of a model, layer by layer", 4, 0, narrow)
    clock.now += 3.0
    long.did(2)
    narrow.print(long.shown())
    said = " ".join(narrow.text.split())
    assert said.endswith("zeroing the MLPs of a model, layer by layer … 50 % about 0:03 left")


def test_more_than_was_expected_is_no_more_than_all_of_it(clock: Clock) -> None:
    planning = work(10)
    clock.now += 3.0
    planning.did(13)
    assert "100 % about 0:00 left" in shown(planning)


def test_what_was_done_before_says_nothing_of_how_fast_it_is(clock: Clock) -> None:
    cells = work(20, before=10)
    clock.now += 30.0
    cells.did(5)
    assert "75 % about 0:30 left" in shown(cells)


def test_of_what_is_unknown_the_time_it_took_is_shown(clock: Clock) -> None:
    loading = work(None)
    assert shown(loading).endswith("measuring …")
    clock.now += 83.0
    assert shown(loading).endswith("… 1:23")
    # and before the first step of what is known
    first = work(5)
    clock.now += 9.0
    assert shown(first).endswith("0 % 0:09")


def test_more_than_a_minute_is_announced_once_and_no_less(clock: Clock) -> None:
    paper = Paper(terminal=False)
    measuring = work(100, paper=paper)
    for _ in range(6):
        clock.now += 1.5
        measuring.did(1)
    assert paper.text == "measuring: about 2 min\n"
    short = work(20, paper=(silent := Paper(terminal=False)))
    for _ in range(20):
        clock.now += 2.5
        short.did(1)
    assert silent.text == ""


def test_a_terminal_sees_it_and_a_pipe_nothing(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (True, False):
        paper = Paper(terminal)
        monkeypatch.setattr(progress, "err", lambda paper=paper: paper)
        with busy("measuring", 8) as on_windows:
            clock.now += 3.0
            on_windows(2)
        if terminal:
            assert "left" in paper.text
            assert "25 %" in paper.text
        else:
            assert paper.text == ""


# every command whose bar knows how much there is to do, with the options that change it
COMMANDS = {
    "diagnose": ("diagnose", "sick", *READ, "--first-token-test", "--output", "one"),
    "plan": ("plan", "one", "-o", "a.yaml"),
    "plan, exactly": ("plan", "one", "-o", "b.yaml", "--exact-costs", "--ablation-mode", "mean"),
    "evaluate": ("evaluate", "sick", *READ, "--plan", "a.yaml", "--patch", "patch.safetensors"),
    "evaluate, mean": ("evaluate", "sick", *READ, "--plan", "b.yaml"),
    "lm-eval": ("evaluate", "sick", *READ, "--split", "all", "--like", "lm-eval"),
    "layers, groups": ("layers", "sick", *READ, "--groups", "0-1,2-2"),
    "generate": (
        *("generate", "sick", "--prompts", "p.txt", "--output", "said"),
        *("--max-new-tokens", "5"),
    ),
}


def test_every_command_does_as_much_as_its_bars_expect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("sick"), sick_bloom())
    write_text(Path("docs"))
    Path("p.txt").write_text("The sea was\nA head\n", encoding="utf-8")
    operated(hs.load("sick")[0], "sick").save("patch.safetensors")
    made: list[progress._Work] = []

    class Noted(progress._Work):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(progress, "_Work", Noted)
    for name, words in COMMANDS.items():
        made.clear()
        said = run(*words)
        assert said.exit_code == 0, (name, said.stderr)
        known = [each for each in made if each._total is not None]
        assert known, name
        for each in known:
            assert each._done == each._total, (name, each._what)


def test_several_models_say_which_and_how_long_all_take(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    paper = Paper(terminal=False)
    monkeypatch.setattr(progress, "err", lambda: paper)
    said = []
    for _, which in one_by_one("abc", "model"):
        said.append(which)
        clock.now += 45.0
    assert said == [
        " (model 1 of 3)",
        " (model 2 of 3, about 1:30 left for all)",
        " (model 3 of 3, about 0:45 left for all)",
    ]
    assert paper.text == "3 models: about 2 min\n"
    assert [which for _, which in one_by_one("a", "model")] == [""]


def test_long_times_are_said_in_words() -> None:
    assert [in_words(seconds) for seconds in (5, 61, 200, 3600, 9000)] == [
        *("1 min", "1 min", "3 min", "1 h 0 min", "2 h 30 min"),
    ]
