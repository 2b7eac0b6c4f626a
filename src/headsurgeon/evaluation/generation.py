"""Completions of prompts: drawn one prompt at a time, each from a seed of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from headsurgeon.arch import layout_of
from headsurgeon.arguments import checked
from headsurgeon.data.first_token import first_tokens
from headsurgeon.errors import CorpusError, ModelError, SettingsError
from headsurgeon.evaluation.completion_measures import Detector, detector_of, measures_of
from headsurgeon.evaluation.completions import (
    Completion,
    Generation,
    ModelCompletions,
    Sampling,
    seed_of,
)
from headsurgeon.evaluation.prompt_file import Prompt, check_prompts
from headsurgeon.files import shorten
from headsurgeon.models.forward import evaluating, model_id, usual_defaults
from headsurgeon.models.weights import precision

OnTokens = Callable[[int], None]
"""Called with how many further tokens need not be waited for."""

# what every checkpoint's settings hold, and what says nothing of how tokens are chosen
_NO_CHOICE = (
    *("transformers_version", "_from_model_config", "use_cache"),
    *("output_attentions", "output_hidden_states"),
)


@checked
@usual_defaults()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling | None = None,
    *,
    name: str | None = None,
    patches: Sequence[str] = (),
    first_token: str = "tokenizer",
    on_tokens: OnTokens | None = None,
) -> Generation:
    """Lets a model continue prompts.

    Every prompt runs by itself, from its own seed (`seed_of`), through the model's own forward with
    its cache, so a completion depends on nothing but model, prompt and `sampling`. Equal seeds pair
    models: while their distributions are alike they draw the same token. Nothing comes from the
    checkpoint's generation settings; what they ask for is listed as `unused`. The process's random
    state is left as it was.

    Args:
        prompts: as `read_prompts` returns them.
        sampling: how tokens are drawn; by default as the paper does.
        name: what the model is called in the result; by default its id.
        patches: what to record of the patches that are in it.
        first_token: as `headsurgeon.windows`.
        on_tokens: told after each new token that there is one more; where a prompt ends early, the
            tokens that it does without are told together, so that the numbers sum to
            `max_new_tokens` for each prompt. What it raises ends the call.

    Raises:
        SettingsError: no prompts, ids given twice, or more tokens than the model can read.
        CorpusError: a prompt without tokens, or with tokens that the model does not have.
        ModelError: the model's logits are not finite numbers, as may be in 16 bit.
    """
    prompts, sampling = tuple(prompts), sampling or Sampling()
    check_prompts(prompts)
    prefix, prefix_name = first_tokens(tokenizer, first_token)
    encoded = [_ids(tokenizer, prompt, prefix) for prompt in prompts]
    _check(model, prompts, encoded, sampling)
    end = tokenizer.eos_token_id
    ends = [end] if isinstance(end, int) and sampling.stop_at_end else []
    detector, languages_by = detector_of([prompt.language for prompt in prompts])
    config = _config(sampling, ends)
    completions = []
    unused = _unused(model, config)
    with evaluating(model), _settings(model, config), torch.no_grad():
        for prompt, ids in zip(prompts, encoded, strict=True):
            told = _Told(on_tokens, sampling.max_new_tokens)
            completions.append(
                _complete(model, tokenizer, prompt, ids, config, sampling.seed, detector, told)
            )
            told(told.left)
    completed = ModelCompletions(
        name=name or model_id(model),
        model=model_id(model),
        patches=tuple(patches),
        dtype=precision(model),
        first_token=prefix_name,
        end_tokens=tuple(ends),
        unused=unused,
        completions=tuple(completions),
    )
    return Generation(
        prompts=prompts, sampling=sampling, languages_by=languages_by, models=(completed,)
    )


def _ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, prefix: Sequence[int]
) -> Int[Tensor, " token"]:
    ids = [*prefix, *tokenizer.encode(prompt.text, add_special_tokens=False)]
    if not ids:
        raise CorpusError(
            f"prompt {prompt.id} ({shorten(repr(prompt.text), 40)}) has no tokens; lengthen it, or "
            "add a first token"
        )
    return torch.tensor(ids, dtype=torch.long)


def _check(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    encoded: Sequence[Tensor],
    sampling: Sampling,
) -> None:
    limit = layout_of(model).max_length
    vocabulary = len(model.get_input_embeddings().get_parameter("weight"))
    for prompt, ids in zip(prompts, encoded, strict=True):
        if limit is not None and len(ids) + sampling.max_new_tokens > limit:
            raise SettingsError(
                f"prompt {prompt.id} has {len(ids)} tokens, which with {sampling.max_new_tokens} "
                f"new ones is more than the {limit} this model can read; ask for fewer new tokens"
            )
        if int(ids.max()) >= vocabulary:
            raise CorpusError(
                f"prompt {prompt.id}: token id {int(ids.max())} is outside the model's vocabulary "
                f"of {vocabulary}; the tokenizer does not belong to this model"
            )


def _config(sampling: Sampling, ends: Sequence[int]) -> GenerationConfig:
    """Every sampling option of transformers' `generate`, spelled out."""
    drawing = (
        {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }
        if sampling.do_sample
        else {}
    )
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.do_sample,
        num_beams=1,
        repetition_penalty=sampling.repetition_penalty,
        eos_token_id=list(ends) or None,
        # nothing is padded where a prompt runs alone; without one transformers warns
        pad_token_id=ends[0] if ends else 0,
        use_cache=True,
        **drawing,
    )


@contextmanager
def _settings(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """While open, these are the model's generation settings: they fill what a call leaves out."""
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before


def _unused(model: PreTrainedModel, config: GenerationConfig) -> dict[str, str]:
    own = model.generation_config.to_diff_dict() if model.generation_config is not None else {}
    ours = config.to_dict()
    names = [name for name in own if name not in _NO_CHOICE and not name.endswith("_token_id")]
    settings = {name: str(own[name]) for name in names if own[name] != ours.get(name)}
    ends = own.get("eos_token_id")
    theirs = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    if theirs - set(config.eos_token_id or ()):
        settings["eos_token_id"] = str(ends)
    return settings


def _complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    ids: Int[Tensor, " token"],
    config: GenerationConfig,
    run_seed: int,
    detector: Detector | None,
    told: "_Told",
) -> Completion:
    seed = seed_of(prompt, run_seed)
    row = ids[None].to(model.device)
    with _seeded(model, seed):
        generated = model.generate(  # type: ignore[operator]
            row,
            attention_mask=torch.ones_like(row),
            generation_config=config,
            logits_processor=LogitsProcessorList([_Checked(model_id(model), prompt.id, told)]),
        )
    new = generated[0, len(ids) :].tolist()
    ended = bool(new) and new[-1] in (config.eos_token_id or ())
    tokens = tuple(new[:-1] if ended else new)
    text = str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
    return Completion(
        prompt=prompt.id,
        seed=seed,
        tokens=tokens,
        text=text,
        ended=ended,
        measures=measures_of(prompt, text, tokens, ended, detector),
    )


class _Told:
    """Tells of the tokens of one prompt."""

    def __init__(self, on_tokens: OnTokens | None, expected: int) -> None:
        self.on_tokens, self.left = on_tokens, expected

    def __call__(self, tokens: int) -> None:
        self.left -= tokens
        if self.on_tokens is not None and tokens:
            self.on_tokens(tokens)


class _Checked(LogitsProcessor):
    """Refuses logits that are no numbers: the likeliest of them would be taken all the same.

    Of each token it lets through it tells.
    """

    def __init__(self, model: str, prompt: str, told: "_Told") -> None:
        self.model, self.prompt, self.told = model, prompt, told

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if bool(scores.isnan().any() | scores.isposinf().any()):
            raise ModelError(
                f"{self.model}: logits after prompt {self.prompt} are not finite numbers; in 16 "
                "bit they may overflow: generate in fp32, or look for damaged weights"
            )
        self.told(1)
        return scores


@contextmanager
def _seeded(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """While open, what is drawn starts from `seed`; afterwards the random state is as before.

    transformers draws from the state of the process, and takes no generator.
    """
    kind = model.device.type
    devices = [model.device] if kind in ("cuda", "mps") else []
    with torch.random.fork_rng(devices=devices, device_type=kind if devices else "cuda"):
        torch.manual_seed(seed)
        yield
