//! Where ClearML's web and file servers are, judging by the address of its API server.

/// Without its trailing slashes.
pub(super) fn bare(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// The web server: `api.` becomes `app.`, port 8008 becomes 8080; else nobody knows.
pub(super) fn web(api: &str) -> Option<String> {
    for (from, to) in [("://demoapi.", "://demoapp."), ("://api.", "://app.")] {
        if api.contains(from) {
            return Some(api.replacen(from, to, 1));
        }
    }
    let (host, path) = split(api);
    (port(host) == Some("8008")).then(|| format!("{}:8080{path}", without_port(host)))
}

/// The file server: beside the web server, as `files.` or at port 8081.
pub(super) fn files(api: &str, web: Option<&str>) -> Option<String> {
    if api == super::HOSTED_API {
        return Some("https://files.clear.ml".to_owned());
    }
    let (host, path) = split(web?);
    if port(host).is_some() {
        return Some(format!("{}:8081{path}", without_port(host)));
    }
    for (from, to) in [("://demoapp.", "://demofiles."), ("://app.", "://files.")] {
        if host.contains(from) {
            return Some(format!("{}{path}", host.replacen(from, to, 1)));
        }
    }
    Some(format!("{host}:8081{path}"))
}

/// `http://host:8008` and `/path`.
fn split(url: &str) -> (&str, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    url.split_at(end)
}

fn port(host: &str) -> Option<&str> {
    let (_, port) = host.rsplit_once(':')?;
    (!port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())).then_some(port)
}

fn without_port(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_derived_as_clearml_derives_them() {
        for (api, expected_web, expected_files) in [
            ("https://api.clear.ml", Some("https://app.clear.ml"), Some("https://files.clear.ml")),
            (
                "https://api.corp.example/x",
                Some("https://app.corp.example/x"),
                Some("https://files.corp.example/x"),
            ),
            ("http://localhost:8008", Some("http://localhost:8080"), Some("http://localhost:8081")),
            ("http://[::1]:8008", Some("http://[::1]:8080"), Some("http://[::1]:8081")),
            ("http://10.0.0.8:8008/p", Some("http://10.0.0.8:8080/p"), Some("http://10.0.0.8:8081/p")),
            ("https://host/api", None, None),
            ("http://localhost:9000", None, None),
        ] {
            let web = web(api);
            assert_eq!(web.as_deref(), expected_web, "{api}");
            assert_eq!(files(api, web.as_deref()).as_deref(), expected_files, "{api}");
        }
        assert_eq!(files("https://host/api", Some("https://host")).as_deref(), Some("https://host:8081"));
    }
}
