"""A `kpo.trl.MethodTrainer` that continues to the bit after a kill, through the hooks of transformers.

transformers decides when a checkpoint is due (`save_strategy`, `save_steps`), counts the updates, skips the prompts
already used and asks for the random states at the right moment. This class overrides how each part is written and read,
since transformers uses pickle, and adds what it does not know of: TRL's current rollout batch and the method's state.
Each of several processes writes and reads what it holds, with its random states and its part of the batch.
"""

import copy
from collections.abc import Callable
from pathlib import Path

from accelerate.utils import send_to_device
from safetensors.torch import load_file, save_file

from kpo.trl import MethodTrainer
from reproduction.training.checkpoint import (
    MODEL,
    TRAINER_STATE,
    CheckpointFolder,
    random_states,
    save_state,
    set_random_states,
)
from reproduction.training.fsdp import (
    load_optimizer_state,
    load_trained_parameters,
    optimizer_state,
    trained_parameters,
)
from reproduction.training.processes import process_index


class ResumableTrainer(MethodTrainer):
    """Keeps its checkpoints in `checkpoints`, or as TRL does if that is None.

    `run` trains, from the newest checkpoint if there is one. A subclass adds what it owns in `method_state` and
    `load_method_state`. `on_failed_checkpoint` is called with the OSError of a checkpoint that could not be written;
    what it returns decides whether training goes on.
    """

    checkpoints: CheckpointFolder | None = None
    on_failed_checkpoint: Callable[[OSError], bool] | None = None

    def run(self) -> None:
        """Train to the end."""
        found = None if self.checkpoints is None else self.checkpoints.latest()
        if found is None:
            self.train()
            return
        folder, self._loaded = found
        if process_index() == 0:
            self.checkpoints.note({"continued_after_update": self._loaded["update"]})
        self._step = self._loaded["step"]
        self._buffered_inputs = send_to_device(self._loaded["buffer"], self.accelerator.device)
        self.load_method_state(self._loaded["own"])
        self.train(resume_from_checkpoint=str(folder))

    def _save_checkpoint(self, model, trial):
        if self.checkpoints is None:
            super()._save_checkpoint(model, trial)
            return
        try:
            self.checkpoints.write(self.state.global_step, self._fill)
        except OSError as error:
            if self.on_failed_checkpoint is None or not self.on_failed_checkpoint(error):
                raise

    def _fill(self, folder: Path) -> None:
        weights = trained_parameters(self.accelerator.unwrap_model(self.model))
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / MODEL)
        save_state(
            folder,
            {
                "update": self.state.global_step,
                "step": self._step,
                "buffer": self._buffered_inputs,
                "optimizer": optimizer_state(self.optimizer),
                "schedule": self.lr_scheduler.state_dict(),
                "random": random_states(),
                "own": self.method_state(),
            },
        )
        # The log holds every update's metrics once more; nothing of it is needed to continue.
        state = copy.copy(self.state)
        state.log_history = []
        state.save_to_json(str(folder / TRAINER_STATE))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self.checkpoints is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            weights = load_file(Path(resume_from_checkpoint) / MODEL)
            load_trained_parameters(self.accelerator.unwrap_model(self.model if model is None else model), weights)

    def _load_optimizer_and_scheduler(self, checkpoint):
        if self.checkpoints is None:
            super()._load_optimizer_and_scheduler(checkpoint)
        elif checkpoint is not None:
            # Taken out, since it is twice the size of the model and nobody needs it again.
            load_optimizer_state(self.optimizer, self._loaded.pop("optimizer"))
            self.lr_scheduler.load_state_dict(self._loaded["schedule"])
            # The interval is the present configuration's, not that of the checkpoint.
            self.state.save_steps = self.args.save_steps

    def _load_rng_state(self, checkpoint):
        if self.checkpoints is None:
            super()._load_rng_state(checkpoint)
        elif checkpoint is not None:
            set_random_states(self._loaded["random"])
