"""Write the documentation that ships with the package anew, from this Python's standard library.

Run it as `python tools/documentation.py`. Another Python's library gives other calibration and held-out text,
and with it other numbers everywhere.
"""

from sinkprune.corpus import DOCUMENTATION, installed
from sinkprune.files import atomic

if __name__ == "__main__":
    with atomic(DOCUMENTATION) as partial:
        partial.write_text("".join(f"{paragraph}\n" for paragraph in installed("stdlib")), encoding="utf-8")
    print(f"written to {DOCUMENTATION}")
