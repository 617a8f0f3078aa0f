//! A plain HTTP client of the sandbox's EC2, and readers for its XML.

use std::time::Duration;

use sandbox::ec2::{Ec2, Options};

/// Bounds every wait; nothing is asserted about how long things take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const USER_DATA: &str = "UserData";

pub(crate) struct Wire {
    pub(crate) ec2: Ec2,
    pub(crate) http: reqwest::Client,
    key: String,
}

impl Wire {
    pub(crate) async fn start(options: Options) -> Self {
        Self::to(Ec2::start(options).await.unwrap())
    }

    pub(crate) fn to(ec2: Ec2) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = ec2.environment().into_iter().find(|(name, _)| name == "AWS_ACCESS_KEY_ID").unwrap().1;
        Self { ec2, http: reqwest::Client::builder().no_proxy().build().unwrap(), key }
    }

    /// The status and body of one call.
    pub(crate) async fn call(&self, action: &str, params: &[(&str, &str)]) -> (u16, String) {
        self.try_call(action, params).await.unwrap()
    }

    pub(crate) async fn try_call(
        &self,
        action: &str,
        params: &[(&str, &str)],
    ) -> reqwest::Result<(u16, String)> {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .append_pair("Version", "2016-11-15")
            .extend_pairs(params)
            .finish();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=00",
            self.key
        );
        let request = self.http.post(self.ec2.url()).header("authorization", authorization);
        let response = request.header("content-type", "application/x-www-form-urlencoded").body(body).send();
        let response = response.await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// The body of a call that must succeed.
    pub(crate) async fn ok(&self, action: &str, params: &[(&str, &str)]) -> String {
        let (status, body) = self.call(action, params).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The status and code of a call that must fail.
    pub(crate) async fn refused(&self, action: &str, params: &[(&str, &str)]) -> (u16, String) {
        let (status, body) = self.call(action, params).await;
        assert_ne!(status, 200, "{body}");
        (status, one(&body, "Code"))
    }

    /// Launches, with further parameters; the ids.
    pub(crate) async fn launch(&self, min: u32, max: u32, more: &[(&str, &str)]) -> Vec<String> {
        let body = self.ok("RunInstances", &run(min, max, more).as_pairs()).await;
        all(&body, "instanceId")
    }
}

/// Parameters of a RunInstances call.
pub(crate) struct Run(Vec<(String, String)>);

impl Run {
    pub(crate) fn as_pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

pub(crate) fn run(min: u32, max: u32, more: &[(&str, &str)]) -> Run {
    let mut params = vec![
        ("ImageId".to_owned(), "ami-0123456789abcdef0".to_owned()),
        ("InstanceType".to_owned(), "m5.xlarge".to_owned()),
        ("MinCount".to_owned(), min.to_string()),
        ("MaxCount".to_owned(), max.to_string()),
    ];
    for (name, value) in more {
        params.retain(|(known, _)| known != name);
        params.push(((*name).to_owned(), (*value).to_owned()));
    }
    Run(params)
}

/// The texts of all elements of a name.
pub(crate) fn all(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let texts = xml.split(&open).skip(1).filter_map(|rest| rest.split(&close).next());
    texts.map(str::to_owned).collect()
}

/// The text of the first element of a name.
pub(crate) fn one(xml: &str, name: &str) -> String {
    all(xml, name).into_iter().next().unwrap_or_else(|| panic!("no {name} in {xml}"))
}
