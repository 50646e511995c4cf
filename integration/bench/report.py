"""The table and the picture of a comparison."""

import dataclasses
from xml.sax.saxutils import escape


@dataclasses.dataclass
class Row:
    """One figure beside what it is compared with. A negative target is a ratio to be reached at least;
    without anything to compare with the target is the figure's own; without a target it is there to be
    compared."""

    work: str
    unit: str
    ours: float
    theirs: float | None
    other: str
    target: float | None

    @property
    def ratio(self):
        return None if not self.theirs else self.ours / self.theirs

    @property
    def measured(self):
        """What the target speaks of."""
        return self.ours if self.theirs is None else self.ratio

    @property
    def is_met(self):
        if self.measured is None or self.target is None:
            return False
        return self.measured >= -self.target if self.target < 0 else self.measured <= self.target

    def __str__(self):
        theirs = "" if self.theirs is None else f"{self.theirs:.2f} {self.other}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        if self.target is None:
            return f"{self.work:<40}{self.unit:<11}{self.ours:>9.2f}  {theirs:<27}{ratio:>6}"
        bound = f">= {-self.target:g}" if self.target < 0 else f"<= {self.target:g}"
        met = "yes" if self.is_met else "no"
        return f"{self.work:<40}{self.unit:<11}{self.ours:>9.2f}  {theirs:<27}{ratio:>6}  {bound:<8}{met}"


def table(rows, rounds, seconds, note):
    head = f"{'work':<40}{'unit':<11}{'shardwire':>9}  {'beside':<27}{'ratio':>6}  {'target':<8}met"
    lines = [f"medians of {rounds} rounds of {seconds} s", head, *map(str, rows)]
    return "\n".join([*lines, note] if note else lines)


def picture(rows):
    """Bars of the ratios with their targets, as SVG."""
    rows = [row for row in rows if row.ratio is not None and row.target is not None]
    width, left, line = 800, 340, 26
    scale = (width - left - 70) / max(2.0, *(max(row.ratio, abs(row.target)) for row in rows))
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{len(rows) * line + 50}" '
             'font-family="sans-serif" font-size="12">',
             '<rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="18" fill="#555">Shardwire, as a ratio to what stands beside it; the tick is the target'
             '</text>']
    for number, row in enumerate(rows):
        y = 32 + number * line
        colour = "#2a7f62" if row.is_met else "#c77d2e"
        tick = left + abs(row.target) * scale
        parts += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(row.work)}, '
            f'<tspan fill="#777">{escape(row.unit)}</tspan></text>',
            f'<rect x="{left}" y="{y}" width="{row.ratio * scale:.1f}" height="18" fill="{colour}"/>',
            f'<line x1="{tick:.1f}" x2="{tick:.1f}" y1="{y - 2}" y2="{y + 20}" stroke="black" stroke-width="2"/>',
            f'<text x="{left + row.ratio * scale + 5:.1f}" y="{y + 14}">{row.ratio:.2f} '
            f'<tspan fill="#777">{escape(row.other)}</tspan></text>']
    return "\n".join([*parts, "</svg>", ""])
