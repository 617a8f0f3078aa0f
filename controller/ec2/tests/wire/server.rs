//! A server that speaks just enough of EC2's Query protocol, and a client connected to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use ec2::{Client, Keys, Settings};

/// The parameters of a call, by their names on the wire.
pub(crate) type Call = BTreeMap<String, String>;

/// A running server; it ends with the test's runtime.
pub(crate) struct Server {
    address: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Server {
    /// Answers with what `answer` makes of each call: a status and a body.
    pub(crate) async fn start(answer: impl Fn(&Call) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (calls.clone(), Arc::new(answer));
        let app = Router::new().fallback(move |body: String| {
            // A JSON service's body is no form; none of its tests looks into it.
            let form = format!("/?{body}").parse::<Uri>().ok();
            let call = form.and_then(|uri| Query::<Call>::try_from_uri(&uri).ok()).map(|Query(call)| call);
            let call = call.unwrap_or_default();
            seen.lock().unwrap().push(call.clone());
            let (status, body) = answer(&call);
            async move { (StatusCode::from_u16(status).unwrap(), body) }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, calls }
    }

    /// What came in, in order.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn client(&self) -> Client {
        client(&self.address).await
    }
}

pub(crate) async fn client(endpoint: &str) -> Client {
    let keys = Keys { key: "AKIA0".to_owned(), secret: "hush-hush".into(), token: None };
    let settings = Settings {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        keys: Some(keys),
    };
    Client::connect(settings).await.unwrap()
}

/// An error as EC2 words it.
pub(crate) fn refusal(status: u16, code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<Response><Errors>{error}</Errors><RequestID>r-1</RequestID></Response>"))
}

/// A reply to RunInstances with these instances.
pub(crate) fn launched(ids: &[&str]) -> (u16, String) {
    let items: String = ids.iter().map(|id| format!("<item><instanceId>{id}</instanceId></item>")).collect();
    (200, format!("<RunInstancesResponse><instancesSet>{items}</instancesSet></RunInstancesResponse>"))
}

/// A page of DescribeInstances: instances as XML, and the token of the next page.
pub(crate) fn page(instances: &str, next: Option<&str>) -> (u16, String) {
    let next = next.map(|token| format!("<nextToken>{token}</nextToken>")).unwrap_or_default();
    let set =
        format!("<reservationSet><item><instancesSet>{instances}</instancesSet></item></reservationSet>");
    (200, format!("<DescribeInstancesResponse>{set}{next}</DescribeInstancesResponse>"))
}

/// The numbered ids of a call.
pub(crate) fn ids(call: &Call) -> Vec<String> {
    let ids = call.iter().filter(|(name, _)| name.starts_with("InstanceId."));
    ids.map(|(_, id)| id.clone()).collect()
}
