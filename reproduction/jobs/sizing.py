"""Estimates from model size of an experiment's memory and time; not yet checked against a measurement.

Memory of one of D devices, in bytes, P parameters, m responses in a micro-batch, each of n tokens with its prompt:

    16 P / D                      32-bit weights, gradients and both moments of AdamW, sharded
    4 P / D                       the reference model, if a method has a KL term; on several devices also 4 P, or 2 P
                                  in 16 bits, as TRL shards it as one piece and so gathers it whole
    4 P + 16 LORA_WEIGHTS r h L   in place of both with adapters of rank r, on one device: the weights without gradients
                                  and moments, which are also the reference, and the adapters with them
    head                          TRL's fused head computes log-probabilities and entropies in tiles of TILE_TOKENS x
                                  TILE_WORDS logits, twice (again in the backward pass), and never holds m n v of them:
                                  one tile, the head's 32-bit weights gathered and their gradient (8 v h), and the
                                  32-bit gradient of the last hidden states (4 m n h); v words, h hidden size
    m n h (L b + LAYER_BYTES)     with activation checkpointing: what enters each of L layers, in b bytes (2 if
                                  16-bit weights are gathered, else 4), and one layer computed again; without it all
                                  layers, m n h L LAYER_BYTES
    share * memory                the engine's, if vLLM shares the trainer's device; it must hold 2 P bytes of weights
                                  and the keys and values of SEQUENCES_IN_ENGINE whole windows
    0.04 memory + 1 GB            fragments, one gathered layer, CUDA itself

LAYER_BYTES counts what a layer of Qwen3-4B keeps for its backward pass, in bytes a token for each unit of the hidden
size: both norms with their 32-bit copies 16, queries, keys and values with theirs 32, and the gated MLP 30 (four
16-bit tensors of 3.8 h). That is twice the 34 of a plain transformer (Korthikanti et al. 2022, arXiv 2205.05198).

Time: sampling reads the weights (2 P bytes) for every token of the longest response, as often as it takes to sample all
responses with the keys and values that the engine's memory holds at once, and each response's keys and values again for
every token; training spends 6 P operations a token, 2 P more with activation checkpointing, 2 P for old
log-probabilities and 2 P for the reference. Devices reach BANDWIDTH_SHARE and COMPUTE_SHARE of what their makers state;
a response has LENGTH_SHARE of the tokens that it may have, a prompt PROMPT_SHARE. Each of these five numbers is an
assumption, and so is the share of memory in the last line above.
"""

from dataclasses import dataclass

from reproduction.data.catalogue import get_set
from reproduction.jobs.devices import Device
from reproduction.settings.configuration import Configuration
from reproduction.settings.experiment import ExperimentSettings
from reproduction.settings.hub import ARITHMETIC

LENGTH_SHARE = 0.5
PROMPT_SHARE = 0.25
BANDWIDTH_SHARE = 0.5
COMPUTE_SHARE = 0.35
SEQUENCES_IN_ENGINE = 16
MAX_DEVICES = 64
GIGABYTE = 1e9
LAYER_BYTES = 78.0
LORA_WEIGHTS = 23.0  # of the adapters of one layer of Qwen3-4B, for each unit of rank and hidden size
TILE_TOKENS, TILE_WORDS = 4096, 32768  # trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE, trl.trainer.utils' chunk size


@dataclass(frozen=True)
class Speed:
    """What the maker states: dense 16-bit operations a second, bytes a second from memory."""

    name: str
    operations: float
    bandwidth: float


# The makers' data sheets; the first whose name is part of the device's. The last two are for unknown devices.
SPEEDS = (
    Speed("H200", 989e12, 4.8e12),
    Speed("H100", 989e12, 3.35e12),
    Speed("A100", 312e12, 2.0e12),
    Speed("L40S", 362e12, 0.86e12),
    Speed("A10", 125e12, 0.6e12),
    Speed("4090", 165e12, 1.0e12),
    Speed("3090", 71e12, 0.94e12),
)
LARGE, SMALL = SPEEDS[1], SPEEDS[5]


def speed_of(name: str, memory_bytes: float) -> Speed:
    """The speed of a device by its name; of one that is not known, an H100's from 70 GB on, else an RTX 4090's."""
    known = [speed for speed in SPEEDS if speed.name in name]
    return known[0] if known else LARGE if memory_bytes >= 70 * GIGABYTE else SMALL


def memory_needed(experiment: ExperimentSettings, count: int, memory_bytes: float) -> float:
    """Bytes that each of `count` devices of `memory_bytes` needs; infinite if the engine's share is too small."""
    settings, model = experiment.pretrained, experiment.pretrained.model
    has_reference = _has_reference(experiment)
    states = (16.0 + (4.0 if has_reference else 0.0)) * model.parameters / count
    if settings.lora is not None:
        adapters = LORA_WEIGHTS * settings.lora.rank * model.hidden_size * model.layers
        states = 4.0 * model.parameters + 16.0 * adapters
    gathered = 0.0
    if has_reference and count > 1:
        gathered = (2.0 if settings.precision == "bfloat16" else 4.0) * model.parameters
    completion = experiment.training.max_completion_length
    tokens = float(settings.micro_batch * (settings.max_prompt_length + completion))
    width = 2.0 if settings.precision == "bfloat16" else 4.0
    head = width * min(tokens, TILE_TOKENS) * min(model.vocabulary, TILE_WORDS)
    head += 8.0 * model.vocabulary * model.hidden_size + 4.0 * tokens * model.hidden_size
    a_layer = tokens * model.hidden_size * LAYER_BYTES * width / 2.0
    if settings.activation_checkpointing:
        entering = tokens * model.hidden_size * (width if count > 1 else 4.0)
        activations = model.layers * entering + a_layer
    else:
        activations = model.layers * a_layer
    engine = 0.0
    if settings.engine == "vllm":
        engine = settings.engine_memory_share * memory_bytes
        window = settings.max_prompt_length + completion
        if engine < 2.0 * model.parameters + SEQUENCES_IN_ENGINE * window * model.kv_bytes_per_token:
            return float("inf")
    return states + gathered + head + activations + engine + 0.04 * memory_bytes + GIGABYTE


def _has_reference(experiment: ExperimentSettings) -> bool:
    return any(experiment.method(label).kl_weight for label in experiment.methods)


def devices_needed(experiment: ExperimentSettings, memory_bytes: float) -> int | None:
    """How many devices of `memory_bytes` one training takes: as configured, else the fewest that hold it.

    Only numbers are tried that divide a minibatch into whole micro-batches. None if no number is enough.
    """
    if experiment.pretrained.devices.count == 0:
        return 0
    for count in _dividing_counts(experiment):
        if memory_needed(experiment, count, memory_bytes) <= memory_bytes:
            return count
    return None


def _dividing_counts(experiment: ExperimentSettings) -> list[int]:
    """The numbers of devices to try, smallest first, that share a minibatch in whole micro-batches."""
    settings, training = experiment.pretrained, experiment.training
    minibatch = training.sequences_per_rollout // training.minibatches
    counts = [settings.devices.count] if settings.devices.count else range(1, _most_devices(experiment) + 1)
    return [count for count in counts if minibatch % (count * settings.micro_batch) == 0]


def _most_devices(experiment: ExperimentSettings) -> int:
    return MAX_DEVICES if experiment.pretrained.lora is None else 1


def planned_memory(experiment: ExperimentSettings, devices: list[Device]) -> float:
    """Bytes of a device that the plan assumes: the smallest of those seen, else what the configuration states."""
    known = [device.memory_bytes for device in devices if device.memory_bytes]
    return min(known) if known else experiment.pretrained.devices.memory_gb * GIGABYTE


def planned_count(experiment: ExperimentSettings, devices: list[Device]) -> int:
    """Devices of one training; ValueError if no number tried is enough, or none divides a minibatch."""
    memory = planned_memory(experiment, devices)
    count = devices_needed(experiment, memory)
    if count is None:
        settings, training = experiment.pretrained, experiment.training
        tried = f"{settings.devices.count or f'up to {_most_devices(experiment)}'} devices"
        dividing = _dividing_counts(experiment)
        if not dividing:
            raise ValueError(
                f"{settings.model.name}: a minibatch of {training.sequences_per_rollout // training.minibatches} "
                f"responses does not divide among {tried} in equal micro-batches of {settings.micro_batch}; change "
                "the number of devices (pretrained.devices) or micro_batch"
            )
        needed = memory_needed(experiment, dividing[-1], memory)
        reason = (
            "the engine's share is too small"
            if needed == float("inf")
            else f"each of {dividing[-1]} would need {needed / GIGABYTE:.0f} GB"
        )
        raise ValueError(
            f"{settings.model.name} does not fit into {tried} of {memory / GIGABYTE:.0f} GB ({reason}); use larger or "
            "more devices (pretrained.devices), or change micro_batch or engine_memory_share"
        )
    return count


def fits(configuration: Configuration, devices: list[Device]) -> bool:
    """Whether these devices hold every experiment of a scale."""
    known = [device for device in devices if device.memory_bytes]
    if not known or len(known) < len(devices):
        return False
    for experiment in configuration.experiments.values():
        if experiment.pretrained is not None:
            count = devices_needed(experiment, planned_memory(experiment, devices))
            if count is None or count > len(devices):
                return False
    return True


def _sampling_seconds(sequences: float, cap: int, concurrent: float, model, speed: Speed) -> float:
    """Seconds of one device for `sequences` responses of at most `cap` tokens, `concurrent` at a time."""
    length = LENGTH_SHARE * cap
    rounds = max(1.0, sequences / concurrent)
    read = rounds * cap * 2.0 * model.parameters + sequences * length**2 / 2.0 * model.kv_bytes_per_token
    operations = 2.0 * model.parameters * sequences * length
    return read / (BANDWIDTH_SHARE * speed.bandwidth) + operations / (COMPUTE_SHARE * speed.operations)


def sequences_at_once(experiment: ExperimentSettings, memory_bytes: float) -> float:
    """Responses whose keys and values the engine holds at once, on one device of `memory_bytes`; no bound without vLLM.

    Counted at their mean length: vLLM gives a response memory as it grows.
    """
    settings, model = experiment.pretrained, experiment.pretrained.model
    if settings.engine != "vllm":
        return float("inf")
    length = PROMPT_SHARE * settings.max_prompt_length + LENGTH_SHARE * experiment.training.max_completion_length
    free = settings.engine_memory_share * memory_bytes - 2.0 * model.parameters
    return max(1.0, free / (length * model.kv_bytes_per_token))


def training_hours(experiment: ExperimentSettings, count: int, speed: Speed, memory_bytes: float) -> float:
    """Device-hours of one training of the experiment on `count` devices of `memory_bytes` each."""
    settings, training = experiment.pretrained, experiment.training
    model, sequences = settings.model, training.sequences_per_rollout
    at_once = min(sequences / count, sequences_at_once(experiment, memory_bytes))
    sampling = count * _sampling_seconds(sequences / count, training.max_completion_length, at_once, model, speed)
    per_token = 6.0 * training.epochs + 2.0 + (2.0 if _has_reference(experiment) else 0.0)
    per_token += 2.0 * training.epochs if settings.activation_checkpointing else 0.0
    length = LENGTH_SHARE * training.max_completion_length + PROMPT_SHARE * settings.max_prompt_length
    learning = per_token * model.parameters * sequences * length / (COMPUTE_SHARE * speed.operations)
    return training.rollout_batches * (sampling + learning) / 3600.0


def problems_of(configuration: Configuration, experiment: ExperimentSettings) -> int:
    """Problems that one evaluation of the experiment answers; sets of an unknown size count as none."""
    settings, total = experiment.pretrained, 0
    for name in settings.evaluation_sets:
        if name == ARITHMETIC:
            total += configuration.problems.held_out_per_level * len(configuration.problems.levels)
        elif name in settings.train_sets:
            total += settings.held_out
        else:
            total += int(configuration.data.pins.get(name, {}).get("rows") or get_set(name).rows or 0)
    return total


def evaluation_hours(configuration: Configuration, experiment: ExperimentSettings, speed: Speed) -> float:
    """Device-hours of one evaluation, on one device: the samples, and one greedy answer a problem."""
    sampling = experiment.pretrained.sampling
    responses = problems_of(configuration, experiment) * (sampling.samples_per_problem + 1)
    concurrent = float(sampling.batch_size)
    model = experiment.pretrained.model
    return _sampling_seconds(responses, sampling.max_completion_length, concurrent, model, speed) / 3600.0
