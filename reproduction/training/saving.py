"""Models on disk: a folder is written atomically, and an incomplete one is refused."""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: dict | None = None
) -> None:
    """Write model and tokenizer in the Hugging Face format (safetensors) next to `folder`, then rename.

    weights: the gathered state of a model that is sharded over processes; None takes the model's own. Of tied weights,
    which gathering doubles, one is kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    if weights is not None:
        weights = {name: tensor for name, tensor in weights.items() if name not in model.all_tied_weights_keys}
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        model.save_pretrained(temporary, state_dict=weights)
        tokenizer.save_pretrained(temporary)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer, which pads on the left; only from local safetensors and JSON.

    Raises ValueError naming the folder if a file is missing or damaged, or weights are missing from it.
    """
    local = {"local_files_only": True, "trust_remote_code": False}
    logging.disable_progress_bar()  # a step's own lines are enough
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: tokenizer.json is missing; make it again")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", **local)
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **local
        )
    except MemoryError:
        raise
    except Exception as error:  # each library below has its own errors for a damaged file
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise ValueError(f"{folder}: not a model that can be loaded ({reason}); make it again") from error
    absent = [name for kind in ("missing_keys", "mismatched_keys") for name in loading[kind]]
    if absent:
        raise ValueError(f"{folder}: the weights {absent[0]} are missing or of another shape; make it again")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ValueError(f"{folder}: its tokenizer has more tokens than its model; make it again")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer
