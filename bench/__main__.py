"""Run all measurements and write what came of them: ``python -m bench [--quick] [--into FOLDER] [--readme FILE]``.

Each is a process of its own, one after the other. FOLDER gets ``REPORT.md`` with all tables and two plots, and
``results.json``; a README with the two marks gets the table of the most important figures between them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import pages

MODULES = (
    "limits",
    "compare",
    "cold",
    "gather",
    "swarm",
    "swarm_simulation",
    "replicate",
    "slice",
    "hdf5",
    "directory",
    "events",
    "stalled",
)
"""In this order; those that are not there are left out."""
_HERE = Path(__file__).parent


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--into", default="bench-report", help="folder of the report (default: bench-report)")
    parser.add_argument("--quick", action="store_true", help="one round of each, on less data")
    parser.add_argument("--only", help=f"some of {','.join(MODULES)}")
    parser.add_argument("--again", action="store_true", help="measure nothing: write the report from results.json")
    parser.add_argument("--readme", metavar="FILE", help="put the most important figures between its marks")
    parser.add_argument("--folder", help="where to put the data, to keep it (default: temporary)")
    parser.add_argument("--peers", metavar="FOLDER", help="what install_peers.sh has filled")
    parser.add_argument("--rounds", type=int, help="of each measurement")
    args = parser.parse_args()
    into = Path(args.into)
    into.mkdir(parents=True, exist_ok=True)
    kept = into / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    wanted = [] if args.again else (args.only.split(",") if args.only else MODULES)
    for name in wanted:
        source = _HERE / f"{name}.py"
        if not source.exists():
            print(f"bench.{name} is not there", file=sys.stderr)
            continue
        if args.quick and not args.only and not _knows(source.read_text(), "--quick"):
            print(f"bench.{name} is left out: it takes its time", file=sys.stderr)
            continue
        results["machine"] = machine(args.quick)
        results[name] = run(name, args)
        kept.write_text(json.dumps(results, indent=1))
    for path, text in pages.report(results).items():
        (into / path).write_text(text)
    if args.readme:
        readme = Path(args.readme)
        readme.write_text(pages.with_figures(readme.read_text(), results))
    print(into / "REPORT.md")


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one of the measurements; give its tables, and what it said if it failed."""
    source = (_HERE / f"{name}.py").read_text()
    command = [sys.executable, "-m", f"bench.{name}"]
    for option, value in {
        "--json": True,
        "--quick": args.quick,
        "--rounds": args.rounds,
        "--folder": args.folder,
        "--peers": str(Path(args.peers).absolute()) if args.peers else None,
    }.items():
        if value and _knows(source, option):
            command += [option] if value is True else [option, str(value)]
    print(" ".join(command[1:]), file=sys.stderr)
    begun_s = time.monotonic()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    tables, rest = pages.tables_of(done.stdout)
    result = {"tables": tables, "said": rest, "took_s": round(time.monotonic() - begun_s)}
    return result if done.returncode == 0 else {**result, "failed": done.returncode}


def _knows(source: str, option: str) -> bool:
    """Say whether a measurement takes an option: its own, or one that most share."""
    return f'"{option}"' in source or ("report.arguments(" in source and option != "--peers")


def machine(is_quick: bool) -> dict[str, str]:
    """Say where this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "processors": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "run": "quick" if is_quick else "full",
    }


if __name__ == "__main__":
    main()
