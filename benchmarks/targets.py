"""What the figures have to reach, and where in the results each of them stands."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Results = dict[str, dict[str, Any]]
# a figure with its spread, or without one
Figure = tuple[float, float, float]


@dataclass(frozen=True)
class Target:
    """One claim.

    Attributes:
        claim: what is compared with what.
        limit: the number to reach.
        at_least: whether reaching means at least, rather than at most.
        figure: finds (median, lowest, highest) in the results.
        unit: what follows the number.
        why: what stands in the way where it is missed, from the results.
    """

    claim: str
    limit: float
    at_least: bool
    figure: Callable[[Results], Figure]
    unit: str = "×"
    why: Callable[[Results], str] | None = None

    def met(self, results: Results) -> bool:
        """Whether the median reaches the limit."""
        value = self.figure(results)[0]
        return value >= self.limit if self.at_least else value <= self.limit


def spread(ratio: dict[str, Any]) -> Figure:
    """Median, lowest and highest of a ratio."""
    return ratio["median"], ratio["low"], ratio["high"]


def row(results: Results, name: str, **wanted: Any) -> dict[str, Any]:
    """The one row of a result that has these values."""
    rows = results[name]["rows"]
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def _measured(part: str, key: str) -> Callable[[Results], Figure]:
    return lambda results: spread(row(results, "measuring", part=part, length=2048)[key])


def _trained(
    other: str, length: int, head: bool, busy: bool = False
) -> Callable[[Results], Figure]:
    return lambda results: spread(_against(results, other, length, head, busy)["speedup"])


def _against(
    results: Results, other: str, length: int, head: bool, busy: bool = False
) -> dict[str, Any]:
    found = row(results, "training", length=length, head=head, busy=busy)["against"][other]
    return dict(found)


def _measured_products(part: str) -> Callable[[Results], str]:
    def why(results: Results) -> str:
        found = row(results, "measuring", part=part, length=2048)
        share = 100 * found["shares"]["matrix products"]
        return (
            "with nothing but its matrix products, at the speed of a large one: "
            f"{found['at_most']:.2f}×; products take {share:.0f} %"
        )

    return why


def _trained_products(length: int) -> Callable[[Results], str]:
    def why(results: Results) -> str:
        most = _against(results, "paper", length, False)["at_most"]
        found = row(results, "training", length=length, head=False, busy=False)
        share = 100 * found["shares"]["matrix products"]
        return (
            f"with nothing but its matrix products, at the speed of a large one: {most:.2f}×; "
            f"products take {share:.0f} % of a step"
        )

    return why


def _busy_products(results: Results) -> str:
    found = _against(results, "paper", 512, False, busy=True)
    return f"the counts of products, which both sides wait for, predict {found['predicted']:.2f}×"


def _counted(results: Results) -> str:
    return "what is kept is counted under Memory, with what less would cost"


def _achieved(length: int) -> Callable[[Results], Figure]:
    def figure(results: Results) -> Figure:
        against = _against(results, "paper", length, head=True)
        low, middle, high = (
            against["speedup"][key] / against["predicted"] for key in ("low", "median", "high")
        )
        return middle, low, high

    return figure


def _memory(ours: str, other: str, length: int, head: bool) -> Callable[[Results], Figure]:
    def figure(results: Results) -> Figure:
        bytes_of = [
            row(results, "memory", arm=arm, length=length, head=head)["above"]
            for arm in (ours, other)
        ]
        return (bytes_of[0] / bytes_of[1],) * 3

    return figure


def _single(*path: str) -> Callable[[Results], Figure]:
    def figure(results: Results) -> Figure:
        found: Any = results
        for key in path:
            found = found[key]
        return spread(found) if isinstance(found, dict) else (found,) * 3

    return figure


FORWARD = "forward without head"
BUSY = f"{FORWARD}, busy cores"
TARGETS = (
    Target(
        "measuring, T = 2048, attention part: `output_attentions=True` / ours",
        5.0,
        True,
        _measured("attention", "maps_over_ours"),
        why=_measured_products("attention"),
    ),
    Target(
        "measuring, T = 2048, whole forward without the head: `output_attentions=True` / ours",
        4.0,
        True,
        _measured(FORWARD, "maps_over_ours"),
        why=_measured_products(FORWARD),
    ),
    Target(
        "measuring like this, with one other process busy on each core",
        2.0,
        True,
        _measured(BUSY, "maps_over_ours"),
        why=_measured_products(FORWARD),
    ),
    Target(
        "measuring, T = 2048: ours / the same forward without statistics, no head in either",
        1.35,
        False,
        _measured(FORWARD, "ours_over_plain"),
    ),
    Target(
        "measuring, T = 2048, memory above the weights: ours / `output_attentions=True`",
        0.1,
        False,
        _memory("measure-ours", "measure-maps", 2048, False),
    ),
    Target(
        "training without the head, T = 512: the paper's protocol / ours",
        2.0,
        True,
        _trained("paper", 512, False),
        why=_trained_products(512),
    ),
    Target(
        "training like this, with one other process busy on each core",
        2.0,
        True,
        _trained("paper", 512, False, busy=True),
        why=_busy_products,
    ),
    Target(
        "training without the head, T = 2048: the paper's protocol / ours",
        3.0,
        True,
        _trained("paper", 2048, False),
        why=_trained_products(2048),
    ),
    Target(
        "training with the head, T = 512: speed-up over the paper's protocol / counted FLOPs",
        0.85,
        True,
        _achieved(512),
    ),
    *(
        Target(
            f"training {'with' if head else 'without'} the head, T = {length}: LoRA / ours",
            1.0,
            True,
            _trained("lora", length, head),
        )
        for head, length in ((False, 512), (False, 2048), (True, 512))
    ),
    *(
        Target(
            f"training memory above the weights {'with' if head else 'without'} the head, "
            f"T = {length}: {name} / the paper's protocol",
            0.5,
            False,
            _memory(arm, "paper", length, head),
            why=_counted,
        )
        for head, length in ((True, 512), (False, 512), (False, 2048))
        for arm, name in (("ours", "ours"), ("ours-checkpointed", "ours with checkpointing"))
    ),
    Target(
        "optimiser state per slice parameter",
        8.0,
        False,
        _single("sizes", "optimiser", "moment_bytes_per_parameter"),
        " bytes",
    ),
    Target(
        "patch file per slice parameter, fp32",
        4.1,
        False,
        _single("sizes", "patch_bytes_per_parameter", "fp32"),
        " bytes",
    ),
    Target(
        "patch file per slice parameter, bf16",
        2.1,
        False,
        _single("sizes", "patch_bytes_per_parameter", "bf16"),
        " bytes",
    ),
    Target(
        "`import headsurgeon` beyond Python's own start",
        0.3,
        False,
        _single("startup", "beyond", "import"),
        " s",
    ),
    Target(
        "`headsurgeon --help` beyond Python's own start",
        0.5,
        False,
        _single("startup", "beyond", "help"),
        " s",
    ),
)
