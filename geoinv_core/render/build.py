"""Builds the CPU renderer with ninja and the system's C++ compiler: python -m geoinv_core.render.build

Without a compiler nothing breaks: it says so, and rendering runs in PyTorch. Libraries lie in a folder named
after the hash of their sources, so a change of source never meets an old library.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
VARIANTS: dict[str, dict[str, list[str]]] = {
    "plain": {"gnu": [], "msvc": []},
    "avx2": {"gnu": ["-mavx2", "-mfma", "-DGI_AVX2"], "msvc": ["/arch:AVX2", "/DGI_AVX2"]},
    "avx512": {
        "gnu": ["-mavx512f", "-mavx2", "-mfma", "-DGI_AVX2", "-DGI_AVX512"],
        "msvc": ["/arch:AVX512", "/DGI_AVX2", "/DGI_AVX512"],
    },
}
SUFFIX = {"Windows": ".dll", "Darwin": ".dylib"}.get(platform.system(), ".so")


class BuildError(RuntimeError):
    """The library cannot be built here; the text says why, in one line."""


def source_hash() -> str:
    """First 16 hex digits over every native source."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".h", ".cpp"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where built code is kept: GEOINV_CACHE, or the user's cache folder."""
    if given := os.environ.get("GEOINV_CACHE"):
        return Path(given) / "render"
    if platform.system() == "Windows":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif platform.system() == "Darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "geoinv" / "render"


def variants() -> list[str]:
    """The variants that this processor family has."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return ["plain", "avx2", "avx512"] if x86 else ["plain"]


def library_name(variant: str) -> str:
    return f"geoinv_render_{variant}{SUFFIX}"


def library_paths(variant: str) -> list[Path]:
    """Where a library may lie: beside its source (a release ships it there), or in the cache."""
    return [SOURCES / library_name(variant), cache_folder() / source_hash() / library_name(variant)]


def find_compiler() -> tuple[str, str]:
    """Path of a C++17 compiler and its dialect, "gnu" or "msvc". Raises BuildError."""
    given = os.environ.get("CXX")
    names = [given] if given else ["c++", "g++", "clang++", "cl"]
    for name in names:
        if found := shutil.which(name):
            return found, "msvc" if Path(found).stem.lower() in ("cl", "clang-cl") else "gnu"
    raise BuildError(f"no C++ compiler was found (looked for {', '.join(names)})")


def ninja_program() -> str:
    try:
        import ninja
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            raise BuildError("ninja is not installed") from None
        return found
    beside = Path(ninja.BIN_DIR) / ("ninja.exe" if os.name == "nt" else "ninja")
    return str(beside) if beside.exists() else "ninja"


def ninja_file(compiler: str, dialect: str, source: Path) -> str:
    """The text of build.ninja: one library per variant from cpu.cpp."""

    def escape(text: str) -> str:
        return text.replace("$", "$$").replace(":", "$:").replace(" ", "$ ")

    if dialect == "msvc":
        command = f'"{compiler}" /nologo /std:c++17 /O2 /fp:precise /EHsc /LD $extra $in /Fo$out.obj /Fe$out'
    else:
        command = (
            f'"{compiler}" -std=c++17 -O3 -fno-math-errno -ffp-contract=off -fPIC -shared '
            "-fvisibility=hidden -Wall -Wextra $extra $in -o $out"
        )
    lines = ["rule library", f"  command = {command}", "  description = $out"]
    for variant in variants():
        lines += [f"build {library_name(variant)}: library {escape(str(source / 'cpu.cpp'))}"]
        lines += [f"  extra = {' '.join(VARIANTS[variant][dialect])}"]
    return "\n".join(lines) + "\n"


def build(target: Path | None = None) -> list[Path]:
    """Build every variant into the cache (or `target`), unless it is there. Returns the libraries.

    Raises: BuildError, with one line that says why. A half-built library is never left at its final name.
    """
    folder = target or cache_folder() / source_hash()
    wanted = [folder / library_name(v) for v in variants()]
    if all(path.exists() for path in wanted):
        return wanted
    compiler, dialect = find_compiler()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            Path(work, "build.ninja").write_text(ninja_file(compiler, dialect, SOURCES), encoding="utf-8")
            done = subprocess.run([ninja_program(), "-C", work], capture_output=True, text=True, check=False)
            if done.returncode:
                errors = [line for line in done.stdout.splitlines() if "error" in line.lower()]
                raise BuildError(f"{Path(compiler).name} failed: {(errors or ['no message'])[0].strip()}")
            for path in wanted:
                Path(work, path.name).replace(path)
    except OSError as error:
        raise BuildError(f"{folder} cannot be written ({error.strerror or error})") from error
    return wanted


def main() -> int:
    """Exit code 0 also without a compiler: that is a state the program runs in."""
    try:
        paths = build()
    except BuildError as error:
        print(f"The native renderer was not built: {error}. PyTorch will render, ten times slower.")
        return 0 if "compiler" in str(error) else 1
    for path in paths:
        print(f"{path} ({path.stat().st_size // 1024} KB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
