"""The shell scripts: arguments, variables, order of the stages, and what they say on stopping."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Project, calls, use_stub_requirements

STORY = [
    "scripts/build_chinese_mix.py",
    "trainer/train_pretrain.py",
    "scripts/evaluate_stage.py --stage pretrain",
    "trainer/train_full_sft.py",
    "scripts/evaluate_stage.py --stage sft",
    "trainer/train_dpo.py",
    "scripts/evaluate_stage.py --stage dpo",
]


@pytest.mark.parametrize("preset", ["default", "tiny", "smoke"])
def test_run_calls_every_stage_in_order(recorder: Project, preset: str) -> None:
    recorder.run(f"bash scripts/run.sh --preset {preset}")
    made = [" ".join(call).replace(f" --preset {preset}", "") for call in calls(recorder)]
    expected = list(STORY)
    if preset == "tiny":  # the others use the tokenizer that comes with the package
        expected.insert(1, "scripts/train_rustbpe_tokenizer.py")
    assert made[: len(expected)] == expected
    assert all(call[1:3] == ["--preset", preset] for call in calls(recorder))


def test_ends_in_the_scores_of_this_run_and_how_to_chat(recorder: Project) -> None:
    recorder.run("bash scripts/run.sh --smoke-test")
    closing = recorder.run("bash scripts/run.sh --preset tiny").stdout.splitlines()
    assert "stages: pretrain sft dpo" in closing
    assert closing[-1] == "Talk to the model:  .venv/bin/minillm chat --preset tiny"
    closing = recorder.run("bash scripts/run.sh").stdout.splitlines()
    assert closing[-1] == "Talk to the model:  .venv/bin/minillm chat"


def test_smoke_test_is_the_smoke_preset(recorder: Project) -> None:
    recorder.run("bash scripts/run.sh --smoke-test")
    assert {call[2] for call in calls(recorder)} == {"smoke"}


def test_extra_arguments_are_split_into_words_but_not_expanded(recorder: Project) -> None:
    recorder.run(
        "bash scripts/run.sh --smoke-test",
        MIX_ARGS="--built_in none",
        PRETRAIN_ARGS="--batch_size 2 --data_path *.txt",
        SFT_ARGS="--learning_rate 1e-4",
        DPO_ARGS="--beta 0.2",
    )
    extra = {call[0]: call[3:] for call in calls(recorder) if "--stage" not in call}
    assert extra == {
        "scripts/build_chinese_mix.py": ["--built_in", "none"],
        "trainer/train_pretrain.py": ["--batch_size", "2", "--data_path", "*.txt"],
        "trainer/train_full_sft.py": ["--learning_rate", "1e-4"],
        "trainer/train_dpo.py": ["--beta", "0.2"],
    }


@pytest.mark.parametrize(("preset", "folder"), [("default", ""), ("tiny", "tiny")])
def test_dpo_is_left_out_where_there_are_no_pairs(
    recorder: Project, preset: str, folder: str
) -> None:
    pairs = recorder.root / "data" / "processed" / folder / "dpo_chinese.jsonl"
    pairs.parent.mkdir(parents=True)
    pairs.touch()
    closing = recorder.run(f"bash scripts/run.sh --preset {preset}").stdout.splitlines()
    assert not any("dpo" in " ".join(call) for call in calls(recorder))
    assert any("preference_*.jsonl" in line for line in closing)
    assert "stages: pretrain sft" in closing
    assert closing[-1].endswith(" --stage sft")


def test_a_failing_stage_stops_the_pipeline(recorder: Project) -> None:
    done = recorder.run(
        "bash scripts/run.sh --smoke-test", check=False, FAIL_AT="trainer/train_full_sft.py"
    )
    assert done.returncode != 0
    assert "told to fail" in done.stdout
    assert calls(recorder)[-1][0] == "trainer/train_full_sft.py"


def test_works_from_any_folder(recorder: Project) -> None:
    recorder.run("cd / && bash $OLDPWD/scripts/run.sh --smoke-test")
    assert len(calls(recorder)) >= len(STORY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--smoke", "unknown argument --smoke"),
        ("--preset", "choose default, tiny or smoke"),
        ("--preset huge", "choose default, tiny or smoke"),
        ("--preset=huge", "choose default, tiny or smoke"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(
    recorder: Project, arguments: str, message: str
) -> None:
    done = recorder.run(f"bash scripts/run.sh {arguments}", check=False)
    assert done.returncode == 2
    assert message in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not calls(recorder)


def test_help_names_every_variable_that_the_scripts_read(recorder: Project) -> None:
    text = recorder.run("bash scripts/run.sh --help").stdout
    for script in ("env.sh", "run.sh"):
        read = re.findall(
            r"\$\{([A-Z_]+):?-", (recorder.root / "scripts" / script).read_text("utf-8")
        )
        assert read
        for name in read:
            assert name in text
    assert not calls(recorder)


def test_default_without_a_gpu_names_the_other_runs_first(recorder: Project) -> None:
    text = recorder.run("bash scripts/run.sh").stdout
    notice = text[: text.index("== Data mix")]
    assert "bash scripts/run.sh --smoke-test" in notice
    assert "bash scripts/run.sh --preset tiny" in notice
    assert re.search(r"about \d+ (hours|days)", notice)
    assert "No GPU" not in recorder.run("bash scripts/run.sh", FAKE_GPU="1").stdout
    assert "No GPU" not in recorder.run("bash scripts/run.sh --smoke-test").stdout


def test_interpreter_that_is_missing_or_too_old(recorder: Project) -> None:
    done = recorder.run("bash scripts/run.sh", check=False, PYTHON="no-such-python")
    assert done.returncode == 2
    assert "PYTHON=no-such-python" in done.stdout.splitlines()[-1]

    old = recorder.root / "old-python"
    old.write_text(
        '#!/bin/sh\ncase "$2" in *exit*) exit 1 ;; *) echo 3.9.1 ;; esac\n', encoding="utf-8"
    )
    old.chmod(0o755)
    done = recorder.run("bash scripts/run.sh", check=False, PYTHON=str(old))
    assert done.returncode == 2
    assert "is Python 3.9.1: set PYTHON to a Python 3.10 or newer" in done.stdout
    assert not calls(recorder)


def test_python_without_venv_says_what_to_install(recorder: Project) -> None:
    # As on Debian, where `ensurepip` is a package of its own.
    python = recorder.root / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexec {recorder.python} "$@"\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    done = recorder.run("bash scripts/run.sh", check=False, PYTHON=str(python), VENV_DIR="new")
    assert done.returncode == 2
    assert "apt-get install python3-venv" in done.stdout.splitlines()[-1]


def test_an_environment_from_nothing_to_moved(recorder: Project) -> None:
    """Made once, installed once; mended after a failure, a stop, and a move."""
    shutil.rmtree(recorder.root / ".venv")
    use_stub_requirements(recorder)
    run, marker = "bash scripts/run.sh --smoke-test", recorder.root / ".venv" / ".deps_installed"

    text = recorder.run(run).stdout
    assert "Making the virtual environment .venv" in text
    assert "Successfully installed stub-1.0" in text
    text = recorder.run(run).stdout
    assert "Making" not in text
    assert "nothing to install" in text

    use_stub_requirements(recorder, "other")
    with (recorder.root / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write("./missing-1.0-py3-none-any.whl\n")
    (recorder.root / "calls.jsonl").unlink()
    done = recorder.run(run, check=False)
    assert done.returncode == 2
    assert "pip could not install the packages" in done.stdout.splitlines()[-1]
    assert not marker.exists()
    assert not calls(recorder)

    # A run that was stopped while it made the environment left it without pip.
    use_stub_requirements(recorder)
    for part in recorder.site_packages.glob("pip*"):
        shutil.rmtree(part)
    recorder.run(run)
    assert marker.exists()

    moved = recorder.root.parent / "moved"
    recorder.root.rename(moved)
    recorder.root = moved
    assert "nothing to install" not in recorder.run(run).stdout


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt", "pyproject.toml"])
def test_any_changed_requirement_is_noticed(recorder: Project, name: str) -> None:
    state = "source scripts/env.sh && requirements_state"
    before = recorder.activated(state)
    assert recorder.activated(state) == before
    with (recorder.root / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert recorder.activated(state) != before


def test_uv_variant_installs_by_uv(recorder: Project) -> None:
    use_stub_requirements(recorder)
    text = recorder.run("bash scripts/run_cn_pipeline.sh --smoke-test").stdout
    assert "+ stub==1.0" in text  # uv's way of saying so
    assert [call[0] for call in calls(recorder)][:2] == [
        "scripts/build_chinese_mix.py",
        "trainer/train_pretrain.py",
    ]


def test_missing_maturin_or_cargo_says_how_to_get_it(recorder: Project, tmp_path: Path) -> None:
    # A PATH with nothing but what the scripts themselves need.
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "cat", "cp", "dirname", "mkdir", "rm"):
        (tools / tool).symlink_to(
            subprocess.check_output(["which", tool], encoding="utf-8").strip()
        )
    environment = {"PATH": str(tools), "PYTHON": str(recorder.python), "ENABLE_RUSTBPE": "1"}
    run = "bash scripts/run_cn_pipeline.sh --smoke-test"
    done = recorder.run(run, check=False, **environment)
    assert done.returncode == 2
    assert "pip install maturin" in done.stdout.splitlines()[-1]
    assert not calls(recorder)

    (tools / "maturin").symlink_to("/bin/true")
    done = recorder.run(run, check=False, **environment)
    assert done.returncode == 2
    assert "cargo, which is missing" in done.stdout.splitlines()[-1]


def test_identity_file_of_the_user_is_kept(recorder: Project) -> None:
    identity = recorder.root / "data" / "chinese" / "identity_conversations.jsonl"
    identity.parent.mkdir(parents=True)
    identity.write_text("mine\n", encoding="utf-8")
    assert "sample" not in recorder.run("bash scripts/run.sh --smoke-test").stdout
    assert identity.read_text(encoding="utf-8") == "mine\n"


def test_ci_runs_the_test_script_and_nothing_else(repo: Path) -> None:
    ci = repo / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert ci.read_text(encoding="utf-8").splitlines()[-1] == "bash scripts/test.sh"


@pytest.mark.parametrize("script", ["env", "run", "run_cn_pipeline", "test"])
def test_scripts_are_valid_bash(repo: Path, script: str) -> None:
    subprocess.run(["bash", "-n", repo / "scripts" / f"{script}.sh"], check=True)


def fenced(path: Path) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def test_both_readmes_give_the_same_commands(repo: Path) -> None:
    english, chinese = fenced(repo / "README.md"), fenced(repo / "README.zh.md")
    assert english
    assert english == chinese
