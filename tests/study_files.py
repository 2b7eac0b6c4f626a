"""A finished study of one untrained arm on a pico pair, for tests of its files."""

from pathlib import Path

from headsurgeon.study import Study, conclude, run_study
from tests.planted import save_pair, save_texts

TEXT = """\
kind: study
name: pico
model: {collapsed}
texts:
- {{name: code, corpus: "{code}"}}
- {{name: prose, corpus: "{prose}"}}
train_on: [code]
windows: {{length: 32, diagnose: 4, price: 2, test: 4, statistics: 2}}
train: {{max_tokens: 128, batch_size: 2, dev_windows: 2}}
null_seeds: 2
arms: [untrained]
contrasts:
- {{name: harms, question: harms, arm: untrained, on: other, margin: 10}}
"""


def finished_study(folder: Path) -> Path:
    """Runs it below `folder`; returns its folder."""
    _, collapsed = save_pair(folder)
    code, prose = save_texts(folder / "code"), save_texts(folder / "prose", seed=1)
    study = Study.from_yaml(TEXT.format(collapsed=collapsed, code=code, prose=prose))
    run_study(study, folder / "study")
    conclude(folder / "study")
    return folder / "study"
