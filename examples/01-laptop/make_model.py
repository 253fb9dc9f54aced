"""Make a tiny random Llama with its tokenizer: real vLLM serves it without a GPU or a download.

The weights are random with a fixed seed and never end a text on purpose, so ask for `ignore_eos`.
The byte-level BPE tokenizer is trained on the Python standard library's own docstrings, so nothing
is fetched. Running it again on a finished directory does nothing.

    python make_model.py OUT_DIR        # needs torch, transformers, tokenizers: vLLM's own packages
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SEED = 20261122
VOCAB_SIZE = 2000
TEXT_LIMIT = 1_500_000
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def docstrings(limit: int = TEXT_LIMIT) -> Iterator[str]:
    """Docstrings of the standard library's modules, in a fixed order, `limit` characters."""
    seen = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            if text := ast.get_docstring(node):
                yield text
                seen += len(text)
                if seen >= limit:
                    return


def save_tokenizer(directory: Path) -> tuple[int, int, int, int]:
    """Train and save the tokenizer; return its size and the ids of bos, eos and pad."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(docstrings(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(directory)
    return len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id


def save_weights(directory: Path, vocab_size: int, bos: int, eos: int, pad: int) -> int:
    """Save the random weights and the configuration; return the number of parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=pad,
        )
    ).to(torch.bfloat16)
    model.save_pretrained(directory)
    return int(model.num_parameters())


def make_model(out_dir: Path) -> bool:
    """Make the model in `out_dir`; return False when it is there already."""
    if (out_dir / "config.json").exists():
        return False
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    part = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.part")
    try:
        part.mkdir()
        parameters = save_weights(part, *save_tokenizer(part))
        if out_dir.is_dir() and not any(out_dir.iterdir()):
            out_dir.rmdir()
        part.rename(out_dir)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"made {out_dir}: {parameters:,} parameters")
    return True


def main() -> int:
    """Read the command line and make the model."""
    parser = argparse.ArgumentParser(
        description="Make a tiny random Llama that vLLM can serve offline."
    )
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="where the model goes")
    out_dir: Path = parser.parse_args().out_dir.resolve()
    if not make_model(out_dir):
        print(f"{out_dir} is there already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
