"""What a run measured: a table at its end, and a JSON file for machines."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(slots=True)
class Figure:
    """One measurement: the worst of several, against what is promised."""

    name: str
    unit: str
    promised: float | None
    worst: float
    count: int = 1


class Figures:
    """Collects; the worst of a name is kept."""

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}

    def note(self, name: str, value: float, unit: str = "s", promised: float | None = None) -> float:
        """Keep a measurement; give it back."""
        held = self._figures.get(name)
        if held is None:
            self._figures[name] = Figure(name, unit, promised, value)
        else:
            held.worst, held.count = max(held.worst, value), held.count + 1
        return value

    def lines(self) -> list[str]:
        """The table, without a heading."""
        rows = [
            (
                figure.name,
                f"{figure.worst:.4g} {figure.unit}",
                "" if figure.promised is None else f"{figure.promised:g} {figure.unit}",
                f"{figure.count}",
            )
            for figure in self._figures.values()
        ]
        rows.insert(0, ("what", "worst", "promised", "of"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return [
            "  ".join([row[0].ljust(widths[0]), *(row[c].rjust(widths[c]) for c in (1, 2, 3))]) for row in rows
        ]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps([asdict(figure) for figure in self._figures.values()], indent=1) + "\n")

    def __bool__(self) -> bool:
        return bool(self._figures)
