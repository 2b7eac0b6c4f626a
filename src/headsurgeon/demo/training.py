"""How every arm is trained; arms differ in nothing but their start and their learning rate."""

from headsurgeon.demo.settings import DemoSettings
from headsurgeon.training import TrainSettings, train_settings


def training(settings: DemoSettings, learning_rate: float) -> TrainSettings:
    """Training settings of an arm with that learning rate.

    Evaluations look at loss and heads on a quarter of the dev windows: three arms are evaluated
    several times each, and their final figures come from other text anyway.

    Raises:
        SettingsError: settings out of range; lists all of them.
    """
    steps = max(1, settings.max_tokens // (settings.batch_windows * settings.length))
    every = max(1, steps // settings.evaluations)
    return train_settings(
        learning_rate=learning_rate,
        batch_size=settings.batch_windows,
        length=settings.length,
        max_tokens=settings.max_tokens,
        evaluate_every=every,
        checkpoint_every=every,
        dev_windows=max(1, settings.dev_windows // 4),
        statistics_windows=max(1, settings.dev_windows // 16),
        seed=settings.seed,
    )
