"""Routes of the control plane: who is awake, and who shall be."""

from __future__ import annotations

from gateway.http import power
from gateway.http.routes.route import Route, asks
from schemas import madre

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/madre/power/status",
        "power_status",
        "power",
        power.status,
        "Who is awake.",
        power.PowerStatus,
        control=True,
    ),
    Route(
        "GET",
        "/madre/power/policy/solo_madre/status",
        "policy_status",
        "power",
        power.policy_status,
        "Whether only the three are awake.",
        power.PolicyStatus,
        control=True,
    ),
    asks(
        "POST",
        "/madre/power/policy/solo_madre/apply",
        "policy_apply",
        madre.ApplyPolicy,
        "Put all others to sleep.",
        fixed={"policy": "solo_madre"},
    ),
    *(
        Route(
            "POST",
            path,
            name,
            "power",
            power.post_task,
            "Look after the stores.",
            power.PostTask,
            takes=madre.RunMaintenance,
            fails=("crashed", "storage_full"),
            control=True,
            only_looks=power.only_looks,
        )
        for path, name in (("/madre/power/maintenance/post_task", "post_task"), ("/madre/post_task", "post_task_alias"))
    ),
    asks("POST", "/madre/power/service/{name}/wake", "wake", madre.Wake, "Wake an actor."),
    asks("POST", "/madre/power/service/{name}/sleep", "sleep", madre.Sleep, "Let an actor finish and sleep."),
    asks("POST", "/madre/power/service/{name}/restart", "restart", madre.Restart, "Sleep, then wake."),
    asks("GET", "/madre/power/window", "windows", madre.ListWindows, "Open windows."),
    asks(
        "POST",
        "/madre/power/window/open",
        "window_open",
        madre.OpenWindow,
        "Wake services and keep them awake.",
        shape=power.opened,
        answers=power.WindowBody,
    ),
    asks(
        "POST",
        "/madre/power/window/close",
        "window_close",
        madre.CloseWindow,
        "Let the services of a window sleep.",
        shape=power.closed,
        answers=power.WindowBody,
    ),
    asks("PUT", "/madre/power/gate/{name}", "gate", madre.SetGate, "Say whether an actor may wake."),
)
