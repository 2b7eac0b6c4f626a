"""What a sequence of passes came to, on the terminal: always against the untouched model."""

from pathlib import Path
from typing import TYPE_CHECKING

from headsurgeon.cli.console import facts, first_few, heading, nats, out

if TYPE_CHECKING:
    from headsurgeon.passes import Pass, Passes, ZoneChange


def show_pass(latest: "Pass", result: "Passes") -> None:
    """Prints one pass."""
    total = sum(zone.heads for zone in latest.zones.values())
    lines = {
        "chosen by": latest.rule,
        "loss on dev text": f"{latest.dev_loss_before:.4f} before, {latest.dev_loss:.4f} at step "
        f"{latest.kept_step} of {latest.steps}, kept",
        "sick now": f"{len(latest.sick)} of {total} heads, {len(result.sick)} in the untouched "
        "model" + (f": {first_few(latest.sick)}" if latest.sick else ""),
    }
    if latest.borderline:
        lines["borderline"] = first_few(latest.borderline)
    lines["became sick"] = _became_sick(latest)
    lines |= {name: _zone(zone) for name, zone in latest.zones.items() if zone.heads}
    lines["since the last"] = (
        f"{len(latest.fell_sick)} healthy → sick, {len(latest.got_well)} sick → healthy"
    )
    lines |= _recovered(latest)
    console = out()
    console.print()
    console.print(heading(f"pass {latest.number}: {len(latest.operated)} heads operated on"))
    console.print(facts(lines))


def show_passes(result: "Passes", output: Path) -> None:
    """Prints why the sequence ended, and where its patch is."""
    lines = {"ended": result.ended, "all of it": str(output / "passes.json")}
    if result.patch is not None:
        lines["patch"] = f"{output / result.patch}, of all {len(result.passes)} passes"
    console = out()
    console.print()
    console.print(heading(f"{len(result.passes)} passes"))
    console.print(facts(lines))


def _became_sick(latest: "Pass") -> str:
    """Who was healthy in the untouched model, with its mass there and now."""
    if not latest.became_sick:
        return "no head that was healthy in the untouched model"
    named = [
        f"{each.head} {each.before:.3f} → {each.after:.3f} ({each.zone}"
        f"{', borderline' if each.borderline else ''})"
        for each in latest.became_sick
    ]
    return first_few(named)


def _zone(zone: "ZoneChange") -> str:
    fixed = zone.heads - zone.can_change
    free = f" ({fixed} of them cannot change)" if fixed else ""
    return (
        f"{zone.heads} heads{free}: {zone.became_sick} healthy → sick, "
        f"{zone.became_healthy} sick → healthy, {zone.still_sick} sick as before"
    )


def _recovered(latest: "Pass") -> dict[str, str]:
    if latest.recovery is None or latest.test_change is None:
        return {
            "recovered": "not measured (--no-recovery); that a head is no longer sick proves "
            "nothing, since an untrained one is not sick either"
        }
    said = latest.recovery
    return {
        "recovered": f"{len(said.recovered)} of {len(latest.operated)} heads by function; "
        f"{len(said.no_longer_sick)} are no longer sick, as untrained ones would be (their mass is "
        f"{said.untrained_mass:.3f}), {len(said.unlike_untrained)} are unlike untrained ones",
        "ablating them": f"costs {nats(said.ablating_costs)} now, "
        f"{nats(said.more_than_before)} more than before the pass",
        "loss on test text": f"{latest.test_loss:.4f}, against the untouched model "
        f"{nats(latest.test_change)}",
    }
