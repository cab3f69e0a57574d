"""Runs inside a windowed Blender: `blender --enable-event-simulate --python inside.py -- CONFIG.json`.

CONFIG has "zip" (the built extension), "data" (with an engine's address), "photo" and "out". The steps are a
generator that a timer drives, so Blender's window, event loop and undo stack are the real ones. What was seen
goes to "out" as JSON, with a traceback under "error" when a step failed.
"""

import json
import sys
import time
import traceback
from pathlib import Path

import bpy

CONFIG = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text())
PATIENCE = 90.0
seen = {"version": list(bpy.app.version)}


def view3d():
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    return window, area, next(region for region in area.regions if region.type == "WINDOW")


def press(key, **modifiers):
    """A key over the viewport, as from the keyboard."""
    window, area, _ = view3d()
    x, y = area.x + area.width // 3, area.y + area.height // 2
    window.event_simulate("MOUSEMOVE", "NOTHING", x=x, y=y)
    window.event_simulate(key, "PRESS", x=x, y=y, **modifiers)
    window.event_simulate(key, "RELEASE", x=x, y=y, **modifiers)


def heads():
    return sorted(thing.name for thing in bpy.data.objects if "geoinv_head" in thing)


def state():
    return bpy.context.window_manager.geoinv


def wait(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}; problem: {state().problem!r}")
        yield


def steps():
    bpy.ops.extensions.package_install_files(
        filepath=CONFIG["zip"], repo="user_default", enable_on_install=True
    )
    addons = bpy.context.preferences.addons
    module = next(addon.module for addon in addons if addon.module.endswith(".geoinv"))
    addons[module].preferences.data = CONFIG["data"]
    window, area, region = view3d()
    area.spaces.active.show_region_ui = True
    yield
    side = next(region for region in area.regions if region.type == "UI")
    for _ in range(100):  # the tabs are known once the sidebar has been drawn
        yield
        try:
            side.active_panel_category = "GeoInv"
            break
        except (AttributeError, TypeError):
            side.tag_redraw()
    seen["tab"] = side.active_panel_category
    seen["dropped"] = [
        kind.bl_import_operator
        for kind in bpy.types.FileHandler.__subclasses__()
        if "GEOINV" in kind.__name__
    ]

    settings = bpy.context.scene.geoinv
    settings.photo, settings.topology = CONFIG["photo"], "quads"
    settings.by_hand, settings.face_box = True, (8, 8, 56, 56)
    bpy.ops.ed.undo_push(message="Settings")
    with bpy.context.temp_override(window=window, area=area, region=region):
        seen["started"] = sorted(bpy.ops.geoinv.create_head("INVOKE_DEFAULT"))
    seen["returned at once"] = state().running
    yield from wait(lambda: not state().running, "the head")
    seen["problem"] = state().problem
    (first,) = heads()
    thing = bpy.data.objects[first]

    thing.geoinv.jaw_open = 1.0
    bpy.ops.ed.undo_push(message="Slider")
    with bpy.context.temp_override(window=window, area=area, region=region):
        bpy.ops.geoinv.add_variant("INVOKE_DEFAULT")
    yield from wait(lambda: not state().running, "the variant")
    seen["after variant"] = len(heads())

    # Held meanwhile, as a user's Ctrl+Z would: references to objects do not survive it.
    press("Z", ctrl=True)
    yield from wait(lambda: len(heads()) == 1, "undo of the variant")
    press("Z", ctrl=True)
    yield from wait(lambda: bpy.data.objects[first].geoinv.jaw_open < 0.5, "undo of the slider")
    press("Z", ctrl=True)
    yield from wait(lambda: not heads(), "undo of the head")
    for count in (1, 1, 2):
        press("Z", ctrl=True, shift=True)
        for _ in range(5):
            yield
        yield from wait(lambda count=count: len(heads()) == count, "redo")
    seen["after redo"] = heads()

    # A job whose source is undone away and brought back while it runs finds it again.
    bpy.context.view_layer.objects.active = bpy.data.objects[first]
    with bpy.context.temp_override(window=window, area=area, region=region):
        bpy.ops.geoinv.add_shape_key("INVOKE_DEFAULT", labels='{"jawOpen": 0.5}')
    press("Z", ctrl=True)
    for _ in range(5):
        yield
    yield from wait(lambda: not state().running, "the shape key")
    seen["keys"] = [key.name for key in bpy.data.objects[first].data.shape_keys.key_blocks]

    # File > New during a job: nothing comes into the new file by itself.
    bpy.context.view_layer.objects.active = bpy.data.objects[first]
    with bpy.context.temp_override(window=window, area=area, region=region):
        bpy.ops.geoinv.add_variant("INVOKE_DEFAULT", labels='{"smile": 0.5}')
    bpy.ops.wm.read_homefile(use_empty=False, load_ui=False)
    yield from wait(lambda: not state().running, "the head of the other file")
    seen["in the new file"] = heads()
    seen["notice"] = state().notice


def finish(error=""):
    seen["error"] = error
    part = Path(CONFIG["out"] + ".part")
    part.write_text(json.dumps(seen))
    part.rename(CONFIG["out"])
    bpy.ops.wm.quit_blender()


running = steps()


def step():
    try:
        next(running)
    except StopIteration:
        finish()
        return None
    except BaseException:
        finish(traceback.format_exc())
        return None
    return 0.1


bpy.context.preferences.view.show_splash = False
bpy.app.timers.register(step, first_interval=1.0, persistent=True)
