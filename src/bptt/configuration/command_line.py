"""Error messages for mistakes on a command line, with the remedy. Hydra's own show its grammar or its search path."""

import re
import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from hydra.errors import MissingConfigException, OverrideParseException

from bptt.configuration.compose import CONF, refuse_second_choices
from bptt.contracts import refusal

SETTING = "a setting KEY=VALUE"
OWN_FILE = "a file of your own is task.path={path}, with task=text, series or sequences"
QUOTES = "'\""
HYDRA_LINK = re.compile(r" *See https://hydra\.cc\S*.*", re.DOTALL)


def check_words(words: Sequence[str]) -> None:
    """ValueError for options that Hydra does not have, spaces around `=`, and second choices of a group."""
    from hydra._internal.utils import get_args_parser

    refuse_second_choices(words)

    def reject(message: str) -> NoReturn:
        raise ValueError(f"options must be those of --hydra-help, got {' '.join(words)}: {message}")

    parser = get_args_parser()
    parser.error = reject  # type: ignore[method-assign]  # by default it prints the usage and exits
    left = parser.parse_known_args(list(words))[1]
    unknown = [word for word in left if word.startswith("-")]
    if left and not unknown:
        wanted = "beside all others, not divided from them by an option"
        raise ValueError(refusal("a setting", wanted, left[0], "say options such as -m first"))
    if unknown and unknown[0] not in words:  # -model, which argparse of Python 3.13 takes for -m and -odel
        reject(f"-{unknown[0][1]} is none")
    if unknown:
        name, equals, value = unknown[0].lstrip("-").partition("=")
        following = next((each for each in words[words.index(unknown[0]) + 1 :] if "=" not in each), None)
        options = [option for action in parser._actions for option in action.option_strings]
        if equals or following:
            remedy = f"say {name}={value if equals else following}"
        elif close := get_close_matches(unknown[0], options, n=1, cutoff=0.8):
            remedy = f"did you mean {close[0]}?"
        else:
            remedy = "all settings are shown by --cfg job"
        raise ValueError(refusal("an argument", SETTING, unknown[0], remedy))
    for place, (word, following) in enumerate(pairwise(words)):
        if word.endswith("=") and "=" not in following and following[:1] not in ("~", "-"):
            parts = [*(words[place - 1 : place] if word == "=" else ()), word, following]
            remedy = f"say {''.join(parts)}"
            raise ValueError(refusal("an argument", f"{SETTING} without spaces", " ".join(parts), remedy))


def prints_only(words: Sequence[str]) -> bool:
    """True for options that print a page, such as --help or --cfg job, instead of running anything."""
    from hydra._internal.utils import get_args_parser

    options = get_args_parser().parse_known_args(list(words))[0]
    return any((options.help, options.hydra_help, options.cfg, options.info, options.shell_completion))


def missing_equals_sign(word: str) -> str:
    """Error message for a word without "=", which may be the name of a choice, a file or a folder."""
    groups = sorted(path.parent.name for path in CONF.glob(f"*/{word}.yaml")) if word.isidentifier() else []
    if groups:
        remedy = f"did you mean {' or '.join(f'{group}={word}' for group in groups)}?"
    elif Path(word).is_dir():
        remedy = f"the folder of a run is resume={word} for train.py, run={word} for other scripts"
    elif Path(word).suffix:
        remedy = OWN_FILE.format(path=word)
    else:
        remedy = "all settings are shown by --cfg job"
    return refusal("an argument", SETTING, word, remedy)


def unknown_choice(error: MissingConfigException) -> str:
    """Error message for an option that its group does not have, with the most similar one."""
    group, slash, choice = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(error.options or [path.stem for path in (CONF / group).glob("*.yaml")])
    if not slash or not options:
        return str(error).partition("\n")[0]
    close = get_close_matches(choice.lower(), options, n=1, cutoff=0.6)
    remedy = f"did you mean {group}={close[0]}?" if close else "a choice of your own needs --config-dir FOLDER"
    if group == "task" and Path(choice).suffix:
        remedy = OWN_FILE.format(path=choice)
    if group == "logger":
        remedy = "another one is +logger.NAME._target_=lightning.pytorch.loggers.CLASS"
    return refusal(group, " or ".join(options), choice, remedy)


def clearer_message(error: BaseException) -> str | None:
    """A message with the remedy for some of Hydra's errors; None for the others."""
    text = str(error)
    if isinstance(error, MissingConfigException):
        return unknown_choice(error)
    if "missing EQUAL" in text and (word := re.search("parsing override '(.*)'", text)):
        return missing_equals_sign(word[1])
    if several := re.search("Ambiguous value for argument '(.*)'|Sweep parameters '(.*)' requires", text):
        key, _, values = (several[1] or several[2]).partition("=")
        remedy = "say -m to run each of them" if Path(sys.argv[0]).name == "train.py" else "name one"
        if several[1]:
            remedy += f", or {key}=[{values}] for a list"
        return refusal(key, "one value", values, remedy)
    if isinstance(error, OverrideParseException):
        cause = HYDRA_LINK.sub("", " ".join(text.split()))
        key, _, value = str(error.override).partition("=")
        values = value.split(",") if {"-m", "--multirun"} & set(sys.argv) else [value]
        quoted = ",".join(f'"{each.strip().strip(QUOTES)}"' for each in values)
        example = f"""'{key}=["a (b)",c]'""" if value[:1] in "[{" else shlex.quote(f"{key}={quoted}")
        remedy = f"quote texts for Hydra and the whole for the shell, as in {example}"
        if key[:1] in QUOTES:
            remedy = f"leave out the quotes around it: {str(error.override).strip(QUOTES)}"
        return refusal("an argument", SETTING, error.override, f"{remedy} ({cause})")
    if removed := re.search(r"Key '(.*)' is not in struct(?:\s+full_key: (\S+))?", text):
        key = removed[2] or removed[1]
        empty = "" if "." in key else f" or {key}=[]"
        return f"{key} must be part of the configuration, got one without it; leave ~{key}{empty} out"
    if "Got int" in text or "Got float" in text:
        return refusal("an argument", SETTING, "=…", "a name comes first")
    if "Got NoneType" in text:
        return refusal("the choice of a group", "a name", None, "leave GROUP=null out, or say ~GROUP")
    if "INTERVAL_SWEEP" in text:
        return refusal("the sweeper", "optuna for values from an interval", "another", "say sweeper=optuna")
    if text.startswith("Error merging override") and error.__cause__ is not None:
        return f"{text}: {str(error.__cause__).splitlines()[0]}"
    return None
