"""Reads what an autoscaler reported to its task with the SDK, as users' programs do.

The task's id is the only argument. Prints its console; ends with an error if something is missing.
"""
import json
import sys

from clearml import Task


def main():
    task = Task.get_task(task_id=sys.argv[1])
    console = "\n".join(task.get_reported_console_output(number_of_reports=1000))
    print(console)
    for part in ("launched 1 on-demand m5.xlarge", "works on task", "told to drain: idle for", "terminated i-"):
        assert console.count(part) == 1, (part, console.count(part))

    scalars = task.get_reported_scalars()
    for diagram in ("instances", "instances of resource machine-0", "instances of type m5.xlarge"):
        assert max(scalars[diagram]["busy"]["y"]) == 1, (diagram, scalars[diagram])
        assert scalars[diagram]["busy"]["y"][-1] == 0, (diagram, scalars[diagram])
    assert max(scalars["waiting tasks"]["work"]["y"]) == 1, scalars["waiting tasks"]
    [waited] = scalars["wait until start (s)"]["work, mean"]["y"]
    assert waited > 0, waited
    assert scalars["launches"]["instances launched"]["y"][-1] == 1, scalars["launches"]
    assert scalars["spend ($ an hour)"]["all instances"]["y"][-1] == 0, scalars["spend ($ an hour)"]
    assert scalars["spend in total ($)"]["all instances"]["y"][-1] > 0, scalars["spend in total ($)"]

    plots = {plot["metric"]: json.loads(plot["plot_str"]) for plot in task.get_reported_plots()}
    assert set(plots) == {
        "Fleet",
        "Queues and their resources",
        "Uptime by resource",
        "Timeline of instances",
    }, plots.keys()
    assert plots["Queues and their resources"]["data"][0]["cells"]["values"][0] == ["work"], plots
    bars = {trace["name"]: len(trace["x"]) for trace in plots["Timeline of instances"]["data"]}
    assert all(bars[phase] for phase in ("booting", "busy", "idle")), bars

    properties = task.get_user_properties()
    assert properties["shutdown_action"]["value"] == "none", properties
    assert properties["log_level"]["description"], properties
    assert task.status == "stopped", task.status


if __name__ == "__main__":
    main()
