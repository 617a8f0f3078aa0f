//! The file server as a client sees it: where a file goes, how it is looked for, and how that fails.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;

use clearml::{Address, Error, FileServer};
use common::{Reply, Seen, Server};

const PATH: &str = "clearml-autoscaler/abc/controller";

/// Stores what is posted under its field's name, as ClearML's does; `faults` come first.
fn storing(faults: Vec<u16>) -> impl Fn(&Seen) -> Reply + Send + Sync {
    let faults = Mutex::new(faults);
    let stored: Mutex<BTreeMap<String, String>> = Mutex::default();
    move |seen| {
        if let Some(code) = faults.lock().unwrap().pop() {
            return Reply::Raw(code, "text/html", "<html>no</html>".to_owned());
        }
        let mut stored = stored.lock().unwrap();
        match seen.method.as_str() {
            "POST" => {
                let (head, rest) = seen.body.split_once("\r\n\r\n").unwrap();
                let name = head.split("name=\"").nth(1).unwrap().split('"').next().unwrap();
                let content = rest.split("\r\n--").next().unwrap();
                stored.insert(name.to_owned(), content.to_owned());
                Reply::Raw(200, "application/json", format!("[\"{name}\"]"))
            }
            "HEAD" => match stored.get(&seen.endpoint) {
                Some(content) => Reply::Raw(200, "application/octet-stream", content.clone()),
                None => Reply::Raw(404, "text/html", String::new()),
            },
            other => panic!("{other}"),
        }
    }
}

fn files(server: &Server) -> FileServer {
    let address = Address::parse(&format!("http://{}", server.address)).unwrap();
    server.client().file_server(address).unwrap()
}

#[tokio::test]
async fn a_file_goes_to_its_path_and_is_found_there() {
    let server = Server::start(storing(vec![])).await;
    let files = files(&server);
    assert_eq!(files.length(PATH).await.unwrap(), None);
    files.store(PATH, b"binary").await.unwrap();
    assert_eq!(files.length(PATH).await.unwrap(), Some(6));
    let sent =
        server.seen().into_iter().find(|seen| seen.method == "POST" && seen.endpoint.is_empty()).unwrap();
    assert!(sent.authorization.starts_with("Bearer "), "keys are not good there");
    assert!(sent.content_type.starts_with("multipart/form-data"), "{}", sent.content_type);
    assert!(sent.body.contains(&format!("name=\"{PATH}\"; filename=\"controller\"")), "{}", sent.body);
    assert_eq!(files.url(PATH), format!("http://{}/{PATH}", server.address));
}

#[tokio::test]
async fn a_stale_token_is_renewed_and_a_hiccup_outlived() {
    let server = Server::start(storing(vec![502, 401])).await;
    files(&server).store(PATH, b"binary").await.unwrap();
    assert_eq!(server.calls("auth.login"), 2);
}

#[tokio::test]
async fn what_refuses_or_is_no_file_server_is_told_apart() {
    let server = Server::start(|_: &Seen| Reply::Raw(403, "text/html", String::new())).await;
    let error = files(&server).length(PATH).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");

    // A web server answers everything with its page.
    let server = Server::start(|_: &Seen| Reply::Raw(200, "text/html", "<html></html>".to_owned())).await;
    let error = files(&server).store(PATH, b"binary").await.unwrap_err().to_string();
    assert!(error.contains("is it ClearML's file server?") && error.contains("6 bytes"), "{error}");
}
