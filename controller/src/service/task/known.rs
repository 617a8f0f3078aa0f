//! The parameters as the web UI shows them: name, type, default, description.

/// One parameter of section `General`.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// As Python calls it, since ClearML's SDK does.
    pub(super) kind: &'static str,
    /// What holds where nothing is set; empty is as good as not set.
    pub(super) default: &'static str,
    pub(super) description: &'static str,
}

const fn known(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    description: &'static str,
) -> Known {
    Known { name, kind, default, description }
}

/// Every one that this version reads.
pub(super) const KNOWN: &[Known] = &[
    known("cloud_provider", "str", "", "AWS, or empty."),
    known("cloud_credentials_region", "str", "", "Region of the instances, such as us-east-1."),
    known(
        "use_credentials_chain",
        "bool",
        "False",
        "Find AWS credentials as its tools do: environment, profile, IAM role of the machine. Safer than keys here.",
    ),
    known("cloud_credentials_key", "str", "", "AWS access key id. Whoever sees the task can read it."),
    known("cloud_credentials_secret", "str", "", "AWS secret access key. Whoever sees the task can read it."),
    known("cloud_credentials_token", "str", "", "AWS session token of temporary keys."),
    known(
        "use_iam_instance_profile",
        "bool",
        "False",
        "Give the instances an instance profile: set iam_arn or iam_name.",
    ),
    known("iam_arn", "str", "", "Instance profile of the instances, by ARN."),
    known("iam_name", "str", "", "Instance profile of the instances, by name."),
    known("git_user", "str", "", "User for private repositories; empty for SSH keys or public ones."),
    known("git_pass", "str", "", "Password or token of git_user. Whoever sees the task can read it."),
    known(
        "default_docker_image",
        "str",
        "",
        "Image of tasks that name none, with arguments; empty runs tasks without docker.",
    ),
    known("max_idle_time_min", "float", "15", "Minutes without a task after which an instance goes."),
    known(
        "polling_interval_time_min",
        "float",
        "5",
        "Minutes between two looks at EC2; at most half a minute is waited whatever it says.",
    ),
    known(
        "max_spin_up_time_min",
        "float",
        "30",
        "Minutes within which an instance must be ready, or it goes.",
    ),
    known(
        "workers_prefix",
        "str",
        "dynamic_worker",
        "Worker names begin with it. Each autoscaler of a ClearML server needs one of its own.",
    ),
    known("tags", "str", "", "EC2 tags of every instance: k=v, k2=v2."),
    known("queue_polling_interval_sec", "float", "5", "Seconds between two looks at the queues."),
    known(
        "max_launches_per_minute",
        "int",
        "600",
        "At most so many instances are launched within a minute, over all pools.",
    ),
    known(
        "listen",
        "str",
        "0.0.0.0:8790",
        "Where the sidecars of instances reach the autoscaler; the container must publish this port.",
    ),
    known(
        "advertise_address",
        "str",
        "",
        "Host name or address, with a port if it differs, by which instances reach the autoscaler. Not needed on EC2.",
    ),
    known(
        "agent_api_server",
        "str",
        "",
        "ClearML's API server as instances reach it: a name of the services container is of no use to them.",
    ),
    known("agent_web_server", "str", "", "ClearML's web server as instances reach it."),
    known("agent_files_server", "str", "", "ClearML's file server as instances reach it."),
    known(
        "sidecar",
        "str",
        "auto",
        "auto, required, or off: off where instances can't reach the autoscaler, they then judge for themselves.",
    ),
    known("state_dir", "str", "", "Directory of the journal; empty is below the user's state directory."),
    known("sidecar_dir", "str", "", "Directory of the sidecars; empty is beside the controller."),
    known("imds_hop_limit", "int", "2", "Hops to the instance metadata service; containers need 2."),
];

/// What a template starts with where that is not the default.
pub(super) const START: [(&str, &str); 4] = [
    ("cloud_provider", "AWS"),
    ("cloud_credentials_region", "us-east-1"),
    ("use_credentials_chain", "True"),
    ("default_docker_image", "nvidia/cuda:12.4.1-runtime-ubuntu22.04"),
];

/// What is known of a parameter.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}
