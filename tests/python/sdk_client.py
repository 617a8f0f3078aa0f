"""Drives a ClearML server with the SDK's APIClient, as tools do; ends with an error if an answer is wrong."""
from clearml.backend_api.session.client import APIClient
from clearml.backend_api.session.client.client import APIError


def refused(call, code, subcode, **arguments):
    try:
        call(**arguments)
    except APIError as error:
        assert (error.code, error.subcode) == (code, subcode), error
    else:
        raise AssertionError("was not refused")


def main():
    client = APIClient(api_version="2.23")

    queue = client.queues.create(name="client-queue").id
    refused(client.queues.create, 400, 801, name="client-queue")
    refused(client.queues.create, 400, 800, name="no")
    refused(client.queues.get_by_id, 400, 701, queue="nope")
    refused(client.tasks.get_by_id, 400, 101, task="nope")

    ids = [client.tasks.create(name="task %d" % number, type="training").id for number in range(3)]
    for task in ids:
        client.tasks.enqueue(task=task, queue=queue)
    [listed] = client.queues.get_all(name="^client-queue$", only_fields=["id", "name", "entries"])
    assert [entry.task for entry in listed.entries] == ids, listed
    client.queues.move_task_to_front(queue=queue, task=ids[2])
    assert client.queues.get_num_entries(queue=queue).num == 3
    refused(client.queues.delete, 400, 702, queue=queue)

    # The pop takes the entry and nothing else: the task is in limbo until someone starts it.
    assert client.queues.get_next_task(queue=queue).entry.task == ids[2]
    popped = client.tasks.get_by_id(task=ids[2])
    assert popped.status.value == "queued" and popped.execution.queue == queue, popped
    assert ids[2] not in [entry.task for entry in client.queues.get_by_id(queue=queue).entries]
    client.tasks.enqueue(task=ids[2], queue=queue)
    assert client.queues.get_num_entries(queue=queue).num == 3

    client.workers.register(worker="client:0", timeout=60, queues=[queue])
    client.tasks.started(task=ids[0], force=True)
    client.workers.status_report(worker="client:0", timestamp=1, queue=queue, queues=[queue], task=ids[0])
    [worker] = [worker for worker in client.workers.get_all(last_seen=60) if worker.id == "client:0"]
    assert worker.task.id == ids[0] and worker.queue.id == queue, worker
    client.tasks.stop(task=ids[0])
    stopping = client.tasks.get_by_id(task=ids[0])
    assert (stopping.status.value, stopping.status_message) == ("in_progress", "stopping"), stopping
    client.tasks.stopped(task=ids[0], status_reason="asked to")
    refused(client.tasks.edit, 400, 110, task=ids[0], runtime={"a": "b"})
    client.tasks.edit(task=ids[0], runtime={"a": "b"}, force=True)
    assert client.tasks.get_by_id(task=ids[0]).runtime == {"a": "b"}
    client.workers.unregister(worker="client:0")
    assert not [worker for worker in client.workers.get_all() if worker.id == "client:0"]

    client.tasks.dequeue(task=ids[1])
    assert client.tasks.get_by_id(task=ids[1]).status.value == "created"
    refused(client.tasks.delete, 400, 123, task=ids[0])
    client.tasks.delete(task=ids[0], force=True)
    pages = [client.tasks.get_all(id=ids, page=page, page_size=1) for page in range(3)]
    assert [len(page) for page in pages] == [1, 1, 0], pages

    project = client.projects.create(name="DevOps", description="").id
    assert [found.id for found in client.projects.get_all(name="^DevOps$")] == [project]


if __name__ == "__main__":
    main()
