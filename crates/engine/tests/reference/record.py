"""Records what llama.cpp computes for the small models of `synth`, as the measure of our forward pass.

    record.py MODELS_FOLDER OUT_FOLDER        (make reference)

Needs llama-cpp-python, gguf and numpy. Writes OUT_FOLDER/reference.json (scenarios, hashes of the models) and a file of
logits for each model: rows of half-precision floats in the order of the scenarios' steps.

One thread, no flash attention, keys and values in F32, weights not repacked: llama.cpp's plainest path. Files with
quantized weights are recorded from a twin with the same weights in F32, because llama.cpp rounds activations to 8 bits
before it multiplies; how far that takes it from its own twin is noted as `llama_cpp_rounding`.
"""

import ctypes
import hashlib
import json
import pathlib
import sys
import tempfile

import gguf
import llama_cpp
import numpy

KINDS_WITHOUT_ROUNDING = (gguf.GGMLQuantizationType.F32,)


def tokens(start, count):
    return [(17 + 53 * i + i * i) % 300 for i in range(start, start + count)]


def part(sequence, ids, rows):
    """`rows`: of how many of the last tokens the logits are compared."""
    return {"sequence": sequence, "tokens": ids, "rows": rows}


# The steps of all scenarios run one after the other, in one context; a step's parts are one batch.
SCENARIOS = [
    {"name": "prompt", "steps": [[part(0, tokens(0, 24), 24)]]},
    {"name": "decode", "steps": [[part(0, tokens(24 + i, 1), 1)] for i in range(4)]},
    {"name": "several tokens at a position", "steps": [[part(0, tokens(28, 5), 5)]]},
    {
        "name": "two sequences in a batch",
        "steps": [
            [part(1, tokens(100, 7), 2), part(2, tokens(200, 11), 2)],
            [part(1, tokens(107, 1), 1), part(2, tokens(211, 1), 1)],
            [part(1, tokens(108, 3), 3), part(2, tokens(212, 1), 1)],
        ],
    },
    {"name": "past the window", "steps": [[part(3, tokens(300, 72), 4)], [part(3, tokens(372, 1), 1)]]},
]


def run(path):
    """The rows of logits that the scenarios ask for."""
    model_options = llama_cpp.llama_model_default_params()
    model_options.n_gpu_layers = 0
    model_options.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_options)
    if not model:
        raise SystemExit(f"{path}: llama.cpp does not load it")
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = 512 * 4
    options.n_seq_max = 4
    options.n_batch = options.n_ubatch = 512
    options.n_threads = options.n_threads_batch = 1
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
    options.no_perf = True
    context = llama_cpp.llama_init_from_model(model, options)
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    positions, rows = {}, []
    for scenario in SCENARIOS:
        for step in scenario["steps"]:
            count = sum(len(part["tokens"]) for part in step)
            batch = llama_cpp.llama_batch_init(count, 0, 1)
            batch.n_tokens, at, wanted = count, 0, []
            for part in step:
                for i, token in enumerate(part["tokens"]):
                    position = positions.get(part["sequence"], 0)
                    positions[part["sequence"]] = position + 1
                    batch.token[at], batch.pos[at] = token, position
                    batch.n_seq_id[at], batch.seq_id[at][0] = 1, part["sequence"]
                    batch.logits[at] = i + part["rows"] >= len(part["tokens"])
                    wanted += [at] if batch.logits[at] else []
                    at += 1
            if llama_cpp.llama_decode(context, batch) != 0:
                raise SystemExit(f"{path}: {scenario['name']}: llama.cpp fails")
            for at in wanted:
                logits = llama_cpp.llama_get_logits_ith(context, at)
                rows.append(numpy.ctypeslib.as_array(logits, (vocab,)).copy())
            llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return numpy.array(rows)


def twin(path, out):
    """The same model with every weight in F32."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        writer.add_tensor(tensor.name, weights.reshape(tuple(int(n) for n in reversed(tensor.shape))))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return all(tensor.tensor_type in KINDS_WITHOUT_ROUNDING for tensor in reader.tensors)


def relative(got, expected):
    return float(numpy.linalg.norm(got - expected) / numpy.linalg.norm(expected))


def main(models, out):
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    known = {}
    for path in sorted(models.glob("*.gguf")):
        with tempfile.TemporaryDirectory() as folder:
            plain = pathlib.Path(folder, "twin.gguf")
            exact = twin(path, plain)
            own = run(path)
            logits = own if exact else run(plain)
        known[path.stem] = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "vocab": logits.shape[1],
            "llama_cpp_rounding": round(relative(own, logits), 5),
        }
        logits.astype("<f2").tofile(out / f"{path.stem}.bin")
        spread, top = logits.std(), numpy.abs(logits).max()
        print(f"{path.stem}: standard deviation {spread:.2f}, greatest {top:.1f}, {known[path.stem]['llama_cpp_rounding']}")
    about = "made by tests/reference/record.py with llama-cpp-python " + llama_cpp.__version__
    index = {"about": about, "scenarios": SCENARIOS, "models": known}
    (out / "reference.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
