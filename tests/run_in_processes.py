"""What each of several processes runs in a test: one training run, perhaps stopped on the way."""

import json
import sys
import warnings
from pathlib import Path

import torch

from headsurgeon.errors import HeadsurgeonError, Interrupted
from headsurgeon.operation import open_full, operate
from headsurgeon.training import StepEvent, train
from tests.pico import pico
from tests.test_train_loop import PLAN, cut, short


def main(kind: str, folder: str, changes: str, stop_at: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    def stop(event: StepEvent) -> None:
        if event.step == int(stop_at):
            raise KeyboardInterrupt

    model = pico("bloom")
    learner = operate(model, PLAN) if kind == "patient" else open_full(model, PLAN)
    settings = short(**json.loads(changes))
    try:
        run = train(
            learner, cut("train"), cut("dev"), output=folder, settings=settings, on_step=stop
        )
    except Interrupted as error:
        said = f"stopped: {error}"
    except HeadsurgeonError as error:
        said = f"refused: {error}"
    else:
        held = torch.cat([value.detach().flatten() for value in learner.trainable().values()])
        said = f"finished at {run.kept_step}, {float(held.double().sum()):.10f}"
    rank = torch.distributed.get_rank()
    Path(folder).with_suffix(f".rank{rank}").write_text(said, encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
