"""Arguments and options that several commands share, each described once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from headsurgeon.models.loaded_with import as_options

TEXT = "What to read"
MACHINE = "Where to run"
VERDICT = "What counts as sick"

_SPEC = (
    "text:GLOB, package:NAME or hf:DATASET\\[:CONFIG]\\[:SPLIT]\\[:COLUMN]\\[?OPTION], "
    "quotes around a name with separators"
)

MODELS = (
    "A Hub id (OWNER/NAME, or OWNER/NAME@REVISION/SUBFOLDER), a checkpoint folder, a .gguf file, "
    "or a model of the package (zoo:NAME)"
)
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=f"{MODELS}.",
        show_default=False,
    ),
]
AlsoPatched = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Also the model with this patch; several are applied one after the other.",
        show_default=False,
    ),
]
AlsoModel = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Also another model.", show_default=False)
]
Corpus = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help=f"{_SPEC}; A,B pools both, 2*A+B takes twice as many windows of A as of B. "
        "texts:FILE reads one text, or a JSON list of them, whole; texts:own/diagnostic, "
        "own/probes, own/mixed, own/held-out and paper/diagnostic come with the package.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
Corpora = Annotated[
    list[str],
    typer.Option(
        "--corpus",
        metavar="SPEC",
        help=f"{_SPEC}; several --corpus are mixed, window by window.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="2,1,…",
        help="How many windows of each --corpus, relative to the others; by default all alike.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
Split = Annotated[
    str, typer.Option(help="Part of the corpus: train, dev or test.", rich_help_panel=TEXT)
]
Length = Annotated[
    int,
    typer.Option(
        metavar="TOKENS", min=2, max=2**24, help="Tokens per window.", rich_help_panel=TEXT
    ),
]
Count = Annotated[
    int,
    typer.Option(
        metavar="WINDOWS",
        min=1,
        max=2**31 - 1,
        help="How many windows to read.",
        rich_help_panel=TEXT,
    ),
]
FirstToken = Annotated[
    str,
    typer.Option(
        metavar="TOKEN",
        help="First token of every window: what the tokenizer does, none, or a token such as </s>.",
        rich_help_panel=TEXT,
    ),
]
Packing = Annotated[
    str,
    typer.Option(
        metavar="documents|separated|blank_lines",
        help="Windows lie within documents, or cross them with a token or blank lines between.",
        rich_help_panel=TEXT,
    ),
]
Sink = Annotated[
    float,
    typer.Option(
        metavar="MASS",
        help="A head with more first-token mass than this is sick.",
        rich_help_panel=VERDICT,
    ),
]
Dead = Annotated[
    float,
    typer.Option(
        metavar="MASS", help="A head with more than this is dead.", rich_help_panel=VERDICT
    ),
]
LowEntropy = Annotated[
    float,
    typer.Option(
        metavar="NATS",
        help="A head that is not sick and has less entropy than this is low-entropy.",
        rich_help_panel=VERDICT,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=2**63 - 1, help="Seed of everything that is drawn.", rich_help_panel=TEXT
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="Precision of the weights: fp32, bf16 or fp16; auto is fp32 on a CPU and the "
        "checkpoint's own elsewhere.",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto (CUDA, then MPS, then CPU), cuda, cuda:1, mps or cpu.", rich_help_panel=MACHINE
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="WINDOWS",
        min=1,
        max=2**31 - 1,
        help="Windows per forward pass; by default about 4,096 tokens.",
        rich_help_panel=MACHINE,
        show_default=False,
    ),
]
Attention = Annotated[
    str,
    typer.Option(
        help="stock is the model's own; fast is the same without maps, up to rounding; auto is "
        "fast where there is one, and stock in 16 bit, where rounding counts.",
        rich_help_panel=MACHINE,
    ),
]
OtherTokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="MODEL",
        help="Take the tokenizer of this model, where the checkpoint comes without.",
        rich_help_panel=MACHINE,
        show_default=False,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run code that comes with the model; read it first.",
        rich_help_panel=MACHINE,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Most of the model that may be held at a time, such as 2GB, or by device: "
        "0=20GB,cpu=8GB (then --device is ignored). The rest is read from the disk when needed.",
        rich_help_panel=MACHINE,
        show_default=False,
    ),
]
Quantise = Annotated[
    str | None,
    typer.Option(
        metavar="8bit|4bit",
        help='Hold the weights in so few bits; takes pip install "headsurgeon\\[quantised]".',
        rich_help_panel=MACHINE,
        show_default=False,
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the whole traceback when something fails.")
]
PatchFiles = Annotated[
    list[Path],
    typer.Option(
        "--patch",
        metavar="FILE",
        help="A patch written by operate; several are put on one after the other, in this order.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Loading:
    """How a model is loaded: a group of options, see `signature.grouped`."""

    dtype: Dtype = "auto"
    device: Device = "auto"
    tokenizer: OtherTokenizer = None
    trust_remote_code: TrustRemoteCode = False

    @property
    def again(self) -> tuple[str, ...]:
        """The options that give another command the same tokenizer and trust."""
        return as_options(vars(self))


@dataclass(frozen=True)
class FrozenLoading(Loading):
    """The same where the model's weights are never changed, so that they need not all be there."""

    attention: Attention = "auto"
    max_memory: MaxMemory = None
    quantise: Quantise = None


@dataclass(frozen=True)
class Reading:
    """Which windows of a corpus are read."""

    length: Length = 256
    count: Count = 64
    first_token: FirstToken = "tokenizer"
    seed: Seed = 0
    packing: Packing = "documents"
