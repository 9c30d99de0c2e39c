"""The table that `make bench` prints, from the figures that it writes.

Owns the aims and their judgement, and telling what apt moved and admend did not.
"""

from typing import Any

from images import DISTROLESS, MINBASE

AIM_FIRST_MS = 1000.0
AIM_SHARE_OF_APT = 0.1
AIM_REPEAT_MS = 5.0
AIM_MEMORY_MIB = 150.0
AIM_COLD_SOURCES_MS = 3000.0
AIM_WARM_SOURCES_MS = 50.0
AIM_ADMISSION_P99_MS = 25.0

Row = tuple[str, str, str, str]


def render_table(results: dict[str, Any]) -> str:
    """Return the whole report as text."""
    machine, images = results["machine"], results["images"]
    pair = (images[DISTROLESS], images[MINBASE])
    head = "  ".join(f"{key} {value}" for key, value in machine.items())
    rows: list[Row] = [("", "distroless", "minbase", "aim")]
    sizes = [image["layer_bytes"] for image in pair]
    rows.append(("layer, MB as pulled / unpacked", *(_size(size) for size in sizes), ""))
    rows.append(("packages upgraded", *(str(len(image["upgrades"])) for image in pair), ""))
    rows += _first(pair, results["apt"]["median_ms"])
    rows += _repeated(pair)
    rows += _memory(pair)
    rows += _refresh(results["refresh"])
    rows += _load(results["load"])
    rows += render_admissions(results["admissions"])
    return "\n".join([head, "", *aligned(rows), "", *_compare(results["apt"], images[MINBASE])])


def _size(size: dict[str, int]) -> str:
    return f"{size['compressed'] / 1e6:.0f} / {size['unpacked'] / 1e6:.0f}"


def _first(pair: tuple[dict[str, Any], ...], apt: float) -> list[Row]:
    def line(label: str, key: str, aim: float | None = None) -> Row:
        values = [image[key]["median_ms"] for image in pair]
        return (label, *(f"{value:.0f}" for value in values), _judge(values, aim, "ms"))  # type: ignore[return-value]

    minbase = pair[1]["first_sight"]["median_ms"]
    share = minbase / apt
    mark = "ok" if share < AIM_SHARE_OF_APT else "OVER"
    rows = [line("first sight, ms", "first_sight", AIM_FIRST_MS)]
    for phase in pair[0]["first_sight"]["phases_ms"]:
        values = [f"{image['first_sight']['phases_ms'][phase]:.0f}" for image in pair]
        rows.append((f"  {phase}", *values, ""))  # type: ignore[arg-type]
    used = ["{:.2f} / {:.2f}".format(*image["first_sight"]["cpu_s"]) for image in pair]
    return [
        *rows,
        ("  CPU seconds of it, proxy / workers", *used, ""),  # type: ignore[list-item]
        ("apt-get upgrade in a chroot, ms", "", f"{apt:.0f}", ""),
        ("  admend's share of apt's time", "", f"{share:.3f}", f"< {AIM_SHARE_OF_APT} {mark}"),
        line("first sight, first work of its process, ms", "first_sight_of_a_new_process"),
        line("first sight at 50 MB/s and 30 ms, ms", "first_sight_shaped"),
    ]


def _repeated(pair: tuple[dict[str, Any], ...]) -> list[Row]:
    rows = []
    for label, key, aim in (
        ("repeated, tag cached, ms median / p99", "repeat_cached", AIM_REPEAT_MS),
        ("repeated, upstream asked, ms median / p99", "repeat_asked", AIM_REPEAT_MS),
        ("  the same at 30 ms", "repeat_asked_shaped", None),
    ):
        texts = [f"{image[key]['median']:.1f} / {image[key]['p99']:.1f}" for image in pair]
        rows.append((label, *texts, _judge([image[key]["median"] for image in pair], aim, "ms")))
    return rows  # type: ignore[return-value]


def _memory(pair: tuple[dict[str, Any], ...]) -> list[Row]:
    rows = []
    for label, key in (
        ("peak memory, indexes fetched, MiB PSS / RSS", "cold"),
        ("peak memory, indexes there, MiB PSS / RSS", "warm"),
    ):
        peaks = [image["memory_mib"][key] for image in pair]
        texts = [f"{peak['pss']:.0f} / {peak['rss']:.0f}" for peak in peaks]
        rows.append((label, *texts, _judge([peak["pss"] for peak in peaks], AIM_MEMORY_MIB, "MiB")))
    return rows  # type: ignore[return-value]


def _refresh(refresh: dict[str, Any]) -> list[Row]:
    cold, warm = refresh["cold_ms"], refresh["warm_ms"]
    return [
        ("refresh of sources, cold, ms", "", f"{cold:.0f}", _judge([cold], AIM_COLD_SOURCES_MS, "ms")),
        ("resolve that asks all sources again, ms median / max", "", f"{warm:.0f} / {refresh['warm_max_ms']:.0f}",
         _judge([warm], AIM_WARM_SOURCES_MS, "ms")),
    ]  # fmt: skip


def _load(load: dict[str, Any]) -> list[Row]:
    """Return the rows of the large image and of eight images at once; their memory has the same aim as any."""
    large, groups = load["large"], (load["sharing"], load["apart"])
    size = large["layer_bytes"]
    memory, first = large["memory_mib"], large["first_sight"]
    repeat = large["repeat_cached"]
    phases = {name: value for name, value in first["phases_ms"].items() if value >= 1}
    peaks = [group["memory_mib"] for group in groups]
    known = load["known"]["median_ms"]
    return [
        ("first sight, packages known from another image, ms", "", f"{known:.0f}", _judge([known], AIM_FIRST_MS, "ms")),
        ("", "", "large", ""),
        (f"{size['layers']} layers, MB as pulled / unpacked", "", _size(size), ""),
        ("first sight, ms", "", f"{first['median_ms']:.0f}", ""),
        *((f"  {name}", "", f"{value:.0f}", "") for name, value in phases.items()),
        ("  CPU seconds of it, proxy / workers", "", "{:.2f} / {:.2f}".format(*first["cpu_s"]), ""),
        ("repeated, tag cached, ms median / p99", "", f"{repeat['median']:.1f} / {repeat['p99']:.1f}",
         _judge([repeat["median"]], AIM_REPEAT_MS, "ms")),
        ("peak memory, MiB PSS / RSS", "", f"{memory['pss']:.0f} / {memory['rss']:.0f}",
         _judge([memory["pss"]], AIM_MEMORY_MIB, "MiB")),
        ("eight first sights at once", "sharing layers", "sharing none", ""),
        ("each, MB as pulled / unpacked", *(_size(group["layer_bytes"]) for group in groups), ""),
        ("all there after, ms", *(f"{group['last_ms']:.0f}" for group in groups), ""),
        ("first of them, ms", *(f"{group['each_ms'][0]:.0f}" for group in groups), ""),
        ("peak memory, MiB PSS / RSS", *(f"{peak['pss']:.0f} / {peak['rss']:.0f}" for peak in peaks),
         _judge([peak["pss"] for peak in peaks], AIM_MEMORY_MIB, "MiB")),
    ]  # fmt: skip


def render_admissions(figures: dict[str, Any]) -> list[Row]:
    """Return the rows of admissions: the burst, then the load beside the peer's."""
    burst, load, peer = figures["burst"], figures["load"], figures["peer"]
    everyone = burst["answered"] == burst["pods"]
    once = burst["patches"] == {"1": burst["images"]} or burst["patches"] == {1: burst["images"]}
    ratio = load["p99"] / peer["p99"]
    pair = (load, peer)
    return [
        (f"burst: {burst['pods']} pods of {burst['images']} new images at once", "", "", ""),
        ("answered in time / with the patched image", "", f"{burst['answered']} / {burst['rewritten']}",
         f"all {'ok' if everyone else 'MISSED'}"),
        ("each image patched", "", "once" if once else str(burst["patches"]), f"once {'ok' if once else 'MISSED'}"),
        ("answers, ms median / last", "", f"{burst['median']:.0f} / {burst['last']:.0f}", ""),
        (f"admissions, {figures['rate']} per second for {figures['seconds']} s", "admend", "no work", ""),
        ("as the client sees them, ms median / p99", *(f"{one['median']:.1f} / {one['p99']:.1f}" for one in pair),
         _judge([load["p99"]], AIM_ADMISSION_P99_MS, "ms")),
        ("  the longest, ms", *(f"{one['max']:.1f}" for one in pair), ""),
        ("  p99 of admend over that of no work", f"{ratio:.1f}", "", ""),
        ("  failures", *(str(one["failures"]) for one in pair), f"none {'MISSED' if load['failures'] else 'ok'}"),
        ("audit lines / admissions", " / ".join(map(str, figures["lines"])), "", ""),
        ("  the client itself late, ms p99", *(f"{one['late']:.1f}" for one in pair), ""),
        ("  CPU ms of each, webhook / proxy", *(" / ".join(f"{ms:.2f}" for ms in one["cpu_ms"]) for one in pair), ""),
        ("  MiB after it, PSS", *(" / ".join(f"{pss:.0f}" for pss, _ in one["memory_mib"]) for one in pair), ""),
        ("  MiB after it, RSS", *(" / ".join(f"{rss:.0f}" for _, rss in one["memory_mib"]) for one in pair), ""),
    ]  # fmt: skip


def _judge(values: list[float], aim: float | None, unit: str) -> str:
    if aim is None:
        return ""
    return f"< {aim:.0f} {unit} {'ok' if max(values) < aim else 'OVER'}"


def aligned(rows: list[Row]) -> list[str]:
    """Return rows as lines with columns."""
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    return [
        f"{label:<{widths[0]}}  {one:>{widths[1]}}  {two:>{widths[2]}}  {aim}".rstrip() for label, one, two, aim in rows
    ]


def _compare(apt: dict[str, Any], image: dict[str, Any]) -> list[str]:
    """Say whether both did the same work on the minbase image."""
    ours = {item["package"].partition(":")[0]: item["to"] for item in image["upgrades"]}
    theirs = {name: pair[1] for name, pair in apt["moved"].items()}
    lines = [
        f"apt moved {len(theirs)} packages, admend {len(ours)}",
        f"apt's runs: {apt['all_ms']} ms; with dpkg's --force-unsafe-io {apt['unsafe_io_ms']} ms",
    ]
    reasons = {item["package"].partition(":")[0]: item["reason"] for item in image["skipped"]}
    lines += [
        f"  admend did not move {name}: {reasons.get(name, 'NO REASON GIVEN')}"
        for name in sorted(theirs.keys() - ours.keys())
    ]
    lines += [f"  only admend moved {name} to {ours[name]}" for name in sorted(ours.keys() - theirs.keys())]
    lines += [
        f"  {name}: apt has {theirs[name]}, admend {ours[name]}"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name]
    ]
    if ours == theirs:
        lines.append("  the same packages at the same versions: the comparison is between equals")
    else:
        lines.append("  admend's work differs from apt's as listed: read the times with that in mind")
    return lines
