"""Coverage-guided fuzzing of the checkpoint reader (Linux; pip install .[fuzz]):

    python tests/fuzz/reader.py --seconds 600

Every input goes the whole way of a conversion but for writing: open, walk, read tensors, describe. What
counts as found: any exception but a refusal, an input that hangs or takes over 2 s of processor time, memory
beyond 500 MB above the start, and whatever Python's audit hooks know as code being run (import, exec, open,
processes, sockets). Exit code 0 after the time is up, else libFuzzer's, with the input in a file crash-…,
timeout-… or oom-…
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import atheris
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(
    include=["geoinv_core.weights.pickle_machine", "geoinv_core.weights.pickle_reader",
             "geoinv_core.weights.pickle_values", "geoinv_core.weights.describe"]
):  # fmt: skip
    # within the block only so that all imports of the project stand together
    from geoinv_core.errors import ModelError
    from geoinv_core.generator import EG3D_AXES, GeneratorConfig, TriplaneGenerator, channel_table
    from geoinv_core.weights import pickle_reader, pickle_values
    from geoinv_core.weights.describe import UnsupportedError, describe
    from tests.core import pickling, test_pickle_hostile

RUNS_CODE = (
    "import", "exec", "compile", "open", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.remove",
    "os.rename", "os.mkdir", "os.startfile", "subprocess.Popen", "socket.connect", "socket.bind",
    "ctypes.dlopen", "marshal.loads", "pickle.find_class", "code.__new__", "shutil.rmtree", "webbrowser.open",
    "urllib.Request",
)  # fmt: skip
MEMORY = 500
"""MB above what the process has at the start."""
SECONDS, HANGS = 2.0, 60
"""Processor time for one input; time on the clock, which a busy machine stretches, after which it hangs."""
_watched: list[str] = []
_watching = False
_mine = ""


class TookLong(BaseException):
    """The reader was kept busy by a small file."""


class RanCode(BaseException):
    """The reader did something that only running code does."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in RUNS_CODE and not (event == "open" and arguments[0] == _mine):
        _watched.append(f"{event}{arguments!r}"[:300])


def consume(path: Path) -> int:
    """One input, all the way; how many of its networks could be described."""
    described = 0
    try:
        with pickle_reader.open_checkpoint(path) as content:
            for key in [k for k, v in content.items() if isinstance(v, pickle_values.Bag)]:
                found = pickle_reader.network(content, str(key), path)
                for tensor in list(found.tensors.values())[:20]:
                    tensor.read()
                try:
                    describe(found, "fuzz")
                except (UnsupportedError, ValueError):  # what convert() turns into a sentence
                    continue
                described += 1
    except ModelError:
        pass  # refused, as it should be
    return described


def seeds() -> dict[str, bytes]:
    """Small valid checkpoints in every spelling, and the hostile pickles of the tests."""
    torch.manual_seed(3)
    config = GeneratorConfig(
        name="m", z_dim=2, w_dim=2, mapping_hidden=2, embed_dim=2, channels=channel_table(4, 8, 2),
        axes=EG3D_AXES, plane_channels=1, features=3, decoder_hidden=2, superresolution="2X",
        image_resolution=128, sr_conv_clamp=256.0, noise=False,
    )  # fmt: skip
    generator = TriplaneGenerator(config)
    del generator.superresolution  # most of its weight, none of the form
    generator.superresolution = torch.nn.Module()
    generator.superresolution.register_buffer("resample_filter", torch.ones(1))
    made = {
        "new": pickling.dump(pickling.checkpoint(generator)),
        "old": pickling.dump(
            pickling.checkpoint(
                generator, pickling.Spelling(True, "numpy.core.multiarray", "_rebuild_tensor", False, 2)
            ),
            2,
        ),
        "five": pickling.dump(pickling.checkpoint(generator, pickling.Spelling(protocol=5), True), 5),
        "panohead": pickling.dump(pickling.checkpoint(generator, triplane_depth=1)),
    }
    cases = {
        f"hostile-{number}": make(pickling, "canary")
        for number, (make, _) in enumerate(test_pickle_hostile.CASES.values())
    }
    return {name: data for name, data in (made | cases).items() if len(data) < 60_000}


def words() -> str:
    """libFuzzer's dictionary: names and keys that a checkpoint has, and opcodes in pairs."""
    names = {part for key in pickle_values.REDUCERS for part in key}
    names |= {part for key in pickle_values.INERT_CLASSES for part in key}
    names |= set(pickle_values.STORAGE_TYPES) | {"_load_from_bytes", "torch.storage", "torch"}
    names |= {"_parameters", "_buffers", "_modules", "G_ema", "state", "class_name", "type", "class"}
    names |= {"rendering_kwargs", "plane_axes", "clamp_mode", "superresolution", "architecture", "bias_gain"}
    codes = [
        "\\x93",
        "\\x81",
        "\\x85R",
        "\\x86R",
        "\\x87R",
        "tR",
        "}(",
        "su",
        "q\\x00",
        "h\\x00",
        "\\x94",
        ")\\x81}b",
    ]
    lines = [f'"{name}"' for name in sorted(names)] + [f'"{code}"' for code in codes]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="folder to keep inputs in (default: a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(
        tempfile.mkdtemp(prefix="geoinv-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    corpus = options.corpus or work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (corpus / name).write_bytes(data)
        (work / "input").write_bytes(data)
        # Whatever loads lazily loads now, before anything is watched.
        if not consume(work / "input") and not name.startswith("hostile"):
            parser.error(f"the valid checkpoint {name!r} is refused, so the fuzzing would not get far")
    (work / "words").write_text(words())
    global _mine
    source = work / "input"
    _mine = str(source)
    sys.addaudithook(_audit)
    global _watching
    _watching = True
    exec("pass")  # does the watch see it?
    _watching = False
    assert _watched, "the audit hook is blind"

    def one(data: bytes) -> None:
        global _watching
        source.write_bytes(data)
        _watched.clear()
        _watching = True
        start = time.process_time()
        try:
            consume(source)
        finally:
            _watching = False
        if (took := time.process_time() - start) > SECONDS:
            raise TookLong(f"{took:.1f} s")
        if _watched:
            raise RanCode("; ".join(_watched))

    status = Path("/proc/self/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-dict={work / 'words'}", f"-max_total_time={options.seconds}",
         f"-seed={options.seed}", f"-timeout={HANGS}", f"-rss_limit_mb={resident + MEMORY}",
         f"-malloc_limit_mb={MEMORY}", "-max_len=65536", "-print_final_stats=1"],
        one,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
