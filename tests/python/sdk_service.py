"""Does with ClearML's SDK what a user does with the autoscaler's template, and reads back what became of it.

sdk_service.py enqueue NAME=VALUE...   clones the template, sets parameters, enqueues it; prints the clone's id
sdk_service.py abort ID                aborts a task, as the web page does
sdk_service.py read ID                 prints what a user sees of a task, as JSON
"""
import json
import sys

from clearml import Task


def enqueue(values):
    template = Task.get_task(project_name="DevOps Services", task_name="AWS Auto-Scaler")
    assert template.status == "created", template.status
    assert str(template.task_type) == "service", template.task_type
    parameters = template.data.hyperparams["General"]
    described = [name for name, item in parameters.items() if not (item.type and item.description)]
    assert not described, described
    clone = Task.clone(source_task=template, name="my autoscaler")
    clone.update_parameters({"General/" + name: value for name, value in values.items()})
    kept = Task.get_task(task_id=clone.id).get_parameters()
    assert kept["General/workers_prefix"] == "stage", kept
    assert set(template.artifacts) == set(clone.artifacts), clone.artifacts
    Task.enqueue(clone, queue_name="services")
    print(clone.id)


def abort(task_id):
    Task.get_task(task_id=task_id).mark_stop_request(status_message="enough")


def read(task_id):
    task = Task.get_task(task_id=task_id)
    seen = {
        "status": task.status,
        "status_reason": task.data.status_reason,
        "console": "".join(task.get_reported_console_output(number_of_reports=1000)),
        "parameters": task.get_parameters(),
        "general": task.get_configuration_object_as_dict("General"),
        "page": task.get_output_log_web_page(),
        "scalars": sorted(task.get_reported_scalars()),
        "plots": sorted({plot["metric"] for plot in task.get_reported_plots()}),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    if sys.argv[1] == "enqueue":
        enqueue(dict(pair.split("=", 1) for pair in sys.argv[2:]))
    elif sys.argv[1] == "abort":
        abort(sys.argv[2])
    else:
        read(sys.argv[2])
