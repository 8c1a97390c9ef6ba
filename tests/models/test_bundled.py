"""The bundled models: standard checkpoints that transformers loads too, small, and good at what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ramify import LLM, SamplingParams
from ramify.evals.tasks import get_task, task_names
from ramify.models.config import ModelConfig, load_config
from ramify.models.hub import resolve_model

NAMES = ("nano", "nano-drafter", "nano-prm")
QUESTION = "Tom has 3 apples. Tom buys 4 more. How many apples does Tom have now?"


def multiplications_per_token(config: ModelConfig) -> int:
    """Weights that a decoded token is multiplied by, the output embedding included."""
    width = config.num_heads * config.head_dim
    attention = config.hidden_size * (2 * width + 2 * config.num_kv_heads * config.head_dim)
    mlp = 3 * config.hidden_size * config.intermediate_size
    return config.num_layers * (attention + mlp) + config.hidden_size * config.vocab_size


def test_together_they_take_at_most_25_megabytes() -> None:
    files = [file for name in NAMES for file in resolve_model(name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 25_000_000


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_checkpoint_that_transformers_loads_with_the_same_logits(name: str) -> None:
    folder = resolve_model(name)
    for file in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        assert (folder / file).is_file(), file
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer.encode(text + "3 + 4 = 7\n#### 7", add_special_tokens=False)
    with torch.no_grad():
        reference = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    with LLM(name, num_kv_blocks=64, max_num_seqs=8) as llm:
        assert llm.tokenizer.encode(text + "3 + 4 = 7\n#### 7", add_special_tokens=False) == tuple(ids)
        (output,) = llm.generate([list(ids)], SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    assert output.prompt_logprobs is not None
    for position in range(1, len(ids)):
        entry = output.prompt_logprobs[position]
        assert entry is not None
        assert entry[ids[position]].logprob == pytest.approx(reference[position - 1, ids[position]].item(), abs=2e-4)


def test_the_drafter_costs_a_tenth_of_the_policy_and_shares_its_tokens() -> None:
    policy, drafter = (load_config(resolve_model(name)) for name in ("nano", "nano-drafter"))
    assert multiplications_per_token(drafter) <= 0.1 * multiplications_per_token(policy)
    tokenizers = [(resolve_model(name) / "tokenizer.json").read_text() for name in NAMES]
    assert tokenizers[0] == tokenizers[1] == tokenizers[2]


def test_the_reward_model_says_how_it_scores() -> None:
    assert load_config(resolve_model("nano")).reward is None
    assert load_config(resolve_model("nano-prm")).reward is not None


@pytest.mark.parametrize("task_name", task_names())
def test_the_policy_answers_line_by_line_and_the_same_way_each_time(task_name: str) -> None:
    task = get_task(task_name)
    problems = task.problems(24)
    messages = [[{"role": "user", "content": str(problem.prompt)}] for problem in problems]
    greedy = SamplingParams(temperature=0, max_tokens=None)
    texts = []
    for batch in (24, 5):
        with LLM("nano", max_num_seqs=batch) as llm:
            texts.append([output.outputs[0].text for output in llm.chat(messages, greedy, use_tqdm=False)])
    assert texts[0] == texts[1]
    solved = sum(task.correct(text, problem) for text, problem in zip(texts[0], problems, strict=True))
    assert solved >= 6
    assert all("\n#### " in text for text in texts[0])


def test_the_reward_model_tells_right_solutions_from_wrong_ones() -> None:
    task = get_task("countdown")
    problems = task.problems(16)
    with LLM("nano") as llm:
        results = llm.solve(problems, "best-of-n:n=8")
    right, wrong = [], []
    for result, problem in zip(results, problems, strict=True):
        for candidate in result.candidates:
            (right if task.correct(candidate.node.text, problem) else wrong).append(candidate.score)
    assert right
    assert wrong
    better = sum(a > b for a in right for b in wrong) / (len(right) * len(wrong))
    assert better > 0.8, "the area under the ROC curve"


def test_the_folder_holds_nothing_else() -> None:
    names = {path.name for path in Path(resolve_model("nano")).parent.iterdir() if path.is_dir()}
    assert names - {"__pycache__"} == set(NAMES)
