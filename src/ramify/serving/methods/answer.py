"""What an answer says of the method behind it: the field ``ramify``, and the usage that a bill should show."""

from __future__ import annotations

from typing import Any

from ramify.backends.base import Node
from ramify.serving.methods.run import MethodRun
from ramify.strategies.kernel.result import Candidate, Result, show_answer
from ramify.strategies.registry import describe


def ramify_field(run: MethodRun) -> dict[str, Any]:
    """The field of a run that has ended."""
    result = _ended(run)
    best = next((each for each in result.candidates if each.node.key == result.best.key), None)
    field: dict[str, Any] = {
        "strategy": describe(run.asked.strategy()),
        "seed": run.seed,
        "answer": show_answer(result.answer),
        "score": None if best is None else best.score,
        "weight": None if best is None else best.weight,
        "stop_reason": run.stop_reason,
        "num_candidates": len(result.candidates),
        "ledger": result.ledger.to_dict(),
        "notes": run.notes,
        "trace_id": run.trace_id,
    }
    if run.asked.candidates:
        field["candidates"] = [_candidate(each, each is best) for each in result.candidates]
    return field


def usage_of(run: MethodRun, reasoning_tokens: int = 0) -> dict[str, Any]:
    """Token counts of all work of a run.

    ``completion_tokens`` is what a budget caps: everything that was drawn, and what scorers and probes read.
    """
    result = _ended(run)
    ledger = result.ledger
    return {
        "prompt_tokens": ledger.prompt,
        "completion_tokens": ledger.total_tokens,
        "total_tokens": ledger.prompt + ledger.total_tokens,
        "prompt_tokens_details": {"cached_tokens": ledger.prompt_cached},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning_tokens,
            "answer_tokens": result.best.num_tokens,
            "generated_tokens": ledger.generated,
            "program_tokens": ledger.program,
            "verifier_tokens": ledger.verifier,
            "probe_tokens": ledger.probe,
            "discarded_tokens": ledger.discarded,
        },
    }


def _ended(run: MethodRun) -> Result:
    if run.result is None:
        raise RuntimeError("the run has not ended: read its outputs first")
    return run.result


def _candidate(candidate: Candidate, is_best: bool) -> dict[str, Any]:
    node: Node = candidate.node
    return {
        "text": node.text,
        "answer": show_answer(candidate.answer),
        "score": candidate.score,
        "weight": candidate.weight,
        "num_tokens": node.num_tokens,
        "finish_reason": node.finish_reason,
        "best": is_best,
    }
