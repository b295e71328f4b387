"""Parameters of notebooks: every refusal is one line with the name, the value and what is allowed."""

import ast

import pytest

from sinkprune_companion.run import parameters, records
from sinkprune_companion.run.parameters import OTHERS, ParameterError, check, declared, start

INFINITY = float("inf")
NAN = float("nan")


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
        (1, "int", ""),
        (True, "int", "x=True must be a whole number of at least 1"),
        (1.5, "int", "x=1.5 must be a whole number of at least 1"),
        (1, "float", ""),
        (True, "float", "x=True must be a finite number of at least 0"),
        (NAN, "float", "x=nan must be a finite number of at least 0"),
        (-INFINITY, "float", "x=-inf must be a finite number of at least 0"),
        ("a", "str", ""),
        (1, "str", "x=1 must be a text"),
        (1, "bool", "x=1 must be True or False"),
        ([1, 2.5], "list[float]", ""),
        ([], "list[float]", "x is empty: give at least one value"),
        ([1, "b"], "list[float]", "x='b' must be a finite number of at least 0"),
        ("[5]", "list[int]", "x='[5]' is no list: it must be list[int]; with papermill write -y 'x: [5]'"),
        ("a", "list[int]", "x='a' is no list: it must be list[int]; with papermill write -y 'x: [a]'"),
        (
            "null",
            "int | None",
            "x='null' must be a whole number of at least 1; with papermill write -y 'x: null'",
        ),
        ([1, INFINITY], "list[float]", "x=inf must be a finite number of at least 0"),
        (0.5, "list[float]", "x=0.5 is no list: it must be list[float]"),
        (None, "int | None", ""),
        (None, "int", "x=None must be a whole number of at least 1"),
        ("x", "int | None", "x='x' must be a whole number of at least 1"),
    ],
)
def test_types_are_checked(value, annotation, message):
    assert refusal("x", annotation, value) == message


@pytest.mark.parametrize(
    ("name", "annotation", "bad", "good", "message"),
    [
        ("patterns", "list[str]", ["row"], ["4:8"], "patterns: 'row' must read N:M, N zeros in every M"),
        ("patterns", "list[str]", ["4:2"], ["2:4"], "patterns: pattern='4:2' must have 1 <= N < M"),
        (
            "recipes",
            "list[str]",
            ["wnda"],
            ["wanda"],
            "recipes: preset 'wnda' is unknown; choose one of magnitude, wanda",
        ),
        (
            "ratios",
            "list[float]",
            [1.0],
            [0.3],
            "ratios=1.0 must be a number in [0, 1): it is the share of weights",
        ),
        ("sparsity", "float", -0.1, 0, "sparsity=-0.1 must be a number in [0, 1)"),
        ("sparsity", "float", NAN, 0.5, "sparsity=nan must be a number in [0, 1)"),
        ("pattern_draws", "int", 0, 1, "pattern_draws=0 must be a whole number of at least 1"),
        ("counts", "list[int]", [1, 0], [1, 5], "counts=0 must be a whole number of at least 1"),
        ("counts", "list[int]", [], [1], "counts is empty: give at least one value"),
        ("first_seed", "int", -1, 0, "first_seed=-1 must be a whole number of at least 0"),
        ("model", "str", "gpt-9", "smol-dlm", "model: unknown model 'gpt-9'; known names: smol-ar"),
        ("twin", "str | None", "gpt-9", None, "twin: unknown model 'gpt-9'"),
        (
            "model",
            "str",
            "smol-ar",
            "smol-dlm",
            "model: 'smol-ar' is autoregressive, and this must be of kind",
        ),
        ("twin", "str", "smol-dlm", "smol-ar-adapted", "twin: 'smol-dlm' is diffusion, and this must be of"),
        ("base", "str", "smol-dlm", "smol-ar", "base: 'smol-dlm' is diffusion, and this must be of kind"),
        ("device", "str", "graphics", "auto", "device: device='graphics' is no device: give auto, cpu"),
        ("dtype", "str", "bf16", "auto", "dtype: dtype='bf16' is unknown; choose one of float32, bfloat16"),
        ("profile", "str", "../x", "quick", "profile: '../x' names a folder below runs/: use letters"),
        ("texts", "list[str]", ["x"], ["natural"], "texts='x' is unknown; choose one of natural"),
        ("profile", "str", "full@", "full@seed-1.5", "profile: 'full@' names a folder below runs/"),
    ],
)
def test_every_name_has_its_range_and_says_it(name, annotation, bad, good, message):
    assert refusal(name, annotation, good) == ""
    found = refusal(name, annotation, bad)
    assert found.startswith(message) and "\n" not in found


def test_a_name_that_does_not_exist_is_refused_with_those_that_do():
    annotations = {"sparsity": "float", "draws": "int"}
    with pytest.raises(ParameterError) as refused:
        check("00_test", annotations, {"sparsity": 0.5, "draws": 1, "sparsty": 0.5})
    assert str(refused.value) == (
        "parameter 'sparsty' does not exist in 00_test; it has: sparsity, draws; did you mean 'sparsity'?"
    )
    with pytest.raises(ParameterError, match=r"it has: sparsity, draws$"):
        check("00_test", annotations, {"zzz": 1})


def test_an_annotation_that_is_no_type_of_parameters_says_which_are():
    with pytest.raises(ParameterError, match=r"'x' is annotated as dict\[str, int\]: use one of int, float"):
        check("00_test", {"x": "dict[str, int]"}, {"x": {}})


def test_the_last_parameters_cell_counts():
    assert list(declared(["a: int = 1", "x = 2", "b: str = 'c'", "for"])) == ["b"]
    with pytest.raises(ParameterError, match="top"):
        declared(["x = 1"])


def test_a_notebook_starts_with_what_papermill_put_in(tmp_path, monkeypatch, capsys):
    cells = ["profile: str = 'manual'\nsparsity: float = 1", "# Parameters\nsparsity = 0\n"]
    run = start("00_test", {"In": cells, "profile": "quick", "sparsity": 0})
    assert (run.notebook, run.profile) == ("00_test", "quick")
    assert repr(run.parameters) == "{'profile': 'quick', 'sparsity': 0}", "as given: no number is turned"
    place, device, *values = capsys.readouterr().out.splitlines()
    assert place == "results go to runs/quick" and device.startswith("computed on ")
    assert values == [OTHERS, "sparsity = 0"], "the profile is in the place"
    for module in (parameters, records):  # as outside a clone
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    start("00_test", {"In": cells, "profile": "quick", "sparsity": 0})
    assert capsys.readouterr().out.startswith(f"results go to {tmp_path / 'runs' / 'quick'}\n")
    cells.append("# Parameters\nsparsty = 0\n")
    with pytest.raises(ParameterError, match="did you mean 'sparsity'"):
        start("00_test", {"In": cells, "profile": "quick", "sparsity": 0, "sparsty": 0})


def test_a_run_by_the_defaults_says_nothing_of_values_and_long_lists_are_python(capsys):
    cells = [
        "profile: str = 'quick'\nnames: list[str] = ['a']",
        "# Parameters\nprofile = 'p'\nnames = ['a']\n",
    ]
    start("00_test", {"In": cells, "profile": "p", "names": ["a"]})
    assert OTHERS not in capsys.readouterr().out
    names = [f"a recipe, number {number}" for number in range(9)]
    cells[1] = f"# Parameters\nnames = {names}\n"
    start("00_test", {"In": cells, "profile": "p", "names": names})
    printed = capsys.readouterr().out.partition(OTHERS)[2].strip()
    assert ast.literal_eval(printed.removeprefix("names = ")) == names
    assert max(map(len, printed.splitlines())) <= 100 < len(printed)


def test_scratch_of_records_that_a_killed_run_was_writing_is_removed(tmp_path, monkeypatch):
    for module in (parameters, records):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    folder = tmp_path / "runs" / "quick" / "records" / "00_test"
    folder.mkdir(parents=True)
    whole, scratch, other = folder / "r-0.csv", folder / ".r-0.csv.1.abcd", folder / ".of.somebody.else"
    whole.touch()
    for each in (scratch, other):
        each.mkdir()
    (scratch / ".held").touch()
    cells = ["profile: str = 'quick'"]
    with pytest.warns(UserWarning, match="r-0.csv.* which a killed process left"):
        start("00_test", {"In": cells, "profile": "quick"})
    assert sorted(folder.iterdir()) == [other, whole]
