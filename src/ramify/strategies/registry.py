"""What a strategy is, how one is registered, and how a spec such as ``best-of-n:n=16,agg=min,temperature=0.7`` is read.

The options of a spec may be the strategy's own fields, its scorer's fields, or fields of `SamplingParams`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from ramify import registry
from ramify.backends.base import Capability
from ramify.errors import ConfigError
from ramify.registry import Trade, option_types, parse_spec, read_value, unknown
from ramify.sampling import SamplingParams
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.spec_text import SpecText
from ramify.strategies.steps import StepSplitter, parse_splitter

DEFAULT_SAMPLING = SamplingParams(temperature=0.8, max_tokens=None)
"""Warm enough that samples differ; answers may be as long as the context allows."""
_A_RUNS_OWN = ("n", "seed", "prompt_logprobs", "detokenize")
"""Fields of `SamplingParams` that a run sets itself: no options, for they would change nothing."""
S = TypeVar("S", bound=type)


@runtime_checkable
class Strategy(Protocol):
    """An inference-time method: frozen configuration, and plain control flow over a `Context`."""

    @property
    def name(self) -> str:
        """What a spec calls it."""
        ...

    @property
    def requires(self) -> frozenset[Capability]:
        """Capabilities without which it cannot run."""
        ...

    @property
    def sampling(self) -> SamplingParams:
        """How its tokens are drawn; ``max_tokens`` limits a whole answer."""
        ...

    async def run(self, problem: Problem, context: Context) -> Result:
        """Answer the problem, usually by ending in ``context.result(...)``."""
        ...


@dataclass(frozen=True)
class Method:
    """Base of the strategies here: how tokens are drawn.

    Attributes:
        sampling: temperature 0.8 and answers up to the context's end, unless said otherwise.
        answer_suffix: forced behind the best answer where a run ends without a finished one (``"\\n#### "``, say), so
            that there is an answer at any cut; empty for none. In a spec a space at either end is ``\\x20``.
        reserve: tokens of the budget held back for what follows it.
    """

    name: ClassVar[str] = ""
    cancels: ClassVar[bool] = False
    """Whether it cancels branches in flight: what those had drawn depends on timing, and so do the token counts."""
    sampling: SamplingParams = dataclasses.field(default=DEFAULT_SAMPLING, kw_only=True)
    answer_suffix: SpecText = dataclasses.field(default=SpecText(), kw_only=True)
    reserve: int = dataclasses.field(default=0, kw_only=True)

    @property
    def requires(self) -> frozenset[Capability]:
        """Nothing that every backend would not offer, besides what its scorer needs."""
        scorer: Scorer | None = getattr(self, "scorer", None)
        return frozenset() if scorer is None else scorer.needs


def requirements(strategy: Strategy) -> frozenset[Capability]:
    """What a strategy says that it requires; one that works in steps goes on from prefixes besides."""
    steps = isinstance(getattr(strategy, "until", None), StepSplitter)
    return frozenset(strategy.requires) | (frozenset({Capability.CONTINUE}) if steps else frozenset())


def strategy(name: str, *, kind: Trade, paper: str = "", needs: Iterable[str] = ()) -> Callable[[S], S]:
    """Class decorator: register a strategy. `kind` is what it trades (see `registry.Trade`)."""

    def enter(cls: S) -> S:
        cls.name = name  # type: ignore[attr-defined]
        page = f"techniques/{name}.md"
        return registry.register(name, kind="strategy", trade=kind, needs=needs, paper=paper, page=page)(cls)

    return enter


def parse_strategy(spec: str, sampling: SamplingParams = DEFAULT_SAMPLING) -> Strategy:
    """Make the strategy that a spec describes; `sampling` holds for what the spec leaves open.

    Raises:
        ConfigError: an unknown name or option, or a value that does not work.
        SamplingParamsError: a sampling option is out of its range.
    """
    name, options = parse_spec(spec)
    return build_strategy(name, options, sampling)


def build_strategy(
    name: str,
    options: Mapping[str, str],
    sampling: SamplingParams = DEFAULT_SAMPLING,
    scorer: Scorer | None = None,
) -> Strategy:
    """Make the strategy of a name.

    Args:
        options: as text under their names.
        sampling: holds for what the options leave open.
        scorer: instead of one that the options describe.

    Raises:
        ConfigError: an unknown name or option, a value that does not work, or a scorer where none is used.
        SamplingParamsError: a sampling option is out of its range.
    """
    options = dict(options)
    factory = registry.technique("strategy", name).factory
    own = option_types(factory)
    own.pop("sampling", None)
    arguments: dict[str, Any] = {}
    if scorer is not None:
        if "scorer" not in own or "scorer" in options:
            raise ConfigError(f"{name} {'takes no scorer' if 'scorer' not in own else 'has two scorers'}: leave it out")
        arguments["scorer"] = scorer
    elif "scorer" in own:
        arguments["scorer"] = _scorer(factory, options, own)
    for_sampling = {key: kind for key, kind in option_types(SamplingParams).items() if key not in _A_RUNS_OWN}
    changes: dict[str, Any] = {}
    for key, text in options.items():
        if key in own:
            arguments[key] = _own_value(text, own[key], f"{name}:{key}")
        elif key in for_sampling:
            changes[key] = read_value(text, for_sampling[key], f"{name}:{key}")
        else:
            known = {*own, *_fields_of(arguments.get("scorer")), *for_sampling}
            raise ConfigError(unknown(f"option of {name}", key, known))
    made: Strategy = factory(**arguments, sampling=sampling.with_(**changes))
    return made


def describe(strategy: Strategy) -> str:
    """The spec of a strategy: its name and every option that is not the default."""
    parts = _differences(strategy, type(strategy)())
    return strategy.name + (":" + ",".join(parts) if parts else "")


def _scorer(factory: Callable[..., Any], options: dict[str, str], own: dict[str, Any]) -> Scorer:
    """Take the options that belong to the scorer out of `options` and make it."""
    default: Scorer = factory().scorer
    wanted = options.pop("scorer", None)
    build = registry.technique("scorer", wanted).factory if wanted is not None else type(default)
    types = option_types(build)
    taken = [key for key in options if key in types and key not in own]
    values = {key: read_value(options.pop(key), types[key], f"scorer:{key}") for key in taken}
    made: Scorer = build(**values)
    return made


def _own_value(text: str, wanted: Any, where: str) -> Any:
    if wanted is StepSplitter:
        return parse_splitter(text)
    return read_value(text, wanted, where)


def _fields_of(made: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(made)] if dataclasses.is_dataclass(made) else []


def _differences(made: Any, default: Any) -> list[str]:
    """``field=value`` for each field in which two configurations differ; those of scorer and sampling stand beside."""
    parts: list[str] = []
    for name in _fields_of(made):
        value, usual = getattr(made, name), getattr(default, name)
        if value == usual:
            continue
        if name == "sampling" or (name == "scorer" and type(value) is type(usual)):
            parts += _differences(value, usual)
        elif name == "scorer":
            parts.append(f"scorer={_registered_name(value)}")
            factory: Callable[[], Any] = type(value)
            parts += _differences(value, factory()) if dataclasses.is_dataclass(value) else []
        else:
            parts.append(f"{name}={getattr(value, '__qualname__', value)}")
    return parts


def _registered_name(scorer: Scorer) -> str:
    names = [entry.name for entry in registry.techniques("scorer") if entry.factory is type(scorer)]
    return names[0] if names else type(scorer).__name__
