"""Writes the measured parts of README.md and docs/measured.md from the files under benchmarks/results/.

python tools/write_measured.py            rewrites both documents
python tools/write_measured.py --check    exits with 1 when a document does not say what the files say
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
STAGES = ("pretrain", "sft", "reward", "ppo", "generate")
MODELS = {"base": "base (GPT)", "sft": "SFT", "ppo": "PPO", "ppo_ptx": "PPO-ptx"}


def read(name: str) -> dict[str, Any] | None:
    """A CPU result file, or None when it was not recorded."""
    path = RESULTS / "cpu" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table."""
    titles = list(header)
    lines = [titles, ["---"] * len(titles), *[list(row) for row in rows]]
    return ["| " + " | ".join(line) + " |" for line in lines]


def machine(found: Mapping[str, Any]) -> str:
    """Where and when a file was recorded."""
    place = f"{found['processor']}, {found['threads']} threads, torch {found['torch']}"
    if "gpu" in found:
        place = f"{found['gpu']}, driver {found['driver']}, CUDA {found['cuda']}, torch {found['torch']}"
    return f"{place}, {found['date']}, commit {found['commit']}"


def quickstart() -> list[str]:
    """The table that `make quickstart` ended with."""
    found = read("quickstart")
    if found is None:
        return ["The quickstart's table: not measured."]
    rows = []
    for name, title in MODELS.items():
        scores = found["policies"].get(name)
        row = [title, f"{found['perplexity'][name]:.1f}"]
        row += ["", "", "", ""] if scores is None else [
            f"{scores['reward']:+.2f} ± {scores['reward_error']:.2f}",
            f"{scores['opinion']:+.2f} ± {scores['opinion_error']:.2f}",
            f"{round(scores['kl'], 2) + 0.0:.2f}", f"{scores['length']:.1f}",
        ]
        rows.append(row)
    accuracy = found["accuracy"]["overall"]
    return [
        f"What `make quickstart` ended with on two cores ({found['parameters'] / 1e6:.1f}M parameters, "
        f"{sum(found['seconds'].values()) / 60:.1f} minutes of training and measuring, run with real-time "
        "priority because the machine was shared):", "",
        *table(
            ("model", "held-out perplexity", "held-out reward", "labelers' opinion", "KL to SFT, nats", "tokens"), rows,
        ), "",
        f"The reward model orders {accuracy['accuracy']:.1%} ± {accuracy['half_width']:.1%} of {accuracy['pairs']:,} "
        f"held-out pairs as the labeler did; two labelers agree on {found['agreement']:.1%}. No policy ever saw the "
        "labelers' opinion. The labelers are the ten human ratings of each word in the VADER lexicon, summed over an "
        "answer: a stand-in.",
    ]


def stages() -> list[str]:
    """Our stages against plain PyTorch, TRL and transformers in the same run."""
    rows, places = [], []
    for stage in STAGES:
        found = read(f"stage_{stage}")
        if found is None:
            rows.append([stage, "", "not measured", "", "", ""])
            continue
        places.append(machine(found))
        for entry in found["rows"]:
            ours = entry["contenders"]["ours"]
            for rival, figures in entry["rivals"].items():
                rows.append([
                    stage, str(entry["case"]).removeprefix(f"{stage}: "),
                    f"{ours['tokens_per_second']['median']:,.0f}", rival, versus(figures),
                    f"{figures['memory_share_above_import']:.2f}x", aim(figures),
                ])
    head = ("stage", "case", "tokens/s", "rival", "times the rival's rate (rounds)", "its memory", "aim")
    note = [f"Recorded on: {'; '.join(dict.fromkeys(places))}."] if places else []
    return [
        "Whole stages of a 4-layer, 256-wide, 4-head GPT on two cores, contenders interleaved in one run "
        "(`benchmarks/stages`), all with real-time priority because the machine was shared; memory is the peak above "
        "the bare import, as a share of the rival's:", "",
        *table(head, ([*row, *[""] * (len(head) - len(row))] for row in rows)), "", *note,
    ]


def versus(figures: Mapping[str, Any]) -> str:
    """How many times a rival's rate, with the spread of the rounds."""
    return f"{figures['speedup']:.2f}x ({figures['speedup_min']:.2f}..{figures['speedup_max']:.2f})"


def aim(figures: Mapping[str, Any]) -> str:
    """Whether a stated aim was reached; empty where none was stated."""
    if "goal" not in figures:
        return ""
    return f"{figures['goal']:g}x, {'reached' if figures['speedup'] >= figures['goal'] else 'missed'}"


def place_and_priority(found: Mapping[str, Any]) -> str:
    """Where, when and how a generation benchmark was recorded."""
    load = found["load_average"]
    busy = "" if load is None else f", load average {load[0]:.1f}"
    return f"{machine(found)}, {found['settings']['priority']} priority{busy}"


def against_rivals(
    name: str, title: str, about: str, rivals: Mapping[str, str], *, aims_only: bool
) -> list[str]:
    """A generation benchmark with contenders in processes: a line a case. rivals: contender -> its column."""
    found = read(f"generation_{name}")
    if found is None:
        return [f"{title}: not measured.", ""]
    rows = []
    for entry in found["rows"]:
        if aims_only and not any("goal" in figures for figures in entry["rivals"].values()):
            continue
        first = next(iter(entry["rivals"].values()), None)
        rows.append([
            entry["case"], f"{entry['contenders']['ours']['tokens_per_second']['median']:,.0f}",
            *(versus(entry["rivals"][rival]) if rival in entry["rivals"] else "not measured" for rival in rivals),
            "" if first is None else f"{first['memory_share_above_import']:.2f}x", "" if first is None else aim(first),
        ])
    columns = list(rivals.values())
    head = ("case", "tokens/s", *(f"times {column}" for column in columns), f"memory, share of {columns[0]}'s", "aim")
    return [f"{title}: {about}", "", *table(head, rows), "", f"{place_and_priority(found)}.", ""]


def batches(*, aims_only: bool) -> list[str]:
    """Our engine against transformers on the same weights and prompts."""
    return against_rivals(
        "batches", "Generation against transformers",
        "the same weights and prompts in the same run, useful tokens per second. Greedy answers are equal token by "
        "token. `generate` pads a batch and runs it to its longest answer.",
        {"transformers": "`generate`", "continuous": "transformers' continuous batching"}, aims_only=aims_only,
    )


def rollouts() -> list[str]:
    """PPO's rollouts against TRL's."""
    return against_rivals(
        "rollouts", "Rollouts of PPO",
        "prompts of 16..128 tokens, answers that end by themselves after 40 tokens on average and 128 at most, against "
        "what TRL's PPO trainer generates with.", {"trl": "TRL"}, aims_only=False,
    )


def floor() -> list[str]:
    """Decoding steps beside the time that their bytes and products take at the least."""
    found = read("generation_floor")
    if found is None:
        return ["The floor of a decoding step: not measured.", ""]
    rows = [
        [row["case"], f"{row['step_ms']:.2f}", f"{row['bytes_floor_ms']:.2f}", f"{row['products_floor_ms']:.2f}",
         f"{row['share_of_bytes_floor']:.0%}", f"{row['share_of_floor']:.0%}"]
        for row in found["rows"]
    ]
    best = found["ceilings"]
    return [
        "The floor of a decoding step: all weights, keys and values read once at the rate of a loop that only reads as "
        "many bytes, or two operations a weight and row at the rate of a large matmul "
        f"({best['float32_gflop_s']:.0f} GFLOP/s), whichever takes longer. Beyond the caches that loop reads "
        f"{best['read_gb_s_beyond_caches']:.0f} GB/s.", "",
        *table(("case", "step, ms", "bytes, ms", "products, ms", "bytes' share", "floor's share"), rows), "",
        f"{place_and_priority(found)}.", "",
    ]


def relative(name: str, title: str) -> list[str]:
    """A benchmark of contenders in one process: rates as shares of the first one's."""
    found = read(f"generation_{name}")
    if found is None:
        return [f"{title}: not measured.", ""]
    names = list(dict.fromkeys(contender for row in found["rows"] for contender in row["contenders"]))
    rows = []
    for row in found["rows"]:
        figures = row["contenders"]
        cells = [f"{figures[other]['relative']:.2f}x" if other in figures else "" for other in names[1:]]
        rows.append([row["case"], f"{figures[names[0]]['tokens_per_second']:,.0f}", *cells])
    head = ("case", f"{names[0]}, tokens/s", *names[1:])
    return [f"{title}:", "", *table(head, rows), "", f"{place_and_priority(found)}.", ""]


def pauses() -> list[str]:
    """How long rows wait for their next token while long prompts come in."""
    found = read("generation_sharing")
    if found is None:
        return ["Pauses while prompts come in: not measured.", ""]
    names = list(found["pauses"][0]["contenders"])
    rows = [
        [row["case"], *(f"{row['contenders'][name]['median_ms']:.1f}" for name in names)] for row in found["pauses"]
    ]
    return [
        "Longest time between two tokens of completions under way while long prompts come in, ms, by how many prompt "
        "tokens are run between two steps:", "", *table(("case", *names), rows), "",
    ]


def server() -> list[str]:
    """Streaming clients over HTTP against the engine alone."""
    found = read("generation_server")
    if found is None:
        return ["The server: not measured.", ""]
    rows = []
    for row in found["rows"]:
        alone, over = row["contenders"]["engine alone"], row["contenders"]["server"]
        rows.append([
            row["case"], f"{over['requests_per_second']:.1f}", f"{over['tokens_per_second']:,.0f}",
            f"{row['share_of_engine']:.0%}",
            *(f"{one['first_token_ms']['median']:.1f} ({one['first_token_ms']['p90']:.1f})" for one in (over, alone)),
        ])
    first = ("first token, ms (90%)", "engine alone, ms (90%)")
    return [
        "The server: streaming clients on the same machine share its cores; beside it the engine alone with as many "
        "requests under way.", "",
        *table(("case", "requests/s", "tokens/s", "of the engine's rate", *first), rows), "",
        f"{place_and_priority(found)}.", "",
    ]


def generation() -> list[str]:
    """All of docs/measured.md's part about generation."""
    return [
        *batches(aims_only=False), *rollouts(), *floor(),
        *relative("joining", "Requests that join as others end, against whole batches, with the same engine"),
        *relative("sharing", "Prefixes shared, against each its own, with the same engine"), *pauses(),
        *relative("samplers", "Each way to draw a token, as a share of greedy's rate"), *server(),
    ]


def hygiene() -> list[str]:
    """`prepare` with every rule on, on real text."""
    found = read("hygiene")
    if found is None:
        return ["Not measured."]
    rows = []
    for row in found["rows"]:
        peak = row["peak_anonymous_bytes"]
        rows.append([
            row["corpus"], f"{row['lines']:,}", f"{row['bytes'] / 1e6:.0f}", f"{row['seconds']:.0f}",
            f"{row['lines_per_second']:,.0f}", f"{row['core_seconds']:.0f}",
            f"{row['lines'] / row['core_seconds']:,.0f}",
            f"{peak['main'] / 2**20:.0f} + {row['processes']} x {peak['worker'] / 2**20:.0f}",
            ", ".join(f"{rule} {count:,}" for rule, count in row["removed"].items()),
        ])
    packages = ", ".join(f"{name} {version}" for name, version in found["corpus"]["packages"].items())
    head = ("input", "lines", "MB", "seconds", "lines/s", "core seconds", "lines/core second", "memory, MiB", "removed")
    load = found["load_average"]
    return [
        f"`instructgpt-fast prepare` with every rule on and {found['rows'][0]['processes']} processes, on text of the "
        f"Debian packages {packages}, and the synopses of all packages with their maintainers as users. Memory is "
        "the peak of what cannot be dropped (RssAnon): of the run, and of each worker.", "", *table(head, rows), "",
        f"{machine(found)}{'' if load is None else f', load average {load[0]:.1f}'}.",
    ]


def ops(folder: Path) -> list[str]:
    """Every micro-benchmark recorded on one device; on a GPU with rate, share of the ceiling, what was left out."""
    lines: list[str] = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if path.stem.startswith(("stage_", "quickstart", "ablation", "generation_", "hygiene")) or "rows" not in found:
            continue
        gpu = "gpu" in found
        rows = []
        for row in found["rows"]:
            rivals = ", ".join(f"{value:.2f}x {rival}" for rival, value in row["speedup"].items())
            ours = row["contenders"]["ours"]
            time = f"{ours['median_ms']:.{4 if gpu else 3}f}"
            rate = f"{ours['tflop_s']:.3g}" if "tflop_s" in ours else ""
            share = "" if row["share_of_ceiling"] is None else f"{row['share_of_ceiling']:.0%}"
            rows.append([row["case"], time, *([rate, share] if gpu else []), rivals])
        rows += [[case, "not measured", *(["", ""] if gpu else []), ""] for case in found.get("left_out", [])]
        head = ("case", "ours, ms", *(["TFLOP/s", "of the ceiling"] if gpu else []), "times as fast as")
        lines += [f"### {path.stem}", "", *table(head, rows), "", f"{machine(found)}.", ""]
    return lines


def gpus() -> list[str]:
    """Every micro-benchmark recorded on a GPU, a section for each kind of GPU."""
    folders = sorted(path for path in RESULTS.iterdir() if path.is_dir() and path.name != "cpu")
    if not folders:
        return ["## Operators on GPUs", "", "Not measured: nobody has run anything on a GPU.", ""]
    return [line for folder in folders for line in (
        f"## Operators on {folder.name}", "",
        "The ceiling is what a device copy or a matmul of the same process reaches (`benchmarks/measure.py`).", "",
        *ops(folder))]


def ablations() -> list[str]:
    """The printed output of the recorded ablation run."""
    found = read("ablations")
    if found is None:
        return ["Not measured."]
    return [machine(found) + ".", "", "```", *(line.rstrip() for line in found["printed"]), "```"]


def readme(text: str) -> str:
    """README.md with its measured part replaced."""
    before, rest = text.split(BEGIN)
    parts = [*quickstart(), "", *stages(), "", *batches(aims_only=True), *rollouts()]
    return "\n".join([before + BEGIN, "", *parts, END]) + rest.split(END)[1]


def measured() -> str:
    """The whole of docs/measured.md."""
    return "\n".join([
        "# What was measured", "",
        "Written by `python tools/write_measured.py` from `benchmarks/results/`; figures are ratios taken in one run "
        "on a small shared machine, so compare ratios, not milliseconds; GPUs have sections of their own.", "",
        "## Quickstart", "", *quickstart(), "", "## Stages", "", *stages(), "", "## Generation", "", *generation(),
        "## Data hygiene", "", *hygiene(), "",
        "## Directions of the paper's ablations", "", *ablations(), "", *gpus(), "## Operators on the CPU", "",
        *ops(RESULTS / "cpu"),
    ]).rstrip() + "\n"


def main() -> int:
    """Write or check both documents; returns the exit status."""
    documents = {
        ROOT / "README.md": readme((ROOT / "README.md").read_text(encoding="utf-8")),
        ROOT / "docs" / "measured.md": measured(),
    }
    stale = [path for path, text in documents.items() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.name} does not say what benchmarks/results says: run python tools/write_measured.py")
        return 1 if stale else 0
    for path in stale:
        path.write_text(documents[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
