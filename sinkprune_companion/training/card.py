"""The model card of an adapter: what it was trained on, how that went, and how good it is beside its twin.

The card is a function of files: of `measures.json`, which holds what was measured, of the training settings
and of the log, so that none can be edited without the others. Its words are in `card_text`, its tables in
`card_tables`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sinkprune_companion.harness import quality
from sinkprune_companion.training import card_tables, card_text
from sinkprune_companion.training.base import EMBEDDED_BASE
from sinkprune_companion.training.card_tables import token_count
from sinkprune_companion.training.crops import SAMPLE_LENGTH
from sinkprune_companion.training.learning_curve import MIN_ROWS
from sinkprune_companion.training.log import rows_of
from sinkprune_companion.training.losses import MEASURES
from sinkprune_companion.training.samples import TOP_K
from sinkprune_companion.training.settings import EXPORTED_LOG, SETTINGS, settings_of
from sinkprune_core import corpus
from sinkprune_core.files import atomic
from sinkprune_core.models import embedded

MEASURED = "measures.json"
REFITS = 500  # of the learning curve's power law, to residuals drawn with replacement


def write_card(folder: Path) -> Path:
    """Write README.md in `folder` from its settings, its log and its `measures.json`, if any; return it.

    Raises ValueError where the measures belong to another adapter.
    """
    file = folder / MEASURED
    measures = None
    if file.is_file():
        measures = json.loads(file.read_text(encoding="utf-8"))
        if measures["adapter"] != adapter_digest(folder):
            raise ValueError(
                f"{file} was measured on another adapter than the one beside it: "
                f"run `sinkprune card --folder {folder}`"
            )
    text = render(settings_of(folder / SETTINGS), log_of(folder), measures)
    card = folder / "README.md"
    with atomic(card) as partial:
        partial.write_text(text, encoding="utf-8")
    return card


def log_of(folder: Path) -> list[dict]:
    """Return the rows of an exported training log."""
    return rows_of(folder / EXPORTED_LOG)


def adapter_digest(folder: Path) -> str:
    """Return the SHA-256 of an exported adapter."""
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def render(settings: Mapping, log: Sequence[Mapping], measures: Mapping | None) -> str:
    """Return the model card: data and training from `settings` and `log`, quality from `measures`.

    `measures` is None for what was not measured (yet).
    """
    last = log[-1]
    measure = MEASURES[settings["kind"]]
    is_embedded = settings["base"] == EMBEDDED_BASE
    head = _embedded_head(settings, last) if is_embedded else _other_head(settings, last)
    quality_section = _quality(measures, settings["kind"]) if is_embedded else ""
    return card_text.WHOLE_CARD.format(
        head=head,
        quality=quality_section,
        data=_data(settings, last),
        loss=card_text.LOSS_TEXT[settings["kind"]],
        precision="float32" if settings.get("dtype") == "float32" else "bfloat16 autocast",
        machine=" on a CPU" if is_embedded else "",
        appendix="; notebook 01 draws them in its appendix" if is_embedded else "",
        settings=card_tables.settings_table(settings),
        tokens=last["tokens"],
        steps=last["step"],
        loss_name=card_text.LOSS_NAMES[measure],
        more="\nThe tables above measure more." if measures else "",
        log=card_tables.log_table(log, measure),
        outlook="" if measures is None else _outlook(measures),
    )


def _embedded_head(settings: Mapping, last: Mapping) -> str:
    return card_text.EMBEDDED_HEAD.format(
        title=card_text.EMBEDDED_TITLES[settings["kind"]],
        package=embedded.BASE.package,
        version=embedded.BASE.version,
        digest=embedded.BASE.member_sha256,
        how=card_text.EMBEDDED_HOW[settings["kind"]],
        tokens=last["tokens"],
        earlier=_earlier(settings),
    )


def _earlier(settings: Mapping) -> str:
    """Return what the adapter had seen before this training, "" for a fresh one."""
    earlier = settings.get("earlier_tokens", 0)
    if not earlier:
        return ""
    return card_text.EARLIER.format(tokens=earlier)


def _other_head(settings: Mapping, last: Mapping) -> str:
    if settings["kind"] == "diffusion":
        what = "a masked diffusion language model"
        mask = card_text.OTHER_MASK
    else:
        what = "an autoregressive language model, trained on"
        mask = ""
    return card_text.OTHER_HEAD.format(
        base=Path(settings["base"]).name,
        what=what,
        mask=mask,
        tokens=last["tokens"],
        earlier=_earlier(settings),
    )


def _data(settings: Mapping, last: Mapping) -> str:
    """Return what is said of the data: the sources, what is held out, and what a sequence is."""
    is_embedded = settings["base"] == EMBEDDED_BASE
    columns = card_tables.held_out_columns(last, MEASURES[settings["kind"]])
    is_own_text = any("_text" in column for column in columns)
    sources = card_text.OWN_DATA["text" if is_own_text else "documentation"].format(
        share=corpus.HELD_OUT_SHARE
    )
    if is_embedded:
        samples = card_text.SAMPLES_DATA.format(
            top_k=TOP_K,
            length=settings.get("length", SAMPLE_LENGTH),
            seed=settings["data_seed"],
            held_out=corpus.HELD_OUT_SAMPLES,
        )
        sources = samples + sources
    else:
        sources = sources[0].upper() + sources[1:]
    if "lengths" not in settings:  # an adapter from before crops
        sequences = card_text.WHOLE_DATA.format(length=settings["length"])
    else:
        sequences = _crops(settings)
    return f"{sources}\nNo held-out text was ever trained on.\n\n{sequences}"


def _crops(settings: Mapping) -> str:
    *shorter, longest = map(str, settings["lengths"])
    lengths = longest
    if shorter:
        lengths = f"{', '.join(shorter)} or {longest}"
    text = card_text.CROPS_DATA.format(lengths=lengths, first_token=card_text.FIRST_TOKEN[settings["kind"]])
    if settings["base"] == EMBEDDED_BASE:
        text += card_text.NATURAL_DATA
    return text


def _quality(measures: Mapping | None, kind: str) -> str:
    """Return the section on quality, "" for a kind of adapter that is not measured."""
    if measures is None:
        return card_text.NOT_MEASURED_YET if kind == "diffusion" else ""
    settings = measures["settings"]
    environment = measures["environment"]
    rows = card_tables.Measures(measures["rows"])
    return card_text.QUALITY.format(
        file=MEASURED,
        sequences=settings["sequences"],
        length=settings["length"],
        draws=settings["draws"],
        dtype=settings["dtype"],
        seed=settings["seed"],
        torch=environment["versions"]["torch"],
        transformers=environment["versions"]["transformers"],
        platform=environment["platform"],
        goals=card_tables.goals_table(rows),
        likelihood=card_tables.likelihood_table(rows),
        levels=card_tables.levels_table(rows),
        filling=card_tables.filling_table(rows),
        first_token=card_tables.first_token_table(rows),
        answers=card_tables.answers_table(rows),
        sample_tokens=quality.SAMPLE_TOKENS,
        samples=card_tables.samples_text(measures["samples"]),
    )


def _outlook(measures: Mapping) -> str:
    """Return what more training would bring by the learning curve."""
    curves = measures["learning_curve"]
    if not curves:
        return card_text.NO_OUTLOOK.format(rows=MIN_ROWS)
    hour = measures["gpu_hour"]
    now = next(iter(curves.values()))["now"]
    return card_text.OUTLOOK.format(
        refits=REFITS,
        fits=card_tables.fits_table(curves),
        now=token_count(now),
        distances=card_tables.outlook_table(curves, hour["tokens"]),
        hardware=hour["hardware"],
        speed=hour["flops_per_second"] / 1e12,
        flops_per_token=hour["flops_per_token"] / 1e9,
        millions=hour["tokens"] / 1e6,
        times=hour["tokens"] / now,
    )
