"""What came of hostile cases, by group: what held, what was refused in one clear sentence, what broke."""

from collections import Counter
from dataclasses import dataclass, field

HELD = "held"
REFUSED = "refused"
BROKE = "broke"


@dataclass
class Tally:
    """Counts by group; `broken` says of every case that broke which it was and how."""

    counts: dict[str, Counter] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)

    def add(self, group: str, case: str, verdict: str, how: str = "") -> None:
        """Count a case; `how` says what happened to one that broke."""
        self.counts.setdefault(group, Counter())[verdict] += 1
        if verdict == BROKE:
            self.broken.setdefault(group, []).append(f"{case}: {how}")

    def values(self) -> dict[str, dict]:
        """Return the counts as plain values, which another process can be sent; see `of_values`."""
        counts = {group: dict(found) for group, found in self.counts.items()}
        return {"counts": counts, "broken": self.broken}

    @classmethod
    def of_values(cls, values: dict[str, dict]) -> "Tally":
        """Return the tally that gave some plain values."""
        counts = {group: Counter(found) for group, found in values["counts"].items()}
        return cls(counts, dict(values["broken"]))

    def join(self, other: "Tally") -> None:
        """Add the counts of another tally."""
        for group, counts in other.counts.items():
            self.counts.setdefault(group, Counter()).update(counts)
        for group, cases in other.broken.items():
            self.broken.setdefault(group, []).extend(cases)

    def table(self) -> str:
        """Return a row per group in Markdown."""
        lines = ["| group | cases | held | refused in one sentence | broke |", "|:--|--:|--:|--:|--:|"]
        for group, counts in self.counts.items():
            numbers = (counts.total(), counts[HELD], counts[REFUSED], counts[BROKE])
            lines.append(f"| {group} | {' | '.join(f'{number:,}' for number in numbers)} |")
        for group, cases in self.broken.items():
            lines += [f"BROKE {group}: {case}" for case in cases]
        return "\n".join(lines)


def is_one_sentence(said: str) -> bool:
    """Return whether a command ended with one line of error in words, and without a traceback."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    is_raw = "Traceback" in said or "(--debug shows where)" in said
    return len(errors) == 1 and said.splitlines()[-1] == errors[0] and not is_raw
