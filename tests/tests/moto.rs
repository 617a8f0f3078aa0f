//! EC2 calls received by moto, which we did not write: launched, tagged, described, terminated.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use ec2::{Client, Instance, InstanceState, Keys, LaunchSpec, Market, Meaning, Placement, Settings, Volume};
use serde_json::json;
use tests::python;

const FLEET: &str = "clearml-autoscaler:fleet";
const START_LIMIT: Duration = Duration::from_secs(60);

/// A moto server of our own; it ends with the test.
struct Moto {
    process: Child,
    address: String,
}

impl Moto {
    fn start() -> anyhow::Result<Self> {
        let venv = python::venv("moto", &python::file("moto-requirements.txt"))?;
        let mut process = Command::new(venv.join("bin/moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start moto_server")?;
        let stderr = process.stderr.take().context("moto's stderr")?;
        let (found, address) = mpsc::channel();
        // Reads on until moto ends, for a full pipe would stop it.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("Running on ") {
                    let _ = found.send(address.trim().to_owned());
                }
            }
        });
        let mut moto = Self { process, address: String::new() };
        moto.address = address.recv_timeout(START_LIMIT).context("moto did not say where it listens")?;
        Ok(moto)
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let keys = Keys { key: "testing".to_owned(), secret: "testing".into(), token: None };
        let settings = Settings {
            region: Some("us-east-1".to_owned()),
            endpoint: Some(self.address.clone()),
            keys: Some(keys),
        };
        Ok(Client::connect(settings).await?)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(fleet: &str, market: Market, count: u32, token: &str) -> LaunchSpec {
    let volume = Volume {
        device_name: "/dev/sda1".to_owned(),
        size_gib: Some(20),
        volume_type: Some("gp3".to_owned()),
        snapshot_id: None,
    };
    LaunchSpec {
        image_id: Some("ami-12c6146b".to_owned()),
        instance_type: "m5.large".to_owned(),
        count,
        token: token.to_owned(),
        placement: Placement::Zone("us-east-1b".to_owned()),
        market,
        tags: BTreeMap::from([
            (FLEET.to_owned(), fleet.to_owned()),
            ("Name".to_owned(), "prefix-größe".to_owned()),
        ]),
        hop_limit: 2,
        volume: Some(volume),
        monitoring: true,
        key_name: None,
        security_group_ids: Vec::new(),
        profile: None,
        user_data: "#!/bin/sh\necho ready\n".to_owned(),
        extra: json!({
            "EbsOptimized": true,
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "vision"}]}],
        }),
    }
}

fn ids(instances: &[Instance]) -> BTreeSet<String> {
    instances.iter().map(|instance| instance.id.clone()).collect()
}

#[tokio::test]
async fn instances_are_launched_tagged_described_and_terminated() -> anyhow::Result<()> {
    let moto = tokio::task::spawn_blocking(Moto::start).await??;
    let client = moto.client().await?;

    // AWS fills MaxCount where it can; moto launches MinCount.
    let mut spot = client.run_instances(&launch("ours", Market::Spot, 2, "one")).await?;
    spot.extend(client.run_instances(&launch("ours", Market::Spot, 2, "one-more")).await?);
    let steady = client.run_instances(&launch("ours", Market::OnDemand, 1, "two")).await?;
    let foreign = client.run_instances(&launch("theirs", Market::OnDemand, 1, "three")).await?;
    assert_eq!((spot.len(), steady.len(), foreign.len()), (2, 1, 1));
    let ours: BTreeSet<String> = spot.iter().chain(&steady).cloned().collect();

    let listed = client.describe_by_tag(FLEET, "ours").await?;
    assert_eq!(ids(&listed), ours, "all of our fleet, and nothing of another");
    for instance in &listed {
        assert!(matches!(instance.state, InstanceState::Pending | InstanceState::Running));
        assert_eq!(instance.instance_type, "m5.large");
        assert_eq!(instance.zone.as_deref(), Some("us-east-1b"));
        assert_eq!(instance.tags.get("Name").map(String::as_str), Some("prefix-größe"));
        assert_eq!(instance.tags.get("team").map(String::as_str), Some("vision"));
        assert!(instance.launched_at_ms.is_some() && instance.private_ip.is_some());
        let market = if spot.contains(&instance.id) { Market::Spot } else { Market::OnDemand };
        assert_eq!(instance.market, market, "{}", instance.id);
    }

    let unknown = "i-00000000000000000".to_owned();
    let mut asked = ours.clone();
    asked.insert(unknown.clone());
    let described = client.describe_ids(&asked).await?;
    assert_eq!((ids(&described.found), described.missing), (ours.clone(), BTreeSet::from([unknown])));

    client.console_output(&steady[0]).await?;

    // The unknown one must not keep the others alive.
    client.terminate(&asked).await?;
    let after = client.describe_by_tag(FLEET, "ours").await?;
    assert_eq!(ids(&after), ours, "the terminated are listed still");
    for instance in &after {
        assert!(
            matches!(instance.state, InstanceState::ShuttingDown | InstanceState::Terminated),
            "{}: {:?}",
            instance.id,
            instance.state
        );
    }
    client.terminate(&ours).await.context("ending what has ended succeeds")?;

    let theirs = client.describe_by_tag(FLEET, "theirs").await?;
    assert!(matches!(theirs[0].state, InstanceState::Pending | InstanceState::Running));
    Ok(())
}

#[tokio::test]
async fn what_ec2_refuses_is_told_by_its_meaning() -> anyhow::Result<()> {
    let moto = tokio::task::spawn_blocking(Moto::start).await??;
    let client = moto.client().await?;
    let mut wrong = launch("ours", Market::OnDemand, 1, "one");
    wrong.placement = Placement::Subnet("subnet-00000000".to_owned());
    let Err(error) = client.run_instances(&wrong).await else {
        anyhow::bail!("moto launched into a subnet that is not there");
    };
    assert_eq!(error.meaning, Meaning::Invalid, "{error}");
    assert_eq!(error.code.as_deref(), Some("InvalidSubnetID.NotFound"));
    Ok(())
}
