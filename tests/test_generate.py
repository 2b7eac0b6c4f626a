"""Completions: the model's own forward, a seed per prompt, nothing of the checkpoint's settings."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

import headsurgeon as hs
from headsurgeon.attention import fast_attention
from headsurgeon.errors import CorpusError, InputError, ModelError, SettingsError
from headsurgeon.evaluation import MEASURES, seed_of
from headsurgeon.operation.merged_checkpoint import write_checkpoint
from headsurgeon.planning import Plan, PlannedHead
from tests.char_tokenizer import char_tokenizer
from tests.clinic import checkpoint, sick_bloom, tokenizer
from tests.pico import PICO, pico
from tests.pico_families import pico_family

PROMPTS = tuple(
    hs.Prompt(id=f"p{index}", kind=kind, text=text)
    for index, (kind, text) in enumerate(
        [("prose", "The sea was"), ("code", "def f(x):"), ("prose", "a"), ("prose", "Once upon")]
    )
)
SHORT = hs.Sampling(max_new_tokens=12)
GREEDY = hs.Sampling(max_new_tokens=24, do_sample=False, stop_at_end=False)


@pytest.fixture
def model() -> PreTrainedModel:
    return sick_bloom()


def tokens(found: hs.Generation) -> dict[str, tuple[int, ...]]:
    return {done.prompt: done.tokens for done in found.models[0].completions}


def greedy(model: PreTrainedModel, prompt: str) -> list[int]:
    """What transformers itself generates."""
    ids = tokenizer()(prompt, return_tensors="pt").input_ids
    config = GenerationConfig(
        max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
    )
    model.generation_config = GenerationConfig()
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return list(whole[0, ids.shape[1] :].tolist())


# --- what runs ------------------------------------------------------------------------------------


def test_greedy_completions_of_a_patched_model_are_those_of_the_merged_checkpoint(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "sick", model)
    loaded, own = hs.load(str(source))
    heads = (PlannedHead(id=hs.HeadId(1, 2)), PlannedHead(id=hs.HeadId(1, 3)))
    patient = hs.operate(loaded, Plan(model=str(source), rule="heads", heads=heads), seed=3)
    with torch.no_grad():
        for parameter in patient.slices():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.manual_seed(1)))
    patient.merge()
    patch = patient.save(tmp_path / "patch.safetensors")
    ours = tokens(hs.generate(loaded, own, PROMPTS, GREEDY))
    write_checkpoint(patient, own, tmp_path / "merged", [patch])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert ours == {prompt.id: tuple(greedy(merged, prompt.text)) for prompt in PROMPTS}
    assert ours != tokens(hs.generate(sick_bloom(), own, PROMPTS, GREEDY))


@pytest.mark.parametrize("family", ["mpt", "falcon-mq", "gpt2", "gemma2", "lfm2", "gpt_oss"])
def test_with_its_cache_a_model_says_what_it_says_without_one(family: str) -> None:
    model = pico(family) if family in PICO else pico_family(family)
    sampling = hs.Sampling(max_new_tokens=8, do_sample=False, stop_at_end=False)
    found = hs.generate(model, char_tokenizer(), PROMPTS[:2], sampling)
    for prompt, done in zip(PROMPTS, found.models[0].completions, strict=False):
        row = torch.tensor([char_tokenizer().encode(prompt.text)])
        start = row.shape[1]
        for _ in range(8):
            with torch.no_grad():
                following = model(input_ids=row, use_cache=False).logits[0, -1].argmax()
            row = torch.cat([row, following.reshape(1, 1)], dim=1)
        assert done.tokens == tuple(row[0, start:].tolist())


def test_what_is_drawn_is_what_transformers_draws_from_that_seed(model: PreTrainedModel) -> None:
    sampling = hs.Sampling(max_new_tokens=24, top_k=9, repetition_penalty=1.15, stop_at_end=False)
    [found] = hs.generate(model, tokenizer(), PROMPTS[:1], sampling).models
    ids = tokenizer()(PROMPTS[0].text, return_tensors="pt").input_ids
    model.generation_config = GenerationConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(found.completions[0].seed)
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=True,
            temperature=0.7,
            top_k=9,
            top_p=0.92,
            repetition_penalty=1.15,
            pad_token_id=0,
        )
    assert found.completions[0].tokens == tuple(whole[0, ids.shape[1] :].tolist())


def test_our_fast_attention_steps_aside_where_there_is_a_cache(model: PreTrainedModel) -> None:
    alone = tokens(hs.generate(model, tokenizer(), PROMPTS, GREEDY))
    with fast_attention(model):
        assert tokens(hs.generate(model, tokenizer(), PROMPTS, GREEDY)) == alone
    assert alone == {prompt.id: tuple(greedy(model, prompt.text)) for prompt in PROMPTS}


def test_a_completion_depends_on_no_other_prompt(model: PreTrainedModel) -> None:
    known = tokens(hs.generate(model, tokenizer(), PROMPTS, SHORT))
    assert tokens(hs.generate(model, tokenizer(), PROMPTS[::-1], SHORT)) == known
    alone = tokens(hs.generate(model, tokenizer(), PROMPTS[2:3], SHORT))
    assert alone == {"p2": known["p2"]}
    assert tokens(hs.generate(model, tokenizer(), PROMPTS, SHORT.replace(seed=43))) != known


def test_a_seed_depends_on_id_text_and_run_alone_in_every_process() -> None:
    code = (
        "import headsurgeon as hs; from headsurgeon.evaluation import seed_of;"
        "print(seed_of(hs.Prompt(id='a', text='The sea'), 42))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {"894490443787744871"}
    prompt = hs.Prompt(id="a", text="The sea")
    others = [prompt.model_copy(update={"id": "b"}), prompt.model_copy(update={"text": "The se"})]
    assert len({seed_of(each, 42) for each in (prompt, *others)} | {seed_of(prompt, 43)}) == 4


def test_nothing_of_the_checkpoints_settings_comes_in_and_all_of_it_is_named(
    model: PreTrainedModel,
) -> None:
    known = hs.generate(model, tokenizer(), PROMPTS, SHORT)
    assert known.models[0].unused == {"eos_token_id": "2"}
    theirs = GenerationConfig(
        do_sample=True,
        temperature=0.1,
        top_k=1,
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
        min_new_tokens=5,
        suppress_tokens=list(range(3, 60)),
        eos_token_id=[7, 8],
    )
    model.generation_config = theirs
    found = hs.generate(model, tokenizer(), PROMPTS, SHORT)
    assert tokens(found) == tokens(known)
    named = {"temperature", "top_k", "repetition_penalty", "no_repeat_ngram_size"}
    assert named | {"min_new_tokens", "suppress_tokens", "eos_token_id"} <= set(
        found.models[0].unused
    )
    assert model.generation_config is theirs


def test_the_random_state_and_the_mode_of_the_model_are_left_alone(model: PreTrainedModel) -> None:
    model.train()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    hs.generate(model, tokenizer(), PROMPTS[:1], SHORT)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training


def test_a_completion_that_comes_to_an_end_is_told_apart_and_the_end_is_left_out(
    model: PreTrainedModel,
) -> None:
    with torch.no_grad():
        # the end-of-sequence token follows everything
        model.get_input_embeddings().weight[0] = 0.0
        model.transformer.ln_f.weight.zero_()
        model.get_input_embeddings().weight[0] = model.transformer.ln_f.bias * 50
    [first, *_] = hs.generate(model, tokenizer(), PROMPTS, SHORT).models[0].completions
    assert (first.tokens, first.text, first.ended) == ((), "", True)
    assert first.measures["length"] == 0.0
    assert np.isnan(first.measures["repetition"])
    going_on = SHORT.replace(stop_at_end=False)
    [first, *_] = hs.generate(model, tokenizer(), PROMPTS, going_on).models[0].completions
    assert (len(first.tokens), first.ended) == (12, False)


@pytest.mark.parametrize("sampling", [SHORT, GREEDY])
def test_logits_that_are_no_numbers_are_refused(
    model: PreTrainedModel, sampling: hs.Sampling
) -> None:
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = torch.nan
    with pytest.raises(ModelError, match="after prompt p0 are not finite"):
        hs.generate(model, tokenizer(), PROMPTS, sampling)


def test_what_the_model_cannot_read_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"p0 has 12 tokens, which with 100 new .* 20"):
        hs.generate(pico("mpt", max_seq_len=20), tokenizer(), PROMPTS)
    blind = tokenizer()
    blind.encode = lambda text, **_: []  # type: ignore[method-assign]
    with pytest.raises(CorpusError, match=r"p0 .* has no tokens"):
        hs.generate(sick_bloom(), blind, PROMPTS, SHORT, first_token="none")
    with pytest.raises(SettingsError, match="an id of its own"):
        hs.generate(sick_bloom(), tokenizer(), [PROMPTS[0], PROMPTS[0]], SHORT)


def test_every_parameter_of_sampling_is_within_its_range() -> None:
    with pytest.raises(SettingsError, match="temperature") as raised:
        hs.Sampling(temperature=0.0, top_p=1.5, max_new_tokens=0)
    assert "top_p" in str(raised.value)
    assert "max_new_tokens" in str(raised.value)


# --- models beside each other ---------------------------------------------------------------------


def test_models_are_compared_prompt_by_prompt_and_the_file_comes_back(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    first = hs.generate(model, tokenizer(), PROMPTS, SHORT, name="sick")
    same = hs.generate(sick_bloom(), tokenizer(), PROMPTS, SHORT, name="again")
    other = hs.generate(sick_bloom(seed=1), tokenizer(), PROMPTS, SHORT, name="other")
    both = hs.side_by_side([first, same, other])
    both.save(tmp_path / "generation.json")
    again = hs.Generation.load(tmp_path / "generation.json")
    assert again.model_dump_json() == both.model_dump_json()
    for measure in MEASURES:
        alike = again.difference("again", "sick", measure)
        assert alike.value == 0.0 or np.isnan(alike.value)
    found = again.difference("other", "sick", "distinct_1", kind="prose")
    values = [again.values(name, "distinct_1")[[0, 2, 3]] for name in ("other", "sick")]
    assert found.value == pytest.approx(float(np.mean(values[0] - values[1])))
    assert found.low <= found.value <= found.high
    # program text is left out of both
    assert np.isnan(again.values("sick", "markup")[1])


def test_only_the_same_prompts_completed_in_the_same_way_are_compared(
    model: PreTrainedModel,
) -> None:
    known = hs.generate(model, tokenizer(), PROMPTS[:2], SHORT, name="a")
    with pytest.raises(InputError, match="the prompts of b and a differ"):
        hs.side_by_side([known, hs.generate(model, tokenizer(), PROMPTS[:1], SHORT, name="b")])
    other = hs.generate(model, tokenizer(), PROMPTS[:2], SHORT.replace(top_k=0), name="b")
    with pytest.raises(InputError, match="the sampling of b and a differ"):
        hs.side_by_side([known, other])
    with pytest.raises(InputError, match="a different name for each"):
        hs.side_by_side([known, known])
    with pytest.raises(InputError, match="at least one generation"):
        hs.side_by_side([])
