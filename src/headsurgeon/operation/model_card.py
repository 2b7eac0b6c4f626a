"""The README.md of a merged checkpoint: a card in the form of the Hugging Face Hub.

It says what was done to which model, on which text, what that brought, and how to do it again.
What is not known is named as missing rather than left out.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from headsurgeon.data.spec import without_folders
from headsurgeon.files import package_version
from headsurgeon.heads import HeadId
from headsurgeon.models.loaded_with import as_arguments, as_options
from headsurgeon.planning import Plan
from headsurgeon.printable import printable

CARD = "README.md"
BASE_CARD = "BASE_README.md"
PLAN = "plan.yaml"
# of the base's header these hold for a model that differs in a few heads, too
_KEPT = ("license", "license_name", "license_link", "language", "datasets", "pipeline_tag")
_TAGS = ("headsurgeon", "attention-sink")
_LOSSES = "| model | nats per token | 95 % interval | perplexity | text |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Told:
    """What a card says beyond the operation itself.

    Attributes:
        runs: contents of the `run.json` of the runs that trained the patches, each with the
            settings that are not the defaults as `options` of `operate`.
        evaluations: contents of files that `headsurgeon evaluate --output` wrote.
    """

    runs: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Operated:
    """What was done.

    Attributes:
        plan: the plan, of all operated heads.
        seed, init, output_start: how the heads started; None where several patches differ.
        patches: names of the patch files, in their order.
        fingerprint: of the base, as a plan records it.
        precision: what the weights are written in, in words.
        whole_model: whether every weight was trained, from where the heads were started.
        trained_before: whether the heads had been trained by themselves before that.
        dtype: the precision asked for, as an option names it; None where it is as stored.
        loaded_with: which tokenizer and trust were given to `headsurgeon.load` for the base.
    """

    plan: Plan
    seed: int
    init: str
    output_start: str
    patches: Sequence[str]
    fingerprint: str
    precision: str
    whole_model: bool = False
    trained_before: bool = False
    dtype: str | None = None
    loaded_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> str:
        """How the heads began, in words."""
        return f"`{self.init}` and `{self.output_start}`, seed {self.seed}"


def model_card(
    done: Operated,
    told: Told,
    base_card: str | None,
    license_file: str | None,
    as_patch: bool = False,
) -> str:
    """The card as Markdown, with a header that the Hub reads.

    Args:
        done: the operation.
        told: training and figures, as far as they are known.
        base_card: the card of the base; None where it has none.
        license_file: name of a licence that lies beside the weights.
        as_patch: whether it goes with the slices alone.
    """
    base = header_of(base_card or "")
    name = base_name(done.plan.model)
    header = {key: base[key] for key in _KEPT if key in base}
    if "license" not in header and license_file is not None:
        header |= {"license": "other", "license_name": "base", "license_link": license_file}
    header.setdefault("pipeline_tag", "text-generation")
    if on_the_hub(done.plan.model):
        header |= {
            "base_model": done.plan.model.partition("@")[0],
            "base_model_relation": "finetune",
        }
    tags = base.get("tags")
    own = [str(tag) for tag in tags] if isinstance(tags, list) else []
    header |= {"library_name": "transformers", "tags": list(dict.fromkeys([*own, *_TAGS]))}
    front = yaml.safe_dump(header, sort_keys=True, allow_unicode=True, default_flow_style=None)
    parts = [
        f"---\n{front}---",
        f"# {name}, {_title(done)}",
        _patch(done, name) if as_patch else _what(done, name, base_card is not None),
        f"## Heads\n\n{_heads(done)}",
        f"## Training\n\n{_training(told.runs)}",
        f"## Figures\n\n{_figures(told.evaluations, done.whole_model)}",
        f"## Limits\n\n{_limits(base_card or '', told, done.whole_model)}",
        f"## How to repeat\n\n{_repeat(done, told.runs)}",
    ]
    return "\n\n".join(parts) + "\n"


def header_of(card: str) -> dict[str, Any]:
    """The YAML at the beginning of a card; empty where there is none that can be read."""
    lines = card.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return {}
    end = next(index for index, line in enumerate(lines[1:], 1) if line.strip() == "---")
    try:
        content = yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def on_the_hub(model: str) -> bool:
    """Whether an id has the form OWNER/NAME, so that a link to it means something."""
    parts = model.partition("@")[0].split("/")
    return len(parts) == 2 and all(parts) and not model.startswith((".", "/", "~", "zoo:"))


def base_name(model: str) -> str:
    """The name of a model without the folders of the machine it was on."""
    return printable(
        model if on_the_hub(model) else model.rstrip("/").rpartition("/")[2] or "model"
    )


def _named(model: str) -> str:
    """A model as a command takes it, without the folders of the machine it was on."""
    return base_name(model) if "/" in model else model


def _elsewhere(loaded_with: Mapping[str, Any]) -> dict[str, Any]:
    tokenizer = loaded_with.get("tokenizer")
    return {**loaded_with, **({} if tokenizer is None else {"tokenizer": _named(tokenizer)})}


def _what(done: Operated, name: str, has_card: bool) -> str:
    card = f" ([its card]({BASE_CARD}))" if has_card else ""
    heads = f"{len(done.plan.operated)} attention heads"
    trusted = ", trust_remote_code=True" if done.loaded_with.get("trust_remote_code") else ""
    if done.whole_model:
        what = f"trained whole, every weight of it, {_begun(done)} ({done.precision})."
    else:
        what = (
            f"with the query, key, value and output slices of {heads} replaced: started by "
            f"{done.start}, and trained while everything else was frozen. Every other weight is "
            "the base's, bit for bit, unless another precision was asked for "
            f"({done.precision})."
        )
    return (
        f"`{name}`{card} {what} Written by headsurgeon {package_version()}; `headsurgeon.json` has "
        "the hashes.\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained(PATH{trusted})\n"
        f"tokenizer = AutoTokenizer.from_pretrained(PATH{trusted})\n```"
    )


def _title(done: Operated) -> str:
    count = len(done.plan.operated)
    if not done.whole_model:
        return f"{count} heads operated on"
    heads = "as they were" if _as_it_was(done) else "started anew"
    return f"trained whole, {count} heads {'trained before' if done.trained_before else heads}"


def _as_it_was(done: Operated) -> bool:
    """Whether training began with the heads as the base has them."""
    return (done.init, done.output_start) == ("none", "keep_output")


def _begun(done: Operated) -> str:
    if _as_it_was(done) and not done.trained_before:
        return "from the base as it was"
    trained = " and trained by themselves" if done.trained_before else ""
    count = len(done.plan.operated)
    return f"from where {count} attention heads were started by {done.start}{trained}"


def _patch(done: Operated, name: str) -> str:
    given = as_arguments(_elsewhere(done.loaded_with))
    return (
        "The query, key, value and output slices of "
        f"{len(done.plan.operated)} attention heads of `{name}`, trained while everything else was "
        f"frozen: started by {done.start}. Written by headsurgeon {package_version()}; it fits no "
        "other base.\n\n"
        "```python\nimport headsurgeon as hs\n\n"
        f"model, tokenizer = hs.load({done.plan.model!r}{given})\n"
        'patient = hs.apply_patch(model, "patch.safetensors")  # merged; patient.revert() undoes\n'
        "```"
    )


def _heads(done: Operated) -> str:
    plan = done.plan
    said = f"Chosen by rule `{plan.rule}`; the plan, with verdicts and costs, is [{PLAN}]({PLAN})."
    if plan.joint_cost is not None:
        said += (
            f" Before the operation ablating all of them cost {plan.joint_cost:+.4f} nats per token"
            f" ({plan.ablation_mode} ablation)."
        )
    rows = [f"- layer {layer}: heads {heads}" for layer, heads in _by_layer(plan.operated)]
    return "\n".join([said, "", *rows])


def _by_layer(heads: Iterable[HeadId]) -> Iterator[tuple[int, str]]:
    layers: dict[int, list[int]] = {}
    for head in heads:
        layers.setdefault(head.layer, []).append(head.head)
    for layer, numbers in sorted(layers.items()):
        yield layer, ", ".join(map(str, sorted(numbers)))


def _training(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return "Not known: no `run.json` lay beside the patch when this was written."
    return "\n".join(f"- {_run(run)}" for run in runs)


def _run(run: Mapping[str, Any]) -> str:
    result, train, settings = run["result"], run["identity"]["train"], run["identity"]["settings"]
    corpus, split = train["corpus"], train.get("split")
    text = "text not named" if corpus is None else f"text `{printable(str(corpus))}`"
    length = f" of {settings['length']} tokens" if "length" in settings else ""
    parts = [
        text if split is None else f"{text}, split {split}",
        f"{train['windows']} windows{length}",
    ]
    if "learning_rate" in settings:
        parts.append(f"learning rate {settings['learning_rate']}")
    if result is not None:
        known = {
            "tokens": "{} tokens read",
            "best_dev_loss": "loss on dev text {:.4f} nats at best",
        }
        parts += [said.format(result[name]) for name, said in known.items() if name in result]
    return "; ".join(parts)


def _figures(evaluations: Sequence[Mapping[str, Any]], whole_model: bool) -> str:
    if not evaluations:
        drift = "" if whole_model else "drift of the other heads, "
        return (
            "None were given when this was written. `headsurgeon evaluate` measures them: loss "
            f"with its interval, {drift}and whether the operated heads do more "
            "work than before. `headsurgeon merge --evaluation FILE` puts them here."
        )
    return "\n\n".join(map(_evaluation, evaluations))


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    rows, lines = [_LOSSES], []
    for name, evaluated in evaluation["evaluations"].items():
        nll, corpus = evaluated["nll"], printable(without_folders(evaluated["corpus"]))
        where = (
            f"{corpus}, split {evaluated['split']}, {evaluated['tokens']} "
            f"predicted tokens of {evaluated['documents']} documents, window {evaluated['length']}"
        )
        interval = _interval(nll)
        perplexity = (
            f"{evaluated['perplexity']:.3f}" if evaluated["perplexity"] is not None else "–"
        )
        rows.append(
            f"| {base_name(name)} | {nll['value']:.4f} | {interval} | {perplexity} | {where} |"
        )
    for pair, change in evaluation.get("differences", {}).items():
        names = " − ".join(base_name(part) for part in pair.split(" − "))
        lines.append(
            f"- {names}: {change['value']:+.4f} {_interval(change)} nats per token, paired"
        )
    recovery = evaluation.get("recovery")
    if recovery:
        lines.append(
            f"- recovered: {len(recovery['recovered'])} of {len(recovery['heads'])} heads (not "
            "sick, unlike an untrained head, and ablating the set costs more than it did before)"
        )
    return "\n".join(["\n".join(rows), "", *lines]).rstrip()


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate.get("low") is None or estimate.get("high") is None:
        return "no interval (one document)"
    return f"[{estimate['low']:.4f}, {estimate['high']:.4f}]"


def _limits(base_card: str, told: Told, whole_model: bool) -> str:
    control = "the whole model" if whole_model else "the same slices"
    lines = [
        "Heads that leave the sick class have not recovered by that alone: an untrained head is "
        "not sick either. What counts is the paired difference above, on text that was not trained "
        f"on, and against {control} trained without reinitialising the heads.",
        "Other text than that of the figures was not measured; training on one kind of text may "
        "cost on others.",
        "What the base's card says of its uses, limits and biases holds here, too.",
    ]
    if "planted" in base_card.lower():
        lines.append("The collapse of the base was **planted**; see its card.")
    if not told.evaluations:
        lines.append("No figures came with it, so nothing is claimed.")
    return "\n".join(f"- {line}" for line in lines)


def _repeat(done: Operated, runs: Sequence[Mapping[str, Any]]) -> str:
    model = _named(done.plan.model)
    lines = [f'pip install "headsurgeon=={package_version()}"']
    loading = "".join(f" {shlex.quote(word)}" for word in as_options(_elsewhere(done.loaded_with)))
    ending = f"{loading} --output merged{'' if done.dtype is None else f' --dtype {done.dtype}'}"
    options = runs[0]["options"] if len(runs) == len(done.patches) == 1 else None
    if options is not None:
        said = printable(" ".join(options))
        lines.append(
            f"headsurgeon operate {shlex.quote(model)}{loading} --plan {PLAN} --output run {said}"
        )
        lines.append(
            f"headsurgeon merge {shlex.quote(model)} --patch run/"
            f"{'weights' if done.whole_model else 'patch'}.safetensors{ending}"
        )
    else:
        patches = "".join(f" --patch {shlex.quote(patch)}" for patch in done.patches)
        lines.append(f"headsurgeon merge {shlex.quote(model)}{patches}{ending}")
    block = "\n".join(lines)
    return (
        f"```sh\n{block}\n```\n\nThe base has fingerprint `{done.fingerprint}` (all attention "
        "projections, as stored); another is refused."
    )
