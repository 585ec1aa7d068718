"""Our engine against llama.cpp, side by side: the same file, the same threads, turn by turn.

    make bench-engine                                     # the test model and the shapes of larger ones
    python3 benches/engine/compare.py MEASURE MODEL...    # MEASURE: crates/engine/examples/measure, built

The peer is llama.cpp's own server from the Python package xllamacpp (a build for AVX2), and, where the package
llama-cpp-python is installed (built here, for this processor), llama.cpp with all that the processor has.
Rounds go by turns, and every figure is the median of its rounds, also the ratios: what else the machine does in a round
slows both sides of it. What must be reached stands beside a figure as `bar`; where one is missed, the run fails.
WATCHPOST_BENCH_ROUNDS (3), WATCHPOST_BENCH_THREADS (the processors), WATCHPOST_BENCH_ONLY (speed,busy,triage),
WATCHPOST_BENCH_PEER (prebuilt: xllamacpp alone; native: both).
"""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

ROUNDS = int(os.environ.get("WATCHPOST_BENCH_ROUNDS", "3"))
THREADS = int(os.environ.get("WATCHPOST_BENCH_THREADS", str(len(os.sched_getaffinity(0)))))
ONLY = os.environ.get("WATCHPOST_BENCH_ONLY", "speed,busy,triage").split(",")
PEER = os.environ.get("WATCHPOST_BENCH_PEER", "native")
PROMPT, ANSWER, DEEP, BATCH, STEPS = 512, 128, 700, 8, 32


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    unknown = set(ONLY) - {"speed", "busy", "triage"}
    if unknown:
        sys.exit(f"WATCHPOST_BENCH_ONLY: no such part: {', '.join(sorted(unknown))}; there are speed, busy, triage")
    measure, models = sys.argv[1], sys.argv[2:]
    for model in models:
        print(f"\n{os.path.basename(model)}, {os.path.getsize(model) / 1e6:.0f} MB, {THREADS} threads, median of {ROUNDS}, load {load()}")
        if "speed" in ONLY:
            for isa, peer in peers():
                speed(measure, model, isa, peer)
    if "busy" in ONLY:
        busy(measure, models[0])
    if "triage" in ONLY:
        triage(measure, models[0])
    if MISSED:
        sys.exit("\nmissed: " + "; ".join(MISSED))


MISSED = []


def bar(what, value, least):
    """What must be reached at least."""
    if value < least:
        MISSED.append(f"{what} {value:.2f}, not {least}")
    return f"bar {least}: {'met' if value >= least else 'NOT MET'}"


def peers():
    """Our kernels, and the llama.cpp that was built for the same instructions."""
    found = []
    if importable("xllamacpp"):
        found.append(("avx2", "xllamacpp"))
    if PEER == "native" and importable("llama_cpp"):
        found.append((None, "llama_cpp"))
    if not found:
        sys.exit("neither xllamacpp nor llama-cpp-python is installed: run `make bench-engine`")
    return found


def importable(name):
    return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode == 0


def speed(measure, model, isa, peer):
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(run([measure, "speed", model, str(THREADS)], isa))
        theirs.append(run([sys.executable, __file__, "--peer", peer, model]))
    print(f"  {ours[0]['kernels']} against {peer} ({theirs[0]['features']})")
    kernels = ours[0]["kernels"]
    of = f"{os.path.basename(model)}, {kernels}:"
    bars = {"prompt": 3.0, "answer": 1.3} if kernels == "amx" else {"prompt": 1.0, "answer": 1.0}
    bars["batch_of_8"] = 1.3
    for name in ["prompt", "answer", "answer_at_700", "batch_of_8"]:
        mine, other = (median([run[name] for run in runs]) for runs in (ours, theirs))
        times = [a[name] / b[name] for a, b in zip(ours, theirs)]
        rounds = " ".join(f"{ratio:.2f}" for ratio in times)
        reached = bar(f"{of} {name}", median(times), bars[name]) if name in bars else ""
        print(f"    {name:14} {mine:8.1f} {other:8.1f} tokens/s   {median(times):5.2f} times   (rounds: {rounds})   {reached}")
    at_700 = median([run["answer_at_700"] / run["answer"] for run in ours])
    together = median([run["batch_of_8"] / run["answer"] for run in ours])
    memory = median([run["share_of_memory"] or 0 for run in ours])
    seconds = median([run["load_seconds"] for run in ours])
    print(f"    answers at context 700 keep {at_700:.0%} ({bar(f'{of} at 700', at_700, 0.7)})")
    # The bar is for weights that no cache holds a part of.
    large = os.path.getsize(model) > 1e9
    print(f"    answers read memory at {memory:.0%} of its speed" + (f" ({bar(f'{of} memory', memory, 0.8)})" if large else ""))
    print(f"    8 together {together:.2f} times one ({bar(f'{of} 8 together', together, 2.5)})")
    print(f"    load {seconds:.2f} s; peak {ours[0]['peak_mb']} MB, theirs {theirs[0]['peak_mb']} MB")


def busy(measure, model):
    """Beside a program that keeps one processor busy, in turns with none."""
    print(f"\n{os.path.basename(model)} beside another busy thread, {THREADS} threads")
    for isa in [None, "avx2"]:
        shares = {"prompt": [], "answer": []}
        for _ in range(ROUNDS):
            quiet = run([measure, "speed", model, str(THREADS)], isa)
            with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
                try:
                    beside = run([measure, "speed", model, str(THREADS)], isa)
                finally:
                    other.kill()
            for name, found in shares.items():
                found.append(beside[name] / quiet[name])
        for name, found in shares.items():
            rounds = " ".join(f"{share:.0%}" for share in found)
            reached = bar(f"{quiet['kernels']}, busy: {name}", median(found), 0.5)
            print(f"    {quiet['kernels']:8} {name:8} {median(found):.0%} of the quiet speed   (rounds: {rounds})   {reached}")


def triage(measure, model):
    print(f"\ntriage of an alert of 20 rows, {os.path.basename(model)}, {THREADS} threads, seconds")
    prompts = run([measure, "prompts"])
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(run([measure, "triage", model, str(THREADS)]))
        theirs.append(run([sys.executable, __file__, "--peer", "triage", model], prompts=prompts))
    whole, verdict = (median([median(run[name]) for run in ours]) for name in ("whole_seconds", "verdict_seconds"))
    other = median([median(run["whole_seconds"]) for run in theirs])
    print(f"    tokens of prompts and answers: ours {ours[0]['prompt_and_answer_tokens']}, theirs {theirs[0]['prompt_and_answer_tokens']}")
    for name, mine, least in [("whole", whole, 3), ("verdict", verdict, 10)]:
        times = [median(b["whole_seconds"]) / median(a[f"{name}_seconds"]) for a, b in zip(ours, theirs)]
        rounds = " ".join(f"{ratio:.1f}" for ratio in times)
        reached = bar(f"triage: {name}", median(times), least)
        print(f"    {name:8} {mine:6.3f}, theirs {other:.2f}: {median(times):.1f} times as fast   (rounds: {rounds})   {reached}")


def load():
    return f"{os.getloadavg()[0]:.1f}"


def run(command, isa=None, prompts=None):
    environment = dict(os.environ)
    if isa:
        environment["WATCHPOST_CPU"] = isa
    stdin = json.dumps(prompts) if prompts else ""
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(numbers):
    return sorted(numbers)[len(numbers) // 2]


# The other side, a process of its own for each run.


def peer(kind, model):
    answer = {"llama_cpp": library, "xllamacpp": server, "triage": server_triage}[kind](model)
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    answer["peak_mb"] = int(peak.split()[1]) * 1024 // 1_000_000
    # The library writes to standard output too: ours is the last line.
    print("\n" + json.dumps(answer), flush=True)
    os._exit(0)


def tokens(count, vocabulary):
    state, found = 1, []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        found.append((state >> 8) % vocabulary)
    return found


def library(model):
    import llama_cpp as llama

    llama.llama_backend_init()
    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, None)
    handle = llama.llama_model_load_from_file(model.encode(), llama.llama_model_default_params())
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(handle))
    parameters = llama.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch, parameters.n_seq_max = 1024, 512, 512, BATCH
    parameters.kv_unified = True
    parameters.n_threads = parameters.n_threads_batch = THREADS
    context = llama.llama_init_from_model(handle, parameters)

    def clear():
        llama.llama_memory_clear(llama.llama_get_memory(context), True)

    def decode(found, rows):
        for start in range(0, len(found), rows):
            part = (ctypes.c_int32 * len(found[start:start + rows]))(*found[start:start + rows])
            assert llama.llama_decode(context, llama.llama_batch_get_one(part, len(part))) == 0
        llama.llama_synchronize(context)

    def rate(before, count, rows):
        found, best = tokens(before + count, vocabulary), 0.0
        for _ in range(2):
            clear()
            decode(found[:before], PROMPT)
            started = time.perf_counter()
            decode(found[before:], rows)
            best = max(best, count / (time.perf_counter() - started))
        return best

    def together():
        batch, best = llama.llama_batch_init(BATCH, 0, 1), 0.0
        for _ in range(2):
            clear()
            started = time.perf_counter()
            for position, token in enumerate(tokens(STEPS, vocabulary)):
                batch.n_tokens = BATCH
                for i in range(BATCH):
                    batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, position, 1, i, True
                assert llama.llama_decode(context, batch) == 0
            llama.llama_synchronize(context)
            best = max(best, BATCH * STEPS / (time.perf_counter() - started))
        return best

    decode(tokens(32, vocabulary), 32)
    features = [name for name in ("AMX_INT8", "AVX512_VNNI", "AVX512", "AVX_VNNI", "AVX2") if f"{name} = 1" in llama.llama_print_system_info().decode()]
    return {
        "features": features[0],
        "prompt": rate(0, PROMPT, PROMPT),
        "answer": rate(0, ANSWER, 1),
        "answer_at_700": rate(DEEP, 64, 1),
        "batch_of_8": together(),
    }


class Server:
    def __init__(self, model, slots):
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = model
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch, parameters.n_parallel = 1024 * max(slots, 2), 512, 512, slots
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
        parameters.hostnames, parameters.port, parameters.verbosity = ["127.0.0.1"], 0, 0
        self.server = xllamacpp.Server(parameters)
        self.url = self.server.listening_address
        self.features = "AVX2"

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=900) as reply:
            return json.load(reply)

    def complete(self, prompt, count, cache=False):
        body = {"prompt": prompt, "n_predict": count, "cache_prompt": cache, "ignore_eos": True, "temperature": 0}
        return self.post("/completion", body)["timings"]


def server(model):
    one = Server(model, BATCH)
    vocabulary = 49_000
    found = tokens(DEEP, vocabulary)
    one.complete(found[:32], 4)
    prompt = max(one.complete(found[:PROMPT], 1)["prompt_per_second"] for _ in range(2))
    answer = max(one.complete(found[:1], ANSWER)["predicted_per_second"] for _ in range(2))
    deep = max(one.complete(found[:DEEP], 64)["predicted_per_second"] for _ in range(2))
    best = 0.0
    for _ in range(2):
        slow = []
        threads = [threading.Thread(target=lambda: slow.append(one.complete(found[:1], STEPS))) for _ in range(BATCH)]
        started = time.perf_counter()
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        best = max(best, BATCH * STEPS / (time.perf_counter() - started))
    return {"features": one.features, "prompt": prompt, "answer": answer, "answer_at_700": deep, "batch_of_8": best}


def server_triage(model):
    """clickdetect's way: the prompt and the JSON schema of a whole verdict, sent to a server."""
    prompts = json.load(sys.stdin)
    one = Server(model, 1)
    seconds, counts = [], []
    for number, alert in enumerate(prompts["alerts"]):
        messages = [{"role": "system", "content": prompts["system"]}, {"role": "user", "content": alert}]
        schema = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": prompts["schema"], "strict": True}}
        started = time.perf_counter()
        reply = one.post("/v1/chat/completions", {"messages": messages, "response_format": schema, "temperature": 0, "max_tokens": 800})
        if number > 0:
            seconds.append(time.perf_counter() - started)
            counts.append([reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]])
    return {"whole_seconds": seconds, "prompt_and_answer_tokens": counts}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        peer(sys.argv[2], sys.argv[3])
    main()
