"""`LLM` and `AsyncLLM`: what a user of vLLM expects of them."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from ramify import LLM, AsyncLLM, RequestOutput, SamplingParams
from ramify.errors import ConfigError, EngineError, ModelNotFoundError, RequestError
from tests.checkpoints import reference_model
from tests.engine.harness import checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(checkpoint("llama2"), num_kv_blocks=200, max_num_seqs=8)


def test_the_usual_lines_of_a_vllm_user_run_with_the_import_changed() -> None:
    prompts = ["Hello, my name is", "The capital of France is"]
    sampling_params = SamplingParams(temperature=0.8, top_p=0.95)
    llm = LLM(model=str(checkpoint("qwen2")), dtype="float32", gpu_memory_utilization=0.3, tensor_parallel_size=1)
    outputs = llm.generate(prompts, sampling_params)
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.prompt == prompt
        assert len(output.outputs[0].token_ids) <= 16
        assert isinstance(output.outputs[0].text, str)
        assert output.outputs[0].finish_reason in ("stop", "length")


def test_greedy_text_agrees_with_transformers(llm: LLM) -> None:
    import torch

    reference = reference_model(checkpoint("llama2"))
    (output,) = llm.generate("Tom has 12 apples", GREEDY, use_tqdm=False)
    ids = torch.tensor([output.prompt_token_ids])
    expected = reference.generate(ids, max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=0)
    assert output.outputs[0].token_ids == expected[0, ids.shape[1] :].tolist()


def test_prompts_may_be_text_ids_or_dicts(llm: LLM) -> None:
    ids = llm.get_tokenizer().encode("Tom has")
    forms = ["Tom has", list(ids), {"prompt": "Tom has"}, {"prompt_token_ids": list(ids)}]
    texts = {output.outputs[0].text for output in llm.generate(forms, GREEDY, use_tqdm=False)}
    assert len(texts) == 1
    assert llm.generate(list(ids), GREEDY, use_tqdm=False)[0].outputs[0].text in texts


def test_n_continuations_differ_and_logprobs_add_up(llm: LLM) -> None:
    params = SamplingParams(n=4, temperature=1.0, max_tokens=6, logprobs=3, prompt_logprobs=2, seed=5)
    (output,) = llm.generate("Tom has", params, use_tqdm=False)
    assert [completion.index for completion in output.outputs] == [0, 1, 2, 3]
    assert len({tuple(completion.token_ids) for completion in output.outputs}) > 1
    for completion in output.outputs:
        assert completion.logprobs is not None
        drawn = [p[t].logprob for p, t in zip(completion.logprobs, completion.token_ids, strict=True)]
        assert completion.cumulative_logprob == pytest.approx(math.fsum(drawn))
        assert all(3 <= len(position) <= 4 for position in completion.logprobs)
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)
    assert output.metrics.ttft_s is not None
    assert len(output.metrics.inter_token_latencies_s) == len(output.outputs[0].token_ids) - 1


def test_a_seed_decides_the_draws_whatever_else_runs(llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, seed=7, max_tokens=10)
    alone = llm.generate("Tom", params, use_tqdm=False)[0].outputs[0].token_ids
    crowd = llm.generate(["a", "b", "Tom", "c"], params, use_tqdm=False)[2].outputs[0].token_ids
    assert alone == crowd


def test_without_a_seed_requests_differ_and_a_new_engine_repeats_the_run() -> None:
    params = SamplingParams(temperature=1.0, max_tokens=10)
    runs = []
    for _ in range(2):
        fresh = LLM(checkpoint("llama2"), num_kv_blocks=50, seed=3, max_num_seqs=8)
        runs.append([o.outputs[0].token_ids for o in fresh.generate(["Tom", "Tom"], params, use_tqdm=False)])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]


def test_stop_strings_work_across_token_boundaries(llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=60, seed=2, ignore_eos=True)
    text = llm.generate("Tom", params, use_tqdm=False)[0].outputs[0].text
    stop = next(text[i : i + 3] for i in range(5, len(text) - 3) if text[i : i + 3].isascii())
    found = llm.generate("Tom", params.with_(stop=[stop, "never there"]), use_tqdm=False)[0].outputs[0]
    assert found.text == text[: text.index(stop)]
    assert (found.finish_reason, found.stop_reason) == ("stop", stop)
    kept = llm.generate("Tom", params.with_(stop=stop, include_stop_str_in_output=True), use_tqdm=False)[0].outputs[0]
    assert kept.text == text[: text.index(stop)] + stop
    assert llm.core.num_free_blocks == llm.core.scheduler.pool.num_usable


def test_a_stop_token_ends_the_text_before_itself(llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=30, seed=3, ignore_eos=True)
    tokens = llm.generate("Tom", params, use_tqdm=False)[0].outputs[0].token_ids
    found = llm.generate("Tom", params.with_(stop_token_ids=[tokens[5]]), use_tqdm=False)[0].outputs[0]
    first = tokens.index(tokens[5])
    assert found.token_ids == tokens[: first + 1]
    assert found.stop_reason == tokens[5]
    assert found.text == llm.tokenizer.decode(tokens[:first])


def test_chat_goes_through_the_template(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Tom?"}]
    (output,) = llm.chat(messages, GREEDY, use_tqdm=False)
    assert output.prompt == "<|user|>Tom?<|assistant|>"
    both = llm.chat([messages, messages], GREEDY, use_tqdm=False)
    assert [each.outputs[0].text for each in both] == [output.outputs[0].text] * 2


def test_logprobs_of_given_continuations_agree_with_transformers(llm: LLM) -> None:
    import torch

    found = llm.logprobs("Tom has", [" 12 apples", " 7"])
    reference = reference_model(checkpoint("llama2"))
    head = llm.tokenizer.encode("Tom has")
    for text, values in zip([" 12 apples", " 7"], found, strict=True):
        tail = llm.tokenizer.encode(text, add_special_tokens=False)
        with torch.no_grad():
            logits = reference(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        expected = [logits[len(head) + i - 1, token].item() for i, token in enumerate(tail)]
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_bad_requests_are_refused_before_anything_runs(llm: LLM) -> None:
    with pytest.raises(RequestError, match="empty"):
        llm.generate(["fine", []], GREEDY, use_tqdm=False)
    with pytest.raises(RequestError, match="2 sampling_params for 1 prompts"):
        llm.generate("Tom", [GREEDY, GREEDY], use_tqdm=False)
    with pytest.raises(RequestError, match="shorten it"):
        llm.generate(["Tom", list(range(5, 300)) * 3], GREEDY, use_tqdm=False)
    assert not llm.core.has_work()
    with pytest.raises(ModelNotFoundError):
        LLM("./no-such-folder")
    with pytest.raises(ConfigError, match="unknown engine option"):
        LLM(checkpoint("llama2"), gpu_memory=0.5)


def test_a_closed_llm_says_so() -> None:
    with LLM(checkpoint("llama2"), num_kv_blocks=20, max_num_seqs=4) as llm:
        assert llm.generate("Tom", GREEDY, use_tqdm=False)
    with pytest.raises(EngineError, match="was closed"):
        llm.generate("Tom", GREEDY, use_tqdm=False)


async def last(stream: object) -> RequestOutput:
    async for output in stream:  # type: ignore[attr-defined]
        found = output
    return found


async def test_streams_share_a_batch_and_end_as_the_offline_run_does(llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, max_tokens=20, seed=1, ignore_eos=True)
    prompts = [f"Tom has {n}" for n in range(6)]
    expected = [output.outputs[0].text for output in llm.generate(prompts, params, use_tqdm=False)]
    async with AsyncLLM(checkpoint("llama2"), num_kv_blocks=100, max_num_seqs=8) as engine:
        outputs = await asyncio.gather(*(last(engine.generate(prompt, params)) for prompt in prompts))
        assert [output.outputs[0].text for output in outputs] == expected
        assert engine.engine.core.counters.steps < 40


async def test_streamed_text_only_ever_grows(llm: LLM) -> None:
    async with AsyncLLM(checkpoint("llama2"), num_kv_blocks=100, max_num_seqs=8) as engine:
        shown = ""
        params = SamplingParams(temperature=1.0, max_tokens=50, seed=1, stop=["zzz"])
        async for output in engine.generate("Tom", params):
            assert output.outputs[0].text.startswith(shown)
            shown = output.outputs[0].text
        assert output.finished


async def test_leaving_the_loop_or_aborting_frees_the_request() -> None:
    params = SamplingParams(temperature=1.0, max_tokens=400, ignore_eos=True)
    async with AsyncLLM(checkpoint("llama2"), num_kv_blocks=100, max_num_seqs=8) as engine:
        stream = engine.generate("Tom", params)
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        aborted = asyncio.create_task(last(engine.generate("Ann", params, request_id="a")))
        await asyncio.sleep(0.05)
        with pytest.raises(RequestError, match="in use"):
            await last(engine.generate("Ann", params, request_id="a"))
        await engine.abort("a")
        assert (await aborted).outputs[0].finish_reason == "abort"
        while engine.engine.core.has_work():
            await asyncio.sleep(0.01)
        assert engine.engine.core.num_free_blocks == engine.engine.core.scheduler.pool.num_usable


async def test_a_fault_while_text_is_made_reaches_the_caller_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from ramify.text.detokenizer import Detokenizer

    push = Detokenizer.push

    def broken(self: Detokenizer, token_ids: list[int]) -> str:
        if self in poisoned:
            raise KeyError("no such token")
        return push(self, token_ids)

    poisoned: set[Detokenizer] = set()
    monkeypatch.setattr(Detokenizer, "push", broken)
    params = SamplingParams(temperature=1.0, max_tokens=12, seed=1, ignore_eos=True)
    async with AsyncLLM(checkpoint("llama2"), num_kv_blocks=100, max_num_seqs=8) as engine, asyncio.timeout(30):

        async def doomed() -> None:
            async for _ in engine.generate("Tom", params, request_id="doomed"):
                poisoned.add(engine._running["doomed"].request._texts[0].detokenizer)

        fine = asyncio.create_task(last(engine.generate("Ann", params)))
        with pytest.raises(EngineError, match="no such token"):
            await doomed()
        assert len((await fine).outputs[0].token_ids) == 12
