//! EC2 calls received by moto, which we did not write: launched, tagged, described, terminated.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use ec2::{
    Architecture, Bucket, Client, ImageQuery, Instance, InstanceState, InstanceTypeQuery, Keys, LaunchSpec,
    Market, Meaning, Placement, Settings, Volume,
};
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

#[tokio::test]
async fn what_an_operator_chooses_from_is_read() -> anyhow::Result<()> {
    let moto = tokio::task::spawn_blocking(Moto::start).await??;
    let client = moto.client().await?;

    let regions = client.regions().await?;
    assert!(regions.iter().any(|region| region.name == "us-east-1"), "{regions:?}");
    let zones = client.zones().await?;
    assert!(
        zones.iter().any(|zone| zone.name == "us-east-1b" && zone.available && !zone.is_local),
        "{zones:?}"
    );

    let types = client.instance_types(&InstanceTypeQuery::one("g4dn.xlarge")).await?;
    let [kind] = types.as_slice() else { anyhow::bail!("not one type: {types:?}") };
    assert_eq!(
        (kind.vcpus, kind.memory_mib, kind.architectures.as_slice()),
        (4, 16_384, &[Architecture::X86_64][..])
    );
    assert_eq!(kind.gpus.as_ref().map(|gpus| (gpus.count, gpus.name.as_str())), Some((1, "T4")));
    assert!(kind.zones.contains("us-east-1b"), "{kind:?}");
    let all = client.instance_types(&InstanceTypeQuery::All).await?;
    assert!(all.len() > 300, "{} types", all.len());
    assert!(client.instance_types(&InstanceTypeQuery::one("nonsense.large")).await?.is_empty());

    let image = client.image("ami-12c6146b").await?.context("moto's own image")?;
    assert!(image.available && !image.name.is_empty(), "{image:?}");
    assert_eq!(client.image("ami-00000000000000000").await?, None);
    assert_eq!(client.newest_image("no image is called so").await?, None);
    let own = ImageQuery { owners: vec!["amazon".to_owned()], ..ImageQuery::default() };
    assert!(client.images(&own).await?.iter().all(|image| !image.id.is_empty()));

    let subnets = client.subnets().await?;
    assert!(subnets.iter().any(|subnet| subnet.is_default && subnet.free_addresses > 0), "{subnets:?}");
    let groups = client.security_groups().await?;
    let default = groups.iter().find(|group| group.name == "default").context("the default group")?;
    assert_eq!(default.vpc.as_deref(), Some(subnets[0].vpc.as_str()));
    assert!(default.egress.iter().any(|rule| rule.takes_tcp(8790)), "{default:?}");
    assert!(client.key_pairs().await?.is_empty());

    let types = BTreeSet::from(["m5.large".to_owned()]);
    let prices = client.spot_prices(&types).await?;
    assert!(
        prices.iter().all(|price| price.instance_type == "m5.large" && price.usd_per_hour > 0.0),
        "{prices:?}"
    );
    let caller = client.caller().await?;
    assert_eq!(caller.account, "123456789012");
    // moto knows no quotas of EC2: what counts is that the question arrives and the answer has a meaning.
    let quota = client.vcpu_quota(Bucket::Graphics, Market::OnDemand).await;
    assert!(quota.as_ref().is_ok_and(|quota| *quota > 0) || quota.is_err_and(|error| error.code.is_some()));
    Ok(())
}

#[tokio::test]
async fn a_dry_run_is_answered_and_launches_nothing() -> anyhow::Result<()> {
    let moto = tokio::task::spawn_blocking(Moto::start).await??;
    let client = moto.client().await?;
    client.may_launch(&launch("dry", Market::OnDemand, 1, "dry")).await?;
    client.may_launch(&launch("dry", Market::Spot, 2, "dry-spot")).await?;
    assert!(client.describe_by_tag(FLEET, "dry").await?.is_empty());
    let ids = client.run_instances(&launch("wet", Market::OnDemand, 1, "wet")).await?;
    client.may_terminate(&ids[0]).await?;
    client.may_describe().await?;
    let running = client.describe_by_tag(FLEET, "wet").await?;
    assert!(matches!(running[0].state, InstanceState::Pending | InstanceState::Running));
    Ok(())
}
