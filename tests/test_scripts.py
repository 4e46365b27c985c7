"""The shell scripts: arguments, variables, order of the stages, and what they say on stopping."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import screenshot
from conftest import Project, calls, use_stub_requirements

from minillm.tokenizer.vocabulary import RustBPETokenizer

STORY = [
    "scripts/build_chinese_mix.py",
    "trainer/train_pretrain.py",
    "scripts/evaluate_stage.py --stage pretrain",
    "trainer/train_full_sft.py",
    "scripts/evaluate_stage.py --stage sft",
    "trainer/train_dpo.py",
    "scripts/evaluate_stage.py --stage dpo",
]


def put_poems(project: Project) -> Path:
    """Stand-ins for the files that `minillm download poetry` writes; their folder."""
    folder = project.root / "data" / "poetry"
    folder.mkdir(parents=True)
    for name in ("text_poetry.jsonl", "general_poetry.jsonl"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("preset", ["default", "small", "tiny", "smoke"])
def test_run_calls_every_stage_in_order(recorder: Project, preset: str) -> None:
    put_poems(recorder)
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


def test_the_smoke_test_ends_in_what_to_run_next_instead_of_scores(recorder: Project) -> None:
    text = recorder.run("bash scripts/run.sh --smoke-test").stdout
    closing = text[text.index("== Done") :].splitlines()
    assert "stages:" not in text
    assert closing[1].startswith("Every stage ran")
    assert closing[-1] == "  bash scripts/run.sh --preset tiny"
    assert "minillm chat" not in text
    pairs = recorder.root / "data" / "processed" / "smoke" / "dpo_chinese.jsonl"
    pairs.parent.mkdir(parents=True)
    pairs.touch()
    text = recorder.run("bash scripts/run.sh --smoke-test").stdout
    assert "Every stage but DPO ran" in text


def test_of_the_smoke_tests_scores_only_the_loss_is_shown(recorder: Project) -> None:
    entry = recorder.root / "scripts" / "evaluate_stage.py"
    with entry.open("a", encoding="utf-8") as file:
        file.write("print('val_loss  6.1\\nanswer fact  0.0\\n  8加4？ → 。\\nappended to x')\n")
    text = recorder.run("bash scripts/run.sh --smoke-test").stdout
    assert text.count("val_loss  6.1\nappended to x\n") == 3
    assert "answer fact" not in text
    assert (
        recorder.run("bash scripts/run.sh").stdout.count("answer fact  0.0\n  8加4？ → 。\n") == 3
    )


def test_a_failing_evaluation_stops_the_pipeline(recorder: Project) -> None:
    done = recorder.run("bash scripts/run.sh --smoke-test", check=False, FAIL_AT="sft")
    assert done.returncode != 0
    assert calls(recorder)[-1][-1] == "sft"


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
    done = next(line for line in closing if line.startswith("== Done"))
    assert "DPO" not in done
    assert closing[-1].endswith(" --stage sft")


def test_small_reads_poems_and_the_persona_of_all_presets(recorder: Project) -> None:
    poems = put_poems(recorder)
    pairs = recorder.root / "data" / "processed" / "small" / "dpo_chinese.jsonl"
    pairs.parent.mkdir(parents=True)
    pairs.touch()
    for _ in range(2):
        log = recorder.run("bash scripts/run.sh --preset small").stdout.splitlines()
        assert "Those in data/poetry are used." in log
        identity = poems / "identity_conversations.jsonl"
        original = recorder.root / "data" / "chinese" / identity.name
        assert identity.resolve() == original.resolve()
        assert "stages: pretrain sft" in log
        assert log[-1] == "Talk to the model:  .venv/bin/minillm chat --preset small --stage sft"
    assert "Left out: of poems there are no pairs of a better and a worse one." in log
    identity.unlink()
    identity.write_text("mine\n", encoding="utf-8")
    recorder.run("bash scripts/run.sh --preset small")
    assert identity.read_text(encoding="utf-8") == "mine\n"
    log = recorder.run("bash scripts/run.sh --preset tiny").stdout
    assert "Poems" not in log


@pytest.mark.parametrize(("preset", "out"), [("default", "out"), ("tiny", "out/tiny")])
def test_grpo_follows_where_it_is_asked_for(recorder: Project, preset: str, out: str) -> None:
    closing = recorder.run(
        f"bash scripts/run.sh --with-grpo --preset {preset}", GRPO_ARGS="--updates 2"
    ).stdout.splitlines()
    *_, trained, evaluated = [call for call in calls(recorder) if call[0] != "-c"]
    begins = ["--preset", preset, "--init_from", f"{out}/dpo.safetensors"]
    assert trained == ["trainer/train_grpo.py", *begins, "--updates", "2"]
    assert evaluated == ["scripts/evaluate_stage.py", "--preset", preset, "--stage", "grpo"]
    assert "stages: pretrain sft dpo grpo" in closing
    assert closing[-1].split("minillm chat")[1] in ("", f" --preset {preset}")
    # A run without it leaves what it made alone, and leads to the newest weights of its own.
    made = recorder.root / out / "grpo.safetensors"
    made.parent.mkdir(parents=True)
    made.touch()
    closing = recorder.run(f"bash scripts/run.sh --preset {preset}").stdout.splitlines()
    assert "stages: pretrain sft dpo" in closing
    assert closing[-1].endswith(" --stage dpo")


def test_grpo_starts_from_sft_where_there_are_no_pairs(recorder: Project) -> None:
    pairs = recorder.root / "data" / "processed" / "smoke" / "dpo_chinese.jsonl"
    pairs.parent.mkdir(parents=True)
    pairs.touch()
    text = recorder.run("bash scripts/run.sh --smoke-test --with-grpo").stdout
    (trained,) = [call for call in calls(recorder) if call[0] == "trainer/train_grpo.py"]
    assert trained[1:] == ["--preset", "smoke", "--init_from", "out/smoke/sft.safetensors"]
    assert "Every stage but DPO ran" in text


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
        ("--preset", "choose default, small, tiny or smoke"),
        ("--preset huge", "choose default, small, tiny or smoke"),
        ("--preset=huge", "choose default, small, tiny or smoke"),
        ("--with-grpo --preset small", "--with-grpo: no poem is right or wrong"),
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
    assert "bash scripts/run.sh --preset small" in notice
    assert re.search(r"about \d+ (hours|days)", notice)
    for gpu in ("cuda", "mps"):
        assert "No GPU" not in recorder.run("bash scripts/run.sh", FAKE_GPU=gpu).stdout
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


def test_a_checkout_as_git_for_windows_makes_it(repo: Path, tmp_path: Path) -> None:
    """By default it turns line feeds into CRLF, which neither bash nor the tokenizer's check sum
    would bear."""
    if not (repo / ".git").exists():
        pytest.skip("no git repository")
    there = tmp_path / "there"
    clone = ["git", "clone", "-q", "-c", "core.autocrlf=true", "--depth", "1"]
    subprocess.run([*clone, repo.as_uri(), there], check=True)
    listed = subprocess.check_output(["git", "ls-files", "--eol"], cwd=there, text=True)
    assert not [line for line in listed.splitlines() if re.search(r"w/(crlf|mixed)", line)]
    for script in sorted(there.rglob("*.sh")):
        subprocess.run(["bash", "-n", script], check=True)
    help_text = subprocess.check_output(["bash", there / "scripts" / "run.sh", "--help"], text=True)
    assert help_text.startswith("Usage: bash scripts/run.sh")
    assert RustBPETokenizer.load(there / "minillm" / "assets").vocab_size == 6400


def test_ci_runs_the_test_script_and_nothing_else(repo: Path) -> None:
    ci = repo / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert ci.read_text(encoding="utf-8").splitlines()[-1] == "bash scripts/test.sh"


def test_a_browser_is_found_by_its_variable_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert screenshot.find_browser() is None
    for name in ("mine", "google-chrome-stable", "chromium-browser"):
        (tmp_path / name).touch(mode=0o755)
    assert screenshot.find_browser() == str(tmp_path / "chromium-browser")
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "mine"))
    assert screenshot.find_browser() == str(tmp_path / "mine")


@pytest.mark.parametrize("script", ["book", "env", "run", "run_cn_pipeline", "test"])
def test_scripts_are_valid_bash(repo: Path, script: str) -> None:
    subprocess.run(["bash", "-n", repo / "scripts" / f"{script}.sh"], check=True)


def fenced(path: Path) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def test_both_readmes_give_the_same_commands(repo: Path) -> None:
    english, chinese = fenced(repo / "README.md"), fenced(repo / "README.zh.md")
    assert english
    assert english == chinese


@pytest.mark.parametrize(
    "document",
    ["README.md", "README.zh.md", "CONTRIBUTING.md", "benchmarks/README.md", "rustbpe/README.md"],
)
def test_documents_name_files_that_are_there(repo: Path, document: str) -> None:
    text = (repo / document).read_text(encoding="utf-8")
    folders = "benchmarks|book|dataset|minillm|rustbpe|scripts|tests|trainer"
    named = set(re.findall(rf"(?<![\w./])(?:{folders})/[\w./-]*\w", text))
    assert named
    # What a contributor is to put in, such as book/PAGE.py, is in capitals.
    written = {name for name in named if not re.search("[A-Z]{4}", name) or "README" in name}
    assert not {name for name in written if not (repo / name).exists()}


@pytest.mark.parametrize("document", ["README.md", "README.zh.md"])
def test_the_readmes_table_of_the_package_is_complete(repo: Path, document: str) -> None:
    text = (repo / document).read_text(encoding="utf-8")
    table = text[text.index("| `minillm/`" if "zh" in document else "| in `minillm/`") :]
    rows = table[: table.index("\n\n")].splitlines()[2:]
    named = [name for row in rows for name in re.findall(r"`([\w/]+)`", row.split("|")[1])]
    there = [
        f"{path.name}/" if path.is_dir() else path.stem
        for path in (repo / "minillm").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert sorted(named) == sorted(name for name in there if name != "__init__")


def test_tests_mirror_the_package(repo: Path) -> None:
    rooms = {path.parent.name for path in (repo / "minillm").glob("*/__init__.py")}
    assert {path.parent.name for path in (repo / "tests").glob("*/test_*.py")} == rooms
