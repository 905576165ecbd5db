"""Makes a tiny model of random weights, with a tokenizer of its own: `make_model.py FOLDER`.

Runs in the engine's environment, which has torch and transformers. The tokenizer is a byte-level
BPE trained on a few of Python's own modules, with the special tokens that chat templates name.
"""

import inspect
import json.decoder
import sys
import tokenize
import typing

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

SPECIAL = [
    "<s>",
    "</s>",
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    *("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
]
VOCABULARY = 4096


def make(folder: str, template: str) -> None:
    """Write config, weights, tokenizer and chat template into the folder."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    modules = (inspect, json, json.decoder, tokenize, typing, trainers)
    texts = [inspect.getsource(module) for module in modules[:5]]
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    set_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        bos_token_id=made.token_to_id("<s>"),
        eos_token_id=made.token_to_id("</s>"),
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        make(sys.argv[1], file.read())
