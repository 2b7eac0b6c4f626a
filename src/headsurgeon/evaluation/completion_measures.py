"""What can be counted in a completion: repetition, other languages, markup, length.

No figure here says whether a text is good. Each is a number per completion, so that models are
compared prompt by prompt; where it means nothing (the language of program text) it is NaN and the
prompt counts for neither model.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from headsurgeon.evaluation.prompt_file import CODE, Prompt

# a shorter piece of text is not told apart by language, nor one that the detector is less sure of
LETTERS, SURE = 20, 0.9
Detector = Callable[[str], tuple[str, float]]

_PIECES = re.compile(r"(?<=[.!?…])\s+|\n+")
_MARKUP = re.compile(
    r"""
      </?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>          # <p>, </div>, <a href="…">
    | &(?:[a-zA-Z]{2,8}|\#[0-9]{1,6});           # &nbsp; &#39;
    | ```                                        # a fence of Markdown
    | \\(?:begin|end|section|frac|cite)\{        # LaTeX
    | ^[ \t]*(?:def|class)\s+\w+\s*[(:]          # Python
    | ^[ \t]*(?:from\s+[\w.]+\s+)?import\s+[\w.{}*]+[ \t]*;?[ \t]*$
    | ^[ \t]*(?:public|private|static|const|let|var|fn|function)\s+\w+.*[;{(=]
    | ^[ \t]*\#include\s*[<"]
    | ^[ \t]*(?:SELECT\s.+\sFROM|INSERT\s+INTO|CREATE\s+TABLE)\b
    | ^[ \t]*(?:>>>|@\w+)[ \t]*\S*
    | ^[ \t]*(?:for\s+\w+\s+in\s|if\s|elif\s|while\s|with\s)[^.,;\n]*[=()\[\]_][^,;\n]*:[ \t]*$
    | ^[ \t]*return\b(?:\s+[\w.]+[(\[].*)?;?[ \t]*$
    | ^[ \t]*[\w.]+(?:\[[^\]]*\])?[ \t]*[-+*/]?=[ \t]*[^\s=]
    | ^[ \t]*[\w.]+\(.*\)[ \t]*;?[ \t]*$
    | [{}][ \t]*$|\)[ \t]*;[ \t]*$|^[ \t]*return\b.*;[ \t]*$  # C and its like
    """,
    re.VERBOSE | re.MULTILINE,
)


def repetition(tokens: Sequence[int], size: int = 4) -> float:
    """Share of the n-grams of tokens that occurred before in the same completion.

    1 − distinct n-grams / n-grams ("seq-rep-n", Welleck et al. 2020, *Neural Text Generation with
    Unlikelihood Training*): 0 when nothing is said twice, near 1 in a loop. Tokens rather than
    words, since loops also run within a word. It leaves out paraphrases and what was repeated from
    the prompt; longer completions repeat more, so read it beside the length; between models with
    different tokenizers it does not compare. NaN for a completion shorter than `size`.
    """
    grams = [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else math.nan


def distinct(tokens: Sequence[int], size: int) -> float:
    """Distinct n-grams of tokens over all n-grams, within one completion.

    "distinct-n" (Li et al. 2016, *A Diversity-Promoting Objective Function*), which they count over
    all answers together; per completion it has an interval over prompts, and leaves out that a
    model may say the same to every prompt. NaN for a completion shorter than `size`.
    """
    return 1.0 - repetition(tokens, size)


def markup(prompt: Prompt, text: str) -> float:
    """1 where the completion of a prompt in natural language holds markup or program code, else 0.

    Tags and entities of HTML, fences of Markdown, commands of LaTeX, lines that look like a
    statement of Python, C and its like, or SQL. A share of lines would weigh a page of code more,
    but one `<br>` in a story is the fault already. It leaves out markup that reads as prose (a
    heading with `#`, a list) and code within a sentence. NaN for prompts of kind `code`.
    """
    if prompt.kind == CODE:
        return math.nan
    return float(_MARKUP.search(text) is not None)


def language_switch(prompt: Prompt, text: str, detector: Detector | None) -> float:
    """Share of a completion's letters that are in another language than its prompt.

    The completion is cut into sentences and lines. A piece counts as another language when most of
    its letters are of a script that the prompt has none of, or when the detector, which chooses
    among the languages of all prompts and English, is sure of another (a probability of 0.9 and 20
    letters at least). Pieces that nobody can be sure of count as not switched, so the share is
    low rather than high; it leaves out languages of the same script that no prompt is in, and a
    switch within a sentence, and takes nonsense and program text for whatever they look like.
    NaN for prompts of kind `code`, for completions without letters, and
    without a detector.
    """
    letters = sum(map(str.isalpha, text))
    if prompt.kind == CODE or not letters or detector is None:
        return math.nan
    scripts = {_script(char) for char in prompt.text if char.isalpha()}
    switched = 0
    for piece in _PIECES.split(text):
        own = [char for char in piece if char.isalpha()]
        foreign = sum(_script(char) not in scripts for char in own)
        if 2 * foreign > len(own) or (len(own) >= LETTERS and _other(detector(piece), prompt)):
            switched += len(own)
    return switched / letters


def _other(detected: tuple[str, float], prompt: Prompt) -> bool:
    language, probability = detected
    return language != prompt.language and probability >= SURE


@cache
def _script(char: str) -> str:
    return unicodedata.name(char, "unknown").split()[0]


def detector_of(languages: Sequence[str]) -> tuple[Detector | None, str]:
    """What tells these languages and English apart, and its name; None where it is not installed.

    It is py3langid (naive Bayes over character n-grams; extra `generation`): pure Python, offline,
    4.6 MB. A language that it does not know is left out.
    """
    try:
        import py3langid
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None, ""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    known = sorted({"en", *languages} & set(identifier.labels))
    identifier.set_languages(known)

    def detect(text: str) -> tuple[str, float]:
        language, probability = identifier.classify(text)
        return str(language), float(probability)

    return detect, f"py3langid {py3langid.__version__}, {' '.join(known)}"


def measures_of(
    prompt: Prompt, text: str, tokens: Sequence[int], ended: bool, detector: Detector | None
) -> Mapping[str, float]:
    """Every measure of one completion, by name; see `MEASURES`."""
    return {
        "repetition": repetition(tokens),
        "distinct_1": distinct(tokens, 1),
        "distinct_2": distinct(tokens, 2),
        "language_switch": language_switch(prompt, text, detector),
        "markup": markup(prompt, text),
        "length": float(len(tokens)),
        "ended": float(ended),
    }


# what each of them is called where it is shown
MEASURES: Mapping[str, str] = {
    "repetition": "repeated 4-grams",
    "distinct_1": "distinct tokens",
    "distinct_2": "distinct 2-grams",
    "language_switch": "in another language",
    "markup": "with markup or code",
    "length": "tokens",
    "ended": "came to an end",
}
