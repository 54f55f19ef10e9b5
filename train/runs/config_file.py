"""A run's settings as a YAML file that a person edits: every key with its meaning, read without surprises.

preset: small
options: {save_every: 2500}
model: {width: 192}
training: {learning_rate: 2e-4}
"""

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from lvae.train.runs.run import RunConfig

LARGEST = 1 << 16  # bytes: nobody types more, and nothing larger is worth parsing
SECTIONS = ("preset", "options", "model", "training")


@dataclass(frozen=True)
class ConfigFile:
    """What a file says; settings as text, as --set takes them. options: of the command, by their names."""

    preset: str | None
    options: dict[str, Any]
    settings: dict[str, str]


def read_config_file(path: Path) -> ConfigFile:
    """LvaeError for what is no YAML, repeats a key, refers to itself, or has sections that no run has."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({error.strerror})") from error
    if len(data) > LARGEST:
        raise LvaeError(path, f"has more than {LARGEST} bytes, so it is no file of settings")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, yaml.SafeLoader)):
            raise LvaeError(path, "refers to parts of itself (*name)", "Write them out.")
        _refuse_repeats(yaml.compose(data, yaml.SafeLoader), path)
        content = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise LvaeError(path, f"is not valid YAML ({problem:.200})") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise LvaeError(path, f"must hold the sections {', '.join(SECTIONS)}")
    for name in content:
        if name not in SECTIONS:
            raise LvaeError(path, f"has a section {name!r:.60}", f"There are {', '.join(SECTIONS)}.")
    preset, options, model, training = (content.get(name) for name in SECTIONS)
    if preset is not None and not isinstance(preset, str):
        raise LvaeError(path, f"preset must be a name, not {preset!r:.60}")
    settings = {**_section(model, "model", path), **_section(training, "training", path)}
    return ConfigFile(
        preset, _section(options, "options", path), {name: _as_text(value) for name, value in settings.items()}
    )


def _section(value: Any, name: str, path: Path) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise LvaeError(path, f"{name} must hold KEY: VALUE")
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _refuse_repeats(node: Any, path: Path) -> None:
    """YAML itself takes the last of two equal keys, whoever meant the first."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise LvaeError(path, f"{key!r:.60} stands twice")
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                _refuse_repeats(part, path)


def write_config_file(path: Path, config: "RunConfig", options: Mapping[str, Any], meanings: Mapping[str, str]) -> None:
    """Every setting of a run and option of the command, each under a comment that says what it means.

    meanings: of the options.
    """
    lines = ["# Settings of a run: lvae train DATASET RUN --config FILE. Options on the command line win.", ""]
    lines += [f"preset: {json.dumps(config.preset)}", "", "# How the run is executed and watched; none of it changes"]
    lines += ["# what is learnt.", "options:", *_entries(options, meanings)]
    for name, record in (("model", config.model), ("training", config.training)):
        lines += ["", f"{name}:", *_entries(records.plain(record), field_meanings(type(record)))]
    path.write_text("\n".join(lines) + "\n")


def _entries(values: Mapping[str, Any], meanings: Mapping[str, str]) -> list[str]:
    lines = []
    for name, value in values.items():
        written = yaml.safe_dump(value, default_flow_style=True, width=LARGEST).removesuffix("...\n").strip()
        lines += [f"  # {meanings[name]}", f"  {name}: {written}"]
    return lines


def field_meanings(record: type[ModelConfig] | type[TrainConfig]) -> dict[str, str]:
    """What each field means, from the record's docstring: `name, name: what they are.`"""
    _, _, text = inspect.cleandoc(record.__doc__ or "").partition("\n\n")
    names = "|".join(record.__dataclass_fields__)
    marks = list(re.finditer(rf"(?<!\w)((?:{names})(?:, (?:{names}))*): ", text))
    found: dict[str, str] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        meaning = " ".join(text[mark.end() : None if following is None else following.start()].split())
        for name in mark[1].split(", "):
            found[name] = f"{mark[1]}: {meaning}" if ", " in mark[1] else meaning
    return found
