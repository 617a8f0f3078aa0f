//! EC2's instance metadata, version 2: a token first, then the question.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Names another address than EC2's own, as the AWS SDKs read it.
pub const ENDPOINT_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";

const ENDPOINT: &str = "http://169.254.169.254";
const LIMIT: Duration = Duration::from_secs(5);
const LARGEST_REPLY: u64 = 64 << 10;

/// The metadata service gave no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// Its address is no `http://HOST[:PORT][/PATH]`.
    #[error("the metadata service's address is not an http address")]
    Address,
    /// It cannot be talked to.
    #[error("cannot ask the metadata service")]
    Io(#[from] std::io::Error),
    /// It did not answer in time.
    #[error("the metadata service did not answer in time")]
    Late,
    /// It answered with another status than 200.
    #[error("the metadata service answered with status {0}")]
    Status(u16),
    /// It answered with something else than HTTP.
    #[error("the metadata service's answer is malformed")]
    Malformed,
}

/// Where the metadata service is.
#[derive(Clone, Debug)]
pub struct Imds {
    authority: String,
    prefix: String,
    /// Asked for once, and again when it is refused.
    token: Option<String>,
}

impl Imds {
    /// At the address that the environment names, else at EC2's.
    ///
    /// # Errors
    /// The address is malformed.
    pub fn from_environment() -> Result<Self, ImdsError> {
        Self::at(&std::env::var(ENDPOINT_VARIABLE).unwrap_or_else(|_| ENDPOINT.to_owned()))
    }

    /// At `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// The address is malformed.
    pub fn at(endpoint: &str) -> Result<Self, ImdsError> {
        let rest = endpoint.trim().strip_prefix("http://").ok_or(ImdsError::Address)?;
        let (authority, prefix) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
        if authority.is_empty() || rest.chars().any(char::is_whitespace) {
            return Err(ImdsError::Address);
        }
        let port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if port { authority.to_owned() } else { format!("{authority}:80") };
        let prefix = prefix.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        Ok(Self { authority, prefix, token: None })
    }

    /// This instance's id.
    ///
    /// # Errors
    /// The service cannot be asked, or refuses.
    pub async fn instance_id(&self) -> Result<String, ImdsError> {
        let token = self
            .ask(
                "PUT",
                "/latest/api/token",
                "X-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 0\r\n",
            )
            .await?;
        self.ask("GET", "/latest/meta-data/instance-id", &format!("X-aws-ec2-metadata-token: {token}\r\n"))
            .await
    }

    /// `spot` or `on-demand`.
    ///
    /// # Errors
    /// The service cannot be asked, or refuses.
    pub async fn life_cycle(&mut self) -> Result<String, ImdsError> {
        self.read("/latest/meta-data/instance-life-cycle").await
    }

    /// When AWS takes this spot instance back, as it says so.
    ///
    /// # Errors
    /// `Status(404)` as long as it does not; the service cannot be asked, or refuses.
    pub async fn spot_action(&mut self) -> Result<String, ImdsError> {
        self.read("/latest/meta-data/spot/instance-action").await
    }

    /// AWS's hint that it may take this spot instance back.
    ///
    /// # Errors
    /// As [`Imds::spot_action`].
    pub async fn rebalance(&mut self) -> Result<String, ImdsError> {
        self.read("/latest/meta-data/events/recommendations/rebalance").await
    }

    /// A text of any kind, with a token that is kept.
    async fn read(&mut self, path: &str) -> Result<String, ImdsError> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => {
                let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: 0\r\n";
                let token = self.ask("PUT", "/latest/api/token", ttl).await?;
                self.token.insert(token).clone()
            }
        };
        let headers = format!("X-aws-ec2-metadata-token: {token}\r\n");
        let answer = parse_text(&self.exchange("GET", path, &headers).await?);
        if matches!(answer, Err(ImdsError::Status(401))) {
            self.token = None;
        }
        answer
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Result<String, ImdsError> {
        parse(&self.exchange(method, path, headers).await?)
    }

    async fn exchange(&self, method: &str, path: &str, headers: &str) -> Result<Vec<u8>, ImdsError> {
        let Self { authority, prefix, token: _ } = self;
        let request = format!(
            "{method} {prefix}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{headers}\r\n"
        );
        let exchange = async {
            let mut stream = TcpStream::connect(authority).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut reply = Vec::new();
            stream.take(LARGEST_REPLY).read_to_end(&mut reply).await?;
            Ok::<_, ImdsError>(reply)
        };
        timeout(LIMIT, exchange).await.map_err(|_| ImdsError::Late)?
    }
}

/// One word, and never in chunks: what else comes is another service's.
fn parse(reply: &[u8]) -> Result<String, ImdsError> {
    let body = parse_text(reply)?;
    let usable = !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_graphic());
    if usable { Ok(body) } else { Err(ImdsError::Malformed) }
}

fn parse_text(reply: &[u8]) -> Result<String, ImdsError> {
    let reply = std::str::from_utf8(reply).map_err(|_| ImdsError::Malformed)?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or(ImdsError::Malformed)?;
    let status = head.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok());
    match status.ok_or(ImdsError::Malformed)? {
        200 => Ok(body.trim().to_owned()),
        status => Err(ImdsError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_id_is_asked_for_with_a_token_below_the_endpoints_path() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let imds = Imds::at(&format!("http://{}/imds/i-1/", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            for body in ["TOKEN", "i-1"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
                let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
            asked
        });
        assert_eq!(imds.instance_id().await.unwrap(), "i-1");
        let asked = server.await.unwrap();
        assert!(asked[0].starts_with("PUT /imds/i-1/latest/api/token HTTP/1.1\r\n"));
        assert!(asked[1].starts_with("GET /imds/i-1/latest/meta-data/instance-id HTTP/1.1\r\n"));
        assert!(asked[1].contains("X-aws-ec2-metadata-token: TOKEN\r\n"));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        assert!(matches!(parse(b"HTTP/1.1 401 No\r\n\r\n"), Err(ImdsError::Status(401))));
        assert!(matches!(parse(b"HTTP/1.1 200 OK\r\n\r\n<html> x"), Err(ImdsError::Malformed)));
        assert!(matches!(parse(b"nonsense"), Err(ImdsError::Malformed)));
        assert!(matches!(Imds::at("https://h"), Err(ImdsError::Address)));
    }
}
