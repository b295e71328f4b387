"""Parameters of notebooks: every refusal is one line with the name, the value and what is allowed."""

import math
from typing import get_args

import pytest

from sinkprune_companion.run import parameter_rules, parameters, records
from sinkprune_companion.run.parameters import OTHERS, OWN, ParameterError, check, start

NAN = float("nan")
WRITE = "with papermill write"


def refusal(name: str, annotation: str, value: object) -> str:
    """Return the message on a value of a parameter; empty where it is taken."""
    try:
        check("00_test", {name: annotation}, {name: value})
    except ParameterError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (True, "int", "x=True must be a valid integer"),
        (1.5, "int", "x=1.5 must be a valid integer"),
        (NAN, "float", "x=nan must be a finite number"),
        ([1, 2.5], "list[float]", ""),
        ([1, "b"], "list[float]", "x='b' must be a valid number"),
        ("a", "list[int]", "x='a' is no list: it must be list[int]; with papermill write -y 'x: a'"),
        ("null", "int | None", f"x='null' must be a valid integer; {WRITE} -y 'x: null'"),
        (None, "int | None", ""),
    ],
)
def test_types_are_checked(value, annotation, message):
    assert refusal("x", annotation, value) == message


@pytest.mark.parametrize(
    ("name", "annotation", "bad", "good", "message"),
    [
        ("patterns", "list[str]", ["row"], ["4:8"], "patterns: 'row' must read N:M, N zeros in every M"),
        ("recipes", "list[str]", ["wnda"], ["wanda"], "recipes: 'wnda' is unknown; choose one of"),
        ("sparsity", "float", -0.1, 0, "sparsity=-0.1 must be greater than or equal to 0"),
        ("parts", "list[str]", ["best"], ["large"], "parts: 'best' is unknown; choose one of weights"),
        ("places", "list[str]", ["100"], ["87.5", "2:4"], "places: '100' must be a sparsity in percent"),
        ("places", "list[str]", ["4:2"], ["4:8"], "places: pattern='4:2' must have 1 <= N < M"),
        ("recovery_places", "list[str]", ["units 50"], ["50", "75", "2:4"], "recovery_places: 'units 50'"),
        ("recovery_of_sparsegpt", "list[str]", ["units 50"], ["50", "75", "2:4"], "recovery_of_sparsegpt:"),
        ("pattern_draws", "int", 0, 1, "pattern_draws=0 must be greater than or equal to 1"),
        ("counts", "list[int]", [], [1], "counts is empty: give at least one value"),
        ("first_seed", "int", -1, 0, "first_seed=-1 must be greater than or equal to 0"),
        ("model", "str", "gpt-9", "smol-dlm", "model: unknown model 'gpt-9'"),
        ("model", "str", "smol-ar", "smol-dlm", "model: 'smol-ar' is autoregressive, and this must be"),
        ("device", "str", "graphics", "auto", "device: device='graphics' is no device: give auto, cpu"),
        ("dtype", "str", "bf16", "auto", "dtype: dtype='bf16' is unknown; choose one of float32, bfloat16"),
        ("profile", "str", "../x", "quick", "profile: '../x' names a folder below runs/: use letters"),
    ],
)
def test_every_name_has_its_range_and_says_it(name, annotation, bad, good, message):
    assert refusal(name, annotation, good) == ""
    found = refusal(name, annotation, bad)
    assert found.startswith(message) and "\n" not in found


@pytest.mark.parametrize("name", [*parameter_rules.RANGES, *parameter_rules.CHECKS])
def test_no_name_takes_what_means_nothing(name):
    """Alone or in a list."""
    kind = get_args(parameter_rules.RANGES[name])[0].__name__ if name in parameter_rules.RANGES else "str"
    for value in (-1, -0.5, NAN, math.inf, "\x00", "../x", "", None, True, {}, [None]):
        for annotation, given in ((kind, value), (f"list[{kind}]", [value])):
            found = refusal(name, annotation, given)
            assert name in found and "\n" not in found, (annotation, given)


PARAMETERS = {  # of no notebook: those that combinations ask for
    "model": ("str", "smol-dlm"),
    "length": ("int", 64),
    "noise_levels": ("int", 4),
    "ratios": ("list[float]", [0.5]),
    "steps": ("list[int]", [16, 64]),
}


def refusal_of(notebook: str, **changed: object) -> str:
    """Return the message on parameters together; empty where they are taken."""
    annotations = {name: annotation for name, (annotation, _) in PARAMETERS.items()}
    values = {name: value for name, (_, value) in PARAMETERS.items()} | changed
    try:
        check(notebook, annotations, values)
    except ParameterError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("notebook", "changed", "message"),
    [
        ("05_matched_compute", {}, ""),
        ("05_matched_compute", {"steps": [16, 64, 16]}, "steps has 16 twice: give every value once"),
        ("03_leaving_sinks_out", {"noise_levels": 64}, ""),
        ("03_leaving_sinks_out", {"noise_levels": 500}, "noise_levels=500 exceed the 64 tokens of a calibr"),
        ("01_do_sinks_move", {"noise_levels": 129}, "noise_levels=129 exceed the 128 tokens of a calibr"),
        (
            "03_leaving_sinks_out",
            {"ratios": [0.5, 0.999]},
            "ratios: ratio=0.999 cannot be reached: at most 0.9",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused_before_any_work(notebook, changed, message):
    found = refusal_of(notebook, **changed)
    assert found.startswith(message) and bool(found) is bool(message) and "\n" not in found


@pytest.mark.parametrize(
    ("name", "annotation", "bad", "good", "message"),
    [
        ("sink_std", "float", 1e308, 3.0, "sink_std=1e+308 must be less than or equal to 100"),
        ("pairs", "list[str]", ["nosuch"], ["seed-1"], "pairs: 'nosuch' is neither a folder with a model"),
    ],
)
def test_what_fails_after_hours_is_refused_at_once(name, annotation, bad, good, message):
    assert refusal(name, annotation, good) == ""
    assert refusal(name, annotation, bad).startswith(message)


def test_a_name_that_does_not_exist_is_refused_with_those_that_do():
    annotations = {"sparsity": "float", "draws": "int"}
    with pytest.raises(ParameterError) as refused:
        check("00_test", annotations, {"sparsity": 0.5, "draws": 1, "sparsty": 0.5})
    assert str(refused.value) == (
        "parameter 'sparsty' does not exist in 00_test; it has: sparsity, draws; did you mean sparsity?"
    )
    with pytest.raises(ParameterError, match=r"it has: sparsity, draws$"):
        check("00_test", annotations, {"zzz": 1})


def test_both_parameters_cells_count_and_of_a_cell_its_last_run():
    cells = ["a: int = 1", "b: float = 2.0", "a = 2", "a: int = 3"]
    assert parameters.declared(cells) == {"a": "int", "b": "float"}
    assert parameters.defaults(cells) == {"a": 3, "b": 2.0}
    with pytest.raises(ParameterError, match="no parameters cell was run"):
        parameters.declared(["a = 2"])


def test_a_notebook_starts_with_what_papermill_put_in(tmp_path, monkeypatch, capsys):
    cells = ["profile: str = 'manual'", "sparsity: float = 1", "# Parameters\nsparsity = 0\n"]
    run = start("00_test", {"In": cells, "profile": "quick", "sparsity": 0})

    assert (run.notebook, run.profile) == ("00_test", "quick")
    assert repr(run.parameters) == "{'profile': 'quick', 'sparsity': 0}", "as given: no number is turned"

    place, device, own, *values = capsys.readouterr().out.splitlines()
    assert place == "results go to runs/quick" and device.startswith("computed on ")
    assert own == OWN and "the answer above is of the published one" in own
    assert values == [OTHERS, "sparsity = 0"], "the profile is in the place"

    for module in (parameters, records):  # as outside a clone
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    start("00_test", {"In": cells, "profile": "quick", "sparsity": 0})
    assert capsys.readouterr().out.startswith(f"results go to {tmp_path / 'runs' / 'quick'}\n")

    cells.append("# Parameters\nsparsty = 0\n")
    with pytest.raises(ParameterError, match="did you mean sparsity"):
        start("00_test", {"In": cells, "profile": "quick", "sparsity": 0, "sparsty": 0})
