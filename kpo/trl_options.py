"""Which options of `trl.GRPOConfig` a method leaves no room for, and what to do instead."""

import dataclasses
import warnings

from trl import GRPOConfig

from kpo.methods import Method

_LOSS = "the method sets the loss: give it another value, as in get_method('kpo-clipped', clip_low=0.001)"
_ADVANTAGE = "the method sets the advantages: choose one that computes them so, such as dr-grpo or krpo"
_ENTROPY = "no method has an entropy term: leave it out, or use trl.GRPOTrainer"
_SAMPLING = "ratios are defined for responses sampled from the policy itself: leave it out"

_TABLE = (
    ("loss_type epsilon epsilon_high delta sapo_temperature_neg sapo_temperature_pos label_smoothing_factor", _LOSS),
    ("vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg", _LOSS),
    ("scale_rewards multi_objective_aggregation", _ADVANTAGE),
    ("importance_sampling_level", "the method sets the ratio: choose gspo or, for filtered ratios, kpo-clipped"),
    ("off_policy_mask_threshold", "no method drops sequences: leave it out, or use trl.GRPOTrainer"),
    ("top_entropy_quantile entropy_coef use_adaptive_entropy entropy_coef_min entropy_coef_max", _ENTROPY),
    ("entropy_coef_delta entropy_target", _ENTROPY),
    ("temperature top_p top_k min_p repetition_penalty vllm_structured_outputs_regex", _SAMPLING),
    ("neftune_noise_alpha", "it changes the log-probabilities from pass to pass, and so the ratios: leave it out"),
)
REFUSED = {name: instead for names, instead in _TABLE for name in names.split()}
"""Options of GRPOConfig that must keep TRL's default: what to do instead."""

_HARMLESS = {"max_new_tokens", "max_tokens", "stop", "stop_strings", "use_cache", "cache_implementation",
             "bos_token_id", "eos_token_id", "pad_token_id", "seed", "include_stop_str_in_output"}  # fmt: skip

# Settings of generation that TRL leaves to the model, by the value at which they change nothing.
_OF_MODEL = {
    0: "min_length no_repeat_ngram_size epsilon_cutoff eta_cutoff",
    1: "typical_p num_beams guidance_scale",
    None: "min_new_tokens suppress_tokens begin_suppress_tokens bad_words_ids sequence_bias forced_bos_token_id "
    "forced_eos_token_id exponential_decay_length_penalty watermarking_config",
}


def check_arguments(method: Method, args: GRPOConfig) -> None:
    """ValueError in one line for the first option of `args` that would be ignored or that `method` does not allow."""
    defaults = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    for name, instead in REFUSED.items():
        value = getattr(args, name, defaults.get(name))
        if value != defaults.get(name) and (name, value) != ("min_p", 0.0):
            raise ValueError(f"{name} is {value!r}, which MethodTrainer does not use: {instead}")
    others = sorted(set(args.generation_kwargs or {}) - _HARMLESS)
    if others:
        raise ValueError(f"generation_kwargs holds {others[0]}, which MethodTrainer does not use: {_SAMPLING}")
    if args.beta != method.kl_weight:
        remedy = f"set GRPOConfig(beta={method.kl_weight}), or give the method another kl_weight"
        raise ValueError(f"{method.name!r} has KL weight {method.kl_weight}, but beta is {args.beta}; {remedy}")
    if method.kl_weight > 0 and args.use_bias_correction_kl:
        warnings.warn("use_bias_correction_kl is not used: no ratio weighs the KL term; set it to False", stacklevel=3)
    accumulation, steps = args.gradient_accumulation_steps, args.steps_per_generation
    if method.uses_ratio and method.ratio != "token" and steps * args.num_iterations <= accumulation:
        remedy = f"set GRPOConfig(steps_per_generation={4 * accumulation}), or num_iterations above 1"
        raise ValueError(f"one update a rollout batch: every ratio is 1 and {method.name!r} does nothing; {remedy}")
    if method.aggregation == "token-mean" and steps % accumulation:
        why = f"gradient_accumulation_steps {accumulation} does not divide steps_per_generation {steps}"
        raise ValueError(f"{why}, so a minibatch's tokens are not known; make the latter a multiple of {accumulation}")


def check_model(model, args: GRPOConfig) -> None:
    """ValueError in one line if the model's own generation settings would change what is sampled."""
    for neutral, names in _OF_MODEL.items():
        for name in names.split():
            value = getattr(model.generation_config, name, None)
            if value not in (None, neutral) and not args.use_vllm:
                remedy = f"set model.generation_config.{name} = None, since {_SAMPLING.split(':')[0]}"
                raise ValueError(f"the model's generation_config has {name} {value!r}; {remedy}")
