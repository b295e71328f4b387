"""The tables of a model card: goals, likelihood, filling masks, two-choice tasks, samples, and the learning
curve.

All of them are functions of `measures.json` and of the training log.
"""

from collections.abc import Iterable, Mapping, Sequence

from sinkprune_core.tables import markdown_table

GOAL_NATS = 0.6  # NELBO above the twin's likelihood at most, nats per token
GOAL_PAIRS = 0.75  # right answers on two-choice items at least
WIKITEXT = "WikiText-2 validation"
BLIMP = "BLiMP"
SUITE = "offline suite"
SOURCES = {"samples": "samples of the AR model", "documentation": "documentation"}
LOGGED = {
    "samples": "samples of the base",
    "documentation": "documentation",
    "text": "held-out text",
    "natural": "WikiText-2",
}  # sources of held-out text in a training log
FIRST_TOKEN = {
    "without it": "crops as they are",
    "with it": "behind `<|endoftext|>`",
    "without − with": "difference, paired",
    "hiding position 0, without": "what hiding position 0 costs, crops as they are",
    "hiding position 0, with": "what hiding position 0 costs, behind `<|endoftext|>`",
}  # by the condition of `first_token`
KINDS = ("crops", "beginnings")  # of held-out sequences; an older log has one kind, without a name
LOG_ROWS = 15  # about so many rows of a log are shown
NOT_MEASURED = "not measured"
NO_VALUE = "–"


class Measures:
    """The rows of `measures.json`, found by what was measured, on what, at which level and of which model."""

    def __init__(self, rows: Iterable[Mapping]):
        self.rows = {}
        for row in rows:
            level = row["level"]
            if isinstance(level, list):
                level = tuple(level)
            self.rows[row["measure"], row["on"], level, row["model"]] = row

    def of_dlm(self, measure: str) -> list[tuple]:
        """Return on what and at which level the DLM has a measure, in the order of the rows."""
        return [(on, level) for name, on, level, model in self.rows if (name, model) == (measure, "smol-dlm")]

    def shown(self, measure: str, on: str, level: object, model: str) -> str:
        """Return an estimate with its interval, a dash where there is none."""
        row = self.rows.get((measure, on, level, model))
        if row is None:
            return NO_VALUE
        return estimate(row, is_share=measure in ("correct", "items", "pairs"))


def estimate(row: Mapping, is_share: bool = False) -> str:
    """Return `value [low, high]` with two digits, in percent for a share."""
    bounds = (row["value"], row["low"], row["high"])
    if is_share:
        return "{:.0%} [{:.0%}, {:.0%}]".format(*bounds)
    return "{:.2f} [{:.2f}, {:.2f}]".format(*bounds)


def verdict(is_met: bool, is_missed: bool) -> str:
    """Return whether a goal is met: the whole interval must say so, else it is open."""
    if is_met:
        return "met"
    if is_missed:
        return "missed"
    return "open: the interval holds both"


def goals_table(measures: Measures) -> str:
    """Return the goals with what was measured and the verdicts."""
    rows = []
    for source, title in SOURCES.items():
        row = measures.rows["likelihood", source, None, "difference"]
        goal = f"NELBO on {title} at most {GOAL_NATS} nats per token above the AR model"
        rows.append([goal, estimate(row), verdict(row["high"] <= GOAL_NATS, row["low"] > GOAL_NATS)])
    row = measures.rows["items", SUITE, "all", "smol-dlm"]
    goal = f"right answers on two-choice items at least {GOAL_PAIRS:.0%}"
    shown = estimate(row, is_share=True)
    rows.append([goal, shown, verdict(row["low"] >= GOAL_PAIRS, row["high"] < GOAL_PAIRS)])
    return markdown_table(["goal", "measured", ""], rows)


def likelihood_table(measures: Measures) -> str:
    """Return the likelihood of both models and their paired difference by held-out text."""
    rows = []
    texts = [text for text, _ in measures.of_dlm("likelihood")]
    for text in texts:
        shown = [
            measures.shown("likelihood", text, None, model) for model in ("smol-ar", "smol-dlm", "difference")
        ]
        units = measures.rows["likelihood", text, None, "smol-dlm"]["units"]
        rows.append([SOURCES.get(text, text), *shown, units])
    if WIKITEXT not in texts:
        rows.append([WIKITEXT, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, NO_VALUE])
    header = ["held-out text", "AR model", "DLM, NELBO", "difference, paired", "sequences"]
    return markdown_table(header, rows)


def levels_table(measures: Measures) -> str:
    """Return the NELBO by held-out text and noise level."""
    found = measures.of_dlm("level")
    levels = sorted({level for _, level in found})
    texts = dict.fromkeys(text for text, _ in found)
    header = ["held-out text", *(f"{low:.0%} – {high:.0%} masked" for low, high in levels)]
    rows = []
    for text in texts:
        shown = [measures.shown("level", text, level, "smol-dlm") for level in levels]
        rows.append([SOURCES.get(text, text), *shown])
    return markdown_table(header, rows)


def filling_table(measures: Measures) -> str:
    """Return how well both models fill masks, by held-out text and share of masks."""
    rows = []
    for text, share in measures.of_dlm("correct"):
        shown = [
            measures.shown(measure, text, share, model)
            for measure in ("correct", "nats")
            for model in ("smol-dlm", "smol-ar")
        ]
        rows.append([SOURCES.get(text, text), f"{share:.0%}", *shown])
    header = [
        "held-out text",
        "masked",
        "DLM, right",
        "AR model, right",
        "DLM, nats per token",
        "AR model, nats per token",
    ]
    return markdown_table(header, rows)


def first_token_table(measures: Measures) -> str:
    """Return what a first token does for both models; NOT_MEASURED where it was not measured."""
    rows = []
    for condition, level in measures.of_dlm("first token"):
        models = [measures.shown("first token", condition, level, name) for name in ("smol-dlm", "smol-ar")]
        rows.append([FIRST_TOKEN[condition], *models])
    if not rows:
        return f"{NOT_MEASURED.capitalize()}."
    return markdown_table(["", "DLM, NELBO", "AR model"], rows)


def answers_table(measures: Measures) -> str:
    """Return the right answers of both models to two-choice tasks, by group of items."""
    rows = []
    groups = measures.of_dlm("items")
    for task, group in groups:
        shown = [
            measures.shown(measure, task, group, model)
            for measure in ("items", "pairs")
            for model in ("smol-dlm", "smol-ar")
        ]
        rows.append([task, group, *shown])
    if not any(task.startswith(BLIMP) for task, _ in groups):
        rows.append([BLIMP, "all", NOT_MEASURED, NOT_MEASURED, NO_VALUE, NO_VALUE])
    header = ["task", "group", "DLM", "AR model", "DLM, pairs told apart", "AR model, pairs told apart"]
    return markdown_table(header, rows)


def samples_text(samples: Sequence[Mapping]) -> str:
    """Return what the model wrote, by prompt, as it came."""
    parts = []
    prompt = None
    for sample in samples:
        if sample["prompt"] != prompt:
            prompt = sample["prompt"]
            parts.append(f"`{prompt}` …")
        parts.append(f"~~~~text\n[{sample['steps']} steps]{sample['text']}\n~~~~")
    return "\n\n".join(parts)


def settings_table(settings: Mapping) -> str:
    """Return the settings of the training that have a value."""
    rows = []
    for field, value in settings.items():
        if value is None:
            continue
        if isinstance(value, int):
            value = f"{value:,}"
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        rows.append([f"`{field}`", value])
    return markdown_table(["setting", "value"], rows)


def held_out_columns(row: Mapping, measure: str) -> dict[str, str]:
    """Return the titles of the columns of held-out loss that a row of a log has, by column.

    `{measure}_{source}_{kind}`, or `{measure}_{source}` where the log is older than the kinds.
    """
    columns = {}
    for source, title in LOGGED.items():
        columns[f"{measure}_{source}"] = title
        for kind in KINDS:
            columns[f"{measure}_{source}_{kind}"] = f"{title}, {kind}"
    return {column: title for column, title in columns.items() if column in row}


def log_table(log: Sequence[Mapping], measure: str) -> str:
    """Return some rows of a training log, the first and the last among them: loss by number of tokens."""
    shown = list(log[:: max(1, len(log) // LOG_ROWS)])
    if shown[-1] is not log[-1]:
        shown.append(log[-1])
    columns = {f"train_{measure}": "training", **held_out_columns(log[-1], measure)}
    rows = []
    for row in shown:
        losses = [f"{row[column]:.3f}" for column in columns]
        rows.append([f"{row['tokens']:,}", f"{row['learning_rate']:.2g}", *losses])
    return markdown_table(["tokens", "learning rate", *columns.values()], rows)


def fits_table(curves: Mapping[str, Mapping]) -> str:
    """Return the power laws that were fitted to the learning curves."""
    rows = []
    for source, curve in curves.items():
        parameters = [estimate(curve[name]) for name in ("floor", "scale", "exponent")]
        rows.append([SOURCES[source], curve["points"], *parameters, f"{curve['residual']:.3f}"])
    header = ["", "rows", "floor (nats)", "scale (nats)", "exponent", "residual (nats)"]
    return markdown_table(header, rows)


def outlook_table(curves: Mapping[str, Mapping], tokens_of_an_hour: float) -> str:
    """Return the distance to the AR model after more tokens, by the curves, and the tokens a goal needs."""
    now = next(iter(curves.values()))["now"]
    header = ["training tokens", *(f"NELBO above the AR model, {SOURCES[name]}" for name in curves)]
    rows = [
        [
            f"{token_count(now)} (this adapter)",
            *(f"{curve['needed'] + GOAL_NATS:.2f}" for curve in curves.values()),
        ]
    ]
    for gains in zip(*(curve["gains"] for curve in curves.values()), strict=True):
        tokens = gains[0]["tokens"]
        title = token_count(tokens)
        if tokens == tokens_of_an_hour:
            title += " (one GPU hour)"
        left = [_gap_after(curve, gain) for curve, gain in zip(curves.values(), gains, strict=True)]
        rows.append([title, *left])
    rows.append(
        [f"needed for {GOAL_NATS}, by this curve", *(_tokens_needed(curve) for curve in curves.values())]
    )
    return markdown_table(header, rows)


def _gap_after(curve: Mapping, gain: Mapping) -> str:
    """Return the distance to the AR model that is left after a gain; its bounds are the gain's in reverse."""
    gap = curve["needed"] + GOAL_NATS
    return estimate(
        {"value": gap - gain["value"], "low": gap - gain["high"], "high": gap - gain["low"]},
    )


def _tokens_needed(curve: Mapping) -> str:
    if curve["needed"] <= 0:
        return "met already"
    value, low, high = (token_count(curve["tokens"][name]) for name in ("value", "low", "high"))
    if value == low == high == "never":
        return "never: above it at any number"
    return f"{value} [{low}, {high}]"


def token_count(tokens: float | None) -> str:
    """Return a number of tokens in words; None stands for never."""
    if tokens is None:
        return "never"
    if tokens < 1e9:
        return f"{tokens / 1e6:,.3g} million"
    if tokens < 1e13:
        return f"{tokens / 1e9:,.3g} billion"
    return "over 10,000 billion"
