"""Records the token ids that llama.cpp gives for the lines of corpus.txt: a hash for each, to be compared with ours.

    tokens.py SMOLLM2.gguf MISTRAL.whl CORPUS_FOLDER                  (make reference)
    tokens.py SMOLLM2.gguf MISTRAL.whl CORPUS_FOLDER KIND LINE...     prints the ids of lines, to look into a difference

Needs llama-cpp-python, gguf, sentencepiece, tokenizers. Special tokens are neither added nor parsed. Writes KIND.bin: the hash of
each line, then of each block of 8 lines joined by newlines, 16 bits each; mistral-pieces.txt; and chats.json.
"""

import ctypes
import json
import pathlib
import sys
import tempfile
import unicodedata
import zipfile

import gguf
import llama_cpp
import sentencepiece
import tokenizers

BLOCK = 8
UNSCORED = -1e9
# Pre-tokenizers, with SmolLM2's vocabulary.
BYTE_LEVEL = ["smollm", "gpt-2", "llama-bpe", "qwen2", "glm4", "default"]
# SentencePiece, with the vocabulary of Mistral 7B: whether a text gets a space in front.
PIECES = {"mistral": True, "mistral-bare": False, "mistral-blanks": False}
# Such as Gemma has: they are text, and llama.cpp looks for them before all else.
# Whole chats, in which control tokens mean what they say. In a Phi 3, which llama.cpp knows by its name, they take the
# blanks behind them along.
CONTROLS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]
CHATS = {
    "mistral": "[INST] You triage alerts.\n\nWas it an attack? [/INST]The verdict is",
    "zephyr": "<|system|>\nYou triage alerts.<|end|>\n<|user|>\nWas it an attack?<|end|>\n<|assistant|>\nThe verdict is",
    "bare": "<|system|>You triage alerts.<|end|><|user|>Was it an attack?<|end|><|assistant|>The verdict is",
}
BLANKS = ["\n\n", "\n\n\n", "  ", "    ", "\t\t"]
# Expressions of the models' tokenizer.json, which llama.cpp only has for ASCII's capitals: run by the library
# `tokenizers`, with SmolLM2's vocabulary, and whether whole words need no merges.
LEAD, CAPITAL, SMALL = r"[^\r\n\p{L}\p{N}]?", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
CASED = {
    "gpt-4o": (rf"{LEAD}{CAPITAL}*{SMALL}+{SHORT}|{LEAD}{CAPITAL}+{SMALL}*{SHORT}|\p{{N}}{{1,3}}|{REST}", False),
    "tekken": (rf"{LEAD}{CAPITAL}*{SMALL}+|{LEAD}{CAPITAL}+{SMALL}*|\p{{N}}|{REST}", True),
}


def texts(folder):
    lines = (folder / "corpus.txt").read_bytes().removesuffix(b"\n").split(b"\n")
    blocks = [lines[at : at + BLOCK] for at in range(0, len(lines), BLOCK)]
    return lines + [(b"\r\n" if i % 2 else b"\n").join(block) for i, block in enumerate(blocks)]


def fold(ids):
    """FNV-1a of the ids as 32-bit numbers, folded to 16 bits."""
    value = 0xCBF29CE484222325
    for byte in b"".join(id.to_bytes(4, "little") for id in ids):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return (value ^ value >> 16 ^ value >> 32 ^ value >> 48) & 0xFFFF


def byte_level(smollm, pre, out):
    reader = gguf.GGUFReader(smollm)
    field = lambda key: reader.fields["tokenizer.ggml." + key].contents()
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(field("tokens"))
    writer.add_token_types(field("token_type"))
    writer.add_token_merges(field("merges"))
    finish(writer)


def mistral(wheel):
    model = zipfile.ZipFile(wheel).read("mistral_common/data/tokenizer.model.v1")
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def cased(smollm, expression, whole):
    reader = gguf.GGUFReader(smollm)
    field = lambda key: reader.fields["tokenizer.ggml." + key].contents()
    vocabulary = {token: id for id, token in enumerate(field("tokens"))}
    merges = [tuple(merge.split(" ")) for merge in field("merges")]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, ignore_merges=whole))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
    letters = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, letters])
    return tokenizer


def pieces(model, prefix, blanks, out, controls=[], name="any"):
    ids = range(model.vocab_size())
    kind = lambda id: 2 if model.is_unknown(id) else 3 if model.is_control(id) else 6 if model.is_byte(id) else 1
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([model.id_to_piece(id) for id in ids] + blanks + controls)
    writer.add_token_scores([model.get_score(id) for id in ids] + [0.0] * len(blanks + controls))
    writer.add_token_types([kind(id) for id in ids] + [4] * len(blanks) + [3] * len(controls))
    writer.add_name(name)
    writer.add_add_space_prefix(prefix)
    finish(writer)


def finish(writer):
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Reference:
    """Qwen's own tokenizer composes characters first, which llama.cpp leaves out: `composes`."""

    def __init__(self, path, composes):
        self.composes = composes
        options = llama_cpp.llama_model_default_params()
        options.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        self.vocab = llama_cpp.llama_model_get_vocab(model)

    def encode(self, text, chat=False):
        if self.composes:
            text = unicodedata.normalize("NFC", text.decode()).encode()
        ids = (ctypes.c_int32 * (len(text) + 16))()
        count = llama_cpp.llama_tokenize(self.vocab, text, len(text), ids, len(ids), chat, chat)
        assert count >= 0
        return ids[:count]


def reference(kind, smollm, model):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "vocab.gguf")
        if kind in PIECES:
            pieces(model, PIECES[kind], BLANKS if kind == "mistral-blanks" else [], path)
        else:
            byte_level(smollm, kind, path)
        return Reference(path, kind == "qwen2")


def main(smollm, wheel, folder, only=None, *lines):
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    folder, model = pathlib.Path(folder), mistral(wheel)
    if only:
        known, all_texts = reference(only, smollm, model), texts(folder)
        for line in lines:
            print(line, known.encode(all_texts[int(line)]))
        return
    # Nearly every score is the piece's place among the merges; a blank before a piece says that it never is merged.
    ids = range(model.vocab_size())
    unscored = [" " if model.get_score(id) == UNSCORED else "" for id in ids]
    assert all(unscored[id] or id < 259 or model.get_score(id) == 259 - id for id in ids)
    (folder / "mistral-pieces.txt").write_text("".join(f"{unscored[id]}{model.id_to_piece(id)}\n" for id in ids))
    chats = {}
    for name in ["any", "phi-3"]:
        with tempfile.TemporaryDirectory() as temporary:
            path = pathlib.Path(temporary, "vocab.gguf")
            pieces(model, True, [], path, CONTROLS, name)
            known = Reference(path, False)
        chats[name] = {kind: known.encode(text.encode(), chat=True) for kind, text in CHATS.items()}
    (folder / "chats.json").write_text(json.dumps(chats) + "\n")
    encoders = {kind: reference(kind, smollm, model).encode for kind in [*BYTE_LEVEL, *PIECES]}
    for kind, (expression, whole) in CASED.items():
        known = cased(smollm, expression, whole)
        encoders[kind] = lambda text, known=known: known.encode(text.decode()).ids
    for kind, encode in encoders.items():
        hashes = [fold(encode(text)) for text in texts(folder)]
        (folder / f"{kind}.bin").write_bytes(b"".join(value.to_bytes(2, "little") for value in hashes))
        print(kind, len(hashes))


if __name__ == "__main__":
    main(*sys.argv[1:])
