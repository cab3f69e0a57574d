"""What the commands of the command line do: arguments in, a JSON object and a text for a person out.

torch is imported only by the commands that need it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoinv_core.errors import GeoInvError, OutputError
from geoinv_core.progress import OnProgress, Progress

if TYPE_CHECKING:
    from geoinv_core.head import Head

Result = tuple[dict[str, Any], str]
"""What a command hands back: the JSON object, and the same for a person."""


class WrongCall(Exception):  # noqa: N818 -- carried to the parser, which prints it with the usage
    """The arguments do not make sense together; exit code 2."""


def invert(args: argparse.Namespace, on_progress: OnProgress) -> Result:
    import geoinv_core as gi

    edits = settings(args.set)
    if args.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise GeoInvError(
                "PyTorch finds no CUDA device: use --device cpu; `geoinv doctor` says more.", "device"
            )
    model = gi.open_model(args.model, device=args.device, precision=args.precision)
    folders = head_folders(args.photos, Path(args.output))
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for photo, folder in folders.items():
        try:
            head = model.invert(
                photo,
                refine=args.refine,
                on_progress=on_progress,
                space=args.space,
                tune=args.tune,
                seed=args.seed,
                lpips=[Path(file) for file in args.lpips or ()],
                blind=args.blind,
                detail=not args.no_detail,
            )
            done.append(
                {"photo": str(photo)} | save(head.edit(edits) if edits else head, folder, args, on_progress)
            )
        except GeoInvError as error:
            if len(folders) == 1:
                raise
            failed.append({"photo": str(photo), "error": as_json(error)})
            print(f"{photo}: {error}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {"heads": done}
    if failed:
        message = f"{len(failed)} of {len(folders)} photos could not be made into heads."
        result |= {"failed": failed, "error": {"code": "batch", "message": message}}
    return result, "\n".join(f"{head['photo']} -> {head['folder']}" for head in done)


def edit(args: argparse.Namespace, on_progress: OnProgress) -> Result:
    import geoinv_core as gi

    edits = settings(args.set)
    head = gi.load_head(args.head).edit(edits)
    saved = save(head, Path(args.output), args, on_progress)
    return {"head": saved}, saved["folder"]


def render(args: argparse.Namespace, on_progress: OnProgress) -> Result:
    import geoinv_core as gi

    target = Path(args.output)
    wanted = (".gif",) if args.turntable else (".png", ".jpg", ".jpeg", ".webp")
    if target.suffix.lower() not in wanted:
        what = "a turntable" if args.turntable else "a picture"
        raise WrongCall(f"{target.name}: {what} ends in {' or '.join(wanted)}.")
    head = gi.load_head(args.head)
    if args.turntable:
        frames = []
        for i in range(args.turntable):
            on_progress(Progress("load", i / args.turntable, f"view {i + 1} of {args.turntable}"))
            frames.append(
                head.render(yaw=args.yaw + 360 * i / args.turntable, pitch=args.pitch, size=args.size)
            )
        options = {
            "save_all": True,
            "append_images": frames[1:],
            "duration": max(20, 4000 // len(frames)),
            "loop": 0,
        }
        write_picture(frames[0], target, options)
    else:
        write_picture(head.render(yaw=args.yaw, pitch=args.pitch, size=args.size), target, {})
    return {"file": str(target.resolve()), "size": args.size, "views": args.turntable or 1}, str(target)


def export(args: argparse.Namespace, on_progress: OnProgress) -> Result:
    from geoinv_core.mesh import export as exporter

    files = exporter.export(args.head, args.output, on_progress)
    return {"file": str(files[0].resolve()), "files": [str(file.resolve()) for file in files]}, str(files[0])


def convert(args: argparse.Namespace, on_progress: OnProgress) -> Result:
    from geoinv_core import weights

    done = weights.convert(
        args.file, args.output, args.which, args.half, args.discriminator, on_progress=on_progress
    )
    told = [f"{args.file} -> {', '.join(map(str, done.files))}", f"found: {', '.join(done.found)}"]
    told.append(f"taken: {done.network} ({done.family}, {done.parameters:,} parameters)")
    told.append(f"left out: {', '.join(done.ignored) or 'nothing'}")
    told.append(f"licence of the weights: {done.licence}")
    about: dict[str, Any] = {"file": str(done.path.resolve())}
    about["files"] = [str(file.resolve()) for file in done.files]
    about |= {"family": done.family, "network": done.network, "parameters": done.parameters}
    about |= {"licence": done.licence, "found": list(done.found), "ignored": list(done.ignored)}
    return about, "\n".join(told)


def info(args: argparse.Namespace, on_progress: OnProgress) -> Result:
    found: dict[str, Any]
    if args.path == "default":
        import geoinv_core as gi

        model = gi.open_model("default", device="cpu")
        found = {"kind": "model", "name": model.name, "hash": model.hash, "licence": model.licence}
        found |= {key: value for key, value in model.meta.items() if key not in ("layout", "labels")}
        found["labels"] = {name: list(limits) for name, limits in model.labels.items()}
    elif Path(args.path).is_dir():
        from geoinv_core.mesh import bundle

        found = {"kind": "head", **bundle.read_head(args.path)}
    else:
        from geoinv_core import weights

        found = {"kind": "model", **weights.info(args.path)}
    return found, json.dumps(found, indent=2, ensure_ascii=False)


def doctor(args: argparse.Namespace, on_progress: OnProgress) -> Result:
    from geoinv_core import doctor as checks

    found = checks.examine()
    result: dict[str, Any] = {"checks": [check.as_json() for check in found]}
    broken = [check for check in found if check.state == "fail"]
    if broken:
        told = " ".join(filter(None, (f"{broken[0].name}: {broken[0].value.rstrip('.')}.", broken[0].advice)))
        result["error"] = {"code": "doctor", "message": told}
    return result, "\n".join(check.line() for check in found)


def settings(pairs: Sequence[str] | None) -> dict[str, float]:
    """["smile=.8", "age=70"] to {"smile": .8, "age": 70.0}; raises WrongCall for anything else."""
    found: dict[str, float] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise WrongCall(
                f"--set takes name=value pairs such as smile=.8, not {pair!r}; photos go before --set."
            )
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise WrongCall(f"--set {name}={text}: {text!r} is not a number.")
        if name.strip() in found:
            raise WrongCall(f"--set gives {name.strip()} twice.")
        found[name.strip()] = value
    return found


def head_folders(photos: Sequence[str], output: Path) -> dict[Path, Path]:
    """One photo: the output folder itself. Several: a subfolder each, named after the photo, no two alike."""
    paths = list(dict.fromkeys(map(Path, photos)))
    if len(paths) == 1:
        return {paths[0]: output}
    folders: dict[Path, Path] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 2
        while name.casefold() in taken:
            name, number = f"{path.stem}-{number}", number + 1
        taken.add(name.casefold())
        folders[path] = output / name
    return folders


def save(head: Head, folder: Path, args: argparse.Namespace, on_progress: OnProgress) -> dict[str, Any]:
    for warning in head.warnings:
        print(f"note: {warning}", file=sys.stderr, flush=True)
    written = head.save(
        folder,
        topology=args.topology,
        texture=args.texture,
        on_progress=on_progress,
        shapes=not args.no_shapes,
    )
    return {
        "folder": str(Path(written).resolve()),
        "labels": {name: float(value) for name, value in head.labels.items()},
        "camera": [float(value) for value in head.camera],
        "timings": {name: float(value) for name, value in head.timings.items()},
        "warnings": list(head.warnings),
    }


def write_picture(picture: Any, target: Path, options: dict[str, Any]) -> None:
    """Writes to a temporary name and renames, so that no half picture is left."""
    partial = target.with_name(f".{target.stem}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(partial, **options)
        partial.replace(target)
    except BaseException as error:  # also when it is cancelled
        with suppress(OSError):  # where it could not be written there may be nothing to remove
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise OutputError(
            f"The picture {target} cannot be written ({reason}): choose another place."
        ) from None


def as_json(error: GeoInvError) -> dict[str, str]:
    return {"code": error.code, "message": str(error)}
