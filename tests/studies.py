"""A study on the planted pico pair, small enough to run in a test."""

from pathlib import Path
from typing import Any

from headsurgeon.study import Study
from tests.planted import save_pair, save_texts

TEXT = """\
kind: study
name: pico
model: {collapsed}
twin: {healthy}
texts:
- {{name: code, corpus: "{code}"}}
- {{name: prose, corpus: "{prose}"}}
train_on: [code]
windows: {{length: 32, diagnose: 8, price: 2, test: 8, statistics: 4}}
train: {{max_tokens: 512, batch_size: 4, evaluate_every: 2, checkpoint_every: 1, dev_windows: 4,
         statistics_windows: 2}}
null_seeds: 2
arms:
- {{name: paper, train: {{learning_rate: 1.0e-2}}}}
- gradient_only
- ceiling
- untrained
- ablate_mean
- ablate_sick
- random_heads
- matched_healthy
- {{name: column, column: 0}}
contrasts:
- {{name: improves, question: improves, arm: paper}}
- {{name: mechanism, question: mechanism, arm: paper, against: gradient_only}}
- {{name: recovers, question: recovers, arm: paper}}
- {{name: pruning, question: pruning, arm: paper, against: ablate_mean}}
- {{name: harms, question: harms, arm: paper, on: other, margin: 10}}
"""


def pico_study(folder: Path) -> Study:
    """The study, its models and texts written to `folder`."""
    healthy, collapsed = save_pair(folder)
    code, prose = save_texts(folder / "code"), save_texts(folder / "prose", seed=1)
    return Study.from_yaml(
        TEXT.format(collapsed=collapsed, healthy=healthy, code=code, prose=prose)
    )


def with_arms(study: Study, *arms: str | dict[str, Any], **fields: Any) -> Study:
    """The same study with these arms, no contrasts, and other fields."""
    return Study.model_validate({**study.model_dump(), "contrasts": (), "arms": arms, **fields})


def numbers(folder: Path) -> dict[str, Any]:
    """All that the cells of a study came to, but for how long they took."""
    from headsurgeon.study import load_results

    return {
        str(cell.cell): cell.model_dump(exclude={"seconds"}) for cell in load_results(folder).cells
    }
