"""Bad inputs, each given to the code that reads it in this process: what held, was refused, or broke.

An input holds where it works and gives what the sound one gave. It is refused well where one line of error
was raised by this package in words, and names the file or the field. Anything else broke: a traceback of
another kind, a hang, or an answer that is silently another.
"""

import copy
import dis
import json
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hostile.tally import BROKE, HELD, REFUSED, Tally

from sinkprune.cli.main import OURS

SECONDS = 20  # of this process's time: no input takes longer; one that does hangs
WAITING = 120  # and of the clock, on a machine that others use
LENGTH = 1500  # characters of a clear sentence, at most: some list what is known
RAISE = dis.opmap["RAISE_VARARGS"]  # what a statement `raise` is compiled to
HUGE = (2**31, 10**30, 1e300)
WRONG = ("no", -1, -1.5, 0, True, [], ["x"], {}, {"a": 1}, "", float("nan"), float("inf"), *HUGE)


@dataclass(frozen=True)
class Case:
    """One bad input."""

    name: str
    run: Callable[[], object]  # reads it; what it returns is compared
    right: object  # what the sound input gives
    named: tuple[str, ...]  # words of which a refusal has one: the file, the field


class Hang(BaseException):
    """Raised by the alarm, past every `except Exception`."""


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise Hang in a block that takes too long."""

    def ring(*_):
        raise Hang

    limits = (
        (signal.SIGPROF, signal.ITIMER_PROF, SECONDS),
        (signal.SIGALRM, signal.ITIMER_REAL, WAITING),
    )
    former = [signal.signal(number, ring) for number, _, _ in limits]
    for _, timer, seconds in limits:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(limits, former, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def judge(case: Case) -> tuple[str, str]:
    """Return the verdict on a case, and how it broke."""
    try:
        with warnings.catch_warnings(), time_limit():
            warnings.simplefilter("ignore")
            found = case.run()
    except Hang:
        return BROKE, f"hangs for more than {SECONDS} s, or waits for more than {WAITING} s"
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        why = unclear(error, case.named)
        return (BROKE, why) if why else (REFUSED, "")
    except Exception as error:
        return BROKE, f"{type(error).__name__}: {str(error)[:200]}"
    return (HELD, "") if found == case.right else (BROKE, "silently another answer")


def unclear(error: Exception, named: Iterable[str]) -> str:
    """Return what is wrong with an error as a sentence for users; nothing where it is clear."""
    said = str(error)
    what = f"{type(error).__name__}: {said[:200]}"
    if "\n" in said.strip() or not said.strip():
        return f"not one line: {what}"
    if len(said) > LENGTH:
        return f"too long ({len(said)} characters): {what}"
    if not isinstance(error, OSError) and not has_words_of_ours(error):
        return f"not raised in words of ours: {what}"
    if not any(word in said for word in named):
        return f"names neither file nor field: {what}"
    return ""


def has_words_of_ours(error: Exception) -> bool:
    """Return whether a statement of this project raised an error, and not Python itself within one."""
    last = error.__traceback__
    assert last is not None  # it was raised
    while last.tb_next is not None:
        last = last.tb_next

    is_here = last.tb_frame.f_globals.get("__name__", "").partition(".")[0] in OURS
    return is_here and last.tb_frame.f_code.co_code[last.tb_lasti] == RAISE


def run(tally: Tally, group: str, cases: Iterable[Case], every: int = 1) -> None:
    """Judge every `every`-th case of a group."""
    for number, case in enumerate(cases):
        if number % every == 0:
            tally.add(group, case.name, *judge(case))


# ways to spoil


def flip(file: Path, place: int = -5) -> None:
    """Flip a bit of a file, one that no text in UTF-8 has alone."""
    data = bytearray(file.read_bytes())
    data[place] ^= 128
    file.write_bytes(data)


def spoiled_values(content: dict, keep: Iterable[str] = ()) -> Iterator[tuple[str, str, dict]]:
    """Yield (field, what was done, content) with every field wrong, null and missing, one at a time.

    `keep` are fields that are left alone.
    """
    for field, value in content.items():
        if field in keep:
            continue
        for wrong in WRONG:
            same_type = type(wrong) is type(value) or (isinstance(value, float) and type(wrong) is int)
            if same_type and wrong == value:
                continue
            yield field, f"{field}={wrong!r}", {**content, field: wrong}
        yield field, f"{field}=null", {**content, field: None}
        rest = copy.deepcopy(content)
        del rest[field]
        yield field, f"no {field}", rest


def spoiled_bytes(data: bytes, rng: random.Random, flips: int, cuts: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, bytes): one bit flipped, cut short, or something put in or behind."""
    for _ in range(flips):
        place = rng.randrange(len(data))
        bit = 1 << rng.randrange(8)
        changed = bytearray(data)
        changed[place] ^= bit
        yield f"bit {bit} of byte {place} flipped", bytes(changed)
    for _ in range(cuts):
        length = rng.randrange(len(data))
        yield f"cut to {length} bytes", data[:length]
    yield "emptied", b""
    yield "zeros", bytes(len(data))
    yield "garbage", rng.randbytes(len(data))
    yield "one byte more", data + b"x"


BROKEN_JSON = ("", "{", "[]", "null", "7", '"x"', "{]", "\x00", '{"a": ', "NaN", "[" * 100_000)


class Folder:
    """A folder in which one file is spoiled at a time; everything else stays sound."""

    def __init__(self, sound: Path, place: Path):
        self.sound = sound
        self.place = place
        shutil.copytree(sound, place)

    def reset(self) -> None:
        """Make the folder sound again."""
        shutil.rmtree(self.place)
        shutil.copytree(self.sound, self.place)

    def with_file(self, name: str, data: bytes | str | dict, read: Callable[[Path], object]) -> object:
        """Return what reading gives while a file is spoiled."""
        if isinstance(data, dict):
            data = json.dumps(data)
        file = self.place / name
        file.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        try:
            return read(self.place)
        finally:
            shutil.copy2(self.sound / name, file)
