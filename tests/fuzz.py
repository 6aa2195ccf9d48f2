"""Guided fuzzing: `python tests/fuzz.py [TARGET ...] [--seconds 60]`, each target in a process of its own.

Bytes are changed so that more of the package is reached (Atheris, libFuzzer). What makes a target raise is written to
`.fuzz/TARGET/`, to become a test; the inputs that reached something new are kept in `.fuzz/TARGET/corpus`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

TARGETS = ["picture", "mask", "weights", "safetensors", "settings", "specification", "coco", "yolo", "yaml", "voc",
           "csv", "request"]  # fmt: skip
MODULES = ["convscope.data", "convscope.runs", "convscope.engines", "convscope.layers.kernels", "convscope.lab",
           "convscope.train.parts", "convscope.models.specs", "tomllib", "yaml", "json", "PIL"]  # fmt: skip


def fuzz(name: str, options: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=MODULES):
        import fuzz_targets
    (Path(options[0]) / "seed").write_bytes(fuzz_targets.seed(name))
    atheris.Setup([sys.argv[0], *options], fuzz_targets.TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if strange := [name for name in wanted.targets if name not in TARGETS]:
        parser.error(f"no such target: {', '.join(strange)}; there are {', '.join(TARGETS)}")
    broken = []
    for name in wanted.targets or TARGETS:
        folder = Path(".fuzz", name)
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        options = [str(folder / "corpus"), f"-max_total_time={wanted.seconds}", f"-artifact_prefix={folder}/",
                   "-max_len=4096", "-timeout=30", "-rss_limit_mb=6000", "-print_final_stats=1"]  # fmt: skip
        if wanted.inside:
            fuzz(name, options)
        done = subprocess.run([sys.executable, __file__, name, "--inside", f"--seconds={wanted.seconds}"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        tried = next((x.split()[-1] for x in done.stderr.splitlines() if "number_of_executed_units" in x), "no")
        print(f"{name}: {tried} inputs" + f"; broke:\n{done.stderr[-3000:]}" * bool(done.returncode), flush=True)
        broken += [name] if done.returncode else []
    return len(broken)


if __name__ == "__main__":
    sys.exit(main())
