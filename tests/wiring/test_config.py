"""Configuration: what is read, what wins, and what a user reads when it is wrong."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtlkit import config
from mtlkit.errors import ConfigError
from mtlkit.settings import Choice, Config, TaskChoice

pytestmark = pytest.mark.usefixtures("toy")


def parse(line: str) -> Config:
    return config.parse(["--tasks", "seg", *line.split()])


def written(folder: Path, text: str, name: str = "run.yaml") -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def error_of(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(argv)
    return str(caught.value)


def test_without_a_word_the_defaults_are_used() -> None:
    run = config.parse(["--tasks", "seg,cls"])
    assert run.backbone.name == "timm"
    assert run.balancer == Choice("equal")
    assert run.data == Choice("shapes", {"train": 100, "seed": 0})
    assert run.settings.epochs == 10
    assert run.settings.log_with == ()


def test_the_default_tasks_are_those_of_the_default_run() -> None:
    assert config.DEFAULTS["tasks"] == "seg,cls,bbox"
    assert error_of() == "\n  ".join(["unknown task 'bbox'", "available: cls, seg"])


def test_the_order_of_the_tasks_is_the_users() -> None:
    assert list(config.parse(["--tasks", "cls,seg"]).tasks) == ["cls", "seg"]


def test_a_task_type_can_be_used_under_several_ids() -> None:
    run = config.parse(["--tasks", "seg,species=cls,breed=cls", "--tasks.breed.target", "breed"])
    assert {id: task.name for id, task in run.tasks.items()} == {
        "seg": "seg",
        "species": "cls",
        "breed": "cls",
    }
    assert run.tasks["breed"].options["target"] == "breed"
    assert run.tasks["species"].options["target"] is None


def test_a_task_gets_its_types_default_head_unless_another_is_chosen() -> None:
    run = config.parse(
        ["--tasks=seg,cls", "--tasks.seg.head=linear", "--tasks.seg.head.dropout=.5"]
    )
    assert run.tasks["seg"].head == Choice("linear", {"dropout": 0.5})
    assert run.tasks["cls"].head == Choice("linear", {"dropout": 0.0})


def test_options_of_a_default_head_need_no_name() -> None:
    run = config.parse(["--tasks", "cls", "--tasks.cls.head.dropout", "0.1"])
    assert run.tasks["cls"].head == Choice("linear", {"dropout": 0.1})


@pytest.mark.parametrize("line", ["--batch-size 8", "--batch_size 8", "--batch-size=8"])
def test_dashes_underscores_and_equals_signs_are_the_same(line: str) -> None:
    assert parse(line).settings.batch_size == 8


@pytest.mark.parametrize(
    ("line", "option", "value"),
    [
        ("--lr 1e-3", "lr", 0.001),
        ("--clip 1", "clip", 1.0),
        ("--precision no", "precision", "no"),
        ("--compile", "compile", True),
        ("--compile true", "compile", True),
        ("--channels-last false", "channels_last", False),
        ("--resume false", "resume", False),
        ("--image-size 128", "image_size", 128),
        ("--image-size 96x128", "image_size", "96x128"),
        ("--log-with tensorboard,wandb", "log_with", ("tensorboard", "wandb")),
        ("--output 2024", "output", "2024"),
        ("--monitor seg/miou", "monitor", "seg/miou"),
        ("--workers 0", "workers", 0),
    ],
)
def test_general_options_are_read_by_their_types(line: str, option: str, value: Any) -> None:
    found = getattr(parse(line).settings, option)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("line", "option", "value"),
    [
        ("--backbone.out 1,2,3", "out", (1, 2, 3)),
        ("--backbone.out [4]", "out", (4,)),
        ("--backbone.out 4", "out", (4,)),
        ("--backbone.options a=0.1,b=x,c=true", "options", {"a": 0.1, "b": "x", "c": True}),
        ('--backbone.options {"a":1}', "options", {"a": 1}),
        ("--backbone.pretrained", "pretrained", True),
        ("--backbone.pretrained file.pth", "pretrained", "file.pth"),
        ("--backbone.weights w.pth", "weights", Path("w.pth")),
        ("--backbone.stages a,b", "stages", ("a", "b")),
        ("--backbone.model=resnet18", "model", "resnet18"),
    ],
)
def test_component_options_are_read_by_their_types(line: str, option: str, value: Any) -> None:
    assert parse(line).backbone.options[option] == value


def test_a_mapping_option_takes_pairs() -> None:
    run = parse("--balancer fixed --balancer.weights seg=0.7,cls=1")
    assert run.balancer.options == {"weights": {"seg": 0.7, "cls": 1.0}}
    assert type(run.balancer.options["weights"]["cls"]) is float


def test_an_option_is_spelt_with_dashes_or_underscores_in_components_too() -> None:
    assert parse("--balancer cagrad --balancer.max-norm 2").balancer.options["max_norm"] == 2.0


@pytest.mark.parametrize(
    "text",
    [
        "tasks: seg,breed=cls",
        "tasks: [seg, breed=cls]",
        "tasks: {seg: , breed: cls}",
        "tasks: {seg: {}, breed: {name: cls}}",
        "tasks: seg,breed\ntasks.breed: cls",
    ],
)
def test_yaml_may_name_tasks_in_several_ways(tmp_path: Path, text: str) -> None:
    run = config.parse(["--config", written(tmp_path, text)])
    assert {id: task.name for id, task in run.tasks.items()} == {"seg": "seg", "breed": "cls"}


def test_yaml_may_nest_the_options_of_tasks_and_heads(tmp_path: Path) -> None:
    text = """
        tasks:
          seg: {loss: dice, head: linear}
          breed: {name: cls, target: breed, head: {name: linear, dropout: 0.1}}
        balancer: cagrad
        backbone: {options: {drop: 1e-3}, pretrained: no}
        lr: 1e-3
        precision: no
    """
    run = config.parse(["--config", written(tmp_path, text)])
    assert run.tasks["seg"].options["loss"] == "dice"
    assert run.tasks["seg"].head == Choice("linear", {"dropout": 0.0})
    assert run.tasks["breed"].head == Choice("linear", {"dropout": 0.1})
    assert run.balancer == Choice("cagrad", {"c": 0.4, "max_norm": 1.0})
    assert run.backbone.options["options"] == {"drop": 0.001}
    assert (run.settings.lr, run.settings.precision) == (0.001, "no")


def test_later_files_win_and_the_command_line_wins_over_all(tmp_path: Path) -> None:
    one = written(tmp_path, "epochs: 1\nseed: 1\nbatch_size: 1", "one.yaml")
    two = written(tmp_path, "epochs: 2\nseed: 2", "two.yaml")
    run = parse(f"--seed 3 --config {one} --config {two}")
    assert (run.settings.batch_size, run.settings.epochs, run.settings.seed) == (1, 2, 3)


def test_another_component_on_the_command_line_drops_the_files_options(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "tasks: {seg: {loss: dice}, cls: {head: {name: linear, dropout: 0.1}}}\n"
        "balancer: {name: cagrad, c: 0.1}",
    )
    same = config.parse(["--config", file, "--balancer", "cagrad"])
    assert same.balancer.options["c"] == 0.1
    other = config.parse(f"--config {file} --balancer equal --tasks.cls.head dense".split())
    assert other.balancer == Choice("equal")
    assert other.tasks["cls"].head == Choice("dense")
    assert other.tasks["seg"].options["loss"] == "dice"


def test_tasks_on_the_command_line_name_all_tasks_and_keep_the_files_options(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, "tasks: {seg: {loss: dice}, breed: {name: cls, smoothing: 0.2}}")
    run = config.parse(["--config", file, "--tasks", "breed"])
    assert list(run.tasks) == ["breed"]
    assert (run.tasks["breed"].name, run.tasks["breed"].options["smoothing"]) == ("cls", 0.2)
    changed = config.parse(["--config", file, "--tasks", "seg=cls"])
    assert changed.tasks["seg"].options["loss"] == "ce"


def test_keyword_arguments_say_the_same_as_the_command_line(tmp_path: Path) -> None:
    words = (
        "--tasks seg,cls --tasks.seg.loss dice --balancer cagrad --balancer.c 0.1 "
        "--output x --max-steps 3 --backbone.weights w --epochs 2"
    )
    line = config.parse(words.split())
    file = written(tmp_path, "epochs: 2\noutput: y")
    called = config.from_mapping(
        {
            "config": file,
            "tasks": {"seg": {"loss": "dice"}, "cls": None},
            "balancer": {"name": "cagrad"},
            "balancer.c": 0.1,
            "backbone": {"weights": Path("w")},
            "output": Path("x"),
            "max_steps": 3,
        }
    )
    assert called == line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--tasks seg,a-b=cls --tasks.a-b.target y --tasks.seg.head linear --lr 1e-5",
        "--balancer fixed --balancer.weights seg=1 --data oxford-pets --data.root no",
        "--log-with a,b --image-size 96x128 --output 1e3 --backbone.out 3,4",
        "--backbone.weights a/b --backbone.options a=1,b=no --workers 3 --precision no",
    ],
)
def test_what_is_written_reads_back_as_the_same_configuration(tmp_path: Path, line: str) -> None:
    run = parse(line)
    tree = {**config.to_mapping(run), "plugins": config.plugins(run)}
    file = written(tmp_path, yaml.safe_dump(tree, sort_keys=False))
    assert config.parse(["--config", file]) == run
    assert config.from_mapping(tree) == run


def test_what_is_written_holds_all_options_and_the_plugins_versions() -> None:
    run = config.parse(["--tasks", "cls"])
    tree = config.to_mapping(run)
    assert tree["tasks"]["cls"]["head"] == {"name": "linear", "dropout": 0.0}
    assert tree["backbone"]["out"] == [1, 2]
    assert tree["settings" if "settings" in tree else "epochs"] == 10
    assert config.plugins(run) == {"mtlkit-toy": "0.2"}


def test_tasks_are_task_choices() -> None:
    assert isinstance(parse("").tasks["seg"], TaskChoice)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--balancer cagrd",
            "unknown balancer 'cagrd'; did you mean 'cagrad'?\n  available: cagrad, equal, fixed",
        ),
        (
            "--tasks.seg.head lin",
            "unknown head 'lin'; did you mean 'linear'?\n  available: dense, linear",
        ),
        (
            "--balancer cagrad --balancer.cc 0.5",
            "unrecognized arguments: --balancer.cc 0.5; did you mean --balancer.c?",
        ),
        (
            "--balancer.c 0.5",
            "unrecognized arguments: --balancer.c 0.5; balancer 'equal' has none",
        ),
        (
            "--tasks.seg.head.zzz 1",
            "unrecognized arguments: --tasks.seg.head.zzz 1; head 'dense' has none",
        ),
        (
            "--data.xy 1",
            "unrecognized arguments: --data.xy 1; dataset 'shapes' has the options seed, train",
        ),
        ("--epoch 3", "unrecognized arguments: --epoch 3; did you mean --epochs?"),
        ("--bach-size 3", "unrecognized arguments: --bach-size 3; did you mean --batch-size?"),
        ("--print-confg", "unrecognized arguments: --print-confg; did you mean --print-config?"),
        ("--qqq 3 --zzz", "unrecognized arguments: --qqq 3 --zzz"),
        ("--epochs 3 4", "unrecognized arguments: 4; options begin with --"),
        ("--epochs three", "--epochs expects a whole number, but got 'three'"),
        ("--epochs 1.5", "--epochs expects a whole number, but got '1.5'"),
        ("--epochs", "--epochs expects a whole number, but no value was given"),
        ("--epochs null", "--epochs expects a whole number, but got 'null'"),
        ("--lr fast", "--lr expects a number, but got 'fast'"),
        ("--lr nan", "--lr expects a number, but got 'nan'"),
        ("--compile maybe", "--compile expects true or false, but got 'maybe'"),
        (
            "--tasks.seg.loss dise",
            "--tasks.seg.loss expects one of ce, dice, but got 'dise'; did you mean 'dice'?",
        ),
        (
            "--backbone.out 1,x",
            "--backbone.out expects a list of whole numbers, with commas, but got '1,x'",
        ),
        (
            "--balancer fixed --balancer.weights 3",
            "--balancer.weights expects a mapping such as a=1,b=2, but got '3'",
        ),
        (
            "--balancer fixed --balancer.weights seg=x",
            "--balancer.weights expects a mapping such as a=1,b=2, but got 'seg=x'",
        ),
        ("--backbone.weights", "--backbone.weights expects a path, but no value was given"),
        ("--backbone", "--backbone expects the name of a component, but none was given"),
        ("--data oxford-pets", "dataset 'oxford-pets' needs --data.root"),
        ("--epochs 0", "--epochs must be at least 1, but is 0"),
        ("--batch-size 0", "--batch-size must be at least 1, but is 0"),
        ("--lr 0", "--lr must be above 0, but is 0.0"),
        ("--lr inf", "--lr expects a number, but got 'inf'"),
        ("--warmup 1", "--warmup must be in [0, 1), but is 1.0"),
        ("--clip -1", "--clip must be at least 0, but is -1.0"),
        (
            f"--seed 1{'0' * 16}",
            "--seed must be at most 9007199254740992, but is 10000000000000000",
        ),
        (f"--lr 1{'0' * 90}", "--lr must be at most 9007199254740992, but is 1e+90"),
        (
            "--image-size 9000",
            "--image-size must be of at most 67108864 pixels, but is 9000",
        ),
        ("--workers -1", "--workers must be at least 0, but is -1"),
        (
            "--image-size 96x",
            "--image-size must be a side or HEIGHTxWIDTH in pixels, such as 128 or 96x128, "
            "but is 96x",
        ),
        (
            "--image-size 0",
            "--image-size must be a side or HEIGHTxWIDTH in pixels, such as 128 or 96x128, "
            "but is 0",
        ),
        (
            "--monitor sg/miou",
            "--monitor must be loss, or TASK/METRIC of a trained task (seg); did you mean 'seg'?, "
            "but is sg/miou",
        ),
        ("--config", "--config expects a YAML file, but none was given"),
        ("--config absent.yaml", "cannot read absent.yaml: No such file or directory"),
        (
            "--tasks.cls.target x",
            "--tasks.cls.target is for a task that is not trained (tasks: seg)",
        ),
        (
            "--tasks.sg.loss dice",
            "--tasks.sg.loss is for a task that is not trained; did you mean 'seg'? (tasks: seg)",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_clear_line(line: str, message: str) -> None:
    assert error_of("--tasks", "seg", *line.split()) == message


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("", "--tasks names no task"),
        ("seg,seg", "--tasks: task id 'seg' is given twice; try seg,seg2=seg"),
        (
            "a.b=seg",
            "--tasks: invalid task id 'a.b'; use up to 64 letters, digits, _ and -, starting with "
            "a letter, and ID=NAME for another name",
        ),
        (
            f"{'x' * 65}=seg",
            f"--tasks: invalid task id '{'x' * 65}'; use up to 64 letters, digits, _ and -, "
            "starting with a letter, and ID=NAME for another name",
        ),
        (
            ",".join(f"t{i}=seg" for i in range(101)),
            "--tasks names 101 tasks; 100 are the most",
        ),
        ("seg=", "--tasks.seg expects the name of a component, but got ''"),
        ("sgg", "unknown task 'sgg'; did you mean 'seg'?\n  available: cls, seg"),
    ],
)
def test_a_mistake_in_the_tasks_is_one_clear_line(tasks: str, message: str) -> None:
    assert error_of("--tasks", tasks) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: three", "epochs in {file} expects a whole number, but got 'three'"),
        ("epochs: true", "epochs in {file} expects a whole number, but got True"),
        ("epochs:", "epochs in {file} expects a whole number, but got None"),
        ("epochs: {a: 1}", "epochs in {file} expects a whole number, but got {{'a': 1}}"),
        ("epochs: 0", "epochs in {file} must be at least 1, but is 0"),
        ("output: 5", "output in {file} expects text, but got 5"),
        ("epoch: 1", "unrecognized options: epoch in {file}; did you mean epochs?"),
        (
            "balancer: {name: cagrad, cc: 1}",
            "unrecognized options: balancer.cc in {file}; did you mean balancer.c?",
        ),
        ("balancer: 3", "balancer in {file} expects the name of a component, but got 3"),
        ("tasks: 3", "tasks in {file} expects names such as seg,cls or species=cls, but got 3"),
        ("tasks: {}", "tasks in {file} names no task"),
        ("a: 1\nb: [", "{file}, line 2: expected the node content, but found '<stream end>'"),
        ("seed: 1\nlr: 2\nseed: 3", "{file}, line 3: 'seed' is given twice"),
        ("- a\n- b", "{file} must be a mapping of options, but is a list"),
        ("word", "{file} must be a mapping of options, but is a single value"),
        ("3: 4", "option names are text, but {file} has 3"),
        (
            "tasks: seg\ntasks.cls.loss: dice",
            "tasks.cls.loss in {file} is for a task that is not trained (tasks: seg)",
        ),
        (
            "balancer: gone\nplugins: {mtlkit-gone: 1.2}",
            "unknown balancer 'gone'\n  available: cagrad, equal, fixed\n"
            "  note: this configuration was written with mtlkit-gone 1.2",
        ),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    base = "" if "tasks:" in text or text[0] in "-w" else "tasks: seg\n"
    if "line" in message or text[:2] == "3:":
        base = ""
    file = written(tmp_path, base + text)
    assert error_of("--config", file) == message.format(file=file)


def test_a_mistake_in_a_keyword_argument_names_the_keyword() -> None:
    with pytest.raises(ConfigError, match=r"^max_steps expects a whole number, but got 'x'$"):
        config.from_mapping({"tasks": "seg", "max_steps": "x"})
    with pytest.raises(ConfigError, match=r"^dataset 'oxford-pets' needs data\.root$"):
        config.from_mapping({"tasks": "seg", "data": "oxford-pets"})


@pytest.mark.parametrize("line", ["--resume {run}", "--resume --output {run}"])
def test_resume_reads_the_configuration_of_the_run(tmp_path: Path, line: str) -> None:
    run = config.parse(
        ["--tasks", "cls", "--balancer", "cagrad", "--balancer.c", "0.1", "--epochs", "2"]
    )
    written(tmp_path, yaml.safe_dump(config.to_mapping(run)), "config.yaml")
    again = config.parse([*line.format(run=tmp_path).split(), "--epochs", "3"])
    assert (again.tasks, again.balancer) == (run.tasks, run.balancer)
    assert (again.settings.epochs, again.settings.resume) == (3, True)
    assert again.settings.output == str(tmp_path)


def test_resume_of_nothing_is_one_clear_line() -> None:
    assert error_of("--resume") == "--resume needs the folder of a run, here or as --output"
    message = "cannot read gone/config.yaml: No such file or directory"
    assert error_of("--resume", "gone") == message


def test_a_pipe_in_the_place_of_a_runs_configuration_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    message = f"cannot read {tmp_path}/config.yaml: it is no file"
    assert error_of("--resume", str(tmp_path)) == message


def test_a_file_without_an_end_is_refused() -> None:
    message = "cannot read /dev/zero: it is longer than 262144 bytes, and no configuration is"
    assert error_of("--config", "/dev/zero") == message


def test_what_a_message_quotes_is_short_and_does_not_steer_the_terminal(tmp_path: Path) -> None:
    long = written(tmp_path, f"tasks: seg\nepochs: [{'x, ' * 5000}]")
    assert len(error_of("--config", long)) < 500
    red = written(tmp_path, 'tasks: seg\nbalancer: "\\e[31mred"')
    assert error_of("--config", red).startswith("unknown balancer '\\x1b[31mred'\n  available: ")
    assert len(error_of("--tasks", "seg", "--balancer", "x" * 9000)) == 4003


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "picture.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert error_of("--config", str(file)) == f"cannot read {file}: it is not UTF-8 text"


def test_an_unknown_name_fails_before_any_component_is_imported() -> None:
    import sys

    error_of("--tasks", "seg", "--balancer", "nope")
    assert "toy_parts" not in sys.modules
