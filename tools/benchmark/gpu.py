"""Measure what needs a GPU; prints a line of JSON a part, then a table.

    python tools/benchmark/gpu.py results/gpu
    python tools/benchmark/gpu.py results/gpu --parts matmul blocked_360M
    python tools/benchmark/gpu.py results/gpu --tiny     # a rehearsal, on a CPU

Each part is a process of its own with a limit of its own; what a part found
stands in the folder as ``<part>.json``, and a part that is there is not run
again: started anew, the script goes on. On one H100 or H200 all parts take
about ten minutes, most of it compiling (a cold cache costs a minute a model).

- matmul: bf16 peak of 8192 x 8192, which says what the card gives.
- fp8: milliseconds of the products of a 1B step's layers in bf16 and in fp8
  (scales a row), and of a compiled cast to fp8: whether it could pay.
- attention: each kernel of blocked attention against one call a document, for
  its relative error and its milliseconds.
- open, blocked, bare, trainer of a size: the recipe with attention open or
  blocked between stories, a bare loop and Hugging Face's Trainer, on the same
  model and rows a step, all with their layers compiled; eager: the recipe,
  blocked, without, and five rows at once. tokens_per_second and mfu (of 989
  TFLOPS) are those after the first steps, first_step the seconds from a model
  that is ready to the end of its first step.
- checkpoint_1B: seconds to save and to load model and optimizer, synced to the
  disk and compared with their SHA-256.
- mimi, hubert: encoders of real size with random weights, times real time
  against the encoder alone, units that changed with the batch, and what other
  convolutions and precisions would give (see ``extraction.py``).
- cloze: items a second with prompts shared or not, and the largest difference
  of a log-likelihood, in nats, to the CPU.
- resume: whether a run that was killed ends with the same bytes.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from synthetic import write_stories

ROOT = Path(__file__).resolve().parents[2]
LM = ROOT / "recipes" / "TinyStories" / "LM"
PEAK = 989e12  # of an H100 SXM in dense bf16
ROWS, LENGTH, UNITS = 75, 2048, 2048  # rows of a GPU's step, as in the YAML
# Of each size: its fragment, and how many steps of how many to leave out.
SIZES = {"360M": ("qwen2_0.5b", 12, 4), "1B": ("llama3.2_1b", 6, 2)}
MICRO = 15  # rows at once, as in the YAML files


def device():
    """Return where to measure."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait():
    """Let the card finish."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(function, times):
    """Return the seconds that a call takes, after one that warms up."""
    function()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        function()
    wait()
    return (time.perf_counter() - began) / times


def matmul(options):
    """Time a product of two large matrices."""
    size = 256 if options.tiny else 8192
    a, b = torch.randn(2, size, size, device=device(), dtype=torch.bfloat16)
    return {"tflops": 2 * size**3 / seconds(lambda: a @ b, 20) / 1e12}


def fp8(options):
    """Time the products of 1B's layers in bf16 and in fp8."""
    if device() == "cpu":
        return {"fp8": "needs a card"}
    found = {}
    for rows, inner, outer in ((30720, 2048, 8192), (30720, 8192, 2048)):
        a = torch.randn(rows, inner, device=device(), dtype=torch.bfloat16)
        b = torch.randn(outer, inner, device=device(), dtype=torch.bfloat16)

        @torch.compile
        def cast(x):
            # 448 is the largest number of this format.
            scale = x.abs().amax(1, keepdim=True).float().clamp(1e-6) / 448
            return (x / scale).to(torch.float8_e4m3fn), scale

        (short_a, scale_a), (short_b, scale_b) = cast(a), cast(b)
        scales = {"scale_a": scale_a, "scale_b": scale_b.T}

        def product(x=short_a, y=short_b, scales=scales):
            return torch._scaled_mm(x, y.T, **scales, out_dtype=torch.bfloat16)

        found[f"{inner} to {outer}"] = {
            "bf16": 1e3 * seconds(lambda a=a, b=b: a @ b.T, 20),
            "fp8": 1e3 * seconds(product, 20),
            "cast": 1e3 * seconds(lambda a=a, cast=cast: cast(a), 20),
        }
    return found


def attention(options):
    """Hold each kernel of blocked attention against one call a document."""
    from speechbrain_slm.models.attention import blocked_inputs, each_document

    torch.manual_seed(0)
    rows = torch.randint(0, UNITS, (2, 256) if options.tiny else (5, LENGTH))
    rows[torch.rand(rows.shape) < 1 / 440] = UNITS  # stories of 35 s
    bounds = blocked_inputs(rows, UNITS)["cu_seq_lens_q"].to(device())

    def run(function, kind):
        torch.manual_seed(1)
        shapes = [(len(rows), heads, rows.shape[1], 64) for heads in (14, 2, 2)]
        inputs = [
            torch.randn(s, device=device(), dtype=kind, requires_grad=True)
            for s in shapes
        ]
        out = function(*inputs, bounds, None)
        out.float().square().mean().backward()
        return [out.detach().float(), *(one.grad.float() for one in inputs)]

    def each(*arguments):
        return each_document(*arguments, 0.0)

    kernels = {"each": each}
    if torch.cuda.is_available():
        from speechbrain_slm.models import cuda_attention as cuda

        kernels["flex"] = cuda.flex_documents
        if cuda.VARLEN is not None:
            kernels["varlen"] = cuda.varlen_documents
    exact, found = run(each, torch.float32), {}
    for name, kernel in kernels.items():
        pairs = zip(run(kernel, torch.bfloat16), exact, strict=True)
        found[name] = {
            "error": max(float((x - y).norm() / y.norm()) for x, y in pairs),
            "ms": 1e3 * seconds(lambda k=kernel: run(k, torch.bfloat16), 10),
        }
    return found


def write_stores(folder, stories):
    """Write random stories of two languages, of Mimi's shape."""
    for split, count in (("train", stories), ("valid", 60)):
        if not (folder / split / "store.json").exists():
            write_stories(folder / split, count, 440, 2000, ("en", "fr"), UNITS)


def recipe(options, size, *words):
    """Return the command of a run of the LM recipe on the synthetic store."""
    write_stores(options.folder / "units", 60 if options.tiny else 6000)
    return [
        *(sys.executable, LM / "train.py"),
        LM / "hparams" / ("mini.yaml" if options.tiny else f"{size}.yaml"),
        *("--units_folder", options.folder / "units"),
        *words,
    ]


def train(options, size, attention, compiled=True):
    """Train by the recipe, and read what it logged."""
    rows, length = (8, 128) if options.tiny else (ROWS, LENGTH)
    _, steps, warm = SIZES[size]
    micro = 4 if options.tiny else MICRO if compiled else 5
    own = [] if options.tiny else ["--lm", "{warm_start: null}"]
    tokens = steps * rows * length
    with tempfile.TemporaryDirectory() as output:
        command = recipe(
            options,
            size,
            *("--run", "en", "--attention", attention),
            *(f"--stages=[{{tokens: {tokens}, mixture: {{en: 1}}}}]",),
            *("--rows_per_step", rows, "--row_length", length),
            *("--grad_accumulation_factor", rows // micro),
            *(
                "--compile",
                "true" if compiled and not options.tiny else "false",
            ),
            *("--valid_rows", 2, "--valid_interval", 0),
            *("--ckpt_interval_steps", 0, "--log_interval", warm),
            *("--output_folder", output, *own),
        )
        last = until_step(command, Path(output), steps)
        said = Path(output, "log.txt").read_text(encoding="utf-8")
    return {
        "tokens_per_second": last["tokens_per_second"],
        "mfu": last.get("mfu"),
        "memory_GB": last["memory_GB"],
        "first_step": float(re.findall(r"First step after (\S+) s", said)[0]),
    }


def until_step(command, output, step):
    """Run a recipe up to a step, and return what it logged of it.

    What comes behind it, a checkpoint and the model, is not measured: of 1B
    it takes a minute.
    """
    said = output / "output.txt"
    log = output / "train_log.jsonl"
    with open(said, "wb") as file:
        process = subprocess.Popen(
            list(map(str, command)), stdout=file, stderr=file
        )
        try:
            ended = False
            while not ended:
                # Asked before the log is read, which is whole then.
                time.sleep(0.2)
                ended = process.poll() is not None
                text = log.read_text(encoding="utf-8") if log.exists() else ""
                for line in text.splitlines(keepends=True):
                    if not line.endswith("\n"):
                        continue
                    entry = json.loads(line)
                    if "tokens_per_second" in entry and entry["step"] == step:
                        return entry
        finally:
            process.kill()
            process.wait()
    end = said.read_text(encoding="utf-8", errors="replace")[-1500:]
    raise RuntimeError(f"ended before step {step}: {end}")


def call(command):
    """Run a command; what it says is shown where it fails."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-1500:])


def make_model(options, size):
    """Make the model of a YAML fragment, of random weights."""
    from hyperpyyaml import load_hyperpyyaml

    name = "qwen2_mini" if options.tiny else SIZES[size][0]
    path = ROOT / "hparams" / "lm" / f"{name}.yaml"
    with open(path, encoding="utf-8") as file:
        values = {"vocabulary_size": UNITS, "units_folder": None}
        if not options.tiny:
            values["warm_start"] = None
        return load_hyperpyyaml(file, values)["model"]


def bare(options, size, trainer=False):
    """Train by the loop that a user would write, or by HF's Trainer."""
    from speechbrain_slm.models.decoder import flops_per_token

    rows, length = (8, 128) if options.tiny else (ROWS, LENGTH)
    _, steps, warm = SIZES[size]
    model = make_model(options, size)
    if not options.tiny:
        for layer in model.model.layers:
            layer.compile(dynamic=False)
    data = torch.randint(0, UNITS, (rows, length))
    micro = 4 if options.tiny else MICRO
    marks = [time.perf_counter()]
    if trainer:
        _train_by_trainer(model, data, micro, marks, steps)
    else:
        model = model.to(device()).train()
        _train_by_hand(model, data, micro, marks, steps)
    speed = data.numel() * (steps - warm) / (marks[-1] - marks[warm])
    used = torch.cuda.max_memory_allocated() if device() == "cuda" else 0
    return {
        "tokens_per_second": round(speed),
        "mfu": speed * flops_per_token(model, length) / PEAK,
        "memory_GB": used / 2**30,
        "first_step": marks[1] - marks[0],
    }


def _train_by_hand(model, data, micro, marks, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for _ in range(steps):
        for part in data.split(micro):
            part = part.to(device(), non_blocking=True)
            with torch.autocast(device(), torch.bfloat16):
                logits = model(input_ids=part, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), part[:, 1:].flatten()
            )
            (loss * (len(part) / len(data))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait()
        marks.append(time.perf_counter())


def _train_by_trainer(model, data, micro, marks, steps):
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Mark(TrainerCallback):
        def on_step_end(self, *arguments, **others):
            wait()
            marks.append(time.perf_counter())

    model.config.use_cache = False
    rows = [{"input_ids": row, "labels": row} for row in data] * steps
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=len(data) // micro,
            bf16=True,
            optim="adamw_torch_fused",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=device() == "cpu",
        )
        Trainer(
            model=model, args=arguments, train_dataset=rows, callbacks=[Mark()]
        ).train()


def checkpoint(options, size):
    """Save and load a model and its optimizer as a run does."""
    from speechbrain_slm.brains.checkpoints import AtomicCheckpointer

    model = make_model(options, size).to(device())
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        state = {"model": model, "optimizer": optimizer}
        checkpointer = AtomicCheckpointer(folder, state)
        marks = [time.perf_counter()]
        path = Path(checkpointer.save_checkpoint(name="step"))
        marks.append(time.perf_counter())
        checkpointer.load_checkpoint(checkpointer.find_checkpoint())
        wait()
        marks.append(time.perf_counter())
        size = sum(one.stat().st_size for one in path.iterdir())
    save, load = np.diff(marks).tolist()
    return {"save": save, "load": load, "disk_GB": size / 2**30}


def extraction(options, name):
    """Time the extraction of an encoder of real size."""
    sys.path.insert(0, str(ROOT / "tools" / "benchmark"))
    import extraction as benchmark
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if not options.tiny:
        benchmark.BATCH_SECONDS, benchmark.ALONE, benchmark.FEW = 600, 100, 5
        benchmark.NUM_WORKERS = os.cpu_count() or 2
        make = {"mimi": _mimi, "hubert_kmeans": _hubert}[name]
        benchmark.TOKENIZERS[name] = make
    data = options.speech or options.folder / "speech"
    if not (data / "train.parquet").exists():
        benchmark.make_speech(data)
    table = benchmark.read_manifest(data / "train.parquet", ("en", "fr"))
    table = benchmark.whole_stories(table, 10 if options.tiny else 2700)
    fit = benchmark.fit_tokenizer
    benchmark.fit_tokenizer = lambda *a: fit(*a).to(device())
    with tempfile.TemporaryDirectory() as folder:
        copies = Path(folder) / "speech"
        # A card is done with the mini corpus before it is warm.
        table = benchmark.more_speech(table, copies, 2 if options.tiny else 6)
        return benchmark.measure(name, table, Path(folder), 1)


def _mimi(folder):
    import transformers

    from speechbrain_slm.units.tokenizers.mimi import Mimi

    torch.manual_seed(0)
    model = transformers.MimiModel(transformers.MimiConfig())
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.copy_(torch.randn(buffer.shape))
    model.save_pretrained(folder)
    return Mimi(folder).to(device())


def _hubert(folder):
    import transformers

    from speechbrain_slm.units.tokenizers.ssl_kmeans import SSLKMeans

    torch.manual_seed(0)
    model = transformers.HubertModel(transformers.HubertConfig())
    model.save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(folder)
    return SSLKMeans(folder, layer=9, num_clusters=500).to(device())


def cloze(options):
    """Score items of one prompt and two endings, shared or not."""
    from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer

    model = make_model(options, "360M").eval()
    generator = np.random.default_rng(0)
    items = 8 if options.tiny else 400

    def units(low, high):
        return generator.integers(0, UNITS, generator.integers(low, high))

    pairs, names = [], []
    for number in range(items):
        prompt = units(150, 250)
        for _ in range(2):
            pairs.append((prompt, units(25, 64)))
            names.append(f"item {number}")

    def score(where, shared, count):
        scorer = LikelihoodScorer(
            model.to(where),
            UNITS,
            UNITS,
            batch_tokens=4096 if where == "cpu" else 65536,
            share_prompts=shared,
        )
        return scorer.score(pairs[:count], names[:count])["whole_sum"]

    found = {}
    for name, shared in (("shared", True), ("independent", False)):
        taken = seconds(lambda s=shared: score(device(), s, len(pairs)), 2)
        found[f"{name}_items_per_second"] = items / taken
    few = min(20, len(pairs))
    difference = score(device(), True, few) - score("cpu", True, few)
    return {**found, "difference_to_cpu": float(np.abs(difference).max())}


def resume(options):
    """Kill a run of the mini model, go on, and compare with one that ran on."""
    steps = 40 if options.tiny else 200
    stages = f"--stages=[{{tokens: {steps * 1024}, mixture: {{en: 1}}}}]"
    words = ("--run", "en", stages, "--ckpt_interval_steps", 10)
    words += ("--valid_interval", 0, "--valid_rows", 2, "--vocabulary_size")
    words += (UNITS,)
    tiny = argparse.Namespace(**{**vars(options), "tiny": True})
    sums = []
    for name in ("whole", "killed"):
        output = options.folder / "resume" / name
        command = recipe(tiny, "", *words, "--output_folder", output)
        if name == "killed":
            process = subprocess.Popen(
                list(map(str, command)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while not list(output.glob("save/CKPT*")) and not process.poll():
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
        call(command)
        weights = output / "model" / "model.safetensors"
        sums.append(hashlib.sha256(weights.read_bytes()).hexdigest())
    return {"same_bytes": sums[0] == sums[1]}


PARTS = {
    "matmul": (60, matmul),
    "fp8": (60, fp8),
    "attention": (120, attention),
    "resume": (150, resume),
    "blocked_360M": (150, lambda o: train(o, "360M", "blocked")),
    "open_360M": (150, lambda o: train(o, "360M", "open")),
    "eager_360M": (150, lambda o: train(o, "360M", "blocked", False)),
    "bare_360M": (150, lambda o: bare(o, "360M")),
    "trainer_360M": (150, lambda o: bare(o, "360M", trainer=True)),
    "mimi": (150, lambda o: extraction(o, "mimi")),
    "hubert": (150, lambda o: extraction(o, "hubert_kmeans")),
    "cloze": (90, cloze),
    "blocked_1B": (150, lambda o: train(o, "1B", "blocked")),
    "open_1B": (150, lambda o: train(o, "1B", "open")),
    "bare_1B": (150, lambda o: bare(o, "1B")),
    "trainer_1B": (150, lambda o: bare(o, "1B", trainer=True)),
    "checkpoint_1B": (150, lambda o: checkpoint(o, "1B")),
}


def rounded(value):
    """Round the numbers of a result for print."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main():
    """Run the parts that are missing, each in a process, or one here."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", default=list(PARTS))
    parser.add_argument("--speech", type=Path, help="holds train.parquet")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.here:
        found = rounded(PARTS[options.here][1](options))
        path = options.folder / f"{options.here}.json"
        path.write_text(json.dumps(found), encoding="utf-8")
        return
    lines = []
    for part in options.parts:
        path = options.folder / f"{part}.json"
        began = time.time()
        if not path.exists():
            _run_part(part, sys.argv[1:])
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            took = round(time.time() - began, 1)
            line = {"part": part, **found, "took": took}
            lines.append(line)
            print(json.dumps(line), flush=True)
    card = torch.cuda.get_device_name() if device() == "cuda" else "CPU"
    print(f"\n{card}, torch {torch.__version__}\n\n| part | found |\n| - | - |")
    for line in lines:
        text = ", ".join(f"{k} {v}" for k, v in line.items() if k != "part")
        print(f"| {line['part']} | {text} |")


def _run_part(part, words):
    """Run a part in a process group that ends with its limit."""
    process = subprocess.Popen(
        [sys.executable, __file__, *words, "--here", part],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=PARTS[part][0])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        said = f"longer than {PARTS[part][0]} s"
    if process.returncode:
        print(json.dumps({"part": part, "failed": said[-1500:]}), flush=True)


if __name__ == "__main__":
    main()
