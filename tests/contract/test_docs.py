"""That the documentation says what the code does: examples run, tables and links are complete."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
import yaml

from risen_export.gate.settings import GateSettings
from risen_plugin import PhaseRecord, Progress
from risen_plugin.commands.train.run_config import DataSource, RunConfig
from risen_plugin.config import (
    DEFAULT_GRPO,
    AnchorConfig,
    BreakerConfig,
    BuffersConfig,
    ControlConfig,
    CurriculumConfig,
    GateConfig,
    GuardConfig,
    LoraSettings,
    RisenConfig,
    TaskProbe,
    Use,
    Weighted,
)
from risen_plugin.plugins import Plugins
from risen_plugin.run.assembly import assemble
from risen_plugin.testing import check_reward, check_scheduler

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "plugins").rglob("*.md")])
EXAMPLE = DOCS / "examples" / "first_run.py"


def text_of_page(path):
    return path.read_text(encoding="utf-8")


def fenced(page, language):
    """The blocks of a page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of_page(page), flags=re.M | re.S)


def blocks(language):
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(fenced(page, language), start=1)
    ]


def named_block(page, name):
    """The block below the comment with this name."""
    pattern = rf"^<!-- {re.escape(name)} -->\n```\w+\n(.*?)^```$"
    [found] = re.findall(pattern, text_of_page(page), flags=re.M | re.S)
    return found


def as_module(code, name, monkeypatch):
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(code, name, "exec", dont_inherit=True), vars(module))
    return module


def section(page, title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text_of_page(page), flags=re.M | re.S)
    assert found is not None, title
    return found.group(1)


def rows_of(text):
    """The first and second cells of the tables in ``text``, without their marks."""
    cells = re.findall(r"^\| `([^`]+)` \| `?([^|]*?)`? \|", text, flags=re.M)
    return dict(cells)


# Examples


def test_the_example_of_the_readme_is_the_file_that_is_tested():
    assert named_block(ROOT / "README.md", "first_run.py") == text_of_page(EXAMPLE)


@pytest.mark.slow
def test_the_example_of_the_readme_runs_and_leaves_what_is_documented(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line for line in re.split(r"[\r\n]+", done.stderr) if line.startswith("step 80: ")]
    assert [re.sub(r"[\d.+-]+", "N", line) for line in said] == [
        re.sub(r"[\d.+-]+", "N", line)
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("step 80: ")
    ]
    assert "'risen/guard/adherence_strict_after'" in done.stdout
    record = tmp_path / "out" / "first-run" / "risen"
    phase = json.loads((record / "phase-001" / "phase.json").read_text(encoding="utf-8"))
    documented = section(
        DOCS / "reference" / "files.md", "`OUTPUT_DIR/risen/`: the record of a run"
    )
    for name in [*phase, *phase["metrics"]]:
        name = re.sub(r"^reward_errors/.*", "reward_errors/NAME", name)
        assert f"`{name}`" in documented, name
    for name in json.loads((record / "run.json").read_text(encoding="utf-8")):
        assert f"`{name}`" in documented or name == "risen_plugin", name


@pytest.mark.parametrize("block", blocks("python"))
def test_python_in_the_docs_is_python(block):
    if ">>>" not in block:
        ast.parse(block)
        return
    examples = doctest.DocTestParser().get_doctest(block, {}, "docs", None, None)
    assert doctest.DocTestRunner(verbose=False).run(examples).failed == 0


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_in_the_docs_is_a_configuration(block, tmp_path, monkeypatch):
    data = yaml.safe_load(block)
    assert isinstance(data, dict)
    if "base_model" in data:  # a file of axolotl's
        assert RisenConfig.from_dict(data["risen"]).rewards
    elif "model" in data:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "my_rewards.py").write_text("def right_answer(completions, **columns): ...\n")
        assert RunConfig.from_dict(data).model
    elif {"rewards", "generator", "scheduler"} <= data.keys():
        assert RisenConfig.from_dict(data).rewards
    elif {"golden", "instructions"} <= data.keys():
        assert GateSettings(**data).golden
    else:
        known = (dataclasses.fields(RisenConfig), dataclasses.fields(RunConfig))
        assert any(data.keys() <= {field.name for field in fields} for fields in known)


@pytest.mark.parametrize("block", blocks("json"))
def test_json_in_the_docs_is_json(block):
    json.loads(block)


@pytest.mark.parametrize("block", blocks("toml"))
def test_toml_in_the_docs_is_toml(block):
    tomllib.loads(block)


def test_the_plugin_of_the_readme_is_the_template_in_short(monkeypatch):
    monkeypatch.setenv("RISEN_STRICT_PLUGINS", "1")
    plugin = as_module(named_block(ROOT / "README.md", "plugin"), "in_the_readme", monkeypatch)
    spec = importlib.util.spec_from_file_location(
        "the_template", ROOT / "plugins" / "risen-length" / "risen_length.py"
    )
    template = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "the_template", template)
    spec.loader.exec_module(template)
    plugins = Plugins()
    plugins.register(plugin, "length")
    offered = plugins.build("reward", "length-band", {"low": 2, "high": 4, "slack": 2})
    check_reward(offered)
    answers = ["", *(" ".join(["word"] * count) for count in range(1, 9))]
    wanted = template.LengthBand(low=2, high=4, slack=2)(completions=answers)
    assert offered(completions=answers) == wanted


def test_the_scheduler_of_the_how_to_keeps_its_contract_and_waits_for_a_plateau(monkeypatch):
    code, offer, around, _ = fenced(DOCS / "how-to" / "write-a-scheduler.md", "python")
    module = as_module(code + offer, "documented_scheduler", monkeypatch)
    plugins = Plugins()
    plugins.register(module, "plateau")
    scheduler = plugins.build("scheduler", "on-plateau", {"steps": 5, "gap": 4})
    check_scheduler(scheduler)
    fine_tuning = (PhaseRecord("fine_tune", 9, 0, "the run's own steps"),)
    for losses, phase in (
        ((3.0, 2.0, 1.5, 1.2, 1.0, 0.8), "fine_tune"),
        ((3.0, 2.0, 1.5, 1.5, 1.5, 1.5), "risen"),
    ):
        seen = tuple(enumerate(losses, start=1))
        decision = scheduler(Progress(9, 90, phases=fine_tuning, train_losses=seen))
        assert decision.phase == phase
    gentler = as_module(around, "documented_wrapper", monkeypatch).Gentler(scheduler)
    check_scheduler(gentler)
    dropped = PhaseRecord("risen", 5, 1, "", accepted=False)
    late = Progress(9, 90, phases=(dropped,), train_losses=tuple(enumerate([1.5] * 6, start=2)))
    assert (scheduler(late).steps, gentler(late).steps) == (5, 2)


def test_the_rows_and_the_configuration_of_the_tutorial_fit_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tutorial = DOCS / "tutorial.md"
    as_module(named_block(tutorial, "make_rows.py"), "make_rows", monkeypatch)
    config = RisenConfig.from_dict(yaml.safe_load(named_block(tutorial, "risen.yaml")))
    parts = assemble(config)
    [row] = parts.generator.value(count=1, seed=0)
    assert {"values", "instruction_id_list"} <= row.keys()
    assert len(Path(config.probe).read_text().splitlines()) == 64
    code = named_block(tutorial, "train.py")
    reward = as_module(_function(code, "right_values"), "train", monkeypatch).right_values
    told = [[{"role": "assistant", "content": "ROOM: 12, day: monday"}]] * 2
    assert reward(completions=told, values=[["12", "Monday"], ["12", "Friday"]]) == [1.0, 0.0]


def _function(code, name):
    """The source of one function, with the import that it needs."""
    [node] = [n for n in ast.parse(code).body if getattr(n, "name", None) == name]
    return "from risen_plugin import text_of\n" + ast.unparse(node)


# Tables


def shown(field):
    """A default as the tables show it."""
    if field.default_factory in (
        GuardConfig,
        ControlConfig,
        BreakerConfig,
        BuffersConfig,
        LoraSettings,
    ):
        return f"{field.default_factory.__name__}()"
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else repr(field.default)


@pytest.mark.parametrize(
    "kind",
    [
        RisenConfig,
        CurriculumConfig,
        GuardConfig,
        TaskProbe,
        ControlConfig,
        BreakerConfig,
        BuffersConfig,
        GateConfig,
        AnchorConfig,
        LoraSettings,
        Use,
        Weighted,
    ],
)
def test_every_field_of_the_configuration_is_documented_with_its_default(kind):
    documented = rows_of(section(DOCS / "reference" / "configuration.md", kind.__name__))
    assert documented == {field.name: shown(field) for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("kind", [RunConfig, DataSource])
def test_every_key_of_a_run_is_documented_with_its_default(kind):
    documented = rows_of(section(DOCS / "reference" / "run.md", kind.__name__))
    assert documented == {field.name: shown(field) for field in dataclasses.fields(kind)}


def test_the_arguments_that_a_run_sets_or_manages_are_documented():
    from risen_plugin.commands.train.training import MANAGED, defaults

    told = section(DOCS / "reference" / "run.md", "fine_tune")
    run = RunConfig("model", data=DataSource(path="x"), evaluation=8, lora=LoraSettings())
    for name in [*defaults(run), *MANAGED]:
        assert f"`{name}`" in told or name == "dataloader_pin_memory", name


def test_the_fields_of_grpo_that_are_set_or_managed_are_documented():
    from risen_plugin.training.grpo import MANAGED

    documented = rows_of(section(DOCS / "reference" / "configuration.md", "Fields of GRPOConfig"))
    assert documented == {name: repr(value) for name, value in DEFAULT_GRPO.items()} | MANAGED


def test_the_fields_of_a_progress_are_documented():
    page = text_of_page(DOCS / "how-to" / "write-a-scheduler.md")
    for kind in (Progress, PhaseRecord):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in page, field.name


def test_the_reference_of_the_command_line_is_up_to_date(fresh_python):
    script = str(DOCS / "generate_cli.py")  # click remembers help options that other tests made
    written = fresh_python(f"import runpy; print(runpy.run_path({script!r})['page'](), end='')")
    page = text_of_page(DOCS / "reference" / "cli.md")
    assert page == written.stdout, "python docs/generate_cli.py"


# Links


def anchors(page):
    """What GitHub makes of the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", text_of_page(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text_of_page(page), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"\w+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_index():
    index = text_of_page(DOCS / "README.md")
    for page in DOCS.rglob("*.md"):
        if page.name != "README.md":
            assert f"({page.relative_to(DOCS).as_posix()})" in index, page.name
