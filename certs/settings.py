"""Settings files: one YAML or JSON file per process, one frozen model, unknown keys refused.

Owns their reading and what the models of all services have in common. It stands in this package because all others
may import it. Nothing else reads the environment or a settings file. Durations are in seconds, sizes in bytes.
"""

import errno
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certs.errors import SettingsError

MAX_FILE = 1 << 20  # bytes

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsConfig(Section):
    """Serving certificate, and the authority whose client certificates are accepted; read again when they change."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class ListenConfig(Section):
    """Where a service listens; without `tls` it speaks plain HTTP. Each service says what `port` is by default."""

    host: str = "127.0.0.1"
    port: Port
    tls: TlsConfig | None = None


def describe_listening(listen: ListenConfig, error: OSError) -> str:
    """Say why a service cannot listen where its settings say."""
    address = f"cannot serve on {listen.host}:{listen.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{address}: another program listens there; end it, or set another listen.port"
    return f"{address}: {error.strerror or error}; see listen.host and listen.port"


Model = TypeVar("Model", bound=BaseModel)


def load_settings(file: Path, model: type[Model]) -> Model:
    """Read and check a settings file (JSON is YAML); an empty one has every default.

    Raises:
        SettingsError: names the file, the line or the key, and what is wrong.
    """
    document = _parse_yaml(_read(file), file)
    try:
        return model.model_validate({} if document is None else document)
    except ValidationError as error:
        raise SettingsError(f"{file}: {_describe(error, model)}") from error


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_FILE:
        raise SettingsError(f"{file}: a settings file has {MAX_FILE} bytes at the most")
    return text


def _parse_yaml(text: bytes, file: Path) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else f"{file}"
        raise SettingsError(f"{place}: is not YAML: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, RecursionError) as error:  # a date that is none, brackets without end
        raise SettingsError(f"{file}: is not YAML: {error}") from error


def _describe(error: ValidationError, model: type[BaseModel]) -> str:
    problems = []
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in item["loc"]) or "document"
        if item["type"] == "extra_forbidden":
            known = ", ".join(_keys_beside(model, item["loc"]))
            problems.append(f"unknown key {key} (known here: {known})")
        else:
            problems.append(f"{key}: {item['msg']}")
    return "; ".join(problems)


def _keys_beside(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the model knows where the unknown one stands."""
    for part in place[:-1]:
        inner = getattr(model.model_fields.get(str(part)), "annotation", None)
        options = (inner, *getattr(inner, "__args__", ()))
        model = next((it for it in options if isinstance(it, type) and issubclass(it, BaseModel)), model)
    return sorted(model.model_fields)
