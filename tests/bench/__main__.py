"""The runner: sections in order, then the table, the JSON, the chart, the page.

make bench [QUICK=1] [ONLY=hot,latency]
python -m bench --help
"""

import argparse
import importlib.metadata
import json
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

from bench import names, report
from bench.children import ROOT
from bench.figures import Figures
from bench.goals import goals
from bench.options import Options
from bench.probes import machine
from bench.sections import SECTIONS

OUT = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "performance.md"
BASES = {
    names.CPU: names.FLOOR,
    names.RATE: names.FLOOR,
    names.RATE_CPU: names.FLOOR,
    names.ONE_WAY: names.FLOOR,
    names.END_TO_END: names.FLOOR,
    names.BY_SIZE: names.FLOOR,
    names.BY_SUBSCRIBERS: names.FLOOR,
    names.RESTART: names.OURS,
    names.FLEET: names.OURS,
}


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under 3 minutes")
    parser.add_argument(
        "--only", default="", help=f"sections, separated by commas: {', '.join(SECTIONS)}"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the generated traffic")
    parser.add_argument("--recording", type=Path, help="traffic by recording instead")
    parser.add_argument("--write-docs", action="store_true", help=f"into {PAGE.name} too")
    found = parser.parse_args()
    found.only = [name for name in found.only.split(",") if name] or list(SECTIONS)
    if unknown := [name for name in found.only if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if found.recording is not None and not found.recording.is_file():
        parser.error(f"no recording at {found.recording}")
    return found


def measured(options: Options, wanted: list[str]) -> bool:
    """Run sections; one that breaks is told and does not keep the others from theirs."""
    whole = True
    for name in wanted:
        began_s = time.monotonic()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        try:
            SECTIONS[name](options)
        except Exception:
            whole = False
            traceback.print_exc()
        print(f"{time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    return whole


def main() -> int:
    """Return the exit code: 1 if a section broke; goals that are not met are no error."""
    asked = arguments()
    figures, facts = Figures(), machine()
    facts["feedwarden"] = importlib.metadata.version("feedwarden")
    facts["traffic"] = asked.recording.name if asked.recording else f"seed {asked.seed}"
    facts["run"] = "quick" if asked.quick else "full"
    # Sessions end by the hundred here, on purpose: what a client logs of each is no news.
    logging.getLogger("worker").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="feedwarden-bench-", dir="/dev/shm") as folder:
        options = Options(asked.quick, Path(folder), figures, asked.seed, asked.recording)
        whole = measured(options, asked.only)
    wanted = goals(figures)
    text = report.markdown(figures, wanted, facts, BASES)
    OUT.mkdir(parents=True, exist_ok=True)
    told = {"quick": asked.quick, "only": asked.only, "seed": asked.seed}
    document = report.document(figures, wanted, facts, told)
    (OUT / "bench.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (OUT / "bench.md").write_text(text)
    print(text)
    try:
        from bench.chart import draw
    except ModuleNotFoundError as error:
        print(f"no chart: {error}; pip install -e '.[bench]'", file=sys.stderr)
    else:
        draw(figures, OUT / "bench.png")
    if asked.write_docs:
        PAGE.write_text(report.spliced(PAGE.read_text(), text))
    print(f"written: {', '.join(str(path) for path in sorted(OUT.iterdir()))}", file=sys.stderr)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
