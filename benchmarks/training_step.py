"""What KPO adds to a training step at laptop scale: ``python -m benchmarks.training_step``.

Steps of GRPO, KPO and GRPO again (the noise floor) alternate on the same model and batch: log-probabilities, loss,
gradient, clipping, AdamW. Each round gives one paired difference; the table shows their medians with a bootstrap
interval. The methods differ only in `policy_loss`, so that part is also timed by itself, with its gradient: the same
difference, without the noise of the rest of the step.
"""

import argparse
import time

import numpy as np
import torch

from kpo.losses import policy_loss
from kpo.methods import Method
from reproduction.data.tokenizer import build_tokenizer
from reproduction.jobs.allocator import keep_freed_memory
from reproduction.settings.configuration import load
from reproduction.training.base_model import build_model


def one_step(model, optimizer, method: Method, input_ids, prompt_length: int, old_log_probs, advantages, mask) -> float:
    """Seconds of one update with `method`."""
    started = time.perf_counter()
    logits = model(input_ids).logits[:, prompt_length - 1 : -1]
    log_probs = torch.log_softmax(logits, dim=-1).gather(-1, input_ids[:, prompt_length:, None]).squeeze(-1)
    result = policy_loss(method, log_probs, old_log_probs, advantages, mask)
    optimizer.zero_grad(set_to_none=True)
    result.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    _ = result.metrics
    return time.perf_counter() - started


def loss_only(method: Method, log_probs, old_log_probs, advantages, mask) -> float:
    """Seconds of the loss of `method` and of its gradient with respect to the log-probabilities."""
    started = time.perf_counter()
    policy_loss(method, log_probs.detach().requires_grad_(), old_log_probs, advantages, mask).loss.backward()
    return time.perf_counter() - started


def measure(rounds: int, response_length: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Seconds of each step and of its loss, by method, on the minibatch of laptop scale; warmed up."""
    configuration = load()
    experiment = configuration.experiments["kpo"]
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = build_model(configuration.base_model, tokenizer)
    # A step size of 0 keeps the work the same from round to round.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    batch = experiment.training.sequences_per_rollout // experiment.training.minibatches
    prompt_length = 12
    input_ids = torch.randint(3, len(tokenizer), (batch, prompt_length + response_length))
    lengths = torch.randint(response_length // 2, response_length + 1, (batch, 1))
    mask = (torch.arange(response_length) < lengths).float()
    with torch.no_grad():
        logits = model(input_ids).logits[:, prompt_length - 1 : -1]
        log_probs = torch.log_softmax(logits, dim=-1).gather(-1, input_ids[:, prompt_length:, None]).squeeze(-1)
    old_log_probs = log_probs + 0.05 * torch.randn_like(log_probs)
    advantages = torch.randn(batch)
    grpo, kpo = experiment.method("grpo"), experiment.method("kpo-clipped")
    steps = {"grpo": grpo, "kpo-clipped": kpo, "grpo again": grpo}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    loss_seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds + 5):
        # The order changes, so that no method always follows the same one.
        for name in names[number % 3 :] + names[: number % 3]:
            taken = one_step(model, optimizer, steps[name], input_ids, prompt_length, old_log_probs, advantages, mask)
            loss_taken = loss_only(steps[name], log_probs, old_log_probs, advantages, mask)
            if number >= 5:
                seconds[name].append(taken)
                loss_seconds[name].append(loss_taken)
    arrays = [{name: np.array(values) for name, values in part.items()} for part in (seconds, loss_seconds)]
    return arrays[0], arrays[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--response-length", type=int, default=69)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    seconds, loss_seconds = measure(arguments.rounds, arguments.response_length)
    base = seconds["grpo"]
    generator = np.random.default_rng(0)
    print(f"grpo: median {1000 * np.median(base):.2f} ms a step, {arguments.rounds} rounds, one thread")
    for what, part in (("whole step", seconds), ("loss only", loss_seconds)):
        for name in ("kpo-clipped", "grpo again"):
            added = (part[name] - part["grpo"]) / np.median(base)
            draws = np.median(generator.choice(added, (2000, len(added))), axis=1)
            low, high = np.quantile(draws, (0.025, 0.975))
            shown = f"{100 * np.median(added):+.2f}% [{100 * low:+.2f}, {100 * high:+.2f}]"
            print(f"{what}: {name} adds {shown} of a step to grpo")


if __name__ == "__main__":
    main()
