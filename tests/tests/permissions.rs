//! The least policy is enough for everything that the product does, and has nothing to spare: a whole life under it,
//! with every call on record.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use ec2::{Bucket, Client, ImageQuery, InstanceTypeQuery, Keys, Market, Settings};
use sandbox::Sandbox;
use sandbox::clearml::Status;
use sandbox::ec2::{Ami, AmiOwner, State};
use sandbox::instances::MachineOptions;
use serde_json::Value;
use tests::harness::{LIMIT, age_journal, controller_executable, least_policy, write_sidecar};
use tests::process::Process;

const IMAGE: &str = "Deep Learning Base 1.0";
const PARAMETER: &str = "/aws/service/deeplearning/ami/x86_64/latest/ami-id";
const AMI: &str = "ami-00000000000000001";

/// A budget that uses whatever a configuration can make of AWS.
fn configuration(dir: &Path, sandbox: &Sandbox) -> String {
    format!(
        "\
hyper_params:
  cloud_credentials_region: us-east-1
  use_credentials_chain: true
  workers_prefix: least
  use_iam_instance_profile: true
  iam_name: worker
  max_idle_time_min: 0.05
  max_spin_up_time_min: 5
  polling_interval_time_min: 0.05
  queue_polling_interval_sec: 0.3
  listen: 127.0.0.1:0
  advertise_address: 127.0.0.1
  agent_api_server: {api}
  sidecar: required
  state_dir: {dir}/state
  sidecar_dir: {dir}
configurations:
  resource_configurations:
    by_name:
      instance_type: g4dn.xlarge
      is_spot: true
      availability_zone: us-east-1b
      ami_id: {IMAGE}
      ebs_device_name: /dev/sda1
      key_name: sandbox
      security_group_ids: [sg-00000000000000001]
      tags: team=vision
    by_parameter:
      instance_type: m5.xlarge
      is_spot: false
      subnet_id: subnet-0000000000000000a
      ami_id: {PARAMETER}
  queues:
    spot: [[by_name, 1]]
    regular: [[by_parameter, 1]]
",
        api = sandbox.clearml.api_url(),
        dir = dir.display(),
    )
}

async fn start() -> anyhow::Result<Sandbox> {
    let mut options = sandbox::Options::default();
    let env = BTreeMap::from([("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC".to_owned(), "0.2".to_owned())]);
    let executable = Some(controller_executable()?);
    options.ec2.machines = MachineOptions { executable, env, ..MachineOptions::default() };
    options.ec2.amis.insert(AMI.to_owned(), Ami { owner: AmiOwner::Amazon, ..Ami::named(IMAGE) });
    options.ec2.parameters.insert(PARAMETER.to_owned(), AMI.to_owned());
    Sandbox::start(options).await.context("start the sandbox")
}

fn controller(dir: &Path, sandbox: &Sandbox) -> anyhow::Result<Command> {
    let mut command = Command::new(controller_executable()?);
    command.env_clear().env("HOME", dir).envs(sandbox.environment());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    Ok(command)
}

async fn client(sandbox: &Sandbox) -> anyhow::Result<Client> {
    let environment: BTreeMap<String, String> = sandbox.environment().into_iter().collect();
    let keys = Keys {
        key: environment["AWS_ACCESS_KEY_ID"].clone(),
        secret: environment["AWS_SECRET_ACCESS_KEY"].clone().into(),
        token: None,
    };
    let settings = Settings {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(sandbox.ec2.url()),
        keys: Some(keys),
    };
    Ok(Client::connect(settings).await?)
}

fn actions(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().into_iter().flatten();
    let actions = statements.flat_map(|statement| statement["Action"].as_array().into_iter().flatten());
    actions.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Tasks come, instances with them, and both go.
async fn work(sandbox: &Sandbox, client: &Client, controller: &Process) -> anyhow::Result<()> {
    let clearml = sandbox.clearml.handle();
    let queue =
        |name: &str| clearml.queues().into_iter().find(|queue| queue.name == name).map(|queue| queue.id);
    let ended = || controller.has_ended();
    sandbox
        .ec2
        .wait_until(LIMIT, |_| ended() || (queue("spot").is_some() && queue("regular").is_some()))
        .await;
    let mut tasks = Vec::new();
    for name in ["spot", "regular"] {
        let queue = queue(name).with_context(|| format!("no queue {name}; {}", controller.tail()))?;
        tasks.push(clearml.create_task(name, 1.0, Some(&queue))?);
    }
    let launched = sandbox.ec2.wait_until(LIMIT, |ec2| ended() || ec2.counts().launched == 2).await;
    ensure!(launched && !ended(), "nothing was launched; {}", controller.tail());
    for instance in sandbox.ec2.instances() {
        client.console_output(&instance.id).await?;
    }
    let over = |ec2: &sandbox::ec2::Ec2| {
        let done =
            tasks.iter().all(|id| clearml.task(id).is_some_and(|task| task.status == Status::Completed));
        done && ec2.instances().iter().all(|instance| instance.state == State::Terminated)
    };
    let over = sandbox.ec2.wait_until(LIMIT, |ec2| ended() || over(ec2)).await;
    ensure!(over && !ended(), "it did not come to its end; {}", controller.tail());
    Ok(())
}

/// What a person is offered who sets up a configuration.
async fn choose(client: &Client) -> anyhow::Result<()> {
    client.regions().await?;
    client.zones().await?;
    client.instance_types(&InstanceTypeQuery::All).await?;
    client.images(&ImageQuery::default()).await?;
    client.key_pairs().await?;
    client.security_groups().await?;
    client.subnets().await?;
    client.account().await?;
    client.spot_prices(&BTreeSet::from(["g4dn.xlarge".to_owned()])).await?;
    client.vcpu_quota(Bucket::Graphics, Market::Spot).await?;
    Ok(())
}

fn doctor(dir: &Path, sandbox: &Sandbox, config_file: &Path) -> anyhow::Result<Output> {
    let mut command = controller(dir, sandbox)?;
    Ok(command.args(["doctor", "--json", "--config-file"]).arg(config_file).output()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_lacks_nothing_and_has_nothing_to_spare() -> anyhow::Result<()> {
    let sandbox = start().await?;
    let dir = tempfile::TempDir::with_prefix("least-")?;
    let config_file = dir.path().join("aws_autoscaler.yaml");
    fs::write(&config_file, configuration(dir.path(), &sandbox))?;
    write_sidecar(dir.path(), &controller_executable()?)?;
    age_journal(&dir.path().join("state")).await?;
    let policy = least_policy(&controller_executable()?, &config_file)?;
    let allowed = policy.clone();
    sandbox.ec2.configure(|options| options.policy = Some(allowed));

    let report = doctor(dir.path(), &sandbox, &config_file)?;
    // Its instances are processes of this machine, so that their addresses are loopback addresses.
    ensure!(report.status.code() == Some(1), "{}", String::from_utf8_lossy(&report.stderr));
    let report: Value = serde_json::from_slice(&report.stdout)?;
    for check in report["checks"].as_array().context("checks")? {
        let name = check["check"].as_str().unwrap_or_default();
        ensure!(check["outcome"] != "error" || name.starts_with("instances."), "{check}");
    }

    let mut command = controller(dir.path(), &sandbox)?;
    command.args(["run", "--config-file"]).arg(&config_file);
    let mut controller = Process::start(command, &dir.path().join("log"))?;
    let client = client(&sandbox).await?;
    work(&sandbox, &client, &controller).await?;
    ensure!(controller.terminate(LIMIT)?.success(), "{}", controller.tail());
    choose(&client).await?;

    let denied: Vec<_> = sandbox
        .ec2
        .calls()
        .into_iter()
        .filter(|call| call.error.as_deref() == Some("UnauthorizedOperation"))
        .collect();
    let tried = |call: &sandbox::ec2::Call| call.params.contains_key("DryRun");
    ensure!(denied.iter().all(tried), "denied: {denied:#?}");
    let used = sandbox.ec2.permissions_used();
    let allowed = actions(&policy);
    let (lacks, spares): (Vec<_>, Vec<_>) =
        (used.difference(&allowed).collect(), allowed.difference(&used).collect());
    ensure!(lacks.is_empty() && spares.is_empty(), "the policy lacks {lacks:?} and needs no {spares:?}");
    ensure!(sandbox.shutdown().await, "an instance's processes would not end");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_permission_nothing_is_launched_and_the_reason_stands_in_the_holds() -> anyhow::Result<()> {
    let sandbox = start().await?;
    let dir = tempfile::TempDir::with_prefix("least-")?;
    let config_file = dir.path().join("aws_autoscaler.yaml");
    fs::write(&config_file, configuration(dir.path(), &sandbox))?;
    write_sidecar(dir.path(), &controller_executable()?)?;
    age_journal(&dir.path().join("state")).await?;
    let mut policy = least_policy(&controller_executable()?, &config_file)?;
    for statement in policy["Statement"].as_array_mut().context("statements")? {
        let actions = statement["Action"].as_array_mut().context("actions")?;
        actions.retain(|action| *action != "ec2:DescribeImages" && *action != "iam:PassRole");
    }
    sandbox.ec2.configure(|options| options.policy = Some(policy));
    let mut command = controller(dir.path(), &sandbox)?;
    command.args(["run", "--config-file"]).arg(&config_file);
    let controller = Process::start(command, &dir.path().join("log"))?;
    let clearml = sandbox.clearml.handle();
    let queue =
        |name: &str| clearml.queues().into_iter().find(|queue| queue.name == name).map(|queue| queue.id);
    sandbox
        .ec2
        .wait_until(LIMIT, |_| {
            controller.has_ended() || (queue("spot").is_some() && queue("regular").is_some())
        })
        .await;
    for name in ["spot", "regular"] {
        let queue = queue(name).with_context(|| controller.tail())?;
        clearml.create_task(name, 1.0, Some(&queue))?;
    }
    let status = || -> Option<String> {
        let mut command = self::controller(dir.path(), &sandbox).ok()?;
        let output = command.args(["status", "--config-file"]).arg(&config_file).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut told = String::new();
    let told_both = |text: &str| text.contains(IMAGE) && text.contains("iam:PassRole");
    sandbox
        .ec2
        .wait_until(LIMIT, |_| controller.has_ended() || status().is_some_and(|text| told_both(&text)))
        .await;
    told.push_str(&status().unwrap_or_default());
    ensure!(told_both(&told), "{told}\n{}", controller.tail());
    ensure!(sandbox.ec2.counts().launched == 0, "something was launched");
    Ok(())
}
