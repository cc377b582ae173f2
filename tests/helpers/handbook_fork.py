"""A miniature fork of the alignment-handbook on TRL 1.16: written for the tests, with the same public surface."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from conftest import BASE
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from gapbridge.compat import TRANSFORMERS
from gapbridge.tasks.word_problems import problems


WARMUP = "warmup_ratio" if TRANSFORMERS.major < 5 else "warmup_steps"
ALIGNMENT = '''
"""What the scripts of the fork share."""

from dataclasses import dataclass
from typing import Any, Optional

import torch
import trl
from datasets import DatasetDict, concatenate_datasets, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class ScriptArguments(trl.ScriptArguments):
    dataset_mixture: Optional[dict[str, Any]] = None


@dataclass
class SFTConfig(trl.SFTConfig):
    chat_template: Optional[str] = None


@dataclass
class DPOConfig(trl.DPOConfig):
    chat_template: Optional[str] = None


def get_dataset(args):
    mixture = args.dataset_mixture
    parts = []
    for entry in mixture["datasets"]:
        part = load_dataset(entry["id"], entry.get("config"), split=entry["split"])
        if "columns" in entry:
            part = part.select_columns(entry["columns"])
        parts.append(part.shuffle(seed=mixture["seed"]).select(range(int(len(part) * entry.get("weight", 1.0)))))
    whole = concatenate_datasets(parts).shuffle(seed=mixture["seed"])
    if mixture.get("test_split_size"):
        return whole.train_test_split(mixture["test_split_size"], seed=mixture["seed"])
    return DatasetDict(train=whole)


def get_tokenizer(model_args, training_args):
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    if training_args.chat_template is not None:
        tokenizer.chat_template = training_args.chat_template
    return tokenizer


def get_model(model_args, training_args):
    return AutoModelForCausalLM.from_pretrained(
        model_args.model_name_or_path,
        revision=model_args.model_revision,
        dtype=getattr(torch, model_args.dtype),
        use_cache=not training_args.gradient_checkpointing,
    )
'''

SFT = '''
"""Supervised fine-tuning."""

from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint
from pathlib import Path

from alignment import ScriptArguments, SFTConfig, get_dataset, get_model, get_tokenizer
from trl import ModelConfig, SFTTrainer, TrlParser, get_peft_config


def main(script_args, training_args, model_args):
    set_seed(training_args.seed)
    out = training_args.output_dir
    checkpoint = get_last_checkpoint(out) if Path(out).is_dir() else None
    dataset = get_dataset(script_args)
    tokenizer = get_tokenizer(model_args, training_args)
    model = get_model(model_args, training_args)
    trainer = SFTTrainer(
        model=model,
        args=training_args,
        train_dataset=dataset[script_args.dataset_train_split],
        eval_dataset=dataset[script_args.dataset_test_split] if training_args.eval_strategy != "no" else None,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_args),
    )
    metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    trainer.model.generation_config.eos_token_id = tokenizer.eos_token_id
    trainer.model.config.eos_token_id = tokenizer.eos_token_id
    trainer.save_model(out)
    if trainer.accelerator.is_main_process:
        trainer.create_model_card(model_name=None, dataset_name=script_args.dataset_name, tags=["alignment-handbook"])
        trainer.model.config.use_cache = True
        trainer.model.config.save_pretrained(out)
    if training_args.do_eval:
        trainer.save_metrics("eval", trainer.evaluate())
    if training_args.push_to_hub:
        trainer.push_to_hub()


if __name__ == "__main__":
    main(*TrlParser((ScriptArguments, SFTConfig, ModelConfig)).parse_args_and_config())
'''

DPO = '''
"""Direct preference optimisation."""

from alignment import DPOConfig, ScriptArguments, get_dataset, get_model, get_tokenizer
from trl import DPOTrainer, ModelConfig, TrlParser, get_peft_config


if __name__ == "__main__":
    script_args, args, model_args = TrlParser((ScriptArguments, DPOConfig, ModelConfig)).parse_args_and_config()
    dataset = get_dataset(script_args)
    trainer = DPOTrainer(
        get_model(model_args, args),
        get_model(model_args, args),
        args=args,
        train_dataset=dataset["train"],
        processing_class=get_tokenizer(model_args, args),
        peft_config=get_peft_config(model_args),
    )
    trainer.train()
    trainer.save_model(args.output_dir)
'''

# The options, the files they lead to and the greps of the handbook's script; without Slurm the launcher runs here.
LAUNCH = """
#!/bin/bash
while [[ $# -gt 0 ]]; do
  case $1 in
    --model) MODEL=$2 ;;
    --task) TASK=$2 ;;
    --config) CONFIG=$2 ;;
    --accelerator) ACCELERATOR=$2 ;;
    --args) ARGS=$2 ;;
    *) echo "unknown option $1"; exit 1 ;;
  esac
  shift 2
done
RECIPE=recipes/$MODEL/$TASK/config_$CONFIG.yaml
STEPS=$(grep 'gradient_accumulation_steps' $RECIPE | awk '{print $2}')
SERVED=$(grep 'model_name_or_path:' $RECIPE | awk '{print $2}')
if grep -qE '^\\s*use_vllm:\\s*true' $RECIPE; then
  echo "serves $SERVED"
  ARGS="$ARGS --vllm_server_host=node2"
fi
srun $LAUNCHER --config_file recipes/accelerate_configs/$ACCELERATOR.yaml --gradient_accumulation_steps $STEPS \\
  --num_processes 2 --main_process_port 0 $RUNNER scripts/$TASK.py --config $RECIPE $ARGS
"""

RECIPE = """
# Model arguments
model_name_or_path: {base}
model_revision: main
dtype: float32

# Data training arguments
dataset_mixture:
  datasets:
    - id: {data}
      config: default
      split: train            # word problems
      columns:
        - messages
      weight: 1.0
  test_split_size: 4
  seed: 0

# SFT trainer config
bf16: false
do_eval: true
eval_strategy: epoch
gradient_accumulation_steps: 1
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
hub_model_id: tiny-sft-full  # without an owner
learning_rate: 1.0e-03
logging_steps: 1
lr_scheduler_type: cosine
max_length: 256
max_steps: 2
output_dir: data/tiny-sft-full
per_device_eval_batch_size: 4
per_device_train_batch_size: 4
report_to: none
save_strategy: "no"
seed: 42
use_cpu: true
{warmup}: 0.1"""

DPO_RECIPE = """
# Model arguments
model_name_or_path: data/tiny-sft-full
dtype: float32

# Data training arguments
dataset_mixture:
  datasets:
    - id: {data}
      config: default
      split: train
      columns: [prompt, chosen, rejected]
  seed: 0

# DPOTrainer arguments
bf16: false
beta: 0.1
eval_strategy: "no"
gradient_accumulation_steps: 1
learning_rate: 5.0e-07
logging_steps: 1
max_length: 256
max_steps: 2
output_dir: data/tiny-dpo-full
per_device_train_batch_size: 4
report_to: none
save_strategy: "no"
seed: 42
use_cpu: true"""

ACCELERATE = {
    "ddp": "distributed_type: MULTI_GPU\n",
    "zero3": """\
distributed_type: DEEPSPEED
deepspeed_config:
  deepspeed_multinode_launcher: standard
  offload_optimizer_device: none
  offload_param_device: none
  zero3_init_flag: true
  zero3_save_16bit_model: true
  zero_stage: 3
""",
    "fsdp": """\
distributed_type: FSDP
fsdp_config:
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: true
  fsdp_offload_params: false
  fsdp_sharding_strategy: FULL_SHARD
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_sync_module_states: true
  fsdp_use_orig_params: true
""",
}
COMMON = """\
compute_environment: LOCAL_MACHINE
machine_rank: 0
main_training_function: main
mixed_precision: 'no'
num_machines: 1
num_processes: 8
rdzv_backend: static
same_network: true
use_cpu: false
"""


def make_fork(folder: Path) -> Path:
    """The fork, with data, and a base model whose layers are large enough for ZeRO-3 to shard."""
    base, data = folder / "base", folder / "rows"
    files = {
        "src/alignment/__init__.py": ALIGNMENT,
        "scripts/sft.py": SFT,
        "scripts/dpo.py": DPO,
        "recipes/launch.slurm": LAUNCH,
        "recipes/tiny/README.md": "# Tiny\n",
        "recipes/tiny/sft/config_full.yaml": RECIPE.format(base=base, data=data / "chat", warmup=WARMUP),
        "recipes/tiny/dpo/config_full.yaml": DPO_RECIPE.format(data=data / "pairs"),
        **{f"recipes/accelerate_configs/{name}.yaml": text + COMMON for name, text in ACCELERATE.items()},
    }
    for name, text in files.items():
        path = folder / "fork" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.removeprefix("\n"))
    for name, rows in (("chat", list(_chat())), ("pairs", list(_pairs()))):
        (data / name).mkdir(parents=True)
        (data / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = AutoConfig.from_pretrained(BASE)
    config.num_hidden_layers, config.intermediate_size = 1, 1024
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(base)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(base)
    return folder / "fork"


def _chat() -> list[dict[str, object]]:
    return [
        {"messages": [{"role": "user", "content": p.prompt}, {"role": "assistant", "content": p.answer}]}
        for p in problems("train", count=20, steps=(1,))
    ]


def _pairs() -> list[dict[str, object]]:
    return [
        {
            "prompt": [{"role": "user", "content": p.prompt}],
            "chosen": [{"role": "assistant", "content": p.answer}],
            "rejected": [{"role": "assistant", "content": "I do not know."}],
        }
        for p in problems("train", count=8, steps=(1,))
    ]


def three_names(fork: Path) -> None:
    """What docs/how-to/handbook.md says to change in scripts/sft.py."""
    script = fork / "scripts" / "sft.py"
    text = script.read_text()
    for before, after in (
        ("import ScriptArguments, SFTConfig, get_dataset, get_model, get_tokenizer\n",
         "import ScriptArguments, get_dataset, get_tokenizer\n"
         "from gapbridge import BASHConfig as SFTConfig, BASHTrainer as SFTTrainer\n"
         "from gapbridge.handbook import get_model\n"),
        ("from trl import ModelConfig, SFTTrainer, TrlParser", "from trl import ModelConfig, TrlParser"),
    ):  # fmt: skip
        assert before in text
        text = text.replace(before, after)
    script.write_text(text)
