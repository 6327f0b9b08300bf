#!/usr/bin/env python3
"""The table of TPLA quality in engine/weights/README.md: calibrates models in every way that is
compared there, measures all of them on text that no calibration has seen, and prints Markdown.

  tools/quality_table.py --server build/cpu-release/bin/tessera \\
      --models configs/demo_model --models DIR ... \\
      --calibration-text FILE ... --text FILE [--work DIR]

Models, files or ways that could not be run are named below the table. Files of an earlier run in
--work are taken as they are, so that an interrupted run goes on.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

LENGTHS = ["256:256", "512:512", "64:960"]
BUDGETS = ["1.0", "1.15", "1.3"]
GROUPS = ["plain", "share", "ours"]
PCA = ["--basis", "pca", "--dealing", "contiguous", "--refit", "none", "--tpla-budget", "1.0"]


def groups(slices):
    """What is measured in one run: name of the group, then of each way its name, its arguments of
    calibrate (None: eval knows the basis by itself), its mode (None: of the calibration)."""
    yield "plain", [
        ("identity", None, f"tpla:{slices}:none"),
        ("Hadamard", None, f"tpla:{slices}:hadamard"),
        ("PCA, factor 1", [*PCA, "--logit-factor", "1"], None),
        ("PCA, factor slices", [*PCA, "--logit-factor", str(slices)], None),
        ("fold", ["--refit", "none", "--tpla-budget", "1.0"], None)]
    yield "share", [("PCA, factor 1 / share", [*PCA, "--logit-factor", "share"], None)]
    yield "ours", [(f"ours, budget {budget}", ["--tpla-budget", budget], None)
                   for budget in BUDGETS]


def run(arguments, log, problems, what):
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{what} ...", file=sys.stderr, flush=True)
    with log.open("w", encoding="utf-8") as out:
        code = subprocess.run(arguments, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0:
        problems.append(f"{what}: exit {code}, see {log}")
    return code == 0


def calibrations(options, model, slices, ways, problems):
    """(name, mode of eval) of every way that there is a calibration for."""
    folder = options.work / model.name
    found = []
    for name, arguments, mode in ways:
        if arguments is None:
            found.append((name, mode))
            continue
        file = folder / (f"g{slices}-" + name.replace(" ", "_").replace(",", "") + ".safetensors")
        if not file.exists():
            texts = [part for text in options.calibration_text for part in ("--text", text)]
            command = [options.server, "calibrate", str(model), *texts, "--slices", str(slices),
                       "--tokens", str(options.tokens), "--output", str(file),
                       "--statistics", str(folder / "statistics.safetensors"), *arguments]
            if not run(command, file.with_suffix(".log"), problems,
                       f"{model.name}, {slices} slices, {name}"):
                continue
        found.append((name, f"tpla:{slices}:{file}"))
    return found


def measure_group(options, model, slices, group, problems):
    """(name, cell) of a group's ways behind the exact model, by lengths; empty if it was not run."""
    name, ways = group
    named_modes = calibrations(options, model, slices, ways, problems)
    result = options.work / model.name / f"g{slices}-{name}.json"
    if named_modes and not result.exists():
        modes = ",".join(["replicated:1"] + [mode for _, mode in named_modes])
        command = [options.server, "eval", str(model), "--text", options.text, "--modes", modes,
                   "--lengths", ",".join(LENGTHS), "--windows", str(options.windows),
                   "--json", str(result), "--html", str(result.with_suffix(".html"))]
        run(command, result.with_suffix(".log"), problems,
            f"{model.name}, {slices} slices, measurement of {name}")
    if not result.exists():
        return {}
    cells = json.loads(result.read_text(encoding="utf-8"))["cells"]
    names = ["exact"] + [name for name, _ in named_modes]
    return {length: list(zip(names, cells[at * len(names):(at + 1) * len(names)]))
            for at, length in enumerate(LENGTHS)}


def measure(options, model, slices, problems):
    """Rows of the table, by lengths."""
    measured = [measure_group(options, model, slices, group, problems)
                for group in groups(slices) if group[0] in options.group]
    rows = []
    for length in LENGTHS:
        of_length = [of_group.get(length, []) for of_group in measured]
        pairs = next((found[:1] for found in of_length if found), [])  # exact, once
        for found in of_length:
            pairs += found[1:]
        rows += [(name, length, cell) for name, cell in keep_best_pca(pairs)]
    return rows


def keep_best_pca(named_cells):
    """Of the ways that differ in PCA's factor only, the one with the least divergence."""
    pca = [pair for pair in named_cells if pair[0].startswith("PCA")]
    best = min(pca, key=lambda pair: pair[1]["kl"], default=None)
    return [pair for pair in named_cells if not pair[0].startswith("PCA") or pair is best]


def table_line(model, slices, name, length, cell):
    change = 100 * (cell["perplexity_ratio"] - 1)
    return (f"| {model} | {slices} | {name} | {length.replace(':', ' + ')} "
            f"| {cell['kl']:.2g} ± {cell['kl_error']:.1g} | {cell['perplexity']:.2f} "
            f"| {change:+.2f} ± {100 * cell['perplexity_ratio_error']:.2f} "
            f"| {100 * cell['top1_agreement']:.1f} | {cell['agreement_length']:.0f} "
            f"| {cell['bytes_per_token']:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--models", action="append", type=Path, required=True)
    parser.add_argument("--calibration-text", action="append", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--slices", type=int, action="append", help="default: 2 and 4")
    parser.add_argument("--group", action="append", choices=GROUPS, help="default: all")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--work", type=Path, default=Path("build/quality"))
    options = parser.parse_args()
    options.group = options.group or GROUPS
    problems = []
    print("| model | g | way | prompt + decoded | KL, nats | perplexity | change, % | same top-1, % "
          "| agreement, tokens | bytes / token, rank |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for model in options.models:
        if not (model / "config.json").exists():
            problems.append(f"{model}: no config.json, not run")
            continue
        for slices in options.slices or [2, 4]:
            for name, length, cell in measure(options, model, slices, problems):
                print(table_line(model.name, slices, name, length, cell), flush=True)
    for problem in problems:
        print(f"\nNot run: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
