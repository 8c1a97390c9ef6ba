"""Options from flags, variables, a file and defaults: one source, one order, nothing hidden."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ramify.cli.main import app
from ramify.config import EngineConfig
from ramify.errors import ConfigError
from ramify.serving import launch
from ramify.serving.config import ServerConfig
from ramify.serving.limits import Limits
from ramify.serving.options import OPTIONS, limits_table, options_table, server_config, unknown_variables

DOCS = Path(__file__).parents[2] / "docs"


def test_every_field_is_an_option_and_every_option_has_help_of_one_line() -> None:
    fields = {field.name for kind in (ServerConfig, EngineConfig) for field in dataclasses.fields(kind)}
    names = [option.name for option in OPTIONS]
    assert set(names) == fields - {"models", "engine"} | {"served_model_name"}
    assert len(names) == len(set(names)), "an option of the server has the name of one of the engine"
    assert all(option.help and "\n" not in option.help for option in OPTIONS)


def test_the_command_shows_every_flag_with_its_variable() -> None:
    shown = re.sub(r"\s+", " ", CliRunner().invoke(app, ["serve", "--help"]).output)
    for option in OPTIONS:
        assert f"{option.flag} " in shown or f"{option.flag} /" in shown or f"{option.flag}/" in shown, option.flag
        assert option.variable in shown, option.variable


def test_the_guide_holds_the_tables_of_options_and_limits() -> None:
    guide = (DOCS / "guides" / "server.md").read_text(encoding="utf-8")
    assert options_table() in guide
    assert limits_table() in guide


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """Configurations that the command would have served."""
    seen: list[ServerConfig] = []

    def launched(config: ServerConfig) -> int:
        seen.append(config)
        return 0

    monkeypatch.setattr(launch, "launch", launched)
    return seen


def test_a_flag_goes_before_a_variable_before_the_file_before_the_default(
    served: list[ServerConfig], tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        'models = ["nano"]\nport = 1\nmax_waiting = 2\nhost = "::1"\nblock_size = 32\n[limits]\nmax_n = 7\n'
    )
    environ = {"RAMIFY_PORT": "3", "RAMIFY_MAX_WAITING": "4", "RAMIFY_API_KEY": "first-key second-key"}
    done = CliRunner().invoke(app, ["serve", "--config", str(file), "--port", "5"], env=environ)
    assert done.exit_code == 0, done.output
    [config] = served
    assert (config.port, config.max_waiting, config.host) == (5, 4, "::1")
    assert config.api_key == ("first-key", "second-key")
    assert config.engine == {"block_size": 32}
    assert config.limits == Limits(max_n=7)
    assert config.drain_timeout_s == ServerConfig({"nano": "nano"}).drain_timeout_s


def test_every_option_has_the_same_meaning_as_flag_variable_and_key(served: list[ServerConfig], tmp_path: Path) -> None:
    special = {"limits": "max_n=3", "dtype": "float32", "block_size": 8, "allowed_origins": "https://a.example"}
    special |= {"gpu_memory_utilization": 0.5, "ssl_min_version": "1.3", "log_level": "error", "log_format": "json"}
    special |= {"max_num_batched_tokens": 4096, "api_key": "a-key", "admin_port": 9, "scheduling_policy": "priority"}
    special |= {"max_waiting_share": 0.25, "kv_cache_dtype": "int8", "quantization": "w8a8"}
    ordinary: dict[type, Any] = {str: "x", int: 7, float: 0.75, bool: True}
    flags, environ, lines = ["serve", "nano"], {}, ["models: [nano]"]
    for option in OPTIONS:
        value = special.get(option.name, ordinary[option.kind])
        flags += [option.flag] if value is True else [option.flag, str(value)]
        environ[option.variable] = str(value)
        quoted = f'"{value}"' if isinstance(value, str) else str(value).lower()
        lines.append(f"{option.name}: [{quoted}]" if option.many else f"{option.name}: {quoted}")
    file = tmp_path / "server.yaml"
    file.write_text("\n".join(lines))
    for arguments, env in ((flags, {}), (["serve", "nano"], environ), (["serve", "--config", str(file)], {})):
        done = CliRunner().invoke(app, arguments, env=env)
        assert done.exit_code == 0, done.output
    by_flags, by_variables, by_file = served
    assert by_flags == by_variables == by_file
    default = ServerConfig({"nano": "nano"})
    same = [field.name for field in dataclasses.fields(default) if _get(by_file, field) == _get(default, field)]
    assert same == [], "options that did not arrive"


def _get(config: ServerConfig, field: dataclasses.Field[Any]) -> Any:
    return getattr(config, field.name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [nano]\nprot: 1\n", "did you mean port"),
        ("models: [nano]\nport: '80'\n", "must be of type int"),
        ("models: [nano]\nport: true\n", "must be of type int"),
        ("models: [nano]\nlog_format: xml\n", "use one of text, json"),
        ("models: [nano]\nlimits: {max_m: 1}\n", "did you mean max_n"),
        ("models: [nano]\nlimits: {max_n: -1}\n", "more than 0"),
        ("models: [nano]\nblock_size: 7\n", "block_size=7"),
        ("- 1\n", "not a table"),
        ("models: [nano\n", "server.yaml"),
        ("models: !!python/object/apply:os.system ['true']\n", "server.yaml"),
        ("port: 1\n", "there is no model"),
    ],
)
def test_a_file_that_cannot_work_is_refused_with_the_reason(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        server_config({}, file)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"models": ("nano", "nano")}, "one public name"),
        ({"models": ("nano",), "served_model_name": ("a", "b")}, "2 names for 1 models"),
        ({"models": ("a@b=nano",)}, "without '@'"),
        ({"models": ("nano",), "port": 70000}, "ports are"),
        ({"models": ("nano",), "port": 5, "admin_port": 5}, "must differ"),
        ({"models": ("nano",), "ssl_certfile": "x"}, "both"),
        ({"models": ("nano",), "admin_port": 1, "admin_host": "0.0.0.0"}, "admin_key"),
        ({"models": ("nano",), "admin_key": "k", "api_key": ("k",)}, "also an api_key"),
        ({"models": ("nano",), "allowed_origins": ("*",)}, "allowed_origins"),
        ({"models": ("nano",), "allowed_origins": ("https://a.example/x",)}, "allowed_origins"),
        ({"models": ("nano",), "drain_timeout_s": -1.0}, "not be negative"),
        ({"models": ("nano",), "limits": ("max_n",)}, "NAME=VALUE"),
    ],
)
def test_options_that_cannot_work_are_refused_with_the_reason(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        server_config(options)


def test_models_have_the_names_that_they_are_given(tmp_path: Path) -> None:
    folder = tmp_path / "Some-Model"
    folder.mkdir()
    assert server_config({"models": (str(folder), "org/name")}).models == {
        "Some-Model": str(folder),
        "org/name": "org/name",
    }
    named = server_config({"models": ("a=nano", "nano-prm"), "served_model_name": ("first",)}).models
    assert named == {"first": "nano", "nano-prm": "nano-prm"}


def test_secrets_are_not_in_the_text_of_a_configuration() -> None:
    config = ServerConfig({"nano": "nano"}, api_key=("a-secret",), admin_key="another-secret")
    assert "secret" not in repr(config)


def test_a_variable_that_is_no_option_is_named() -> None:
    assert unknown_variables({"RAMIFY_PORT": "1", "RAMIFY_PROT": "1", "PATH": ""}) == [
        "RAMIFY_PROT is no option; did you mean RAMIFY_PORT?"
    ]
