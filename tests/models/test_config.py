"""`ModelConfig` reads a `config.json` as transformers does, and refuses by name what the decoder does not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from ramify.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError
from ramify.models.config import ModelConfig, load_config, parse_config
from ramify.models.reward_head import RewardHead
from tests.checkpoints import FAMILIES, make_checkpoint

CLASSES = ("Llama", "Mistral", "Qwen2", "Qwen3")
SHAPE = {
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 6,
}


def raw_config(family: str = "Llama", **entries: Any) -> dict[str, Any]:
    """A `config.json` as a person would write it; entries that are `...` are left out."""
    raw = {"architectures": [f"{family}ForCausalLM"], "model_type": family.lower(), **SHAPE, **entries}
    return {key: value for key, value in raw.items() if value is not ...}


def assert_agrees(config: ModelConfig, reference: Any) -> None:
    """Every field equals what transformers' own config object says."""
    heads = reference.num_attention_heads
    assert config.vocab_size == reference.vocab_size
    assert config.hidden_size == reference.hidden_size
    assert config.intermediate_size == reference.intermediate_size
    assert config.num_layers == reference.num_hidden_layers
    assert config.num_heads == heads
    assert config.num_kv_heads == reference.num_key_value_heads
    assert config.head_dim == (getattr(reference, "head_dim", None) or reference.hidden_size // heads)
    assert config.rms_norm_eps == reference.rms_norm_eps
    assert config.max_position_embeddings == reference.max_position_embeddings
    assert config.tie_word_embeddings == reference.tie_word_embeddings
    assert config.rope.theta == reference.rope_parameters["rope_theta"]
    assert config.rope.type == reference.rope_parameters["rope_type"]
    kinds = getattr(reference, "layer_types", None) or ["sliding_attention"] * config.num_layers
    window = getattr(reference, "sliding_window", None)
    assert config.windows == tuple(window if kind == "sliding_attention" else None for kind in kinds)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_config_of_a_saved_checkpoint_is_read_as_transformers_reads_it(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path / family, family, tokenizer=False)
    assert_agrees(load_config(folder), transformers.AutoConfig.from_pretrained(folder))


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize(
    "left_out", ["num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings"]
)
def test_a_key_that_is_left_out_has_the_familys_default(family: str, left_out: str) -> None:
    entries = {"num_attention_heads": 64} if left_out == "num_key_value_heads" else {}
    raw = raw_config(family, **{**entries, left_out: ...})
    assert_agrees(parse_config(raw), getattr(transformers, f"{family}Config").from_dict(raw))


@pytest.mark.parametrize("family", CLASSES)
def test_a_key_that_is_null_means_the_same_as_in_transformers(family: str) -> None:
    heads = {} if family == "Mistral" else {"num_key_value_heads": None}  # where transformers allows it
    raw = raw_config(family, sliding_window=None, rope_scaling=None, **heads)
    assert_agrees(parse_config(raw), getattr(transformers, f"{family}Config").from_dict(raw))


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3"])
@pytest.mark.parametrize(
    "entries",
    [
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0},
        {"use_sliding_window": True, "sliding_window": 7},
        {"use_sliding_window": False, "sliding_window": 7, "max_window_layers": 2},
        {"sliding_window": 7, "max_window_layers": 2},
        {
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        },
    ],
)
def test_qwens_windows_hold_in_the_layers_that_transformers_gives_them(family: str, entries: dict[str, Any]) -> None:
    raw = raw_config(family, **entries)
    assert_agrees(parse_config(raw), getattr(transformers, f"{family}Config").from_dict(raw))


PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen2.5-0.5B": {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 896,
        "initializer_range": 0.02,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 21,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "Llama-3.2-1B": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 128256,
    },
    "Mistral-7B-v0.1": {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 32000,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_configs_as_they_are_published_are_accepted(name: str) -> None:
    raw = PUBLISHED[name]
    reference = getattr(transformers, raw["architectures"][0].replace("ForCausalLM", "Config")).from_dict(raw)
    assert_agrees(parse_config(raw), reference)


def test_a_llama_has_no_window_whatever_its_config_carries() -> None:
    assert parse_config(raw_config("Llama", sliding_window=8)).windows == (None,) * 4


def test_a_mistral_without_a_window_key_has_the_familys_window() -> None:
    assert parse_config(raw_config("Mistral")).windows == (4096,) * 4


@pytest.mark.parametrize(
    ("family", "entries", "qkv", "output", "mlp", "qk_norm"),
    [
        ("Llama", {}, False, False, False, False),
        ("Llama", {"attention_bias": True, "mlp_bias": True}, True, True, True, False),
        ("Mistral", {}, False, False, False, False),
        ("Qwen2", {}, True, False, False, False),
        ("Qwen3", {}, False, False, False, True),
        ("Qwen3", {"attention_bias": True}, True, True, False, True),
    ],
)
def test_biases_and_norms_are_those_of_the_family(
    family: str, entries: dict[str, Any], qkv: bool, output: bool, mlp: bool, qk_norm: bool
) -> None:
    config = parse_config(raw_config(family, **entries))
    assert (config.qkv_bias, config.output_bias, config.mlp_bias, config.qk_norm) == (qkv, output, mlp, qk_norm)


def test_end_tokens_come_from_the_generation_config_first() -> None:
    raw = raw_config(eos_token_id=2, bos_token_id=1)
    assert parse_config(raw, {"eos_token_id": [5, 7, 5]}).eos_token_ids == (5, 7)
    assert parse_config(raw, {}).eos_token_ids == (2,)
    assert parse_config(raw, {}).bos_token_id == 1
    assert parse_config(raw_config(eos_token_id=None)).eos_token_ids == ()


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_number_format_is_read_in_both_spellings(key: str) -> None:
    assert parse_config(raw_config(**{key: "bfloat16"})).dtype == "bfloat16"
    assert parse_config(raw_config()).dtype is None


def test_a_process_reward_model_is_told_by_its_config() -> None:
    given = {"kind": "prm", "step_token": "\n", "good_token": "<|good|>", "bad_token": "<|bad|>"}
    assert parse_config(raw_config(ramify=given)).reward == RewardHead("\n", "<|good|>", "<|bad|>", kind="prm")
    assert parse_config(raw_config()).reward is None
    with pytest.raises(CheckpointError, match="bad_token"):
        parse_config(raw_config(ramify={**given, "bad_token": ""}))
    for wrong in ({"kind": "vrm"}, {"step": "\n"}, {"good_label": "good"}, {"good_label": -1}):
        with pytest.raises(CheckpointError, match=next(iter(wrong))):
            parse_config(raw_config(ramify=wrong))
    with pytest.raises(UnsupportedModelError, match="prm"):
        parse_config(raw_config(ramify="prm"))


def test_labels_are_told_by_their_names_or_their_number() -> None:
    def labels(architecture: str, **entries: object) -> tuple[str, ...]:
        return parse_config(raw_config(architectures=[architecture], **entries)).labels

    assert labels("LlamaForCausalLM", num_labels=3) == ()
    assert labels("LlamaForTokenClassification") == ("LABEL_0", "LABEL_1")
    assert labels("LlamaForTokenClassification", id2label={"0": "bad", "1": "good"}) == ("bad", "good")
    assert labels("LlamaForSequenceClassification", num_labels=1) == ("LABEL_0",)
    assert labels("LlamaForSequenceClassification", id2label={"0": "score"}) == ("score",)
    with pytest.raises(CheckpointError, match="num_labels"):
        labels("LlamaForSequenceClassification", num_labels=-1)


def test_the_published_process_reward_model_of_qwen_is_known_by_its_architecture() -> None:
    own_code = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
    config = parse_config(raw_config(architectures=["Qwen2ForProcessRewardModel"], auto_map=own_code, num_labels=9))
    assert config.head == "token"
    assert config.num_outputs == 2
    assert config.reward == RewardHead("\n\n", good_label=1, mark="<extra_0>")
    told = parse_config(raw_config(architectures=["Qwen2ForProcessRewardModel"], ramify={"step_token": "\n"}))
    assert told.reward == RewardHead("\n", good_label=1, mark="<extra_0>")
    assert parse_config(raw_config(architectures=["Qwen2ForRewardModel"])).labels == ("LABEL_0",)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM.*it runs LlamaForCausalLM, MistralForCausalLM"),
        ({"architectures": []}, "architecture none"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}, "never runs"),
        ({"layer_types": ["chunked_attention"] * 4}, "chunked_attention"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "longrope"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "dynamic"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"type": "default", "mrope_section": [1, 2]}}, "mrope_section"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "differ between layers"),
        ({"head_dim": 7}, "head_dim=7 is odd"),
        ({"dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
    ],
)
def test_an_option_that_is_not_run_is_refused_by_name(entries: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        parse_config(raw_config(**entries))


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"hidden_size": ...}, "hidden_size is missing"),
        ({"num_attention_heads": "32"}, "num_attention_heads='32'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"vocab_size": True}, "vocab_size=True"),
        ({"num_key_value_heads": 5}, "not a multiple of num_key_value_heads=5"),
        ({"head_dim": None, "hidden_size": 50}, "hidden_size=50 is not a multiple"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings='yes'"),
        ({"eos_token_id": [1, "x"]}, "eos_token_id"),
        ({"architectures": "LlamaForCausalLM"}, "must be a list"),
        ({"layer_types": ["full_attention"]}, "each of 4 layers"),
        ({"rope_scaling": {"rope_type": "linear"}}, "needs factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor is 0"),
        ({"rope_theta": "big"}, "theta is 'big'"),
        ({"rope_scaling": [8]}, "must be an object"),
    ],
)
def test_a_value_that_cannot_be_right_is_named(entries: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        parse_config(raw_config(**entries))


def test_a_folder_without_a_config_and_a_broken_config_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match="JSON object"):
        load_config(tmp_path)
