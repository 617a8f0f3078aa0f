"""Loads a configuration as ClearML's aws_autoscaler.py does, and prints what its autoscaler takes from it."""
import json
import sys

import yaml
from clearml.automation.auto_scaler import ScalerConfig, has_duplicate_resource
from clearml.automation.aws_driver import AWSDriver


def main():
    with open(sys.argv[1]) as file:
        config = yaml.safe_load(file)
    scaler = ScalerConfig.from_config(config)
    driver = AWSDriver.from_config(config)
    assert not has_duplicate_resource(scaler.queues), scaler.queues
    for name, resource in scaler.resource_configurations.items():
        # What its driver reads without asking whether it is there.
        assert isinstance(resource["instance_type"], str), name
        assert isinstance(resource["ami_id"], str), name
        assert isinstance(resource["is_spot"], bool), name
        assert resource.get("subnet_id") or resource.get("availability_zone"), name
    print("taken:" + json.dumps({
        "max_idle_time_min": scaler.max_idle_time_min,
        "polling_interval_time_min": scaler.polling_interval_time_min,
        "max_spin_up_time_min": scaler.max_spin_up_time_min,
        "workers_prefix": scaler.workers_prefix,
        "resource_configurations": scaler.resource_configurations,
        "queues": scaler.queues,
        "region": driver.aws_region,
        "key": driver.aws_access_key_id,
        "secret": driver.aws_secret_access_key,
        "use_credentials_chain": driver.use_credentials_chain,
        "iam_name": driver.iam_name,
        "git_user": driver.git_user,
        "git_pass": driver.git_pass,
        "docker_image": driver.docker_image,
        "extra_vm_bash_script": driver.extra_vm_bash_script,
        "extra_clearml_conf": driver.extra_clearml_conf,
    }))


main()
