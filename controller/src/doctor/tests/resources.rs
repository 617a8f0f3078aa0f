//! Images, types, networks, quotas and files: each made to fail once.

use sandbox::ec2::{Ami, AmiOwner, Subnet};

use super::{IMAGE, Outcome, PARAMETER, Ward, find, only};

#[tokio::test]
async fn images_that_are_not_there_or_do_not_fit_are_told() {
    let mut ward = Ward::open().await;
    ward.change("ami-00000000000000002", "ami-0000000000000000f");
    let report = ward.examine().await;
    assert!(find(&report, "resource.by_id.image").detail.contains("is not in us-east-1"));
    assert_eq!(find(&report, "resource.by_id.launch").outcome, Outcome::Error);

    let mut ward = Ward::open().await;
    ward.change(IMAGE, "Deep Learning Base 9.9");
    let report = ward.examine().await;
    let image = find(&report, "resource.named.image");
    assert_eq!(image.outcome, Outcome::Error);
    assert!(image.detail.contains("Deep Learning Base 9.9"), "{image:?}");

    let mut ward = Ward::open().await;
    ward.change(PARAMETER, "/aws/service/nowhere");
    let report = ward.examine().await;
    assert!(find(&report, "resource.parameter.launch").detail.contains("/aws/service/nowhere"));

    let mut ward = Ward::open().await;
    ward.change("ami-00000000000000002", "ami-00000000000000001");
    let report = ward.examine().await;
    let image = find(&report, "resource.by_id.image");
    assert_eq!(image.outcome, Outcome::Error);
    assert!(image.detail.contains("Arm64"), "{image:?}");

    let mut ward = Ward::open().await;
    ward.change("ebs_device_name: /dev/sda1", "ebs_device_name: /dev/xvda");
    only(&ward.examine().await, Outcome::Warning, "resource.named.image", "not its root device /dev/sda1");
}

#[tokio::test]
async fn a_strangers_image_of_the_same_name_is_not_taken() {
    let mut options = super::options();
    let ami =
        Ami { owner: AmiOwner::Stranger, created: "2026-01-01T00:00:00.000Z".into(), ..Ami::named(IMAGE) };
    options.ec2.amis.insert("ami-00000000000000bad".into(), ami);
    let report = Ward::with(options).await.examine().await;
    assert!(find(&report, "resource.named.image").detail.contains("ami-00000000000000001"));
}

#[tokio::test]
async fn a_type_that_the_zone_or_the_region_lacks_is_told() {
    let mut options = super::options();
    options.ec2.unsupported.insert(("g4dn.xlarge".into(), "us-east-1b".into()));
    let ward = Ward::with(options).await;
    let report = ward.examine().await;
    only(&report, Outcome::Error, "resource.named.type", "us-east-1b does not have it");
    assert!(find(&report, "resource.named.type").remedy.as_ref().unwrap().contains("us-east-1a"));

    let mut ward = Ward::open().await;
    ward.change("m5.xlarge", "nonsense.xlarge");
    let report = ward.examine().await;
    assert!(find(&report, "resource.parameter.type").detail.contains("has no instance type nonsense.xlarge"));
}

#[tokio::test]
async fn networks_that_do_not_fit_are_told() {
    let mut options = super::options();
    options.ec2.security_groups.insert("sg-00000000000000002".into(), "elsewhere".into());
    options.ec2.vpcs.insert("sg-00000000000000002".into(), "vpc-00000000000000002".into());
    let mut ward = Ward::with(options).await;
    ward.change("[sg-00000000000000001]", "[sg-00000000000000002]");
    let report = ward.examine().await;
    let network = find(&report, "resource.named.network");
    assert_eq!(network.outcome, Outcome::Error);
    assert!(network.detail.contains("belongs to vpc-00000000000000002"), "{network:?}");

    let mut ward = Ward::open().await;
    ward.change("[sg-00000000000000001]", "[sg-0000000000000000f]");
    let report = ward.examine().await;
    assert!(
        find(&report, "resource.named.network").detail.contains("no security group sg-0000000000000000f")
    );

    let mut closed = super::options();
    closed.ec2.closed_groups.insert("sg-00000000000000001".into());
    let report = Ward::with(closed).await.examine().await;
    only(&report, Outcome::Error, "resource.named.network", "let nothing out to TCP port 8790");

    let mut ward = Ward::open().await;
    ward.change("subnet-0000000000000000a", "subnet-0000000000000000f");
    let report = ward.examine().await;
    assert!(
        find(&report, "resource.parameter.network").detail.contains("no subnet subnet-0000000000000000f")
    );

    let mut full = super::options();
    let subnet = Subnet { zone: "us-east-1a".into(), addresses: 1 };
    full.ec2.subnets.insert("subnet-0000000000000000a".into(), subnet);
    let report = Ward::with(full).await.examine().await;
    only(
        &report,
        Outcome::Warning,
        "resource.parameter.network",
        "1 addresses free, and the budget may want 2",
    );

    let mut none = super::options();
    none.ec2.default_vpc = false;
    let report = Ward::with(none).await.examine().await;
    assert!(find(&report, "resource.named.network").detail.contains("no default network"));
    assert_eq!(find(&report, "resource.parameter.network").outcome, Outcome::Ok);
}

#[tokio::test]
async fn keys_profiles_and_sidecars_that_are_missing_are_told() {
    let mut ward = Ward::open().await;
    ward.change("key_name: sandbox", "key_name: mine");
    let report = ward.examine().await;
    let key = find(&report, "resource.named.key");
    assert_eq!(key.outcome, Outcome::Error);
    assert!(key.remedy.as_ref().unwrap().contains("sandbox"), "{key:?}");

    let mut ward = Ward::open().await;
    ward.change("iam_name: worker", "iam_name: nobody");
    let report = ward.examine().await;
    let profile = find(&report, "aws.profile");
    assert_eq!(profile.outcome, Outcome::Error);
    assert!(profile.detail.contains("nobody"), "{profile:?}");

    let ward = Ward::open().await;
    std::fs::remove_file(ward.dir.path().join("sidecar-aarch64")).unwrap();
    let report = ward.examine().await;
    only(&report, Outcome::Error, "resource.by_id.sidecar", "no sidecar-aarch64");
}

#[tokio::test]
async fn a_quota_that_is_too_small_is_told() {
    let mut options = super::options();
    options.ec2.spot_vcpus = Some(8);
    options.ec2.on_demand_vcpus = Some(1);
    let report = Ward::with(options).await.examine().await;
    let spot = find(&report, "aws.quota.graphics.spot");
    assert_eq!(spot.outcome, Outcome::Warning);
    assert!(spot.detail.contains("8 vCPUs, of which the budget may use 16"), "{spot:?}");
    let on_demand = find(&report, "aws.quota.standard.on_demand");
    assert_eq!(on_demand.outcome, Outcome::Error);
    assert!(on_demand.detail.contains("not even one"), "{on_demand:?}");
}

#[tokio::test]
async fn user_data_that_is_too_long_is_told() {
    let mut ward = Ward::open().await;
    // What can't be packed: with sidecars off, scripts travel in user data.
    let noise: String = (0..20_000).map(|_| char::from(b'!' + rand::random::<u8>() % 90)).collect();
    let script = serde_json::to_string(&format!("# {noise}")).unwrap();
    ward.change("  queues:", &format!("  extra_vm_bash_script: {script}\n  queues:"));
    ward.change("  sidecar_dir:", "  sidecar: off\n  sidecar_dir:");
    let report = ward.examine().await;
    let line = find(&report, "resource.named.user_data");
    assert_eq!(line.outcome, Outcome::Error);
    assert!(line.detail.contains("16384"), "{line:?}");
}

#[tokio::test]
async fn a_price_file_with_faults_is_told() {
    let mut ward = Ward::open().await;
    ward.change("  sidecar_dir:", "  prices_file: prices.yaml\n  sidecar_dir:");
    only(&ward.examine().await, Outcome::Error, "prices_file", "prices.yaml");
    std::fs::write(ward.dir.path().join("prices.yaml"), "m5.xlarge: 0.123\n").unwrap();
    let report = ward.examine().await;
    assert!(find(&report, "resource.parameter.type").detail.contains("$0.1230/h (price file"));
}
