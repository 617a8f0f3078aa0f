use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::TimeZone;
use planner::Market;
use sandbox::ec2::Ec2;

use super::{Price, PriceFile, Prices, Source, SpotPrices};

const REGION: &str = "us-east-1";

fn file() -> PriceFile {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices.yaml");
    let text =
        "as_of: 2026-01-31\ng4dn.xlarge: 0.5\np3.2xlarge: {spot: 0.9}\neu-west-1: {g4dn.xlarge: 0.6}\n";
    std::fs::write(&path, text).unwrap();
    PriceFile::load(&path).unwrap()
}

async fn client(ec2: &Ec2) -> ec2::Client {
    let environment = ec2.environment();
    let value = |name: &str| environment.iter().find(|(key, _)| key == name).unwrap().1.clone();
    let keys = ec2::Keys {
        key: value("AWS_ACCESS_KEY_ID"),
        secret: value("AWS_SECRET_ACCESS_KEY").into(),
        token: None,
    };
    let settings =
        ec2::Settings { region: Some(REGION.to_owned()), endpoint: Some(ec2.url()), keys: Some(keys) };
    ec2::Client::connect(settings).await.unwrap()
}

#[test]
fn the_file_is_believed_before_the_table() {
    let prices = Prices::new(Some(file()), SpotPrices::default());
    let of_file = Price { usd_per_hour: 0.5, as_of: date(2026, 1, 31), source: Source::File };
    assert_eq!(prices.hourly("g4dn.xlarge", REGION, Market::OnDemand), Some(of_file));
    let europe = prices.hourly("g4dn.xlarge", "eu-west-1", Market::OnDemand).unwrap();
    assert!((europe.usd_per_hour - 0.6).abs() < 1e-9);
    let table = prices.hourly("p3.2xlarge", REGION, Market::OnDemand).unwrap();
    assert_eq!((table.source, table.as_of), (Source::BuiltIn, date(2025, 3, 2)));
    let spot = prices.hourly("p3.2xlarge", REGION, Market::Spot).unwrap();
    assert_eq!((spot.source, spot.usd_per_hour), (Source::File, 0.9));
}

#[test]
fn what_nobody_knows_is_not_free() {
    let prices = Prices::default();
    assert_eq!(prices.hourly("x9.large", REGION, Market::OnDemand), None);
    assert_eq!(prices.hourly("g4dn.xlarge", "eu-west-1", Market::Spot), None);
    let ceiling = prices.hourly("g4dn.xlarge", REGION, Market::Spot).unwrap();
    assert_eq!(ceiling.source, Source::BuiltInCeiling);
    assert_eq!(ceiling.to_string(), "at most $0.5260/h (built-in on-demand list price, 2025-03-02)");
}

#[tokio::test]
async fn spot_prices_are_ec2s_zone_by_zone() {
    let mut options = sandbox::ec2::Options::default();
    for (zone, price) in [("us-east-1a", 0.15), ("us-east-1b", 0.25), ("us-east-1c", 0.2)] {
        options.spot_prices.insert(("g4dn.xlarge".into(), zone.into()), price);
    }
    let sandbox = Ec2::start(options).await.unwrap();
    let spot = SpotPrices::default();
    let prices = Prices::new(None, spot.clone());
    spot.read(&client(&sandbox).await, &BTreeSet::from(["g4dn.xlarge".to_owned()])).await.unwrap();
    let dearest = prices.hourly("g4dn.xlarge", REGION, Market::Spot).unwrap();
    assert_eq!((dearest.usd_per_hour, dearest.source), (0.25, Source::SpotHistory));
    assert_eq!(dearest.as_of, TimeZone::UTC.to_datetime(Timestamp::now()).date());
    let zone = prices.hourly_in("g4dn.xlarge", REGION, "us-east-1a", Market::Spot).unwrap();
    assert_eq!(zone.usd_per_hour, 0.15);
    let elsewhere = prices.hourly("g4dn.xlarge", "us-west-2", Market::Spot).unwrap();
    assert_eq!(elsewhere.source, Source::BuiltInCeiling, "another region's prices are its own");
}

#[tokio::test]
async fn prices_that_may_not_be_read_leave_the_table() {
    let policy = serde_json::json!({"Statement": []});
    let options = sandbox::ec2::Options { policy: Some(policy), ..sandbox::ec2::Options::default() };
    let sandbox = Ec2::start(options).await.unwrap();
    let spot = SpotPrices::default();
    let types = BTreeSet::from(["g4dn.xlarge".to_owned()]);
    let error = spot.read(&client(&sandbox).await, &types).await.unwrap_err();
    assert_eq!(error.meaning, ec2::Meaning::Denied);
    let price = Prices::new(None, spot).hourly("g4dn.xlarge", REGION, Market::Spot).unwrap();
    assert_eq!(price.source, Source::BuiltInCeiling);
}
