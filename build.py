#!/usr/bin/env python3
"""Sets GeoInv up and runs it. Standard library only, so a plain Python 3.11 is all it takes:

    python build.py demo      one photo all the way to a head in a .blend file, with a sheet of pictures
    python build.py test      ruff, mypy and the tests
    python build.py VERB --help

Every verb first makes what it needs (the environment `.venv` in this folder, packages, the native renderer)
and remembers it in `.venv/geoinv-setup.json`, so that the next call starts at once.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "geoinv-setup.json"
LOG = VENV / "geoinv-setup.log"
PYTHON = (3, 11)
WINDOWS = sys.platform == "win32"

TORCH = "2.13.0"  # the one version this project is tested with
TORCH_INDEX = "https://download.pytorch.org/whl/"
TORCH_CUDA = ((13000, "cu130"), (12080, "cu128"), (12060, "cu126"))  # least driver version -> index
DISK_GB = {"cpu": 4.0, "cuda": 10.0, "spec": 10.0}  # .venv with everything: 2.5 GB CPU; pip unpacks beside it

VERBS = {
    "setup": "make .venv and install everything a user needs (--extras dev for everything a developer needs)",
    "demo": "photo to head to .blend, rendered; writes out/demo/",
    "test": "ruff, mypy, pytest; more arguments go to pytest",
    "lint": "ruff and mypy",
    "native": "build the native renderer library (without a C++ compiler the PyTorch one is used)",
    "package": "write the Blender extension (.zip) and the engine (.whl) to dist/",
    "bench": "NAME [--json]: run tests/bench/NAME.py; without NAME, list them",
    "train": "generator|encoder|landmarks ...: train a network (python -m geoinv_core train ...)",
    "clean": "delete .venv, caches and everything built (--all: the results in out/ too)",
}
EXTRAS = {
    "demo": "demo",
    "test": "dev",
    "lint": "dev",
    "bench": "dev",
    "train": "heads",
    "package": "blender",
}
PASS_ON = {"demo", "test", "bench", "train"}  # further arguments belong to the program they start


class Failure(Exception):  # noqa: N818 -- what main() prints as its one sentence
    """Something went wrong that a person can act on: one clear sentence."""


# ---- talking to the person -----------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Prints the step's name when it starts and its time when it ends."""
    began = time.monotonic()
    say(f"-> {title}")
    yield
    say(f"   done in {time.monotonic() - began:.1f} s")


# ---- the right Python ----------------------------------------------------------------------------


def other_python(which: Callable[[str], str | None] = shutil.which) -> list[str] | None:
    """The command that starts a Python 3.11 which is not the one running, or None."""
    wanted = ".".join(map(str, PYTHON))
    candidates = [[f"python{wanted}"], ["py", f"-{wanted}"]]
    for command in candidates:
        program = which(command[0])
        if program is None:
            continue
        check = [program, *command[1:], "-c", "import sys; print(*sys.version_info[:2])"]
        answer = subprocess.run(check, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.split() == [str(n) for n in PYTHON]:
            return [program, *command[1:]]
    return None


def in_right_python(argv: Sequence[str]) -> int | None:
    """None when this is Python 3.11; else the exit code of the same call under a Python 3.11 that is."""
    if sys.version_info[:2] == PYTHON:
        return None
    mine, wanted = ".".join(map(str, sys.version_info[:3])), ".".join(map(str, PYTHON))
    command = other_python()
    if command is None:
        raise Failure(
            f"GeoInv needs Python {wanted} (Blender 4.5's own version) but this is Python {mine}: install "
            f"Python {wanted} from python.org or your system's packages, then run the same command with it."
        )
    say(f"This is Python {mine}; going on with {' '.join(command)}.")
    return subprocess.run([*command, str(ROOT / "build.py"), *argv], check=False).returncode


# ---- which torch ---------------------------------------------------------------------------------


class Torch(NamedTuple):
    """Which PyTorch to install: its kind, why, and pip's arguments to try, best first."""

    kind: str
    reason: str
    attempts: tuple[tuple[str, ...], ...]


def nvidia_driver() -> int | None:
    """The CUDA version that the NVIDIA driver speaks (13000 is 13.0); None without driver or device."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if WINDOWS else "libcuda.so.1")
        version, count = ctypes.c_int(), ctypes.c_int()
        ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        if ready and count.value > 0 and driver.cuDriverGetVersion(ctypes.byref(version)) == 0:
            return int(version.value)
    except (OSError, AttributeError):
        return None
    return None


def choose_torch(option: str, driver: int | None, platform: str = sys.platform) -> Torch:
    """Plan for `option` ("auto", "cpu", "cuda", or what pip understands) on a machine with this driver."""
    plain, quick = (f"torch=={TORCH}",), ("--retries", "1", "--timeout", "15")
    if option not in ("auto", "cpu", "cuda"):
        spec = f"torch=={option}" if option[:1].isdigit() else option
        return Torch("spec", f"asked for: {option}", ((spec,),))
    if platform == "darwin":
        return Torch("cpu", "macOS has one build", (plain,))
    if option == "cpu" or (option == "auto" and driver is None):
        reason = "asked for" if option == "cpu" else "no NVIDIA driver found; --torch cuda overrides"
        cpu = f"torch=={TORCH}+cpu"
        from_index = (cpu, "--index-url", TORCH_INDEX + "cpu", *quick)
        return Torch("cpu", reason, ((cpu,), from_index, plain))
    reason = "asked for" if option == "cuda" else "NVIDIA driver found; --torch cpu overrides"
    speaks = driver or TORCH_CUDA[0][0]
    tags = [tag for least, tag in TORCH_CUDA if speaks >= least]
    lists = [(f"torch=={TORCH}", "--index-url", TORCH_INDEX + tag, *quick) for tag in tags]
    # On Linux the package index's build is for the newest CUDA; `===` keeps pip from taking a "+cpu" file.
    exact = (f"torch==={TORCH}",)
    newest_on_linux = platform == "linux" and speaks >= TORCH_CUDA[0][0]
    return Torch("cuda", reason, (exact, *lists, plain) if newest_on_linux else (*lists, exact, plain))


# ---- the environment -----------------------------------------------------------------------------


def venv_python() -> Path:
    return VENV / "Scripts" / "python.exe" if WINDOWS else VENV / "bin" / "python"


def project() -> dict[str, Any]:
    import tomllib  # only in 3.11 and later, and this file must say its sentence under older ones

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def closure(extras: Sequence[str], table: dict[str, list[str]]) -> set[str]:
    """The extras and those that they bring along (dev = ["geoinv[demo,heads]", ...])."""
    found: set[str] = set()
    queue = list(extras)
    while queue:
        extra = queue.pop()
        if extra not in table:
            raise Failure(f"There is no extra named {extra!r}: choose among {', '.join(sorted(table))}.")
        if extra not in found:
            found.add(extra)
            for requirement in table[extra]:
                inner = re.match(r"geoinv\[([^]]+)]", requirement)
                queue += [name.strip() for name in inner.group(1).split(",")] if inner else []
    return found


def setup_key(about: dict[str, Any]) -> str:
    """Changes when what decides the installation changes: requirements, torch, Python, the folder."""
    parts = [about["project"], about["build-system"], about["tool"]["setuptools"], TORCH, PYTHON, str(ROOT)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read_stamp() -> dict[str, Any]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and venv_python().exists() else {}


def write_stamp(stamp: dict[str, Any]) -> None:
    STAMP.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")


@contextmanager
def alone() -> Iterator[None]:
    """Only one set-up at a time in this folder; a second one waits. The lock ends with the process."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "setup.lock").open("w") as lock:
        if WINDOWS:
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("Another set-up is running in this folder; waiting for it.")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_venv() -> None:
    version = VENV / "pyvenv.cfg"
    made_by = version.read_text(encoding="utf-8") if version.exists() else ""
    if re.search(r"^version\S* *= *3\.11\.", made_by, re.M) and runs(
        [str(venv_python()), "-m", "pip", "--version"]
    ):
        return
    if Path(sys.prefix).resolve() == VENV:
        raise Failure(
            "The environment .venv is damaged: run build.py with the system's Python to rebuild it."
        )
    with step("making .venv"):
        shutil.rmtree(VENV, ignore_errors=True)
        made = captured([sys.executable, "-m", "venv", str(VENV)])
        if made.returncode:
            hint = " (Debian, Ubuntu: apt install python3.11-venv)" if "ensurepip" in made.stdout else ""
            raise Failure(f"The environment .venv could not be made{hint}: {last_line(made)}")


def captured(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a program in the checkout and keeps what it prints."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)


def last_line(job: subprocess.CompletedProcess[str]) -> str:
    return ((job.stdout + job.stderr).strip().splitlines() or ["no message"])[-1].strip()


def runs(command: Sequence[str]) -> bool:
    try:
        return captured(command).returncode == 0
    except OSError:
        return False


NETWORK = re.compile(
    r"NewConnectionError|NameResolution|Max retries|Temporary failure in name|Connect\w*Timeout|ProxyError"
    r"|SSLError"
)


def why_pip_failed(output: str) -> str:
    """pip's pages of output as one sentence: what happened and what to do."""
    if "No space left" in output:
        return "The disk is full: free some gigabytes, then run the same command again."
    if NETWORK.search(output):
        return (
            "The package index could not be reached: connect to the internet (or set PIP_INDEX_URL or "
            "PIP_FIND_LINKS to a mirror), then run the same command again."
        )
    errors = re.findall(r"^ERROR: (.+)$", output, re.M) or output.splitlines()[-1:] or ["no message"]
    return f"pip could not install the packages ({errors[-1].strip()}): the whole log is in {LOG}."


downloaded_mb = 0.0


def pip(arguments: Sequence[str]) -> str | None:
    """Runs pip install; shows which package is in hand. None when it worked, else what it printed."""
    quiet = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    command = [str(venv_python()), "-m", "pip", "install", *quiet, *arguments]
    pipe = subprocess.PIPE
    job = subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    lines: list[str] = []
    assert job.stdout is not None
    reader = threading.Thread(target=lambda out: lines.extend(out), args=(job.stdout,), daemon=True)
    reader.start()
    live, began, told = sys.stdout.isatty(), time.monotonic(), 0.0
    try:
        while reader.is_alive():
            reader.join(0.2)
            waited = time.monotonic() - began
            if live or waited - told > 20:
                told = waited
                text = f"   {waited:4.0f} s  {lines[-1].strip()[:80] if lines else ''}"
                print(f"\r{text:<96}" if live else text, end="" if live else "\n", flush=True)
    except BaseException:
        job.terminate()
        raise
    finally:
        if live:
            print(f"\r{'':<96}\r", end="", flush=True)
        with LOG.open("a", encoding="utf-8") as log:
            log.write(f"$ pip install {' '.join(arguments)}\n{''.join(lines)}\n")
    global downloaded_mb
    for size, unit in re.findall(r"^\s*Downloading .*\(([\d.]+) ([kMG]?B)\)", "".join(lines), re.M):
        downloaded_mb += float(size) * {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]
    return None if job.wait() == 0 else "".join(lines)


def install_torch(plan: Torch) -> str:
    """Tries the plan's sources in turn. Returns the installed version, for example "2.13.0+cpu"."""
    output = ""
    for number, arguments in enumerate(plan.attempts):
        if number:
            say(f"   not to be had there; trying {' '.join(arguments[:3])}")
        failed = pip(arguments)
        if failed is None:
            break
        output += failed
    else:
        raise Failure(why_pip_failed(output))
    check = "import torch; print(torch.__version__, torch.version.cuda or 'none')"
    answer = captured([str(venv_python()), "-W", "ignore", "-c", check])
    if answer.returncode:
        raise Failure(
            f"This PyTorch does not start ({last_line(answer)}): try --torch cpu or --torch VERSION."
        )
    version, cuda = answer.stdout.split()
    if plan.kind == "cuda" and cuda == "none":
        say("   note: only a CPU build of PyTorch was to be had; heads are made on the processor.")
    return version


def ensure(extras: Sequence[str], torch: str | None, decide_again: bool = False) -> None:
    """Makes .venv hold the project, the extras and the chosen torch. Does nothing when the stamp says so.

    `torch` is what was asked for on the command line or by GEOINV_TORCH, or None to keep what is there.
    """
    about = project()
    wanted, key = closure(extras, about["project"]["optional-dependencies"]), setup_key(about)
    if is_ready(read_stamp(), key, wanted, torch, decide_again):
        return
    with alone():
        stamp = read_stamp()  # again: the set-up that held the lock may have done it
        if not is_ready(stamp, key, wanted, torch, decide_again):
            install(
                key,
                sorted(wanted | set(stamp.get("extras", []))),
                torch or stamp.get("torch_option") or "auto",
            )


def is_ready(
    stamp: dict[str, Any], key: str, wanted: set[str], torch: str | None, decide_again: bool
) -> bool:
    """Whether the environment with this stamp will do; `decide_again` doubts an automatic choice of torch."""
    before = stamp.get("torch_option")
    same_torch = torch in (None, before) and not (decide_again and before == "auto")
    return stamp.get("key") == key and wanted <= set(stamp.get("extras", [])) and same_torch


def install(key: str, extras: list[str], option: str) -> None:
    """Everything into .venv; the stamp is written last, so that an interrupted set-up is done again."""
    began = time.monotonic()
    plan = choose_torch(option, nvidia_driver() if option in ("auto", "cuda") else None)
    free, needed = shutil.disk_usage(ROOT).free / 1e9, DISK_GB[plan.kind]
    if not STAMP.exists() and free < needed:
        raise Failure(
            f"The disk has {free:.1f} GB free and the set-up needs {needed:.0f} GB: free some space."
        )
    make_venv()
    STAMP.unlink(missing_ok=True)
    LOG.write_text("", encoding="utf-8")
    with step(f"PyTorch, {plan.kind} build ({plan.reason})"):
        version = install_torch(plan)
    with step(f"GeoInv and its packages ({', '.join(extras) or 'no extras'})"):
        pin = VENV / "geoinv-torch.txt"
        pin.write_text(f"torch=={version}\n", encoding="utf-8")
        target = f".[{','.join(extras)}]" if extras else "."
        failed = pip(["--constraint", str(pin), "--editable", target, "--retries", "3"])
        if failed is not None:
            raise Failure(why_pip_failed(failed))
    write_stamp({"key": key, "extras": extras, "torch_option": option, "torch": version})
    took = time.monotonic() - began
    say(f"Set-up done in {took:.0f} s, {downloaded_mb:.0f} MB downloaded, PyTorch {version}.")


def ensure_native() -> None:
    """Builds the renderer library once per state of its sources. Without it rendering goes on in PyTorch."""
    render = ROOT / "geoinv_core" / "render"
    state = hashlib.sha256()
    for path in (*render.glob("build.py"), *sorted((render / "native").glob("*.*"))):
        if path.suffix in (".h", ".cpp", ".cu", ".py"):
            state.update(path.name.encode() + path.read_bytes())
    stamp = read_stamp()
    if stamp.get("native") == state.hexdigest():
        return
    with step("native renderer"):
        failed = build_native()
    if failed:
        say("   note: going on without it; `python build.py native` tries again.")
    else:
        write_stamp({**stamp, "native": state.hexdigest()})


def build_native() -> int:
    # Not with -m: the package imports this module too, and Python then warns of running it twice.
    return run(
        [str(venv_python()), "-c", "from geoinv_core.render.build import main; raise SystemExit(main())"]
    )


def run_module(module: str, *arguments: str) -> int:
    return run([str(venv_python()), "-m", module, *arguments])


def run(command: Sequence[str]) -> int:
    """Runs a program in the checkout with the person's terminal. Returns its exit code."""
    sys.stdout.flush()
    job = subprocess.Popen(command, cwd=ROOT)
    while True:
        try:
            return job.wait()
        except KeyboardInterrupt:  # Ctrl-C reaches the program too: let it clean up and say so itself
            continue


# ---- verbs ---------------------------------------------------------------------------------------


def lint() -> int:
    ruff, types = run_module("ruff", "check", "."), run_module("mypy")
    return ruff or types


def test(rest: list[str]) -> int:
    linted = lint()
    tested = run_module("pytest", *rest)
    if linted:
        print(
            "build.py: ruff or mypy found something; see above pytest's output.", file=sys.stderr, flush=True
        )
    return tested or linted


def bench(rest: list[str]) -> int:
    folder = ROOT / "tests" / "bench"
    names = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    if not rest or rest[0].startswith("-"):
        say("Benchmarks: " + (", ".join(names) or "none yet"))
        return 0
    if rest[0] not in names:
        raise Failure(
            f"There is no benchmark named {rest[0]!r}; there are: {', '.join(names) or 'none yet'}."
        )
    return run([str(venv_python()), str(folder / f"{rest[0]}.py"), *rest[1:]])


def package() -> int:
    import tomllib

    source, dist = ROOT / "blender_addon", ROOT / "dist"
    manifest = tomllib.loads((source / "blender_manifest.toml").read_text(encoding="utf-8"))
    dist.mkdir(exist_ok=True)
    with step("Blender extension"):
        target = dist / f"{manifest['id']}-{manifest['version']}.zip"
        write_zip(source, target)
        tool = next(VENV.glob("**/bl_pkg/cli/blender_ext.py"), None)
        if tool is None:
            say("   not validated: bpy is not installed in .venv")
        elif run([str(venv_python()), str(tool), "validate", str(target)]):
            raise Failure(f"Blender's own validator refuses {target.name}; its reason is above.")
    with step("engine wheel"):
        shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # else it packs files deleted since
        options = ["--quiet", "--no-deps", "--wheel-dir", str(dist)]
        made = captured([str(venv_python()), "-m", "pip", "wheel", *options, "."])
        if made.returncode:
            raise Failure(f"The wheel could not be made: {last_line(made)}")
    for path in sorted(dist.iterdir()):
        say(f"   {path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.2f} MB")
    return 0


def write_zip(source: Path, target: Path) -> None:
    """The extension's files with a fixed date, so that the same files give the same bytes."""
    partial = target.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                entry = zipfile.ZipInfo(path.relative_to(source).as_posix(), (2020, 1, 1, 0, 0, 0))
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, path.read_bytes())
        if "LICENSE" not in archive.namelist():
            entry = zipfile.ZipInfo("LICENSE", (2020, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, (ROOT / "LICENSE").read_bytes())
    partial.replace(target)


def clean(everything: bool) -> int:
    if Path(sys.prefix).resolve() == VENV:
        raise Failure("build.py clean deletes .venv, so it cannot run from it: use the system's Python.")
    native = ROOT / "geoinv_core" / "render" / "native"
    goners = [VENV, ROOT / "build", ROOT / "dist"]
    goners += [ROOT / f".{name}_cache" for name in ("mypy", "ruff", "pytest")]
    goners += [*ROOT.glob("*.egg-info"), *(p for s in ("so", "dll", "dylib") for p in native.glob(f"*.{s}"))]
    for top in ("blender_addon", "geoinv_core", "server", "tests"):
        goners += (ROOT / top).rglob("__pycache__")
    goners += [ROOT / "out"] if everything else []
    for path in goners:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    say("Clean.")
    return 0


# ---- main ----------------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> tuple[str, str | None, list[str]]:
    """Verb, torch option (or None), further arguments."""
    listing = "\n".join(f"  {verb:8} {text}" for verb, text in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="build.py",
        usage="python build.py VERB [--torch cpu|cuda|SPEC] [more]",
        description="Sets GeoInv up and runs it.",
        epilog=f"verbs:\n{listing}\n\nTORCH (or GEOINV_TORCH): cpu, cuda, a version, or a pip requirement.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("--torch", metavar="TORCH", default=os.environ.get("GEOINV_TORCH") or None)
    mine = argv[:1] if argv and argv[0] in PASS_ON | {"setup"} else argv
    if not argv or {"-h", "--help"} & set(mine):
        parser.print_help()
        raise SystemExit(0 if argv else 2)
    known, rest = parser.parse_known_args(argv)
    verb = rest[0] if rest else ""
    if verb not in VERBS:
        parser.error(f"unknown verb {verb!r}: choose among {', '.join(VERBS)}")
    return verb, known.torch, rest[1:]


def do(verb: str, torch: str | None, rest: list[str]) -> int:
    if verb == "clean":
        return clean(everything=rest == ["--all"])
    if verb == "setup":
        parser = argparse.ArgumentParser(prog="build.py setup")
        parser.add_argument(
            "--extras", default="demo", help="blender, demo, dev, heads (comma between), or none"
        )
        extras = parser.parse_args(rest).extras
        ensure([] if extras == "none" else extras.split(","), torch, decide_again=True)
        ensure_native()
        say(f"Ready: {read_stamp()['torch']} in .venv. Next: python build.py demo")
        return 0
    if rest and verb not in PASS_ON:
        raise Failure(f"build.py {verb} takes no further arguments, but got: {' '.join(rest)}.")
    ensure([EXTRAS[verb]] if verb in EXTRAS else [], torch)
    if verb != "lint":
        ensure_native()
    actions: dict[str, Callable[[], int]] = {
        "demo": lambda: run_module("tests.demo", *rest),
        "test": lambda: test(rest),
        "lint": lint,
        "native": build_native,
        "package": package,
        "bench": lambda: bench(rest),
        "train": lambda: run_module("geoinv_core", "train", *rest),
    }
    return actions[verb]()


def main(argv: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        verb, torch, rest = parse(argv)
        elsewhere = in_right_python(argv)
        return do(verb, torch, rest) if elsewhere is None else elsewhere
    except Failure as failure:
        print(f"build.py: {failure}", file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        print(f"build.py: A file could not be used ({error}): check space and rights here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build.py: stopped; run the same command again to go on.", file=sys.stderr, flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
