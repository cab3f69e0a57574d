"""How an operator starts a job: at once with a window, to the end without one."""

from __future__ import annotations

from typing import Any

import bpy

from .. import redraw
from .. import session as sessions
from ..errors import Trouble
from ..jobs import Request
from ..session import Wish

Result = set[str]


def begin(operator: Any, request: Request, wish: Wish) -> Result:
    """Submit the job. In background mode there is no event loop, so it is run to its end here."""
    session = sessions.session
    try:
        session.submit(request, wish)
    except Trouble as trouble:
        return refuse(operator, trouble)
    return finish(operator) if bpy.app.background else {"FINISHED"}


def finish(operator: Any) -> Result:
    """Run what is in hand to its end and report how it went."""
    session = sessions.session
    try:
        session.run_to_end()
    except KeyboardInterrupt:
        session.cancel()
        session.run_to_end()
        raise
    if session.trouble is not None:
        operator.report({"ERROR"}, str(session.trouble))
        return {"CANCELLED"}
    if session.notice:
        operator.report({"INFO"}, session.notice)
    return {"CANCELLED"} if session.notice.startswith("Cancelled") else {"FINISHED"}


def refuse(operator: Any, trouble: Trouble) -> Result:
    """Show the sentence in the panel and as Blender's own report."""
    sessions.session.fail(trouble)
    redraw.sidebars()
    operator.report({"ERROR"}, str(trouble))
    return {"CANCELLED"}


def poll_idle(cls: Any) -> bool:
    """For `poll`: no job may be in hand, and the grey button says why."""
    if sessions.session.job is not None:
        cls.poll_message_set("A head is being made already; cancel it or wait for it")
        return False
    return True
