"""Minibatches as verl holds them: ragged rows, one with a hole and one that counts no token; and its configurations."""

import re

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import AutoModelForCausalLM
from verl.trainer import main_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.workers.utils.padding import left_right_2_no_padding

from kpo.verl_settings import ACTOR, ACTOR_FIELDS, advantage_method, loss_method

PROMPT, RESPONSE, ROWS = 5, 9, 8
LENGTHS = (7, 4, 1, 6, 3, 5, 2, 7)
ON_THE_CPU = [
    "actor_rollout_ref.model.use_remove_padding=false",
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    f"{ACTOR}.use_torch_compile=false",
    "actor_rollout_ref.rollout.name=fake",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
    "actor_rollout_ref.rollout.free_cache_engine=false",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "data.dataloader_num_workers=0",
    "reward.num_workers=1",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "trainer.device=cpu",
    "ray_kwargs.ray_init.num_cpus=64",
    "+ray_kwargs.ray_init.num_gpus=2",
    "+ray_kwargs.ray_init.include_dashboard=false",
]
"""What main_ppo needs to train with two workers on the CPU; samples come from fake_rollout.py."""


class Batch:
    """Dense float64 tensors (8, 7); the log-probabilities are close enough that every clip cuts only some tokens."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (len(LENGTHS), max(LENGTHS))
        inside = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
        draw = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name in "abcde"}
        self.mask = inside.clone()
        self.mask[0, 2:4] = False  # tokens that a tool wrote
        self.mask[4] = False  # all tokens rejected, or a row that verl adds as padding
        self.old = torch.where(inside, -draw["a"].abs() * 3, 0.0)
        scale = torch.tensor([3e-3, 0.3] * 4)[:, None]
        self.new = torch.where(inside, self.old + scale * draw["b"], 0.0)
        self.reference = torch.where(inside, self.old + 0.1 * draw["c"], 0.0)
        self.advantages = torch.where(self.mask, draw["d"][:, :1].expand(shape), 0.0)
        self.weights = torch.where(self.mask, draw["e"].abs(), 0.0)
        self.weights[1, 1] = 0.0
        self.entropy = torch.where(inside, draw["e"].abs(), 0.0)

    def data(self, rows=slice(None), dtype=torch.float32, weights=False, reference=False, ranks=1):
        """What verl's trainer adds to the model's output, for some rows of the minibatch."""
        lengths = list(range(len(LENGTHS)))[rows]

        def ragged(values):
            return torch.nested.as_nested_tensor([values[i, : LENGTHS[i]] for i in lengths], layout=torch.jagged)

        tensors = {
            "prompts": torch.nested.as_nested_tensor([torch.ones(PROMPT)] * len(lengths), layout=torch.jagged),
            "responses": ragged(torch.ones_like(self.old)),
            "response_mask": ragged(self.mask.long()),
            "old_log_probs": ragged(self.old.to(dtype)),
            "advantages": ragged(self.advantages.float()),
        }
        if weights:
            tensors["rollout_is_weights"] = ragged(self.weights.float())
        if reference:
            tensors["ref_log_prob"] = ragged(self.reference.to(dtype))
        totals = {"batch_num_tokens": int(self.mask.sum()), "global_batch_size": len(LENGTHS), "dp_size": ranks}
        return tu.get_tensordict(tensors, totals)


def model_output(values, rows=slice(None)):
    """Values (B, T) of the response tokens as an engine gives them: each row shifted by one, behind its prompt."""
    parts = []
    for i in list(range(len(LENGTHS)))[rows]:
        filler = torch.full((PROMPT - 1,), -9.0, dtype=values.dtype)
        parts.append(torch.cat([filler, values[i, : LENGTHS[i]], filler[:1]]))
    return torch.nested.as_nested_tensor(parts, layout=torch.jagged)


def actor_config(loss_mode, kpo=None, **settings):
    """verl's actor configuration, built from a DictConfig as verl builds it."""
    section = {"_target_": "kpo.verl.PolicyLoss", "loss_mode": loss_mode} | ({"kpo": kpo} if kpo else {})
    settings = {"loss_agg_mode": "seq-mean-token-mean", "loss_scale_factor": 11} | settings
    base = {"_target_": "verl.workers.config.FSDPActorConfig", "strategy": "fsdp2", "rollout_n": 1}
    base |= {"ppo_micro_batch_size_per_gpu": 1, "policy_loss": section}
    return omega_conf_to_dataclass(OmegaConf.create(base | settings))


class Rollout:
    """Eight prompts with responses, one with a hole, one that counts no token, as verl's trainer holds them."""

    def __init__(self, folder):
        generator = torch.Generator().manual_seed(1)
        lengths = torch.tensor([9, 4, 1, 7, 3, 9, 2, 6])
        self.ids = torch.randint(4, 48, (ROWS, PROMPT + RESPONSE), generator=generator)
        inside = torch.arange(RESPONSE) < lengths[:, None]
        self.attention = torch.cat([torch.ones(ROWS, PROMPT, dtype=torch.long), inside.long()], dim=1)
        self.mask = inside.clone()
        self.mask[0, 3:5] = False
        self.mask[4] = False
        self.advantages = torch.randn(ROWS, 1, generator=generator) * self.mask
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        self.model.train()
        noise = 0.01 * torch.randn(ROWS, RESPONSE, generator=generator)
        self.old = (self.log_probs().detach() + noise) * inside

    def log_probs(self):
        """(B, T) by plain PyTorch."""
        logits = self.model(input_ids=self.ids, attention_mask=self.attention).logits[:, PROMPT - 1 : -1]
        return logits.log_softmax(dim=-1).gather(2, self.ids[:, PROMPT:, None])[..., 0]

    def data(self, **extra):
        tensors = {
            "input_ids": self.ids,
            "attention_mask": self.attention,
            "position_ids": (self.attention.cumsum(dim=1) - 1).clamp(min=0),
            "prompts": self.ids[:, :PROMPT],
            "responses": self.ids[:, PROMPT:],
            "response_mask": self.mask.long(),
            "old_log_probs": self.old,
            "advantages": self.advantages,
        }
        data = left_right_2_no_padding(TensorDict(tensors, batch_size=ROWS))
        tu.assign_non_tensor(data, global_batch_size=ROWS, temperature=1.0, calculate_entropy=False, **extra)
        return data


def composed(*lines):
    """verl's configuration of main_ppo with command-line overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(re.sub(r"main_ppo\.py$", "config", main_ppo.__file__), version_base=None):
        return compose("ppo_trainer", overrides=list(lines))


def checked(config):
    """The configuration after the check that verl's main programs make in the driver."""
    validate_config(config, need_reference_policy(config), need_critic(config))
    return config


def methods_of(config):
    """Loss and advantage as kpo understands the configuration."""
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    fields = {name: actor.get(name) for name in ACTOR_FIELDS}
    loss = loss_method(actor.policy_loss.loss_mode, actor.policy_loss.get("kpo"), fields)
    return loss, *advantage_method(config.algorithm.adv_estimator, config.algorithm.kpo)
