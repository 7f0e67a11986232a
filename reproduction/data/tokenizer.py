"""The character tokenizer of the laptop scale's model, in the Hugging Face format."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reproduction.data.scratchpad import CHARACTERS

PAD, EOS, UNKNOWN = "[PAD]", "[EOS]", "[UNK]"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each character that a sum and its worked solution use, pad, end and unknown."""
    vocabulary = {token: index for index, token in enumerate([PAD, EOS, UNKNOWN, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, padding_side="left"
    )
