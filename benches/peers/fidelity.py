#!/usr/bin/env python3
"""Our codec beside FAISS's OPQ and RQ: the same training rows, the same held-out rows, equal bytes.

    cargo build --release
    python3 benches/peers/fidelity.py --train TRAIN --heldout HELDOUT --bytes 16,32,64 --seeds 1,2,3

Datasets are .npy (f16, f32) or idx.gz of bytes, read as value / 255. Makes a virtual environment beside this file
with the pinned requirements on its first run. Prints a table, or with --json a document.

Bytes are everything that is needed for each record: for the peers, whose codes have one length, the code; for
ours the code, its length and its flag. Where ours miss the nominal size by more than 2 % the difference is taken at
the measured size, on the peer's curve (linear in the logarithm of the bytes).
"""
import argparse
import gzip
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import environment

HERE = pathlib.Path(__file__).resolve().parent
# Residual quantizers look at this many principal axes; beyond them training only slows down.
AXES = 256
BEAM = 5
OPQ_ROWS = 30_000


def load(path):
    import numpy as np

    if str(path).endswith(".npy"):
        values = np.load(path)
        values = values / 255.0 if values.dtype == np.uint8 else values
    else:
        with gzip.open(path) as file:
            data = file.read()
        axes = data[3]
        dims = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(dims) / 255.0
    return np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)


class Axes:
    """Principal axes of the training rows."""

    def __init__(self, rows, most):
        import numpy as np

        self.mean = rows.mean(0, dtype=np.float64)
        _, vectors = np.linalg.eigh(np.cov((rows - self.mean).T))
        self.vectors = vectors[:, ::-1][:, :most].astype(np.float32)
        self.mean = self.mean.astype(np.float32)

    def forward(self, rows):
        import numpy as np

        return np.ascontiguousarray((rows - self.mean) @ self.vectors)

    def inverse(self, z):
        return z @ self.vectors.T + self.mean


def residual(training, axes, size, seed):
    import faiss

    z = axes.forward(training)
    quantizer = faiss.ResidualQuantizer(z.shape[1], size, 8)
    quantizer.max_beam_size = BEAM
    quantizer.cp.seed = seed
    quantizer.train(z)
    return lambda rows: quantizer.compute_codes(axes.forward(rows)), lambda codes: axes.inverse(quantizer.decode(codes))


def optimized_product(training, _axes, size, seed):
    import faiss
    import numpy as np

    width = training.shape[1]
    inner = next(d for d in range(min(width, AXES), 0, -1) if d % size == 0)
    rows = training[np.random.default_rng(seed).permutation(len(training))[:OPQ_ROWS]]
    rotation = faiss.OPQMatrix(width, size, inner)
    rotation.niter = 20
    rotation.train(rows)
    quantizer = faiss.ProductQuantizer(inner, size, 8)
    quantizer.train(rotation.apply_py(rows))

    def encode(rows):
        return quantizer.compute_codes(rotation.apply_py(rows))

    return encode, lambda codes: rotation.reverse_transform(quantizer.decode(codes))


def nearest(stored, queries, k=10):
    import faiss
    import numpy as np

    stored, queries = np.array(stored, np.float32), np.array(queries, np.float32)
    faiss.normalize_L2(stored)
    faiss.normalize_L2(queries)
    index = faiss.IndexFlatIP(stored.shape[1])
    index.add(stored)
    return index.search(queries, k)[1]


def peers(training, held_out, sizes, seed):
    import numpy as np

    axes = Axes(training, min(AXES, training.shape[1]))
    asked = max(1, min(len(held_out) // 5, 1_000))
    stored, queries = held_out[:-asked], held_out[-asked:]
    truth = nearest(stored, queries)
    rows = []
    for size in sizes:
        for name, train in (("faiss-rq", residual), ("faiss-opq", optimized_product)):
            began = time.time()
            encode, decode = train(training, axes, size, seed)
            trained = time.time() - began
            began = time.time()
            codes = encode(held_out)
            encoded = time.time() - began
            began = time.time()
            decoded = decode(codes)
            seconds = time.time() - began
            error = float(np.mean((held_out.astype(np.float64) - decoded) ** 2))
            found = nearest(decoded[:-asked], queries)
            recall = np.mean([len(set(a) & set(b)) / truth.shape[1] for a, b in zip(found, truth)])
            rows.append({
                "method": name, "nominal_bytes": size, "bytes": float(codes.shape[1]), "mse": error,
                "psnr_db": -10 * math.log10(error), "recall_at_10": float(recall), "train_s": trained,
                "encode_per_s": len(held_out) / encoded, "decode_per_s": len(held_out) / seconds,
            })
    return rows


def ours(arguments, seed):
    with tempfile.TemporaryDirectory() as out:
        command = [arguments.apcm, "report", "--json", "--train", arguments.train, "--heldout", arguments.heldout,
                   "--bytes", arguments.bytes, "--out", out, "--seed", str(seed), "--no-autoencoder"]
        return json.loads(subprocess.check_output(command))["rows"]


def at(curve, size):
    """The peer's PSNR at a size between the sizes it was measured at, or beyond them."""
    curve = sorted(curve)
    pairs = list(zip(curve, curve[1:]))
    (a, x), (b, y) = next((p for p in pairs if size <= p[1][0]), pairs[-1]) if pairs else (curve[0], curve[0])
    return x if a == b else x + (y - x) * (math.log(size) - math.log(a)) / (math.log(b) - math.log(a))


def mean(rows, method, size, field):
    values = [row[field] for row in rows if row["method"] == method and row["nominal_bytes"] == size]
    return sum(values) / len(values) if values and None not in values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--heldout", required=True)
    parser.add_argument("--bytes", default="16,32,64")
    parser.add_argument("--seeds", default="1,2,3")
    target = os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target")
    parser.add_argument("--apcm", default=str(pathlib.Path(target) / "release" / "apcm"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.bytes.split(",")]
    training, held_out = load(arguments.train), load(arguments.heldout)
    rows = []
    for seed in map(int, arguments.seeds.split(",")):
        rows += [{"seed": seed, **row} for row in ours(arguments, seed) + peers(training, held_out, sizes, seed)]
        print(f"seed {seed} done", file=sys.stderr)
    methods = ["apcm", "faiss-rq", "faiss-opq", "pca-allocated", "pca-i8"]
    table = []
    for size in sizes:
        for method in methods:
            fields = ("bytes", "psnr_db", "recall_at_10", "slot_bytes", "file_bytes_per_slot", "encode_per_s", "decode_per_s")
            found = {field: mean([row for row in rows if field in row], method, size, field) for field in fields}
            if found["bytes"] is not None:
                table.append({"method": method, "nominal_bytes": size, **found})
    curve = [(row["bytes"], row["psnr_db"]) for row in table if row["method"] == "faiss-rq"]
    for row in table:
        if row["method"] == "apcm":
            off = abs(row["bytes"] / row["nominal_bytes"] - 1) > 0.02
            row["over_rq_db"] = row["psnr_db"] - at(curve, row["bytes"] if off else row["nominal_bytes"])
    if arguments.json:
        print(json.dumps({"table": table, "rows": rows}, indent=1))
        return
    print(f"{'method':14} {'bytes':>7} {'PSNR dB':>8} {'recall':>7} {'slot':>7} {'file':>7} {'encode/s':>9} {'decode/s':>9}  over RQ")
    for row in table:
        shown = lambda field, digits: "-" if row[field] is None else f"{row[field]:.{digits}f}"
        over = f"{row['over_rq_db']:+.2f} dB" if "over_rq_db" in row else ""
        print(f"{row['method']:14} {row['bytes']:7.2f} {row['psnr_db']:8.2f} {shown('recall_at_10', 3):>7} "
              f"{shown('slot_bytes', 1):>7} {shown('file_bytes_per_slot', 0):>7} {shown('encode_per_s', 0):>9} {shown('decode_per_s', 0):>9}  {over}")


if __name__ == "__main__":
    environment.enter()
    main()
