//! Where region, credentials and endpoint come from when the configuration names none: processes of their own, as
//! the environment belongs to the process.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;

use ec2::{Client, Settings};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::server::{Server, page};

/// What `connects` says in an environment of just these variables, and no files.
async fn outcome(variables: &[(&str, &str)]) -> String {
    let nowhere = [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/nonexistent/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials"),
    ];
    let environment: BTreeMap<String, String> = nowhere
        .iter()
        .chain(variables)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let child = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "chain::connects", "--ignored", "--nocapture"])
            .env_clear()
            .envs(environment)
            .output()
            .unwrap()
    });
    let output = String::from_utf8(child.await.unwrap().stdout).unwrap();
    output.lines().find_map(|line| line.split_once("outcome: ")).unwrap().1.to_owned()
}

#[tokio::test]
#[ignore = "the other tests here start it, each in an environment of its own"]
async fn connects() {
    let outcome = match Client::connect(Settings::default()).await {
        Err(error) => error.to_string(),
        Ok(client) => match client.describe_by_tag("k", "v").await {
            Err(error) => error.to_string(),
            Ok(instances) => format!("{} instances in {}", instances.len(), client.region()),
        },
    };
    writeln!(std::io::stdout(), "\noutcome: {outcome}").unwrap();
}

#[tokio::test]
async fn the_environment_names_region_keys_and_endpoint() {
    let server = Server::start(|_| page("<item><instanceId>i-0a</instanceId></item>", None)).await;
    let outcome = outcome(&[
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIA0"),
        ("AWS_SECRET_ACCESS_KEY", "hush-hush"),
        ("AWS_ENDPOINT_URL", server.address()),
    ])
    .await;
    assert_eq!(outcome, "1 instances in eu-central-1");
}

#[tokio::test]
async fn https_goes_through_the_proxy_of_the_environment() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut start = [0; 49];
        stream.read_exact(&mut start).await.unwrap();
        String::from_utf8_lossy(&start).into_owned()
    });
    let outcome = outcome(&[
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIA0"),
        ("AWS_SECRET_ACCESS_KEY", "hush-hush"),
        ("HTTPS_PROXY", &address),
    ])
    .await;
    assert_eq!(asked.await.unwrap(), "CONNECT ec2.eu-central-1.amazonaws.com:443 HTTP/1");
    assert!(outcome.starts_with("describe instances: ec2 could not be reached: "), "{outcome}");
}

#[tokio::test]
async fn a_malformed_proxy_is_named_without_its_password() {
    let outcome =
        outcome(&[("AWS_REGION", "eu-central-1"), ("HTTPS_PROXY", "http://me:hush hush@proxy")]).await;
    assert_eq!(outcome, "connect to ec2: HTTPS_PROXY does not hold a proxy's address");
}

#[tokio::test]
async fn without_a_region_the_message_says_where_it_was_looked_for() {
    let outcome = outcome(&[]).await;
    assert_eq!(
        outcome,
        "connect to ec2: no region: none in the configuration, AWS_REGION, the profile or the instance's metadata"
    );
}

#[tokio::test]
async fn without_credentials_the_message_says_where_they_were_looked_for() {
    let outcome = outcome(&[("AWS_REGION", "eu-central-1")]).await;
    let expected =
        "connect to ec2: no usable credentials in the environment, the profile or the instance's role: ";
    assert!(outcome.starts_with(expected), "{outcome}");
}
