"""Entry points of jobs: flags and configuration from the command line, exit codes, a last line of JSON.

A job is a function and a model of its flags::

    class Flags(ExperimentFlags):
        start: str = Field("", alias="from")
        \"\"\"Registered model to start from.\"\"\"
        fresh: Switch = False
        \"\"\"Start anew instead of resuming.\"\"\"

    def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
        return {"model": "models:/demo/1"}

    if __name__ == "__main__":
        run_job(main, Flags, __doc__)

Exit codes: 0 done, 1 refused by a gate, 2 a user's error, 3 a failure of ours, 130 interrupted, 143 terminated. The
last line of standard output is JSON with the same `exit_code`, since a submitted job's own is flattened.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_settings import CliImplicitFlag, CliSettingsSource

from idgbr.config.keys import bare, nearest, nodes, walk
from idgbr.config.load import load_experiment, validate
from idgbr.config.tree import Experiment
from idgbr.errors import IdgbrError, Refused, UserError
from idgbr.redaction import redacted

Switch = CliImplicitFlag[bool]
"""A flag without a value: --fresh, --no-fresh."""


class JobFlags(BaseModel):
    """Flags of a job, beside the experiment's tree. Docstrings of the fields become their help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ExperimentFlags(JobFlags):
    """Flags of a job that is described by an experiment; every key of its tree is a flag too."""

    config: str
    """YAML file of the experiment."""


class TrainingFlags(ExperimentFlags):
    """Flags of a job that trains."""

    start: str = Field("", alias="from")
    """Model both stages start from: models:/NAME@ALIAS, models:/NAME/VERSION or a model folder."""
    fresh: Switch = False
    """Forget earlier runs of the same experiment instead of continuing them."""


Flags = TypeVar("Flags", bound=JobFlags)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"command line: {message} (--help lists every flag)")


def parse_job(
    flags: type[Flags], arguments: Sequence[str] | None = None, description: str | None = None
) -> tuple[Flags, Experiment | None]:
    """Reads a command line.

    Args:
        flags: Model of the job's own flags; of `ExperimentFlags` they make the keys of `Experiment` flags as well.
        arguments: Words after the program's name (default: those of this process).
        description: Shown by --help.

    Returns:
        The flags, and the experiment that `config` names (None where the job takes none, or it is empty).

    Raises:
        UserError: Unknown flag, missing or malformed value, or a fault of the YAML file.
    """
    takes_one = issubclass(flags, ExperimentFlags)
    bases: tuple[type[BaseModel], ...] = (flags, Experiment) if takes_one else (flags,)
    if takes_one and (clash := set(flags.model_fields) & set(Experiment.model_fields)):
        raise ValueError(f"flags of a job must not be named as sections of the experiment: {sorted(clash)}")
    everything = cast(type[BaseModel], create_model("Everything", __base__=bases))
    known = dict(walk(everything))
    parser = _Parser(
        description=description,
        usage="%(prog)s [--flag VALUE ...]" + (" [--section.key VALUE ...]" if takes_one else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    CliSettingsSource(everything, root_parser=parser)  # type: ignore[arg-type]
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UserError(_unknown(unknown[0], known))
    values = {key: _value(raw, known[key]) for key, raw in vars(found).items() if raw is not None and key in known}
    own = {field.alias or name for name, field in flags.model_fields.items()}
    job = validate(flags, {key: value for key, value in values.items() if key in own}, "command line", own)
    path = job.config if isinstance(job, ExperimentFlags) else ""
    if not path:
        if loose := sorted(set(values) - own):
            raise UserError(f"--{loose[0]}: changes a key of an experiment; name the experiment's file with --config")
        return job, None
    return job, load_experiment(path, {key: value for key, value in values.items() if key not in own})


def run_job(
    main: Callable[..., Mapping[str, Any]],
    flags: type[JobFlags],
    description: str | None = None,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Runs a job and ends the process with the exit code that says how it went.

    Args:
        main: The job: takes the flags, and the experiment where the flags name one; returns its outputs.
        flags: Model of the job's own flags.
        description: Shown by --help.
        arguments: Words after the program's name (default: those of this process).
    """
    signal.signal(signal.SIGTERM, _terminate)
    status, code, message, outputs = "done", 0, "", {}
    try:
        job, experiment = parse_job(flags, arguments, description)
        outputs = dict(main(job) if experiment is None else main(job, experiment))
    except Refused as error:
        status, code, message, outputs = "refused", error.exit_code, str(error), error.outputs
    except UserError as error:
        status, code, message = "user_error", error.exit_code, str(error)
    except KeyboardInterrupt:
        status, code, message = "interrupted", 130, "interrupted"
    except SystemExit as error:
        if not error.code:  # --help
            raise
        status, code, message = "interrupted", 143, "terminated"
    except BaseException as error:
        cause = _expected_cause(error)
        if cause is None:
            print(redacted(traceback.format_exc()), file=sys.stderr)
            status, code, message = "failed", IdgbrError.exit_code, f"{type(error).__name__}: {error}"
        else:
            status, code, message = ("refused" if cause.exit_code == 1 else "user_error"), cause.exit_code, str(cause)
    message = redacted(message)
    if message:
        print(message, file=sys.stderr, flush=True)
    line = {"status": status, "exit_code": code, "message": message, "outputs": outputs}
    print(redacted(json.dumps(line, default=str)), flush=True)
    sys.exit(code)


def _expected_cause(error: BaseException | None) -> IdgbrError | None:
    """A user's error or a refusal that travelled here wrapped, as errors of remote tasks do."""
    first = error
    for _ in range(8):
        if error is None:
            break
        if isinstance(error, UserError | Refused):
            return error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    # Ray Data keeps of an error's causes only their text.
    message = re.search(r"^idgbr\.errors\.UserError: (.+)$", str(first), re.MULTILINE)
    return UserError(message.group(1)) if message else None


def _terminate(number: int, frame: object) -> NoReturn:
    # An exception, so that `finally` blocks run: tracked runs are closed, temporary files removed.
    raise SystemExit(128 + number)


def _unknown(word: str, known: Mapping[str, Any]) -> str:
    if not word.startswith("--") and os.path.exists(word):
        return (
            f"command line: unexpected word {word!r}, which is a file: the shell has put the files that match in the "
            "place of a pattern without quotes. Quote it, as in --input '/imagery/*.tif'"
        )
    if not word.startswith("--"):
        return f"command line: unexpected word {word!r}; flags are written --name VALUE"
    key = word[2:].partition("=")[0]
    close = nearest(key, known)
    hint = f"the nearest known one is --{close}" if close else "no known flag is near"
    return f"--{key}: unknown flag; {hint} (--help lists them all)"


def _value(raw: Any, annotation: Any) -> Any:
    """What a flag's words mean. Lists may be repeated flags, `a,b`, or `[a, b]`; sections are YAML or JSON."""
    if nodes(annotation):
        return _yaml(raw)
    if isinstance(raw, str):
        return None if raw == "null" else raw
    if not isinstance(raw, list):
        return raw
    word = str(raw[0]).lstrip() if raw else ""
    if len(raw) == 1 and not _is_pattern(word) and (word.startswith(("[", "{")) or not _takes_list(annotation)):
        return _yaml(raw[0])
    # Paths and colours stand for themselves; commas part numbers and names only.
    return list(raw) if bare(annotation) == list[str] else [item for word in raw for item in _yaml(f"[{word}]")]


def _takes_list(annotation: Any) -> bool:
    """Whether a flag may be a list; a number or a mapping is one word, though the parser makes a list of it."""
    annotation = bare(annotation)
    return any(get_origin(bare(kind)) in (list, tuple) for kind in (annotation, *get_args(annotation)))


def _is_pattern(word: str) -> bool:
    """Whether a word that begins like a list is a pattern of file names, such as [ab]*.tif."""
    return word.lstrip().startswith("[") and not word.rstrip().endswith("]")


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"command line: {text!r} is not a value; expected JSON or YAML such as [1, 2]") from None
