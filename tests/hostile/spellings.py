"""Two outputs of one command that are one file, however they are spelled: refused before the work."""

from pathlib import Path

from hostile.cases import Bench
from hostile.tally import BROKE, HELD, REFUSED, Tally, is_one_sentence

GROUP = "two spellings of one path"
TRACE = "trace llada --text text.txt --sequences 2 --prompt 6 --tokens 8 --steps 4"
PAIRS = (("--out", "--json"), ("--out", "--figure"), ("--json", "--figure"))


def spellings(folder: Path, name: str) -> list[str]:
    """Return other spellings of the file `name` of a folder."""
    (folder / "inner").mkdir(exist_ok=True)
    if not (folder / "link").exists():
        (folder / "link").symlink_to(folder, target_is_directory=True)
    return [name, f"./{name}", str(folder / name), f"inner/../{name}", f"link/{name}", f"link/link/{name}"]


def run_all(bench: Bench, tally: Tally) -> None:
    """Give each pair of outputs of `trace` one place in two spellings, and then two places."""
    for pair in PAIRS:
        for number in range(6):
            with bench.server() as server, bench.folder() as folder:
                name = "x.png"
                other = spellings(folder, name)[number]
                arguments = [*TRACE.split(), pair[0], name, pair[1], other]
                outcome = server.run(folder, arguments)
                how = ""
                if outcome.status != 1 or not is_one_sentence(outcome.said):
                    how = f"status {outcome.status}: {outcome.said[-300:]}"
                elif (folder / name).exists():
                    how = "it wrote one of them"
                tally.add(GROUP, f"{pair[0]} {name} {pair[1]} {other}", BROKE if how else REFUSED, how)
        with bench.server() as server, bench.folder() as folder:
            (folder / "inner").mkdir()
            outcome = server.run(folder, [*TRACE.split(), pair[0], "x.png", pair[1], "inner/y.png"])
            is_right = outcome.status == 0 and (folder / "x.png").is_file()
            verdict = HELD if is_right else BROKE
            tally.add(GROUP, f"{pair[0]} and {pair[1]} apart", verdict, outcome.said[-300:])
