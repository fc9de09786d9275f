"""One-way latency at 1,000 and 10,000 messages/s, single frames on an absolute timetable."""

from array import array
from pathlib import Path

from bench import names
from bench.children import Failed
from bench.contenders import Contender, Field, has_journal
from bench.figures import alternated, percentile
from bench.options import Options, has_library

RATES = (1_000, 10_000)
SECONDS, QUICK_SECONDS = 2.0, 0.5
WARM_SHARE = 10  # of the messages, one in so many is only for warming up
PERCENTS = (50, 99)


def run(options: Options) -> None:
    """Measure from the worker's receipt, where the publisher tells it, and from the send."""
    with Field(options) as field:
        wanted = {names.OURS: ("a", {})}
        if has_journal():
            wanted[names.OURS_FOLLOWER] = ("f", {})
            if has_library():
                wanted[names.OURS_SUBSCRIBER] = ("l", {})
        for name in (names.OURS_FOLLOWER, names.OURS_SUBSCRIBER):
            if name not in wanted:
                field.absent[name] = "not available"
        field.add_fleet(wanted)
        field.add_peers((names.FLOOR, names.BY_HAND))
        for rate in RATES:
            _at_rate(options, field, rate)


def _at_rate(options: Options, field: Field, rate: int) -> None:
    found: dict[str, list[dict[str, list[int]]]] = {name: [] for name in field.contenders}
    for _, name in alternated(list(found), options.rounds):
        if name in field.absent:
            continue
        try:
            found[name].append(_once(options, field, field.contenders[name], rate))
        except Failed as error:
            field.absent[name] = f"failed: {error}"
    order = (names.OURS, names.OURS_FOLLOWER, names.OURS_SUBSCRIBER, names.FLOOR, names.BY_HAND)
    for table in (names.ONE_WAY, names.END_TO_END):
        for percent in PERCENTS:
            column = f"{rate:,}/s, p{percent}"
            for name in order:
                if name in field.absent:
                    options.figures.add(table, column, name, (), field.absent[name])
                elif found[name][0][table]:
                    values = [percentile(each[table], percent) / 1000 for each in found[name]]
                    options.figures.add(table, column, name, values)


def _once(options: Options, field: Field, contender: Contender, rate: int) -> dict:
    """Return latencies in nanoseconds by table."""
    listener, folder = contender.listener, options.subfolder()
    count = int(rate * (QUICK_SECONDS if options.quick else SECONDS))
    load = {"rate": rate, "burst": 1, "count": count, "stamps": folder / "sent"}
    follows = contender.name == names.OURS_FOLLOWER
    if follows:
        listener.order("follow", count=count, poll_s=0)
    else:
        listener.order("mark", timed=True)
    field.exchange.go([contender.tag], options.traffic, **load)
    got = listener.answer()["count"] if follows else listener.wait_count(count)
    if got != count:
        raise Failed(f"{got} of {count} messages came")
    listener.order("times", path=str(folder / "heard"))
    sent, heard, stamped = (_read(folder / n) for n in ("sent", "heard", "heard.stamped"))
    warm = count // WARM_SHARE
    return {
        names.ONE_WAY: [b - a for a, b in zip(stamped, heard, strict=False)][warm:],
        names.END_TO_END: [b - a for a, b in zip(sent, heard, strict=True)][warm:],
    }


def _read(path: Path) -> array:
    """Return int64 numbers."""
    return array("q", path.read_bytes())
