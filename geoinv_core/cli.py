"""The command line: `python -m geoinv_core …` or `geoinv …`.

Results go to stdout, progress and logs to stderr. With `--json` stdout carries exactly one JSON object.
Exit codes: 0 done, 1 could not do it (one sentence says why), 2 wrong call, 130 cancelled with Ctrl-C.
torch is imported only by the commands that need it, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

from geoinv_core import commands
from geoinv_core.commands import Result, WrongCall
from geoinv_core.errors import Cancelled, GeoInvError
from geoinv_core.progress import OnProgress, Progress

TRAINERS = (
    "dataset",
    "landmarks",
    "reference",
    "flows",
    "generator",
    "samples",
    "encoder",
    "cascade",
    "brows",
    "detail",
    "directions",
    "calibrate",
    "release",
    "model",
)


def passed_on(argv: list[str]) -> tuple[str, list[str]] | None:
    """The module whose `main(argv) -> int` does this call, and its arguments (trainers parse their own)."""
    if argv[:1] == ["evaluate"]:
        return "geoinv_core.evaluate.program", argv[1:]
    if argv[:1] == ["train"] and argv[1:2] and argv[1] in TRAINERS:
        return f"geoinv_core.train.{argv[1]}", argv[2:]
    return None


@contextmanager
def shown_progress() -> Iterator[OnProgress]:
    """A listener that draws a bar per stage on a terminal, and writes one line per stage into a log."""
    if not sys.stderr.isatty():
        last = ""

        def write_line(progress: Progress) -> None:
            nonlocal last
            if progress.stage != last:
                last = progress.stage
                print(
                    f"{progress.stage}: {progress.message}" if progress.message else progress.stage,
                    file=sys.stderr,
                )

        yield write_line
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        current: tuple[str, Any] = ("", None)

        def draw(progress: Progress) -> None:
            nonlocal current
            if progress.stage != current[0]:
                if current[1] is not None:
                    bars.update(current[1], completed=1.0)
                current = (progress.stage, bars.add_task(progress.stage, total=1.0, message=""))
            bars.update(current[1], completed=progress.fraction, message=progress.message)

        yield draw


@contextmanager
def only_json_on_stdout(active: bool) -> Iterator[None]:
    """Sends all that any library or program prints meanwhile to stderr, at the level of the process."""
    if not active:
        yield
        return
    sys.stdout.flush()
    try:
        keep = os.dup(1)
    except OSError:  # no stdout at all (pythonw): then there is nothing to protect
        with redirect_stdout(sys.stderr):
            yield
        return
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(keep, 1)
        os.close(keep)


class Parser(argparse.ArgumentParser):
    """argparse, whose complaint is a JSON object too when JSON was asked for."""

    json_wanted = False

    def error(self, message: str) -> NoReturn:
        if Parser.json_wanted:
            print(json.dumps({"error": {"code": "usage", "message": message}}), flush=True)
        super().error(message)


def build_parser() -> Parser:
    parser = Parser(prog="geoinv", description="One photo in, an editable 3D head out.", allow_abbrev=False)
    names = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, action: Callable[..., Result] | None, text: str) -> Parser:
        added = names.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        added.set_defaults(action=action)
        return added

    def mesh_options(added: Parser) -> None:
        added.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the head")
        added.add_argument(
            "--topology", choices=("quads", "raw"), default="quads", help="mesh (default: quads)"
        )
        added.add_argument("--no-shapes", action="store_true", help="leave the shape keys out (faster)")
        added.add_argument(
            "--texture", type=whole(64, 8192), default=1024, metavar="PX", help="side of the texture"
        )

    one = command(
        "invert", commands.invert, "Make a head from a photo (or several photos: a subfolder each)."
    )
    one.add_argument("photos", nargs="+", metavar="PHOTO")
    one.add_argument("--model", default="default", help='"default" or a .safetensors file')
    one.add_argument(
        "--refine",
        type=whole(0, 10000),
        default=0,
        metavar="N",
        help="steps of optimisation (default: none, or 200 for a model without an encoder)",
    )
    one.add_argument(
        "--space",
        choices=("w", "w+"),
        default="w+",
        help="optimise one style, or one for each layer (default)",
    )
    one.add_argument(
        "--tune",
        type=whole(0, 10000),
        default=0,
        metavar="N",
        help="then N steps of tuning the generator itself to this photo",
    )
    one.add_argument("--seed", type=whole(0, 2**31 - 1), default=0, help="of the optimisation (default: 0)")
    one.add_argument(
        "--blind", action="store_true", help="optimise from the mean head, not from the encoder's answer"
    )
    one.add_argument(
        "--no-detail", action="store_true", help="only what the code says, without the photo's fine detail"
    )
    one.add_argument(
        "--lpips",
        nargs="+",
        metavar="FILE",
        help="LPIPS weights of your own (VGG16 or AlexNet, and linear ones)",
    )
    one.add_argument(
        "--set", nargs="+", action="extend", metavar="NAME=VALUE", help="edits, such as smile=.8 age=70"
    )
    one.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 …")
    one.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of super-resolution (default: float16 on CUDA, as in EG3D, else float32)",
    )
    mesh_options(one)

    one = command("edit", commands.edit, "Change a head's labels and save the result as another head.")
    one.add_argument("head", metavar="HEAD_DIR")
    one.add_argument("--set", nargs="+", action="extend", required=True, metavar="NAME=VALUE")
    mesh_options(one)

    one = command("render", commands.render, "Draw a head from any side.")
    one.add_argument("head", metavar="HEAD_DIR")
    one.add_argument("--yaw", type=finite, default=0.0, help="degrees; positive: from the subject's left")
    one.add_argument("--pitch", type=finite, default=0.0, help="degrees; positive: from above")
    one.add_argument("--size", type=whole(16, 4096), default=512, help="pixels")
    one.add_argument(
        "--turntable", type=whole(2, 720), metavar="N", help="N views around the head, as a .gif"
    )
    one.add_argument("-o", "--output", required=True, metavar="FILE")

    one = command("export", commands.export, "Write a head as glTF (.glb) or Wavefront (.obj).")
    one.add_argument("head", metavar="HEAD_DIR")
    one.add_argument("-o", "--output", required=True, metavar="FILE")

    one = command(
        "convert", commands.convert, "Convert a published checkpoint; nothing in the file is executed."
    )
    one.add_argument("file", metavar="FILE.pkl")
    one.add_argument("-o", "--output", required=True, metavar="M.safetensors")
    one.add_argument(
        "--which", choices=("G_ema", "G"), default="G_ema", help="the averaged weights, or the others"
    )
    one.add_argument("--half", action="store_true", help="store 16 bits a number, half the size")
    one.add_argument(
        "--discriminator",
        action="store_true",
        help="keep the discriminator, too: its features are a better measure for inversion",
    )

    one = command("info", commands.info, "Describe a model file or a head.")
    one.add_argument("path", metavar="M|HEAD_DIR")

    # main() hands complete calls of these two to their own parsers; here are their names and their mistakes.
    one = command("train", None, "Train a network; `train generator --help` and so on list the options.")
    one.add_argument("what", choices=TRAINERS)
    command("evaluate", None, "Measure a model on held-out heads.")
    command("doctor", commands.doctor, "Check this machine and say what to do about what is missing.")
    return parser


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low} … {high}")
        return value

    parse.__name__ = "whole number"
    return parse


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text} is none of auto, cpu, cuda, cuda:1 …")
    return text


def finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (argparse leaves by itself, with 2, for a wrong call)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    Parser.json_wanted = "--json" in argv
    program = passed_on(argv)
    parser = build_parser()
    try:
        if program is not None:
            return run_program(*program)
        args = parser.parse_args(argv)
        with only_json_on_stdout(args.json), shown_progress() as on_progress:
            result, text = args.action(args, on_progress)
    except WrongCall as error:
        parser.error(str(error))
    except GeoInvError as error:
        return complain(commands.as_json(error))
    except (Cancelled, KeyboardInterrupt):  # whoever was writing has cleaned up
        complain({"code": "cancelled", "message": "Cancelled; nothing half-written was left."})
        return 130
    except Exception as error:  # a bug: programs that read the JSON still get their object
        traceback.print_exc()
        return complain({"code": "internal", "message": f"Internal error, please report it: {error!r}."})
    if args.json:
        print(json.dumps(result, ensure_ascii=False), flush=True)
    else:
        print(text, flush=True)
    if "error" in result and not args.json:
        print(f"geoinv: {result['error']['message']}", file=sys.stderr, flush=True)
    return 1 if "error" in result else 0


def run_program(module: str, arguments: list[str]) -> int:
    """A trainer's or the evaluation's `main(argv)`: it returns an exit code, None, or a dict for `--json`."""
    if find_spec(module) is None:
        raise GeoInvError(
            f"This version has no {module.rpartition('.')[2]} program: update GeoInv to use it."
        )
    with only_json_on_stdout(Parser.json_wanted):
        answer = import_module(module).main([part for part in arguments if part != "--json"])
    found = answer if isinstance(answer, dict) else {"done": module.rpartition(".")[2], "exit": answer or 0}
    if Parser.json_wanted:
        print(json.dumps(found, ensure_ascii=False), flush=True)
    elif isinstance(answer, dict):
        print(json.dumps(found, ensure_ascii=False, indent=2), flush=True)
    return 0 if isinstance(answer, dict) else answer or 0


def complain(error: dict[str, str]) -> int:
    print(f"geoinv: {error['message']}", file=sys.stderr, flush=True)
    if Parser.json_wanted:
        print(json.dumps({"error": error}, ensure_ascii=False), flush=True)
    return 1
