"""Drives a ClearML server with the SDK's Task, as users' programs do; ends with an error if an answer is wrong.

The server must have a queue named sdk-queue. The last line printed is the id of the task left in it.
"""
import os
import tempfile

from clearml import Task


def main():
    # Else the SDK goes through the whole repository for imports, which can take minutes.
    Task.force_requirements_env_freeze(force=True)
    # The SDK's analysis of a program's packages runs in a thread that hangs at times; the wire is what is tested.
    Task.force_requirements_env_freeze(True, __file__.replace("sdk_task.py", "clearml-requirements.txt"))
    task = Task.init(project_name="Sandbox/Nested", task_name="from the sdk", auto_connect_frameworks=False)
    parameters = task.connect({"rate": 0.5, "layers": 3})
    assert parameters["layers"] == 3, parameters
    task.connect_configuration({"alphabet": "Grüße, 世界"}, name="settings")
    task.set_user_properties(budget="low")
    task.add_tags(["first", "second"])

    logger = task.get_logger()
    for iteration in range(5):
        logger.report_scalar("loss", "train", value=1.0 / (iteration + 1), iteration=iteration)
    logger.report_single_value("accuracy", 0.75)
    logger.report_table("table", "series", iteration=0, table_plot=[["a", "b"], [1, 2]])
    logger.report_text("reported text")

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "weights.bin")
        with open(path, "wb") as file:
            file.write(bytes(range(256)) * 100)
        assert task.upload_artifact("weights", artifact_object=path, wait_on_upload=True)
    assert task.upload_artifact("numbers", artifact_object={"one": 1}, wait_on_upload=True)
    task.flush(wait_for_uploads=True)
    task.close()

    read = Task.get_task(task_id=task.id)
    assert read.status == "completed", read.status
    assert read.name == "from the sdk", read.name
    assert read.get_project_name() == "Sandbox/Nested", read.get_project_name()
    assert read.get_parameters()["General/rate"] == "0.5", read.get_parameters()
    assert "世界" in read.get_configuration_object("settings")
    assert read.get_user_properties()["budget"]["value"] == "low", read.get_user_properties()
    assert set(read.get_tags()) >= {"first", "second"}, read.get_tags()

    scalars = read.get_reported_scalars()
    assert scalars["loss"]["train"]["x"] == [0, 1, 2, 3, 4], scalars
    assert scalars["loss"]["train"]["y"][1] == 0.5, scalars
    assert read.get_last_scalar_metrics()["loss"]["train"]["last"] == 0.2, read.get_last_scalar_metrics()
    assert read.get_reported_single_value("accuracy") == 0.75, read.get_reported_single_values()
    assert any(plot["metric"] == "table" for plot in read.get_reported_plots()), read.get_reported_plots()
    console = "\n".join(read.get_reported_console_output(number_of_reports=10))
    assert "reported text" in console, console

    with open(read.artifacts["weights"].get_local_copy(force_download=True), "rb") as file:
        assert file.read() == bytes(range(256)) * 100
    assert read.artifacts["numbers"].get() == {"one": 1}

    found = Task.get_tasks(project_name="Sandbox/Nested", task_name="from the sdk")
    assert [one.id for one in found] == [task.id], found
    assert [one.id for one in Task.get_tasks(tags=["second", "-absent"])] == [task.id]

    copy = Task.clone(source_task=read, name="a copy")
    copy.set_parameter("General/rate", 0.25)
    assert Task.get_task(task_id=copy.id).get_parameters()["General/rate"] == "0.25"
    Task.enqueue(copy, queue_name="sdk-queue")
    copy.reload()
    assert copy.status == "queued", copy.status
    Task.dequeue(copy)
    copy.reload()
    assert copy.status == "created", copy.status
    Task.enqueue(copy, queue_name="sdk-queue")

    made = Task.create(
        project_name="Sandbox", task_name="made by hand", repo=None, script=__file__, add_task_init_call=False
    )
    made.mark_started(force=True)
    made.mark_stopped(status_message="enough")
    made.reload()
    assert made.status == "stopped", made.status
    made.reset()
    made.reload()
    assert made.status == "created", made.status
    made.delete()
    assert Task.get_task(project_name="Sandbox", task_name="made by hand") is None

    print(copy.id)


if __name__ == "__main__":
    main()
