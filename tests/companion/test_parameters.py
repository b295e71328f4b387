"""Parameters of notebooks: every refusal is one line with the name, the value and what is allowed."""

import math

import pytest

from sinkprune_companion.experiments import parameters
from sinkprune_companion.experiments.parameter_models import Parameters
from sinkprune_companion.experiments.parameters import OTHERS, OWN, ParameterError, check, start
from sinkprune_companion.run import records

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
    ("value", "annotation", "parts"),
    [
        (True, "int", ("x=True", "integer")),
        (0, "int", ("x=0", "greater than or equal to 1")),
        (1.5, "int", ("x=1.5", "integer")),
        (NAN, "float", ("x=nan", "finite")),
        ([1, 2.5], "list[float]", ()),
        ([1, "b"], "list[float]", ("x='b'", "number")),
        ([], "list[int]", ("x=[]", "at least 1 item")),
        ([1, 2, 1], "list[int]", ("x=[1, 2, 1]", "twice")),
        ("a", "list[int]", ("x='a'", "list", f"{WRITE} -y 'x: a'")),
    ],
)
def test_types_are_checked(value, annotation, parts):
    found = refusal("x", annotation, value)
    assert all(part in found for part in parts) and bool(found) is bool(parts)


def test_null_is_given_as_yaml():
    assert refusal("recipes", "list[str] | None", None) == ""
    assert f"{WRITE} -y 'recipes: null'" in refusal("recipes", "list[str] | None", "null")


@pytest.mark.parametrize(
    ("name", "annotation", "bad", "good", "allowed"),
    [
        ("patterns", "list[str]", ["row"], ["4:8"], "N:M"),
        ("recipes", "list[str]", ["wnda"], ["wanda"], "'wanda'"),
        ("sparsity", "float", -0.1, 0, "greater than or equal to 0"),
        ("parts", "list[str]", ["best"], ["large"], "'weights'"),
        ("places", "list[str]", ["100"], ["87.5", "2:4"], "percent below 100"),
        ("places", "list[str]", ["4:2"], ["4:8"], "1 <= N < M"),
        ("recovery_places", "list[str]", ["units 50"], ["50", "75", "2:4"], "'75'"),
        ("recovery_of_sparsegpt", "list[str]", ["units 50"], ["50", "75", "2:4"], "'75'"),
        ("first_seed", "int", -1, 0, "greater than or equal to 0"),
        ("model", "str", "gpt-9", "smol-dlm", "gpt-9"),
        ("model", "str", "smol-ar", "smol-dlm", "of kind diffusion"),
        ("device", "str", "graphics", "auto", "cpu"),
        ("dtype", "str", "bf16", "auto", "bfloat16"),
        ("profile", "str", "../x", "quick", "use letters"),
        ("sink_std", "float", 1e308, 3.0, "less than or equal to 100"),  # what fails after hours
        ("pairs", "list[str]", ["nosuch"], ["seed-1", "seed-2"], "figures/records-NAME.tar.xz"),
    ],
)
def test_every_name_has_its_range_and_says_it(name, annotation, bad, good, allowed):
    assert refusal(name, annotation, good) == ""
    found = refusal(name, annotation, bad)
    assert found.startswith(f"{name}=") and allowed in found and "\n" not in found


@pytest.mark.parametrize("name", Parameters.__annotations__)
def test_no_name_takes_what_means_nothing(name):
    for value in (-1, -0.5, NAN, math.inf, "\x00", True, {}, [None], [-1], [-0.5], [NAN], [True], [{}]):
        found = refusal(name, "str", value)
        assert found.startswith(f"{name}=") and "\n" not in found, value


PARAMETERS = {  # of no notebook: those that combinations ask for
    "model": ("str", "smol-dlm"),
    "twin": ("str", "smol-ar"),
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
    ("notebook", "changed", "names", "bound"),
    [
        ("05_matched_compute", {}, "", ""),
        ("03_leaving_sinks_out", {"noise_levels": 64}, "", ""),
        ("03_leaving_sinks_out", {"noise_levels": 500}, "noise_levels=500", "length=64"),
        ("01_do_sinks_move", {"noise_levels": 129}, "noise_levels=129", "128"),
        ("05_matched_compute", {"length": 9}, "length=9", "10"),
        ("03_leaving_sinks_out", {"ratios": [0.5, 0.999]}, "ratios: ratio=0.999", "at most 0.9"),
    ],
)
def test_values_that_do_not_go_together_or_with_a_notebook_are_refused(notebook, changed, names, bound):
    found = refusal_of(notebook, **changed)
    assert found.startswith(names) and bound in found and bool(found) is bool(names) and "\n" not in found


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
