"""Names for models and datasets, and what each of them can be told.

A factory's signature is its schema: keyword-only, typed, with defaults. What a study file may say
about a model, `samtune models NAME` and the error messages all come from it. Registering is one
decorator, here as in anybody's own module named under `plugins:`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, Strict, create_model

from samtune.errors import SamtuneError, UnknownNameError, raised

F = TypeVar("F", bound=Callable[..., Any])

# Types for signatures whose limits are known without building anything.
Count = Annotated[int, Field(gt=0, strict=True)]
Size = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]


@dataclass(frozen=True)
class Parameter:
    """One thing a study file may set on a model or a dataset."""

    name: str
    type: str
    default: Any
    required: bool
    description: str


@dataclass(frozen=True)
class Entry:
    """A registered factory.

    Attributes:
        provided: arguments samtune supplies itself (a model's `num_classes`), hence not settable.
        task: the kind of task it is for, or None where only calling it tells.
    """

    name: str
    factory: Callable[..., Any]
    task: str | None
    provided: frozenset[str] = field(repr=False)

    @property
    def summary(self) -> str:
        """The first sentence of the factory's docstring."""
        text = inspect.getdoc(self.factory) or ""
        return text.split("\n\n")[0].replace("\n", " ")

    @cached_property
    def signature(self) -> inspect.Signature:
        """The factory's own signature."""
        return inspect.signature(self.factory)

    @cached_property
    def schema(self) -> type[BaseModel]:
        """A pydantic model of the settable parameters; unknown ones are refused."""
        target = self.factory.__init__ if inspect.isclass(self.factory) else self.factory
        hints = get_type_hints(target, include_extras=True)
        fields: dict[str, Any] = {
            name: (hints.get(name, Any), ... if p.default is p.empty else p.default)
            for name, p in self.signature.parameters.items()
            if name not in self.provided
        }
        # Counts must be counts: without `strict`, pydantic takes true for 1 and "3" for 3.
        config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())
        strict = {name: (_strict(hint), default) for name, (hint, default) in fields.items()}
        model: type[BaseModel] = create_model(  # type: ignore[call-overload]
            f"{self.name} parameters", __config__=config, **strict
        )
        return model

    @property
    def parameters(self) -> list[Parameter]:
        """The settable parameters with types, defaults and one line each."""
        lines = described(inspect.getdoc(self.factory) or "")
        return [
            Parameter(
                name=name,
                type=_type_name(info.annotation),
                default=None if info.is_required() else _plain(info.default),
                required=info.is_required(),
                description=lines.get(name, ""),
            )
            for name, info in self.schema.model_fields.items()
        ]

    def accepts(self, argument: str) -> bool:
        """Whether the factory takes this argument at all, settable or provided."""
        return argument in self.signature.parameters

    def requires(self, argument: str) -> bool:
        """Whether the factory cannot be called without this argument."""
        found = self.signature.parameters.get(argument)
        return found is not None and found.default is found.empty


@dataclass(frozen=True)
class Family:
    """Factories that another library lists, as `prefix/name`; nothing is imported before use.

    Attributes:
        summary: one line that speaks of all of them.
        names: lists the names, without the prefix; raises `SamtuneError` where the library is
            missing, saying how to install it.
        make: the factory of one name.
    """

    prefix: str
    task: str
    summary: str
    names: Callable[[], Sequence[str]]
    make: Callable[[str], Callable[..., Any]]


class Registry:
    """Names mapped to factories; a taken name is an error, never a warning."""

    def __init__(self, kind: str, provided: Sequence[str] = ()) -> None:
        self.kind = kind
        self.provided = frozenset(provided)
        self.families: dict[str, Family] = {}
        self._entries: dict[str, Entry] = {}
        self._members: dict[str, Entry] = {}

    def register_family(self, family: Family) -> None:
        """Makes every `prefix/name` of a family known; iterating passes over its members."""
        self.families[family.prefix] = family

    def register(self, name: str, task: str | None) -> Callable[[F], F]:
        """A decorator that registers a factory or class under `name`.

        Raises:
            ValueError: the name is taken, or an argument is not keyword-only.
        """

        def decorate(factory: F) -> F:
            taken = self._entries.get(name)
            if taken is not None and not _same_source(taken.factory, factory):
                raise ValueError(f"a {self.kind} named {name!r} is registered already")
            for p in inspect.signature(factory).parameters.values():
                if p.kind is not p.KEYWORD_ONLY:
                    raise ValueError(
                        f"{self.kind} {name!r}: argument {p.name!r} must be keyword-only "
                        "(write a bare * before the first argument)"
                    )
            self._entries[name] = Entry(name, factory, task, self.provided)
            return factory

        return decorate

    def __getitem__(self, name: str) -> Entry:
        entry = self._entries.get(name) or self._member(name)
        if entry is None:
            raise UnknownNameError(self.kind, name, self._names_like(name))
        return entry

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self._entries.get(name) or self._member(name))
        except SamtuneError:  # a family whose library is not installed
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def _member(self, name: str) -> Entry | None:
        """The entry of one name of a family, made on first use."""
        prefix, _, rest = name.partition("/")
        family = self.families.get(prefix)
        if name not in self._members and family and rest in family.names():
            self._members[name] = Entry(name, family.make(rest), family.task, self.provided)
        return self._members.get(name)

    def _names_like(self, name: str) -> list[str]:
        """What an error lists: the members of the family that was meant, else everything."""
        family = self.families.get(name.partition("/")[0])
        if family:
            return [f"{family.prefix}/{member}" for member in family.names()]
        return [*self, *(f"{prefix}/..." for prefix in self.families)]


MODELS = Registry("model", provided=("in_channels", "num_classes", "image_size"))
DATASETS = Registry("dataset")


def register_model(name: str, task: str = "classification") -> Callable[[F], F]:
    """Registers a model: a function or `nn.Module` class with keyword-only arguments.

    samtune passes `num_classes`, and `in_channels` and `image_size` (height, width) if the
    signature has them; every other argument is a parameter that study files can set and search.
    """
    return MODELS.register(name, task)


def register_dataset(name: str, task: str = "classification") -> Callable[[F], F]:
    """Registers a dataset: a function with keyword-only arguments that returns `DataSplits`."""
    return DATASETS.register(name, task)


def load_plugins(modules: Sequence[str], folder: Path | None = None) -> None:
    """Imports the user's own modules, which register what they hold.

    Args:
        modules: dotted names, as under `plugins:` in a study file.
        folder: where to look besides the installed packages: the study file's own folder.

    Raises:
        SamtuneError: a module cannot be imported; the message says why.
    """
    if folder is not None and modules and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            top = module.partition(".")[0]
            absent = isinstance(error, ModuleNotFoundError) and error.name == top
            hint = f"; put {top}.py beside the study file, or install it" if absent else ""
            raise SamtuneError(
                f"plugin {module!r} cannot be imported: {raised(error)}{hint}"
            ) from error


def holds_plugins(folder: Path, modules: Sequence[str]) -> bool:
    """Whether one of the modules lies in the folder, and not in an installed package."""
    tops = {module.partition(".")[0] for module in modules}
    return any((folder / f"{top}.py").exists() or (folder / top).is_dir() for top in tops)


def _strict(hint: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        # torch's optimizers also take tensors, which no study file holds.
        parts = tuple(p for p in parts if getattr(p, "__module__", "") != "torch")
        return Union[tuple(_strict(part) for part in parts)]  # noqa: UP007 - made at runtime
    if origin in (tuple, list, Sequence):
        return origin[tuple(_strict(part) for part in parts)]
    return Annotated[hint, Strict()] if hint in (int, float, bool, str) else hint


def _same_source(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    # A module imported a second time (a plugin run as a script, say) brings the same factory again.
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _type_name(hint: Any) -> str:
    """A type in a reader's words: `list of int`, `int or null`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type_name(args[0])
    if origin is Literal:
        return " or ".join(repr(value) for value in args)
    if origin in (UnionType, Union):
        return " or ".join(_type_name(part) for part in args)
    if origin in (Sequence, list):
        return f"list of {_type_name(args[0])}"
    if origin is tuple:
        return " x ".join(_type_name(part) for part in args)
    if hint is NoneType:
        return "null"
    return getattr(hint, "__name__", str(hint))


def described(docstring: str, heading: str = "Args") -> dict[str, str]:
    """The lines below a heading, by name; `x, y: both` describes each."""
    _, _, args = docstring.partition(f"{heading}:\n")
    found_of: dict[str, str] = {}
    names: list[str] = []
    for line in args.splitlines():
        if line and not line.startswith(" "):
            break
        if found := re.match(r"    (\w[\w, ]*): (.*)", line):
            names = found[1].split(", ")
            found_of |= dict.fromkeys(names, found[2].strip())
        elif line.strip():
            for name in names:
                found_of[name] += f" {line.strip()}"
    return found_of
