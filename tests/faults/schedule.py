"""Random faults: what is done to whom, and when, drawn from a seed. The same seed is the same schedule."""

import random
from dataclasses import dataclass

BROKERS = ("b1", "b2", "b3")
PUBLISHERS = ("p1", "p2")
SUBSCRIBERS = ("s1", "s2")
EVERYBODY = (*BROKERS, *PUBLISHERS, *SUBSCRIBERS)

CABLES = ("cut", "cut-one-way", "part")
"""What only hosts with links of their own can suffer."""
DOORS = ("delay", "throttle", "trickle", "hold", "swallow", "resets", "cut-all", "half-close")
"""What only those behind a door can suffer: brokers and publishers."""

GRACE_S = 10.0
"""After a fault of a publisher or subscriber, or of a link to one: so long a read may still fail."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is done at ``begin_s`` and undone at ``end_s``, in seconds from the start of the schedule."""

    begin_s: float
    end_s: float
    kind: str
    whom: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.begin_s:5.1f} to {self.end_s:4.1f} s: {self.kind} {' '.join(self.whom)}"

    @property
    def of_brokers(self) -> bool:
        """Only brokers suffer, so no read may fail."""
        return all(name in BROKERS for name in self.whom) and self.kind != "part"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One seed."""

    seed: int
    has_cables: bool
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        where = "hosts with cables" if self.has_cables else "processes behind doors"
        return "\n".join([f"seed {self.seed}, {where}:", *map(str, self.faults)])

    @property
    def length_s(self) -> float:
        return max(fault.end_s for fault in self.faults)

    def troubles(self) -> list[tuple[float, float]]:
        """Times in which reads may fail: while a fault is no broker's, and a while after it.

        Who comes back while brokers are away finds the others when those are back.
        """
        spans = []
        for fault in self.faults:
            if fault.of_brokers:
                continue
            end_s = fault.end_s
            for other in sorted(self.faults, key=lambda each: each.begin_s):
                if other.of_brokers and other.begin_s <= end_s + GRACE_S:
                    end_s = max(end_s, other.end_s)
            spans.append((fault.begin_s, end_s + GRACE_S))
        return spans


def draw(seed: int, has_cables: bool, length_s: float) -> Schedule:
    """Draw a schedule; of every three, one lets only brokers suffer."""
    chance = random.Random(seed)
    only_brokers = seed % 3 == 0
    free_at_s = dict.fromkeys(EVERYBODY, 1.0)
    faults: list[Fault] = []
    for _ in range(chance.randint(3, 7)):
        kind, whom = _draw_one(chance, has_cables, only_brokers)
        begin_s = max(max(free_at_s[name] for name in whom), chance.uniform(1.0, length_s * 0.7))
        end_s = min(begin_s + chance.choice((0.3, 1.0, 3.0, 5.0)), length_s)
        if begin_s >= length_s * 0.8:
            continue
        faults.append(Fault(begin_s, end_s, kind, whom))
        for name in whom:
            free_at_s[name] = end_s + 1.0
    faults.sort(key=lambda fault: fault.begin_s)
    return Schedule(seed, has_cables, tuple(faults))


def _draw_one(chance: random.Random, has_cables: bool, only_brokers: bool) -> tuple[str, tuple[str, ...]]:
    among = BROKERS if only_brokers else EVERYBODY
    kind = chance.choice(("kill", "kill", "stop", "restart", "kill-all-brokers", "network", "network", "network"))
    if kind == "kill-all-brokers":
        return "kill", BROKERS
    if kind != "network":
        return kind, (chance.choice(among),)
    if has_cables:
        kind = chance.choice(CABLES)
        if kind == "part":
            # EVERYBODY is on one side or the other
            return (
                ("part", tuple(chance.sample(among, chance.randint(1, len(among) - 1))))
                if not only_brokers
                else ("cut", tuple(chance.sample(BROKERS, 2)))
            )
        return kind, tuple(chance.sample(among, 2))
    behind = [name for name in among if name not in SUBSCRIBERS]
    return chance.choice(DOORS), (chance.choice(behind),)
