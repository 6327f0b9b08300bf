#!/usr/bin/env python3
"""Draws how much faster decode steps of two modes are than those of a third, as an SVG.

Reads what step_bench prints: a panel for each NAME=FILE,FILE,FILE (the mode that the others are
compared with, then a dashed and a drawn line), contexts along x, a colour for each batch.
"""
import argparse
import math
import re
import sys

LINE = re.compile(r"decode\s+batch\s+(\d+) context\s+(\d+):\s+[\d.]+ tokens/s, ([\d.]+) ms a step")
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#9c6b4e", "#a463f2")
WIDTH, HEIGHT = 400, 300  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 46, 70, 30, 44


def read_steps(path):
    """Milliseconds by (batch, context)."""
    with open(path, encoding="utf-8") as file:
        steps = {(int(batch), int(context)): float(milliseconds)
                 for batch, context, milliseconds in LINE.findall(file.read())}
    if not steps:
        raise SystemExit(f"plot_steps: no decode steps in {path}")
    return steps


def ratios(base, steps):
    """Per batch, [(context, times faster)]."""
    lines = {}
    for batch, context in sorted(base.keys() & steps.keys()):
        lines.setdefault(batch, []).append(
            (context, base[batch, context] / steps[batch, context]))
    return lines


class Panel:
    """Maps (context, ratio) to a panel's pixels."""

    def __init__(self, left, contexts, low, high):
        self.left = left
        self.begin, self.end = math.log2(contexts[0]), math.log2(contexts[-1])
        self.low, self.high = low, high

    def x(self, context):
        share = (math.log2(context) - self.begin) / max(1e-9, self.end - self.begin)
        return self.left + LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, ratio):
        share = (ratio - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def points(self, line):
        return " ".join(f"{self.x(context):.1f},{self.y(ratio):.1f}" for context, ratio in line)


def text(x, y, content, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{content}</text>'


def name_of(context):
    return f"{context // 1024}k" if context % 1024 == 0 else str(context)


def frame(panel, title, contexts):
    parts = [text(panel.left + LEFT, TOP - 12, title, 'font-weight="bold"')]
    step = 0.25 if panel.high - panel.low > 0.8 else 0.1
    for i in range(math.ceil(panel.low / step), math.floor(panel.high / step) + 1):
        y = panel.y(i * step)
        colour, width = ("#444", 1.2) if i * step == 1.0 else ("#ddd", 1)
        parts.append(f'<line x1="{panel.x(contexts[0]):.1f}" x2="{panel.x(contexts[-1]):.1f}" '
                     f'y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="{width}"/>')
        parts.append(text(panel.left + LEFT - 6, y + 4, f"{i * step:.2f}", 'text-anchor="end"'))
    for context in contexts:
        parts.append(text(panel.x(context), HEIGHT - BOTTOM + 18, name_of(context),
                          'text-anchor="middle"'))
    parts.append(text(panel.left + (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "tokens of context",
                      'text-anchor="middle"'))
    return parts


def draw_lines(panel, lines, dash):
    parts = []
    for number, (batch, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline points="{panel.points(line)}" fill="none" stroke="{colour}" '
                     f'stroke-width="2"{dash}/>')
        if not dash:
            context, ratio = line[-1]
            parts.append(text(panel.x(context) + 6, panel.y(ratio) + 4, f"batch {batch}",
                              f'fill="{colour}"'))
    return parts


def draw(sets):
    """`sets`: [(title, dashed lines, drawn lines)]."""
    every = [point for _, *pair in sets for lines in pair for line in lines.values()
             for point in line]
    contexts = sorted({context for context, _ in every})
    low = min(ratio for _, ratio in every) - 0.05
    high = max(ratio for _, ratio in every) + 0.05
    width = WIDTH * len(sets)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
             'font-family="sans-serif" font-size="11">',
             f'<rect width="{width}" height="{HEIGHT}" fill="white"/>']
    for number, (title, dashed, drawn) in enumerate(sets):
        panel = Panel(number * WIDTH, contexts, low, high)
        parts += frame(panel, title, contexts)
        parts += draw_lines(panel, dashed, ' stroke-dasharray="4 3"')
        parts += draw_lines(panel, drawn, "")
    return "\n".join([*parts, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("panels", nargs="+", metavar="NAME=FILE,FILE,FILE")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    sets = []
    for panel in options.panels:
        title, _, files = panel.partition("=")
        paths = files.split(",")
        if len(paths) != 3:
            parser.error(f"{panel!r} does not name three files")
        base, dashed, drawn = map(read_steps, paths)
        sets.append((title, ratios(base, dashed), ratios(base, drawn)))
    with open(options.out, "w", encoding="utf-8") as file:
        file.write(draw(sets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
