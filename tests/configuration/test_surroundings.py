"""Locales without the project's characters, launchers that are missing, and studies with a failed trial."""

import importlib
import io
import logging
import os
import pydoc
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from support.script_runner import SCRIPTS

from bptt.configuration.compose import CONF
from bptt.configuration.errors import plain_errors
from bptt.configuration.sections import locate
from bptt.run_folder import RunFolder
from bptt.shapes import map_state
from bptt.sweeps.preflight import Preflight


def with_hydra(*words: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("train", list(words), return_hydra_config=True)


def test_output_in_a_latin_1_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    with plain_errors():
        print("0.5 ± 0.1†")
    assert written.getvalue() == "0.5 ± 0.1?\n".encode("latin-1")


def test_a_killed_worker_of_a_study() -> None:
    """Optuna's sweeper lets joblib's error through; that of a grid names the jobs."""
    pytest.importorskip("joblib", reason="the extra `launchers` is not installed")
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    error = TerminatedWorkerError("a report of sixty lines")
    message = "error: a worker must live until its job ends, got one that was killed"
    with pytest.raises(SystemExit, match=message), plain_errors():
        raise error


def test_ctrl_c_while_a_program_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, plain_errors():
        raise KeyboardInterrupt
    logging.disable(logging.NOTSET)  # the program ends here, without torch's last messages
    assert left.value.code == 130
    assert capsys.readouterr().err == "interrupted by Ctrl-C; the same command starts again\n"


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "RuntimeError"])
def test_ctrl_c_while_a_script_imports(error: str) -> None:
    code = f"from bptt.configuration import arguments; raise {error}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if error == "KeyboardInterrupt":
        assert done.stderr == "interrupted by Ctrl-C; the same command starts again\n"
    else:
        assert done.stderr.startswith("Traceback")
    assert done.returncode != 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_while_a_script_imports(name: str) -> None:
    code = f"import os, signal; from bptt.configuration import arguments; os.kill(os.getpid(), signal.{name})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == f"interrupted by {name}; the same command starts again\n"
    assert done.returncode == -signal.Signals[name]
    further = {**os.environ, "LOCAL_RANK": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=further)
    assert (done.returncode, done.stderr) == (-signal.Signals[name], "")
    ignored = code.replace("; from", f"; signal.signal(signal.{name}, signal.SIG_IGN); from")
    done = subprocess.run([sys.executable, "-c", ignored], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_a_library_is_imported(tmp_path: Path) -> None:
    """Whatever the library does with an exception: those in C abort, others take it for a missing part."""
    (tmp_path / "part.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    (tmp_path / "library.py").write_text("try:\n    import part\nexcept BaseException:\n    pass\nprint('imported')")
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    code = f"{path}; from bptt.configuration import arguments; import library"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "interrupted by Ctrl-C; the same command starts again\n")
    assert done.returncode == -signal.SIGINT
    ignored = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {code}"
    done = subprocess.run([sys.executable, "-c", ignored], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n", "")


def test_ctrl_c_after_all_is_imported_is_an_exception() -> None:
    wait = "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('caught')"
    code = f"import os, signal\nfrom bptt.configuration import arguments\n{wait}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught\n", "")


def test_a_signal_ends_a_forked_child_without_a_line() -> None:
    """It is a part of the program, such as a worker that is no longer needed.

    The signal follows when the child says so, because Python drops those of a fork's first moments.
    """
    start = "import os, signal; from bptt.configuration import arguments; r, w = os.pipe(); child = os.fork()"
    ready = "child or (os.write(w, b'.'), signal.pause()); os.read(r, 1)"
    code = f"{start}; {ready}; os.kill(child, signal.SIGTERM); print(os.waitpid(child, 0)[1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{int(signal.SIGTERM)}\n", "")


def test_ctrl_c_while_a_part_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted_part.py").write_text("raise KeyboardInterrupt")
    (tmp_path / "broken_part.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        locate("interrupted_part.Part")
    with pytest.raises(pydoc.ErrorDuringImport, match="ZeroDivisionError"):
        locate("broken_part.Part")


def test_ctrl_c_while_a_script_ends() -> None:
    end = "def end(): raise KeyboardInterrupt"
    code = f"import atexit\nfrom bptt.configuration import arguments\n{end}\natexit.register(end)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_training_imports_hydra() -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "train.py"
    code = f"""
import runpy, sys

class Interruption:
    def find_spec(name, *_):
        if name == "hydra":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interruption)
runpy.run_path({str(script)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "interrupted by Ctrl-C; the same command starts again\n"


def test_every_open_names_its_encoding() -> None:
    """The linter refuses files that would depend on the locale."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        "--output-format=concise",
        "--stdin-filename=src/bptt/new.py",
        "-",
    ]
    source = "from pathlib import Path\n\nPath('a').write_text('b')\n"
    done = subprocess.run(command, input=source, capture_output=True, text=True, cwd=CONF.parent)
    assert done.returncode == 1
    assert "without explicit `encoding`" in done.stdout


def test_without_slurm_a_line_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="the extra `launchers` is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    config = with_hydra("hydra/launcher=slurm", "hydra.sweep.dir=sweep")
    with pytest.raises(SystemExit, match=r"error: hydra/launcher must be one that this machine has, got 'slurm'"):
        Preflight().on_multirun_start(config)
    with pytest.raises(SystemExit, match=r"error: hydra\.sweep\.dir must be without %, by which Slurm means"):
        Preflight().on_multirun_start(with_hydra("hydra/launcher=slurm", "hydra.sweep.dir=50%j"))
    assert list(tmp_path.iterdir()) == []


def test_a_crash_before_the_run_ends_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra would make it a warning, and train."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_task.py").write_text(
        "from bptt.tasks.adding import Adding\n\nclass Own(Adding):\n    def num_batches(self, split):\n"
        "        return [][0]\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = with_hydra("task=adding", "task._target_=own_task.Own", "hydra.run.dir=run")
    with pytest.raises(SystemExit) as left:
        Preflight().on_run_start(config)
    assert left.value.code == 1
    assert "IndexError" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_study_has_its_folder_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two studies at once would train in the same folders; one after the other continues."""
    pytest.importorskip("optuna", reason="the extra `launchers` is not installed")
    monkeypatch.chdir(tmp_path)
    first = Preflight()
    first.on_multirun_start(with_hydra("sweeper=optuna", "hydra.sweep.dir=study"))
    second = with_hydra("sweeper=optuna", "hydra.sweep.dir=study")
    with pytest.raises(SystemExit, match=r"error: hydra\.sweep\.dir must be a folder that no other run is using"):
        Preflight().on_multirun_start(second)
    first.on_multirun_end(second)
    assert not RunFolder(tmp_path / "study").is_locked
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"error: hydra.sweep.dir must be a folder that can be .*, got file"):
        Preflight().on_multirun_start(with_hydra("sweeper=optuna", "hydra.sweep.dir=file"))


def test_a_study_goes_on_after_a_failed_trial() -> None:
    pytest.importorskip("optuna", reason="the extra `launchers` is not installed")
    assert with_hydra("sweeper=optuna").hydra.sweeper.max_failure_rate == 1.0
    assert with_hydra("+sweep=tune_copy_memory").hydra.sweeper.max_failure_rate == 1.0


@pytest.mark.parametrize("folder", ["user/lib/python3.11/site-packages", "usr/lib/python3/dist-packages", "mine"])
def test_an_error_in_a_library_is_not_one_in_own_code(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is installed."""
    place = tmp_path / folder
    place.mkdir(parents=True)
    (place / "sums.py").write_text("def total(values):\n    raise ValueError('none')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, "sums", raising=False)
    total = importlib.import_module("sums").total
    with pytest.raises(SystemExit) as left, plain_errors():
        map_state(total, torch.zeros(1))
    where = f"; raised in {place / 'sums.py'}:2, see BPTT_TRACEBACK=1" if folder == "mine" else ""
    assert left.value.code == f"error: none{where}"


def test_a_script_called_by_another_path_is_no_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    script = os.path.relpath(SCRIPTS / "compare_runs.py")
    assert script.startswith("..")
    done = subprocess.run([sys.executable, script, "none"], capture_output=True, text=True)
    assert done.stderr == "error: FOLDER must hold runs, got none; say for example outputs\n"
