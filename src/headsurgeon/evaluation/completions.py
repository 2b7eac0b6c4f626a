"""Completions of the same prompts by several models, and how they compare; needs no torch."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from headsurgeon.arguments import checked
from headsurgeon.errors import InputError, SettingsError
from headsurgeon.evaluation.completion_measures import MEASURES
from headsurgeon.evaluation.prompt_file import Prompt
from headsurgeon.records import Finite, Record, Seed
from headsurgeon.results import Number, Result
from headsurgeon.scores import Estimate


class Sampling(Record):
    """How a completion is drawn, all of it: nothing is taken from the checkpoint.

    The defaults are those of the paper, whose script left out `top_k`: the library's 50 applied.

    Attributes:
        max_new_tokens: tokens of a completion at most.
        do_sample: draw each token; otherwise the likeliest is taken and what follows is unused.
        temperature: divides the logits.
        top_k: only so many of the likeliest tokens are drawn from; 0 for all.
        top_p: only the likeliest tokens that together have this probability.
        repetition_penalty: divides the logits of tokens that occurred, prompt included; 1 for none.
        stop_at_end: whether the tokenizer's end-of-sequence token ends a completion.
        seed: of the run; each prompt has its own seed, see `seed_of`.
    """

    error: ClassVar[type[InputError]] = SettingsError

    max_new_tokens: int = Field(default=100, ge=1, le=2**20)
    do_sample: bool = True
    temperature: Finite = Field(default=0.7, gt=0.0)
    top_k: int = Field(default=50, ge=0)
    top_p: Finite = Field(default=0.92, gt=0.0, le=1.0)
    repetition_penalty: Finite = Field(default=1.0, gt=0.0)
    stop_at_end: bool = True
    seed: Seed = 42


class Completion(Record):
    """What a model made of one prompt.

    Attributes:
        prompt: id of the prompt.
        seed: what the drawing started from.
        tokens: ids of the new tokens; an end-of-sequence token, if it came to one, is left out.
        text: the same as text.
        ended: whether it came to an end by itself.
        measures: a number for each of `MEASURES`; NaN where it means nothing.
    """

    prompt: str
    seed: Seed
    tokens: tuple[int, ...]
    text: str
    ended: bool
    measures: Mapping[str, Number]


class ModelCompletions(Record):
    """All completions of one model.

    Attributes:
        name: what it is called here; no two alike.
        model: id of the model.
        patches: the patches it was given, in order.
        dtype: precision of its weights.
        first_token: the token put before every prompt, or `none`.
        end_tokens: ids that end a completion.
        unused: what the checkpoint's own generation settings say beyond that, and was not used.
        completions: one per prompt, in the order of the prompts.
    """

    name: str
    model: str
    patches: tuple[str, ...] = ()
    dtype: str
    first_token: str
    end_tokens: tuple[int, ...]
    unused: Mapping[str, str]
    completions: tuple[Completion, ...]


class Generation(Result):
    """Completions of the same prompts by one model or several.

    Attributes:
        prompts: what was completed.
        sampling: how.
        attention: what ran: `stock`, since the model's own forward is what has a cache.
        languages_by: what told languages apart; empty where nothing did.
        models: in the order in which they are compared; the first is what others differ from.
    """

    kind: ClassVar[str] = "generation"

    prompts: tuple[Prompt, ...] = Field(min_length=1)
    sampling: Sampling
    attention: str = "stock"
    languages_by: str
    models: tuple[ModelCompletions, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _of_the_same_prompts(self) -> "Generation":
        ids = tuple(prompt.id for prompt in self.prompts)
        for each in self.models:
            if tuple(done.prompt for done in each.completions) != ids:
                raise ValueError(f"{each.name} completed other prompts, or in another order")
        names = [each.name for each in self.models]
        if len(set(names)) != len(names):
            raise ValueError("expected a different name for each model")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of prompts, in order of first appearance."""
        return tuple(dict.fromkeys(prompt.kind for prompt in self.prompts))

    def values(self, model: str, measure: str) -> np.ndarray:
        """One number per prompt, NaN where the measure means nothing there.

        Raises:
            InputError: no such model, or no such measure.
        """
        named = {each.name: each for each in self.models}
        if model not in named or measure not in MEASURES:
            raise InputError(
                f"expected a model of {', '.join(named)} and a measure of {', '.join(MEASURES)}, "
                f"got {model!r} and {measure!r}"
            )
        return np.array([done.measures[measure] for done in named[model].completions])

    def mean(self, model: str, measure: str, kind: str | None = None, seed: int = 0) -> Estimate:
        """The mean over prompts, of one kind or of all, with its interval over prompts."""
        return _mean(self.values(model, measure)[self._of(kind)], seed)

    def difference(
        self, first: str, second: str, measure: str, kind: str | None = None, seed: int = 0
    ) -> Estimate:
        """The mean of `first` minus that of `second`, paired over prompts, with its interval."""
        paired = self.values(first, measure) - self.values(second, measure)
        return _mean(paired[self._of(kind)], seed)

    def _of(self, kind: str | None) -> np.ndarray:
        return np.array([kind in (None, prompt.kind) for prompt in self.prompts])


@checked
def side_by_side(generations: Sequence[Generation]) -> Generation:
    """Several generations as one, so that their models can be compared.

    Raises:
        InputError: none, other prompts, other sampling, other languages, or a name given twice.
    """
    if not generations:
        raise InputError("expected at least one generation, got none")
    first = generations[0]
    for other in generations[1:]:
        for name in ("prompts", "sampling", "languages_by"):
            if getattr(first, name) != getattr(other, name):
                raise InputError(
                    f"the {name} of {other.models[0].name} and {first.models[0].name} differ; "
                    "complete the same prompts in the same way"
                )
    return first.replace(models=tuple(model for each in generations for model in each.models))


def seed_of(prompt: Prompt, run_seed: int) -> int:
    """The seed of one prompt: SHA-256 of its id, its text and the run's seed, 63 bits of it.

    It depends on nothing else, so that a completion is the same whichever other prompts there are,
    in whatever order, in whatever process.
    """
    content = "\0".join([str(run_seed), prompt.id, prompt.text])
    digest = sha256(content.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _mean(values: np.ndarray, seed: int) -> Estimate:
    known = values[~np.isnan(values)]
    if not len(known):
        return Estimate(np.nan, np.nan, np.nan)
    return Estimate.of_mean(known, np.ones(len(known)), seed)
