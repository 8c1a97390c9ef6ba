"""`Desk`: carries out a client's commands on a core, and ends each sequence at the token where its text ends.

The client names its sequences itself, so that it can speak of one before it has heard of it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ramify.engine.core import EngineCore
from ramify.engine.remote.messages import (
    Add,
    Answer,
    Append,
    Command,
    Drop,
    Finish,
    Forget,
    Fork,
    Map,
    Numbered,
    Stop,
    fault_of,
    read_command,
)
from ramify.engine.request import SequenceOutput, TextStart
from ramify.engine.text_output import SequenceText
from ramify.errors import EngineError, RamifyError
from ramify.sampling import SamplingParams
from ramify.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """A sequence: the client's name for it, whether it stays when it has ended, and its text where that ends it."""

    name: int
    keep: bool
    text: SequenceText | None


class Desk:
    """What one client has in a core.

    Args:
        core: nobody else uses it.
        tokenizer: of the model.

    Attributes:
        stopping: the client asked for the end.
    """

    def __init__(self, core: EngineCore, tokenizer: Tokenizer) -> None:
        self.stopping = False
        self._core = core
        self._tokenizer = tokenizer
        self._known: dict[int, _Known] = {}  # by the core's ids
        self._ids: dict[int, int] = {}  # the client's name -> the core's id

    def carry_out(self, numbered: Numbered) -> Answer:
        """Do what a command says; what is wrong with it is said in the answer."""
        try:
            text = self._do(read_command(numbered.command))
        except Exception as error:
            if not isinstance(error, RamifyError) or isinstance(error, EngineError):
                _log.exception("a command failed")
            return Answer(numbered.number, fault_of(error))
        return Answer(numbered.number, text=text)

    def step(self) -> list[SequenceOutput]:
        """One step of the core, in the client's names. Sequences whose text ends are ended before the next one."""
        outputs = []
        for output in self._core.step().outputs:
            known = self._known.get(output.sequence_id)
            if known is None:
                continue
            self._follow(known, output)
            output.sequence_id = known.name
            outputs.append(output)
        return outputs

    def _do(self, command: Command) -> str:
        match command:
            case Add():
                self._add(command)
            case Fork():
                self._fork(command)
            case Append():
                self._core.append(self._id(command.sequence_id), command.tokens)
            case Finish():
                if command.sequence_id in self._ids:
                    self._end(self._ids[command.sequence_id])
            case Drop():
                self._drop([self._ids[name] for name in command.sequence_ids if name in self._ids])
            case Map():
                return self._core.kv_map()
            case Forget():
                self._core.forget_prefixes()
            case Stop():
                self.stopping = True
        return ""

    def _add(self, command: Add) -> None:
        request = command.request
        ids = self._core.add(request)
        self._remember(ids, command.first_id, request.keep, request.params, command.text)

    def _fork(self, command: Fork) -> None:
        ids = self._core.fork(self._id(command.sequence_id), command.key, command.n, command.first_child)
        try:
            for child in ids:
                self._core.extend(
                    child, command.params, command.append, command.score_positions, command.score_token_ids
                )
        except BaseException:
            self._core.drop(ids)
            raise
        self._remember(ids, command.first_id, True, command.params, command.text)

    def _remember(
        self, ids: list[int], first_name: int, keep: bool, params: SamplingParams, text: TextStart | None
    ) -> None:
        for name, sequence_id in enumerate(ids, first_name):
            self._known[sequence_id] = _Known(name, keep, self._text(params, text))
            self._ids[name] = sequence_id

    def _text(self, params: SamplingParams, start: TextStart | None) -> SequenceText | None:
        """What has to be followed to see the end; nothing where the core sees it."""
        if start is None:
            return None
        step = start.step_end
        if params.stop_strings or (step is not None and step.stop):
            return SequenceText(self._tokenizer, params, start)
        return None if step is None else SequenceText(self._tokenizer, params, TextStart(False, step_end=step))

    def _follow(self, known: _Known, output: SequenceOutput) -> None:
        """See whether a sequence's text ends with this output, or whether it is at an end anyway."""
        sequence_id = output.sequence_id
        if output.finish_reason is None and known.text is not None:
            try:
                known.text.push(output)
            except Exception as fault:
                _log.exception("what follows a sequence failed; the sequence is dropped")
                self._core.drop([sequence_id])
                output.finish_reason = "error"
                output.error = EngineError(f"following the sequence failed: {type(fault).__name__}: {fault}")
            else:
                if known.text.ended:
                    self._end(sequence_id)
        if output.finish_reason == "error" or (output.finish_reason is not None and not known.keep):
            self._forget(sequence_id)

    def _end(self, sequence_id: int) -> None:
        self._core.finish(sequence_id)
        if not self._known[sequence_id].keep:
            self._forget(sequence_id)

    def _drop(self, ids: list[int]) -> None:
        self._core.drop(ids)
        for sequence_id in ids:
            self._forget(sequence_id)

    def _forget(self, sequence_id: int) -> None:
        known = self._known.pop(sequence_id, None)
        if known is not None:
            del self._ids[known.name]

    def _id(self, name: int) -> int:
        """The core's id; one that it does not have (and will refuse by its own words) for an unknown sequence."""
        return self._ids.get(name, -1)
